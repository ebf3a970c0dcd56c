//! Framing of bodies as gateways and attackers send it (INPUT-06): empty bodies, ambiguous lengths,
//! trickled bodies (INPUT-04), and connections that fail before there is a request (LOG-01).

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::support::{
    SERVICE, TestApp, assert_problem, events, eventually,
    h2::{self, frame, preface},
    send_raw, status,
};

const TIMEOUT: Duration = Duration::from_secs(10);

/// An empty body is no body (RFC 9110 section 6.4): gateways forward requests without a body so.
#[tokio::test]
async fn input_06_empty_chunked_bodies_are_no_bodies() {
    let app = SERVICE.shared();
    let token = app.forge().token();
    let archive = format!("POST /v1/notes/{}/archive", sample::demo::FIRST_NOTE);
    for (line, framing, body, expected) in [
        ("GET /health/live", "Transfer-Encoding: chunked", "0\r\n\r\n", 200),
        ("GET /v1/me", "Transfer-Encoding: chunked", "0\r\n\r\n", 200),
        ("GET /v1/me", "Transfer-Encoding: chunked", "000;ext=1\r\nX-Trailer: a\r\n\r\n", 200),
        ("GET /v1/me", "Content-Length: 0", "", 200),
        ("GET /v1/me", "Transfer-Encoding: chunked", "1\r\na\r\n0\r\n\r\n", 400),
        ("GET /health/live", "Transfer-Encoding: chunked", "1\r\na\r\n0\r\n\r\n", 400),
        // Rejected by its declared length; the body never arrives.
        ("GET /v1/me", "Content-Length: 1", "", 400),
        (&*archive, "Transfer-Encoding: chunked", "2\r\n{}\r\n0\r\n\r\n", 400),
        // The role lacks the right; the body was no reason to reject it.
        (&*archive, "Transfer-Encoding: chunked", "0\r\n\r\n", 403),
    ] {
        let token = if expected == 403 { app.forge().claim("roles", ["viewer"]).token() } else { token.clone() };
        let head =
            format!("{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{framing}\r\nConnection: close");
        let response = send_raw(app, format!("{head}\r\n\r\n{body}").as_bytes()).await;
        assert_eq!(status(&response), expected, "{line} {framing} {body:?}: {response}");
    }
}

/// The first byte of the header block of the response on stream 1.
async fn h2_status(app: &TestApp, data: &[Vec<u8>]) -> u8 {
    let mut socket = TcpStream::connect(app.address).await.unwrap();
    let headers = frame(1, 4, 1, &h2::get("/v1/me", Some(&app.forge().token())));
    socket.write_all(&[preface(), headers, data.concat()].concat()).await.unwrap();
    let read = async {
        loop {
            let mut head = [0; 9];
            socket.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            socket.read_exact(&mut payload).await.unwrap();
            if head[3] == 1 {
                return payload[0];
            }
        }
    };
    timeout(TIMEOUT, read).await.expect("a response")
}

#[tokio::test]
async fn input_06_empty_http_2_data_is_no_body() {
    let app = SERVICE.shared();
    // `:status: 200` and `:status: 400` in the static table (RFC 7541 appendix A).
    let (ok, bad_request) = (0x88, 0x8c);
    let empty = || frame(0, 0, 1, &[]);
    let last = |data: &[u8]| frame(0, 1, 1, data);
    assert_eq!(h2_status(app, &[last(b"")]).await, ok);
    assert_eq!(h2_status(app, &[empty(), empty(), last(b"")]).await, ok);
    assert_eq!(h2_status(app, &[empty(), last(b"a")]).await, bad_request);
}

/// After such a request, another HTTP implementation could see another one where this service does
/// not.
#[tokio::test]
async fn input_06_ambiguous_body_lengths_close_the_connection() {
    let app = SERVICE.shared();
    let next = "GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for framing in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Content-Length: 5\r\nTransfer-Encoding: gzip, chunked",
    ] {
        let request = format!("POST /v1/notes HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n0\r\n\r\n{next}");
        let response = send_raw(app, request.as_bytes()).await;
        assert_problem(&response, 400, "malformed_request", framing);
        assert!(response.to_lowercase().contains("connection: close"), "{response}");
    }
    // A layer that rejects the request before its length is read closes the connection too.
    let variables = [
        ("APP_HTTP__TRUSTED_PROXIES", "127.0.0.1"),
        ("APP_THROTTLE__ADDRESS_PER_SECOND", "0.01"),
        ("APP_THROTTLE__ADDRESS_BURST", "20"),
    ];
    let limited = SERVICE.start_with(&variables).await;
    let many_headers = "X: a\r\n".repeat(70);
    for (expected, target, header, times) in [
        (414, format!("/v1/notes?a={}", "a".repeat(9 * 1024)), "X-Forwarded-For: 192.0.2.1\r\n", 1),
        (431, "/v1/notes".to_owned(), &*many_headers, 1),
        (400, "/v1/notes".to_owned(), "X-Forwarded-For: nobody\r\n", 1),
        (429, "/v1/notes".to_owned(), "X-Forwarded-For: 192.0.2.2\r\n", 25),
    ] {
        let framing = "Transfer-Encoding: gzip, chunked";
        let request = format!("POST {target} HTTP/1.1\r\nHost: x\r\n{header}{framing}\r\n\r\n0\r\n\r\n{next}");
        let mut response = String::new();
        for _ in 0..times {
            response = send_raw(&limited, request.as_bytes()).await;
            assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{expected}: {response}");
            assert!(response.to_lowercase().contains("connection: close"), "{expected}: {response}");
        }
        assert_eq!(status(&response), expected, "{response}");
    }
    // Different lengths: the parser closes the connection.
    let request = format!("POST /v1/notes HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n{next}");
    let response = send_raw(app, request.as_bytes()).await;
    assert_eq!((status(&response), response.matches("HTTP/1.1 ").count()), (400, 1), "{response}");
    // Equal lengths are one length (RFC 9110 section 8.6).
    let lengths = "Content-Length: 2\r\nContent-Length: 2\r\nConnection: close";
    let request = format!("POST /v1/notes HTTP/1.1\r\nHost: x\r\n{lengths}\r\n\r\n{{}}");
    assert_problem(&send_raw(app, request.as_bytes()).await, 401, "unauthenticated", "equal lengths");
}

/// The parser accepts white space after a chunk size (docs/access-decisions.md); it moves no boundary.
#[tokio::test]
async fn input_06_white_space_in_chunk_sizes_moves_no_boundary() {
    let app = SERVICE.shared();
    let next = "GET /smuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let post = format!(
        "POST /v1/notes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {}\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        app.forge().token()
    );
    for size in ["2", "2 ", "2\t", "2 ;a=b"] {
        let response = send_raw(app, format!("{post}{size}\r\n{{}}\r\n0\r\n\r\n{next}").as_bytes()).await;
        // The body `{}` lacks fields; the next request is the second one.
        assert_eq!((status(&response), response.matches("HTTP/1.1 ").count()), (400, 2), "{size:?}: {response}");
        assert!(response.contains("HTTP/1.1 404 "), "{size:?}: {response}");
    }
    for size in [" 2", "+2", "0x2", "2\n"] {
        let response = send_raw(app, format!("{post}{size}\r\n{{}}\r\n0\r\n\r\n{next}").as_bytes()).await;
        assert_problem(&response, 400, "malformed_request", size);
    }
}

/// Bytes keep arriving, so the body timeout does not end it; the client is at fault all the same.
#[tokio::test]
async fn input_04_trickled_bodies_time_out_as_the_clients_fault() {
    let app =
        SERVICE.start_with(&[("APP_HTTP__BODY_TIMEOUT_MS", "5000"), ("APP_HTTP__REQUEST_TIMEOUT_MS", "1000")]).await;
    let head = format!(
        "POST /v1/notes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: 60000\r\n\r\n{{",
        app.forge().token()
    );
    let (mut reader, mut writer) = TcpStream::connect(app.address).await.unwrap().into_split();
    writer.write_all(head.as_bytes()).await.unwrap();
    let trickle = tokio::spawn(async move {
        let mut pause = tokio::time::interval(Duration::from_millis(50));
        while writer.write_all(b" ").await.is_ok() {
            pause.tick().await;
        }
    });
    let started = Instant::now();
    let mut response = Vec::new();
    let mut buffer = [0; 4_096];
    // The service closes the connection, which is an error if it did not read every byte.
    while let Ok(length @ 1..) = timeout(TIMEOUT, reader.read(&mut buffer)).await.expect("the service closes") {
        response.extend_from_slice(&buffer[..length]);
    }
    trickle.abort();
    let response = String::from_utf8_lossy(&response);
    assert_problem(&response, 408, "request_timeout", "a trickled body");
    assert!((1..5).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

/// Connects from this address, sends the bytes, and waits until the service closes.
async fn send_from(app: &TestApp, last: u8, bytes: &[u8]) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 9, last), 0).into()).unwrap();
    let (mut reader, mut writer) = socket.connect(app.address).await.unwrap().into_split();
    let read = tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(1..) = reader.read(&mut buffer).await {}
    });
    let _ = timeout(TIMEOUT, writer.write_all(bytes)).await.expect("the service reads or closes");
    timeout(TIMEOUT, read).await.expect("the service closes").unwrap();
}

#[tokio::test]
async fn log_01_connections_with_malformed_http_are_events() {
    let app = SERVICE.shared();
    let streams = (0..20_000_u32).map(|n| {
        let stream = 2 * n + 1;
        [frame(1, 5, stream, &h2::GET), frame(3, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    let resets = preface().into_iter().chain(streams.flatten()).collect();
    let headers = "X-A: a\r\n".repeat(1_000);
    // A client that ends its connection violates nothing, whatever reason it gives.
    for reason in [2_u32, 8] {
        let goaway = frame(7, 0, 0, &[[0; 4], reason.to_be_bytes()].concat());
        send_from(app, 4, &[preface(), frame(1, 5, 1, &h2::GET), goaway].concat()).await;
    }
    for (last, code, bytes) in [
        (1, "http2_violation", resets),
        (2, "http_head_too_large", format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n").into_bytes()),
        (3, "http_syntax", b"GET / HTTP/1.1\r\nHost : x\r\n\r\n".to_vec()),
    ] {
        send_from(app, last, &bytes).await;
        let source = format!("127.0.9.{last}");
        let codes = || -> Vec<String> {
            let events = events::for_trace_id("").into_iter();
            let of_source = events.filter(|event| event.get("source") == Some(&source));
            of_source.map(|event| format!("{} {}", event["event"], event["code"])).collect()
        };
        eventually(code, async || !codes().is_empty()).await;
        assert_eq!(codes(), [format!("input_validation_fail {code}")]);
    }
    let ended =
        events::for_trace_id("").into_iter().filter(|event| event.get("source").is_some_and(|s| s == "127.0.9.4"));
    assert_eq!(ended.count(), 0);
    app.still_serves().await;
}
