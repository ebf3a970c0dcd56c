//! Floods on one connection: endless bodies (INPUT-04), and HTTP/2 frames without end (RATE-09).
//! The service closes the connection and still serves others.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    SERVICE, TestApp,
    h2::{GET, frame, preface},
};

/// The time within which the service must read or close.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends the head and then chunks until the service closes the connection, at most `max` bytes;
/// returns the bytes of chunks that were accepted.
async fn send_body(app: &TestApp, head: &[u8], chunk: &[u8], max: usize) -> usize {
    let mut socket = TcpStream::connect(app.address).await.unwrap();
    socket.write_all(head).await.unwrap();
    let mut accepted = 0;
    while accepted < max {
        if timeout(TIMEOUT, socket.write_all(chunk)).await.expect("the service reads or closes").is_err() {
            break;
        }
        accepted += chunk.len();
    }
    accepted
}

#[tokio::test]
async fn input_04_chunked_gigabyte_is_cut_off_early() {
    let app = SERVICE.shared();
    let head = format!(
        "POST /v1/notes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        app.forge().token()
    );
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(65_536));
    let accepted = send_body(app, head.as_bytes(), chunk.as_bytes(), 1 << 30).await;
    // The limit is 64 KiB; socket buffers of both ends hold the rest.
    assert!(accepted < 32 << 20, "{accepted} bytes were accepted");
    app.still_serves().await;
}

/// Sends these frames; returns the bytes sent until the service closed the connection, or `None` if
/// it did not.
async fn flood(app: &TestApp, pieces: impl Iterator<Item = Vec<u8>>) -> Option<usize> {
    let (mut reader, mut writer) = TcpStream::connect(app.address).await.unwrap().into_split();
    let drain = tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(1..) = reader.read(&mut buffer).await {}
    });
    writer.write_all(&preface()).await.unwrap();
    let mut sent = 0;
    for piece in pieces {
        match timeout(TIMEOUT, writer.write_all(&piece)).await {
            Ok(Ok(())) if !drain.is_finished() => sent += piece.len(),
            _ => return Some(sent),
        }
    }
    timeout(TIMEOUT, drain).await.is_ok().then_some(sent)
}

/// Neither an idle connection that answers pings, nor one whose client does not read its response.
#[tokio::test]
async fn rate_09_connections_have_a_maximum_age() {
    let app = SERVICE
        .start_with(&[("APP_HTTP__HEADER_TIMEOUT_MS", "60000"), ("APP_HTTP__MAX_CONNECTION_AGE_MS", "1000")])
        .await;
    let request = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    // A flow-control window of 0 blocks the response to `:method GET`, `:scheme http`, `:path
    // /docs`.
    let no_window = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let headers = [&[0x82, 0x86, 0x04, 5][..], b"/docs", &[0x41, 9], b"localhost"].concat();
    let unread = [preface(), no_window, frame(1, 5, 1, &headers)].concat();
    for (what, greeting) in [("HTTP/1.1", request), ("HTTP/2", preface()), ("unread", unread)] {
        let mut socket = TcpStream::connect(app.address).await.unwrap();
        socket.write_all(&greeting).await.unwrap();
        let mut buffer = [0; 4_096];
        let read_to_end = async {
            let mut frames = Vec::new();
            while let Ok(length @ 1..) = socket.read(&mut buffer).await {
                if what == "HTTP/1.1" {
                    continue;
                }
                // Answers each PING (type 6) that is not an acknowledgement itself.
                frames.extend_from_slice(&buffer[..length]);
                while let Some(length) = frames.get(..3).map(|l| usize::from(l[1]) << 8 | usize::from(l[2])) {
                    let Some(ping) = frames.get(..9 + length).map(<[u8]>::to_vec) else { break };
                    frames.drain(..9 + length);
                    if ping[3] == 6 && ping[4] == 0 {
                        let _ = socket.write_all(&frame(6, 1, 0, &ping[9..])).await;
                    }
                }
            }
        };
        let ended = timeout(Duration::from_secs(15), read_to_end).await;
        assert!(ended.is_ok(), "{what}: the connection is still open");
    }
}

/// Rapid reset (CVE-2023-44487): a stream that the client resets at once costs the client nothing.
#[tokio::test]
async fn rate_09_reset_floods_close_the_connection() {
    let app = SERVICE.shared();
    let streams = (0..50_000_u32).map(|n| {
        let stream = 2 * n + 1;
        [frame(1, 5, stream, &GET), frame(3, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    flood(app, streams).await.expect("the connection is closed");
    app.still_serves().await;
}

/// CVE-2024-27316 and others: header blocks that never end.
#[tokio::test]
async fn rate_09_continuation_floods_close_the_connection() {
    let app = SERVICE.shared();
    // Each CONTINUATION has a header of 16 kB with a new name, as a literal without indexing.
    let value = vec![b'a'; 16_000];
    let literal = |n: u32| {
        let name = format!("x-{n:06}");
        let length = [0x7f, 0x81, 0x7c]; // 16000 as a 7-bit prefix integer: 127 + 1 + (124 << 7)
        [&[0x00, 8], name.as_bytes(), &length, &value].concat()
    };
    let first = std::iter::once(frame(1, 1, 1, &GET));
    let rest = (0..10_000).map(|n| frame(9, 0, 1, &literal(n)));
    let sent = flood(app, first.chain(rest)).await.expect("the connection is closed");
    assert!(sent < 32 << 20, "{sent} bytes were accepted");
    app.still_serves().await;
}

#[tokio::test]
async fn rate_09_ping_and_settings_floods_do_not_affect_other_callers() {
    let app = SERVICE.shared();
    let pings = (0..100_000).map(|_| frame(6, 0, 0, &[0; 8]));
    let settings = (0..100_000).map(|_| frame(4, 0, 0, &[]));
    let (_, ()) = tokio::join!(flood(app, pings.chain(settings)), async {
        for _ in 0..20 {
            app.still_serves().await;
        }
    });
    app.still_serves().await;
}
