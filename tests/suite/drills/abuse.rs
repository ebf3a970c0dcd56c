//! What a client without any right, or with few, can make the service spend. Each drill is bounded in
//! requests and ends by itself; honest callers are served meanwhile.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use service::{
    authz::{matrix::Scope, policy::Role},
    dev::issuer::DevIssuer,
    domain::Clock,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    ACME, Actor, Forge, Serving, TestApp, as_superuser, binary, events, eventually, h2, h2::H2, person, start_issuer,
    test_database,
};

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 1, last).into()
}

/// The settings of a service in a process of its own, with its issuer.
async fn variables(more: &[(&str, &str)]) -> (BTreeMap<String, String>, DevIssuer) {
    let issuer = start_issuer(Clock::system()).await;
    let mut variables = TestApp::variables(&test_database().await, issuer.url());
    variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    (variables, issuer)
}

/// A port that was free a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// 4,000 requests from one source, of some 25 bytes each that stand for 4,000 of method and 4,000 of path: the log and the
/// answers stay small, and every refusal is counted.
#[tokio::test]
async fn log_01_a_flood_beyond_the_limit_is_few_log_lines_with_exact_counts() {
    const REQUESTS: usize = 4_000;
    let more = [("APP_THROTTLE__ADDRESS_PER_SECOND", "10"), ("APP_THROTTLE__ADDRESS_BURST", "20")];
    let (variables, _issuer) = variables(&more).await;
    let serving = Serving::start(&variables).await;
    let honest = Actor::new(serving.address, None).at_address(address(2));
    let began = Instant::now();
    // Twice what fits in the table at once, so on two connections: one repeats its method, one its path.
    let text = "A".repeat(3_900);
    let (mut received, mut sent) = (0, 0);
    for (first, again) in [
        ([&h2::indexed(2, &text)[..], &[0x86, 0x84], &h2::literal(":authority", "x")].concat(), vec![0xbe, 0x86, 0x84]),
        (
            [&[0x82, 0x86], &h2::indexed(4, &format!("/{text}"))[..], &h2::literal(":authority", "x")].concat(),
            vec![0x82, 0x86, 0xbe],
        ),
    ] {
        let again = [again, h2::literal(":authority", "x")].concat();
        let mut flood = H2::connect(serving.address, address(1), true).await.unwrap();
        flood.send(&first).await.unwrap();
        for n in 1..REQUESTS / 2 {
            flood.send(&again).await.unwrap();
            // No more at once than the service allows.
            if n % 50 == 0 {
                flood.ended(n + 1).await;
            }
            if n % 500 == 0 {
                honest.get("/health/live").await.ok(200);
            }
        }
        flood.ended(REQUESTS / 2).await;
        received += flood.received();
        sent += flood.sent;
    }
    let within = 20 + 10 * (usize::try_from(began.elapsed().as_secs()).unwrap() + 1);
    let (_, log) = serving.terminate().await;
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let requests = lines.iter().filter(|line| line["message"] == "request" && line["client"] == "127.0.1.1").count();
    assert!(requests <= within, "{requests} lines of requests, {within} within the limit");
    let throttled = lines.iter().filter(|line| line["event"] == "excess_rate_limit_exceeded");
    let counted = throttled.map(|line| line["repeated"].as_u64().unwrap_or(1)).sum::<u64>();
    assert_eq!(counted + requests as u64, REQUESTS as u64, "each refusal is counted, and no other");
    assert!(lines.len() < within + 200, "{} lines", lines.len());
    assert!(log.lines().all(|line| line.len() < 1_024), "{:?}", log.lines().max_by_key(|line| line.len()));
    let beyond = log.lines().filter(|line| !line.contains("\"request\"")).map(str::len).sum::<usize>();
    assert!(beyond < 2 * sent, "{beyond} bytes of log for {sent} bytes sent");
    assert!(received / REQUESTS < 700, "{received} bytes were sent in {REQUESTS} answers");
}

/// A log driver that hangs costs log lines and nothing else.
#[tokio::test]
async fn log_01_a_log_that_is_not_read_stops_neither_requests_nor_shutdown() {
    let address = free_address();
    let listen = ("APP_HTTP__LISTEN", &*address.to_string());
    let (variables, issuer) = variables(&[("APP_THROTTLE__ADDRESS_BURST", "100000"), listen]).await;
    let serving = Serving::start_unheard(&variables, address).await;
    let user = Actor::new(serving.address, Some(issuer.access_token(&person(&ACME, Role::Viewer), &Scope::ALL)));
    // Some 300 bytes of log each; a pipe holds 64 KiB.
    for _ in 0..600 {
        user.get("/v1/me").await.ok(200);
    }
    for probe in ["/health/live", "/health/ready"] {
        Actor::new(serving.address, None).get(probe).await.ok(200);
    }
    let (status, _) = serving.terminate().await;
    assert!(status.success(), "{status}");
}

/// 1,024 connections of four networks that spoke once: others are let in, and idle ones end.
#[tokio::test]
async fn rate_09_idle_connections_of_a_few_networks_keep_no_one_out_and_end() {
    let limit = getrlimit(Resource::Nofile);
    // The other end of each is this process's.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let (variables, issuer) = variables(&[("APP_HTTP__IDLE_TIMEOUT_MS", "3000")]).await;
    let mut command = Command::new("sh");
    command.env_clear().args(["-c", "ulimit -n 1024; exec \"$0\" \"$@\""]).arg(binary().get_program());
    let mut serving = Serving::start_as(command, &variables).await;
    let fewer = serving.line("fewer connections", |line| line["message"] == "fewer connections are accepted").await;
    assert!(fewer["max_connections"].as_u64().unwrap() < 1_000, "{fewer}");
    let mut held = Vec::new();
    for n in 0..1_024 {
        let from = address(u8::try_from(1 + n % 4).unwrap());
        // Some are refused: a network may hold no more than is free.
        let Ok(mut connection) = H2::connect(serving.address, from, true).await else { continue };
        if connection.send(&h2::get("/health/live", None)).await.is_ok() {
            held.push(connection);
        }
    }
    let token = issuer.access_token(&person(&ACME, Role::Viewer), &Scope::ALL);
    let honest = Actor::new(serving.address, Some(token)).at_address(address(5));
    for path in ["/health/live", "/health/ready", "/v1/me"] {
        honest.get(path).await.ok(200);
    }
    serving.line("refused connections", |line| line["limit"] == "connections").await;
    eventually("idle connections end", async || held.iter().all(H2::is_closed)).await;
    honest.get("/v1/me").await.ok(200);
}

/// 30 lists of some 500 KB that are not read: a few are made, and the rest are refused.
#[tokio::test]
async fn rate_09_unread_responses_are_bounded_by_network() {
    let more = [("APP_HTTP__MAX_UNREAD_BYTES", "8388608"), ("APP_HTTP__STALL_TIMEOUT_MS", "600000")];
    let app = TestApp::start_with(&more).await;
    as_superuser(&app, large_orders()).await;
    let reader = |subject: &str, last| app.bearer(app.forge().claim("sub", subject).token()).at_address(address(last));
    let honest = reader("honest", 2);
    let size = honest.get(LIST).await.ok(200).to_string().len();
    assert!(size > 300_000, "{size}");
    let mut unread = Vec::new();
    for n in 0..3 {
        let token = app.forge().claim("sub", format!("attacker-{n}")).token();
        unread.push(leave_unread(&app, &token, 10).await);
    }
    // Its network's part is used up: for large answers only, and for no other network.
    let neighbour = reader("neighbour", 1);
    assert_eq!(neighbour.get(LIST).await.problem(503), "unavailable");
    neighbour.get("/v1/orders?limit=1").await.ok(200);
    honest.get(LIST).await.ok(200);
    drop(unread);
    eventually("the network is served again", async || neighbour.get(LIST).await.status == 200).await;
}

#[tokio::test]
async fn rate_09_a_connection_whose_responses_are_not_read_ends() {
    let app = TestApp::start_with(&[("APP_HTTP__STALL_TIMEOUT_MS", "500")]).await;
    as_superuser(&app, large_orders()).await;
    let token = app.forge().token();
    let unread = leave_unread(&app, &token, 2).await;
    eventually("it ends", async || unread.is_closed()).await;
    // One that is read slowly, but fast enough, does not.
    let mut reader = tokio::net::TcpStream::connect(app.address).await.unwrap();
    let request =
        format!("GET {LIST} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n");
    reader.write_all(request.as_bytes()).await.unwrap();
    let (mut answer, mut piece) = (Vec::new(), vec![0; 16_384]);
    while let Ok(length @ 1..) = reader.read(&mut piece).await {
        answer.extend_from_slice(&piece[..length]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(answer.len() > 300_000 && answer.ends_with(b"}"), "{} bytes", answer.len());
}

/// What is buffered for a client that reads nothing is in no response any more.
#[tokio::test]
async fn rate_09_a_connection_that_is_not_read_at_all_ends() {
    let app = TestApp::start_with(&[("APP_HTTP__STALL_TIMEOUT_MS", "500")]).await;
    as_superuser(&app, large_orders()).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((address(77), 0).into()).unwrap();
    let mut client = socket.connect(app.address).await.unwrap();
    let token = app.forge().token();
    let size = app.bearer(&*token).get(LIST).await.text.len();
    let request = format!("GET {LIST} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    // More than the buffers of both ends hold.
    let requests = (24 << 20) / size;
    client.write_all(request.repeat(requests).as_bytes()).await.unwrap();
    eventually("it is cut off", async || {
        let of_no_request = events::of("");
        of_no_request
            .iter()
            .any(|event| event["event"] == "excess_rate_limit_exceeded" && event["client"] == "127.0.1.77")
    })
    .await;
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest).await;
    assert!(rest.len() < requests * size, "{} of {} bytes", rest.len(), requests * size);
}

const LIST: &str = "/v1/orders?limit=100";

/// So many lists on one connection, of whose responses the client reads the heads.
async fn leave_unread(app: &TestApp, token: &str, lists: usize) -> H2 {
    let mut connection = H2::connect(app.address, address(1), false).await.unwrap();
    for _ in 0..lists {
        connection.send(&h2::get(LIST, Some(token))).await.unwrap();
    }
    connection.heads(lists).await;
    connection
}

/// 100 orders of 50 lines, in SQL.
fn large_orders() -> String {
    format!(
        "insert into products (tenant_id, sku, name, price_amount, price_currency)
         select '{0}', 'BULK-' || n, 'Bulk ' || n, 100, 'EUR' from generate_series(1, 50) n;
         insert into orders (tenant_id, id, status, shipping_speed, note, total_amount, total_currency, created_by,
                             created_at, updated_at)
         select '{0}', ('0190b000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'placed', 'standard',
                repeat('note ', 100), 5000, 'EUR', 'bulk', now(), now()
         from generate_series(1, 100) n;
         insert into order_lines (tenant_id, order_id, line_no, sku, quantity, unit_price_amount)
         select o.tenant_id, o.id, n, 'BULK-' || n, 1, 100 from orders o, generate_series(1, 50) n
         where o.created_by = 'bulk'",
        ACME.id
    )
}

/// With every place for a delayed refusal taken, and room for few requests in work, honest callers are served.
#[tokio::test]
async fn authn_17_slowed_refusals_hold_no_request_slot() {
    let more = [("APP_HTTP__MAX_CONCURRENT_REQUESTS", "32"), ("APP_PENALTY__FREE_FAILURES", "0")];
    let (variables, issuer) = variables(&more).await;
    let serving = Serving::start(&variables).await;
    let honest = Actor::new(serving.address, Some(Forge::new(&issuer).token())).at_address(address(250));
    honest.get("/v1/me").await.ok(200);
    // 6 failures from each of 64 networks: the later ones are held back, twice as many as may be in work.
    let attackers = (1..=64).map(|last| async move {
        let attacker = Actor::new(serving.address, Some("e30.e30.e30".to_owned())).at_address(address(last));
        let mut refused = 0;
        for _ in 0..6 {
            let status = attacker.get("/v1/me").await.status.as_u16();
            assert!([401, 503].contains(&status), "{status}");
            refused += usize::from(status == 401);
        }
        refused
    });
    let attack = futures_util::future::join_all(attackers);
    let served = async {
        for _ in 0..60 {
            honest.get("/v1/me").await.ok(200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (refused, ()) = tokio::join!(attack, served);
    assert!(refused.into_iter().sum::<usize>() > 200);
}
