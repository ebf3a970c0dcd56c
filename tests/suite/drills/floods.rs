//! More frames and bytes than any client needs.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    TestApp,
    h2::{GET, frame, preface},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// A service that stops reading cannot be made to take more than it has a buffer for.
async fn taken(app: &TestApp, head: &[u8], piece: &[u8], most: usize) -> usize {
    let mut socket = TcpStream::connect(app.address).await.unwrap();
    socket.write_all(head).await.unwrap();
    let mut taken = 0;
    while taken < most {
        if timeout(PATIENCE, socket.write_all(piece)).await.expect("the service reads or closes").is_err() {
            break;
        }
        taken += piece.len();
    }
    taken
}

#[tokio::test]
async fn input_04_a_gigabyte_in_pieces_is_cut_off_early() {
    let app = TestApp::shared();
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        app.forge().token()
    );
    let piece = format!("10000\r\n{}\r\n", " ".repeat(65_536));
    let taken = taken(app, head.as_bytes(), piece.as_bytes(), 1 << 30).await;
    // The limit is 64 KiB; the rest is what the two kernels' buffers hold.
    assert!(taken < 32 << 20, "{taken} bytes were taken");
    app.still_serves().await;
}

/// How many bytes of this are taken before the service closes the connection, if it does.
async fn flood(app: &TestApp, pieces: impl Iterator<Item = Vec<u8>>) -> Option<usize> {
    let (mut reader, mut writer) = TcpStream::connect(app.address).await.unwrap().into_split();
    let drain = tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(1..) = reader.read(&mut buffer).await {}
    });
    writer.write_all(&preface()).await.unwrap();
    let mut sent = 0;
    for piece in pieces {
        match timeout(PATIENCE, writer.write_all(&piece)).await {
            Ok(Ok(())) if !drain.is_finished() => sent += piece.len(),
            _ => return Some(sent),
        }
    }
    timeout(PATIENCE, drain).await.is_ok().then_some(sent)
}

/// CVE-2023-44487: a stream that is reset at once costs the client nothing.
/// Neither one that is idle and answers pings, nor one whose caller does not read what it asked for.
#[tokio::test]
async fn rate_09_no_connection_lasts_for_ever() {
    let app =
        TestApp::start_with(&[("APP_HTTP__HEADER_TIMEOUT_MS", "60000"), ("APP_HTTP__MAX_CONNECTION_AGE_MS", "1000")])
            .await;
    let once = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    // A window of nothing: what is asked for cannot be sent. `:method GET`, `:scheme http`, `:path /docs`.
    let no_window = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let headers = [&[0x82, 0x86, 0x04, 5][..], b"/docs", &[0x41, 9], b"localhost"].concat();
    let unread = [preface(), no_window, frame(1, 5, 1, &headers)].concat();
    for (what, hello) in [("HTTP/1.1", once), ("HTTP/2", preface()), ("unread", unread)] {
        let mut socket = TcpStream::connect(app.address).await.unwrap();
        socket.write_all(&hello).await.unwrap();
        let mut answer = [0; 4_096];
        let until_the_end = async {
            let mut frames = Vec::new();
            while let Ok(length @ 1..) = socket.read(&mut answer).await {
                if what == "HTTP/1.1" {
                    continue;
                }
                // Pings are answered: kind 6, not an answer itself.
                frames.extend_from_slice(&answer[..length]);
                while let Some(length) = frames.get(..3).map(|l| usize::from(l[1]) << 8 | usize::from(l[2])) {
                    let Some(ping) = frames.get(..9 + length).map(<[u8]>::to_vec) else { break };
                    frames.drain(..9 + length);
                    if ping[3] == 6 && ping[4] == 0 {
                        let _ = socket.write_all(&frame(6, 1, 0, &ping[9..])).await;
                    }
                }
            }
        };
        let ended = timeout(Duration::from_secs(15), until_the_end).await;
        assert!(ended.is_ok(), "{what} is there still");
    }
}

#[tokio::test]
async fn rate_09_a_flood_of_resets_ends_the_connection() {
    let app = TestApp::shared();
    let streams = (0..50_000_u32).map(|n| {
        let stream = 2 * n + 1;
        [frame(1, 5, stream, &GET), frame(3, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    flood(app, streams).await.expect("the connection is closed");
    app.still_serves().await;
}

/// CVE-2024-27316 and others: headers that never end.
#[tokio::test]
async fn rate_09_a_flood_of_continuations_ends_the_connection() {
    let app = TestApp::shared();
    // A header of 16 kB under a new name each time, as a literal that is not indexed.
    let value = vec![b'a'; 16_000];
    let literal = |n: u32| {
        let name = format!("x-{n:06}");
        let length = [0x7f, 0x81, 0x7c]; // 16000 as a 7-bit prefix integer: 127 + 1 + (124 << 7)
        [&[0x00, 8], name.as_bytes(), &length, &value].concat()
    };
    let first = std::iter::once(frame(1, 1, 1, &GET));
    let rest = (0..10_000).map(|n| frame(9, 0, 1, &literal(n)));
    let sent = flood(app, first.chain(rest)).await.expect("the connection is closed");
    assert!(sent < 32 << 20, "{sent} bytes were taken");
    app.still_serves().await;
}

#[tokio::test]
async fn rate_09_a_flood_of_pings_and_settings_is_no_more_than_a_nuisance() {
    let app = TestApp::shared();
    let pings = (0..100_000).map(|_| frame(6, 0, 0, &[0; 8]));
    let settings = (0..100_000).map(|_| frame(4, 0, 0, &[]));
    let (_, ()) = tokio::join!(flood(app, pings.chain(settings)), async {
        for _ in 0..20 {
            app.still_serves().await;
        }
    });
    app.still_serves().await;
}
