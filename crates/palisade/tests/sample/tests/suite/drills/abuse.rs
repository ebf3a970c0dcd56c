//! Abuse by clients with few or no rights: log floods (LOG-01), idle and unread connections
//! (RATE-09), and failed authentications (AUTHN-17). Each test sends a bounded number of requests
//! and asserts that other callers are served in the meantime.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    process::Command,
    time::{Duration, Instant},
};

use palisade::{dev::issuer::DevIssuer, model::Clock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sample::access::{roles, scopes};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    ACME, Actor, Forge, SERVICE, ServiceProcess, TestApp, events, eventually, free_address,
    h2::{self, H2},
    parse_log, person, start_issuer,
};

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 1, last).into()
}

/// The environment of a service process, and its issuer.
async fn variables(more: &[(&str, &str)]) -> (BTreeMap<String, String>, DevIssuer) {
    let issuer = start_issuer(Clock::system()).await;
    let mut variables = TestApp::variables(&SERVICE.database().await, issuer.url());
    variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    (variables, issuer)
}

/// 4,000 requests from one address. Each takes some 25 bytes, which HPACK expands to a method or
/// path of 3,900 bytes. The log and the responses must stay small, and every rejection must be
/// counted.
#[tokio::test]
async fn log_01_floods_are_logged_as_few_lines_with_exact_counts() {
    const REQUESTS: usize = 4_000;
    let more = [("APP_THROTTLE__ADDRESS_PER_SECOND", "10"), ("APP_THROTTLE__ADDRESS_BURST", "20")];
    let (variables, _issuer) = variables(&more).await;
    let process = ServiceProcess::start(&SERVICE, &variables).await;
    let other = Actor::new(process.address, None).at_address(address(2));
    let started = Instant::now();
    // Method and path together exceed the dynamic table of HPACK, so one connection repeats a long
    // method and another one a long path.
    let text = "A".repeat(3_900);
    let mut received = 0;
    let mut sent = 0;
    for (first, repeated) in [
        ([&h2::indexed(2, &text)[..], &[0x86, 0x84], &h2::literal(":authority", "x")].concat(), vec![0xbe, 0x86, 0x84]),
        (
            [&[0x82, 0x86], &h2::indexed(4, &format!("/{text}"))[..], &h2::literal(":authority", "x")].concat(),
            vec![0x82, 0x86, 0xbe],
        ),
    ] {
        let repeated = [repeated, h2::literal(":authority", "x")].concat();
        let mut flood = H2::connect(process.address, address(1), true).await.unwrap();
        flood.send(&first).await.unwrap();
        for n in 1..REQUESTS / 2 {
            flood.send(&repeated).await.unwrap();
            // Waits, to stay within the limit of concurrent streams.
            if n % 50 == 0 {
                flood.wait_for_stream_ends(n + 1).await;
            }
            if n % 500 == 0 {
                other.get("/health/live").await.ok(200);
            }
        }
        flood.wait_for_stream_ends(REQUESTS / 2).await;
        received += flood.received();
        sent += flood.sent;
    }
    let limit = 20 + 10 * (usize::try_from(started.elapsed().as_secs()).unwrap() + 1);
    let (_, log) = process.terminate().await;
    let lines = parse_log(&log);
    let requests = lines.iter().filter(|line| line["message"] == "request" && line["client"] == "127.0.1.1").count();
    assert!(requests <= limit, "{requests} requests are logged, the limit admits {limit}");
    let throttled = lines.iter().filter(|line| line["event"] == "excess_rate_limit_exceeded");
    let counted = throttled.map(|line| line["repeated"].as_u64().unwrap_or(1)).sum::<u64>();
    assert_eq!(counted + requests as u64, REQUESTS as u64, "each rejection is counted exactly once");
    assert!(lines.len() < limit + 200, "{} lines", lines.len());
    assert!(log.lines().all(|line| line.len() < 1_024), "{:?}", log.lines().max_by_key(|line| line.len()));
    let rejection_bytes = log.lines().filter(|line| !line.contains("\"request\"")).map(str::len).sum::<usize>();
    assert!(rejection_bytes < 2 * sent, "{rejection_bytes} bytes of log for {sent} bytes sent");
    assert!(received / REQUESTS < 700, "{received} bytes were received in {REQUESTS} responses");
}

/// A log driver that hangs loses log lines and nothing else.
#[tokio::test]
async fn log_01_unread_log_blocks_neither_requests_nor_shutdown() {
    let address = free_address();
    let listen = ("APP_HTTP__LISTEN", &*address.to_string());
    let (variables, issuer) = variables(&[("APP_THROTTLE__ADDRESS_BURST", "100000"), listen]).await;
    let process = ServiceProcess::start_without_log_reader(&SERVICE, &variables, address).await;
    let user = Actor::new(process.address, Some(issuer.access_token(&person(&ACME, roles::VIEWER), &scopes::ALL)));
    // Some 300 bytes of log each; a pipe holds 64 KiB.
    for _ in 0..600 {
        user.get("/v1/me").await.ok(200);
    }
    for probe in ["/health/live", "/health/ready"] {
        Actor::new(process.address, None).get(probe).await.ok(200);
    }
    let (status, _) = process.terminate().await;
    assert!(status.success(), "{status}");
}

/// 1,024 connections from four networks that stay idle after one request.
#[tokio::test]
async fn rate_09_idle_connections_do_not_block_others_and_are_closed() {
    let limit = getrlimit(Resource::Nofile);
    // This process holds the client end of each connection.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let (variables, issuer) = variables(&[("APP_HTTP__IDLE_TIMEOUT_MS", "3000")]).await;
    let mut command = Command::new("sh");
    command.env_clear().args(["-c", "ulimit -n 1024; exec \"$0\" \"$@\""]).arg(SERVICE.binary().get_program());
    let mut process = ServiceProcess::start_command(command, &variables).await;
    let reduced = "connection limit reduced to fit the file descriptor limit";
    let reduced = process.wait_for_line(reduced, |line| line["message"] == reduced).await;
    assert!(reduced["max_connections"].as_u64().unwrap() < 1_000, "{reduced}");
    let mut held = Vec::new();
    for n in 0..1_024 {
        let from = address(u8::try_from(1 + n % 4).unwrap());
        // Some are rejected: one network may not hold all free connections.
        let Ok(mut connection) = H2::connect(process.address, from, true).await else { continue };
        if connection.send(&h2::get("/health/live", None)).await.is_ok() {
            held.push(connection);
        }
    }
    let token = issuer.access_token(&person(&ACME, roles::VIEWER), &scopes::ALL);
    // Addresses of one /24 hold at most half of the connections together.
    let other = Actor::new(process.address, Some(token)).at_address(Ipv4Addr::new(127, 0, 2, 5).into());
    for path in ["/health/live", "/health/ready", "/v1/me"] {
        other.get(path).await.ok(200);
    }
    process.wait_for_line("rejected connections", |line| line["limit"] == "connections").await;
    eventually("idle connections are closed", async || held.iter().all(H2::is_closed)).await;
    other.get("/v1/me").await.ok(200);
}

/// 30 lists of some 500 KB that the client does not read: a few are served, the rest rejected.
#[tokio::test]
async fn rate_09_unread_bytes_are_limited_per_network() {
    let more = [("APP_HTTP__MAX_UNREAD_BYTES", "8388608"), ("APP_HTTP__STALL_TIMEOUT_MS", "600000")];
    let app = SERVICE.start_with(&more).await;
    add_large_notes(&app).await;
    let reader = |subject: &str, last| app.bearer(app.forge().claim("sub", subject).token()).at_address(address(last));
    let other = reader("other", 2);
    let size = other.get(LIST).await.ok(200).to_string().len();
    assert!(size > 300_000, "{size}");
    let mut unread = Vec::new();
    for n in 0..3 {
        let token = app.forge().claim("sub", format!("attacker-{n}")).token();
        unread.push(leave_unread(&app, &token, 10).await);
    }
    // The network's share is used up: large responses are rejected, small ones and other networks
    // not.
    let neighbour = reader("neighbour", 1);
    assert_eq!(neighbour.get(LIST).await.problem(503), "unavailable");
    neighbour.get("/v1/notes?limit=1").await.ok(200);
    other.get(LIST).await.ok(200);
    drop(unread);
    eventually("the network is served again", async || neighbour.get(LIST).await.status == 200).await;
}

#[tokio::test]
async fn rate_09_connections_with_stalled_responses_are_closed() {
    let app = SERVICE.start_with(&[("APP_HTTP__STALL_TIMEOUT_MS", "2000")]).await;
    add_large_notes(&app).await;
    let token = app.forge().token();
    let unread = leave_unread(&app, &token, 2).await;
    eventually("the connection is closed", async || unread.is_closed()).await;
    // A slow client that keeps reading gets its whole response.
    let mut reader = tokio::net::TcpStream::connect(app.address).await.unwrap();
    let request =
        format!("GET {LIST} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n");
    reader.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    let mut chunk = vec![0; 16_384];
    while let Ok(length @ 1..) = reader.read(&mut chunk).await {
        response.extend_from_slice(&chunk[..length]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(response.len() > 300_000 && response.ends_with(b"}"), "{} bytes", response.len());
}

/// Once a response is in the connection's write buffer, it no longer counts as a stalled response.
#[tokio::test]
async fn rate_09_connections_with_full_write_buffers_are_closed() {
    let app = SERVICE.start_with(&[("APP_HTTP__STALL_TIMEOUT_MS", "2000")]).await;
    add_large_notes(&app).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((address(77), 0).into()).unwrap();
    let mut client = socket.connect(app.address).await.unwrap();
    let token = app.forge().token();
    let size = app.bearer(&*token).get(LIST).await.text.len();
    let request = format!("GET {LIST} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    // Responses of 24 MiB: more than the buffers of both ends hold.
    let requests = (24 << 20) / size;
    client.write_all(request.repeat(requests).as_bytes()).await.unwrap();
    eventually("the connection is closed", async || {
        events::for_trace_id("")
            .iter()
            .any(|event| event["event"] == "excess_rate_limit_exceeded" && event["client"] == "127.0.1.77")
    })
    .await;
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest).await;
    assert!(rest.len() < requests * size, "{} of {} bytes", rest.len(), requests * size);
}

const LIST: &str = "/v1/notes?limit=100";

/// Requests this number of lists on one connection, and reads only the headers of the responses.
async fn leave_unread(app: &TestApp, token: &str, lists: usize) -> H2 {
    let mut connection = H2::connect(app.address, address(1), false).await.unwrap();
    for _ in 0..lists {
        connection.send(&h2::get(LIST, Some(token))).await.unwrap();
    }
    connection.wait_for_response_headers(lists).await;
    connection
}

/// Stores 100 notes with 50 items each.
async fn add_large_notes(app: &TestApp) {
    let items: Vec<Value> = (1..=50).map(|n| json!({ "code": format!("BULK-{n:059}"), "count": 1 })).collect();
    let note = json!({ "items": items, "priority": "standard", "remark": "remark ".repeat(60).trim() });
    let writer = app.user(roles::WRITER).at_address(address(99));
    for _ in 0..100 {
        writer.post("/v1/notes", &note).await.ok(201);
    }
}

/// More failures are being delayed than the service may process requests, and others are served.
#[tokio::test]
async fn authn_17_delayed_failures_hold_no_request_slot() {
    let more = [("APP_HTTP__MAX_CONCURRENT_REQUESTS", "32"), ("APP_FAILURE_LIMIT__FREE_FAILURES", "0")];
    let (variables, issuer) = variables(&more).await;
    let process = ServiceProcess::start(&SERVICE, &variables).await;
    let other = Actor::new(process.address, Some(Forge::new(&SERVICE, &issuer).token())).at_address(address(250));
    other.get("/v1/me").await.ok(200);
    // 6 failures from each of 64 networks: the delayed ones are twice the limit of 32 requests in
    // work.
    let attackers = (1..=64).map(|last| async move {
        let attacker = Actor::new(process.address, Some("e30.e30.e30".to_owned())).at_address(address(last));
        let mut rejected = 0;
        for _ in 0..6 {
            let status = attacker.get("/v1/me").await.status.as_u16();
            assert!([401, 503].contains(&status), "{status}");
            rejected += usize::from(status == 401);
        }
        rejected
    });
    let attack = futures_util::future::join_all(attackers);
    let served = async {
        for _ in 0..60 {
            other.get("/v1/me").await.ok(200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (rejected, ()) = tokio::join!(attack, served);
    assert!(rejected.into_iter().sum::<usize>() > 200);
}
