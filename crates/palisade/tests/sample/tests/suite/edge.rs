//! The edge, before any handler: rate limit per address (RATE-01), panics (FAIL-02), errors
//! (INPUT-08), connections and concurrency (RATE-09), and plain HTTP (CRYPTO-01).

use std::{net::Ipv4Addr, time::Duration};

use http::Method;
use palisade::{app, edge, model::Clock, settings::Settings};
use poem::EndpointExt as _;
use sample::{access::roles, app};
use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, PgConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{Actor, SERVICE, TestApp, eventually};

#[tokio::test]
async fn rate_01_address_over_the_limit_gets_retry_after() {
    let app = SERVICE
        .start_with(&[("APP_THROTTLE__ADDRESS_PER_SECOND", "0.02"), ("APP_THROTTLE__ADDRESS_BURST", "30")])
        .await;
    let anonymous = app.anonymous();
    let mut limited = None;
    for _ in 0..40 {
        let reply = anonymous.get("/v1/me").await;
        if reply.status == 429 {
            limited = Some(reply);
            break;
        }
        reply.problem(401);
    }
    let limited = limited.expect("40 requests exceed a limit of 30");
    assert_eq!(limited.problem(429), "rate_limited");
    let seconds: u64 = limited.header("retry-after").unwrap().parse().unwrap();
    assert!((40..=51).contains(&seconds), "{seconds}");

    assert_eq!(limited.body["limit"], "address");
    // Headers that claim another address do not count; another address does.
    for name in ["x-forwarded-for", "forwarded", "x-real-ip"] {
        let spoofed = anonymous.request(Method::GET, "/health/live").header(name, "203.0.113.9");
        assert_eq!(anonymous.send(spoofed).await.problem(429), "rate_limited", "{name}");
    }
    let other_address = app.anonymous().at_address(Ipv4Addr::new(127, 0, 0, 2).into());
    other_address.get("/health/live").await.ok(200);
}

/// The edge around a test application, because no real operation panics.
async fn serve_faulty_app() -> std::net::SocketAddr {
    let variables = TestApp::variables(&SERVICE.database().await, "http://127.0.0.1:9");
    let settings: &'static Settings = Box::leak(Box::new(app().read_settings(variables).unwrap()));
    let app = poem::Route::new()
        .at("/panic", poem::endpoint::make_sync(|_| -> &'static str { panic!("secret in a panic") }))
        .at(
            "/leak",
            poem::endpoint::make_sync(|_| {
                poem::Response::builder().status(http::StatusCode::INTERNAL_SERVER_ERROR).body("secret in a body")
            }),
        )
        .at("/fine", poem::endpoint::make_sync(|_| "fine"))
        .map_to_response();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stack = edge::stack(
        app,
        edge::ListenerKind::Public,
        settings,
        std::sync::Arc::new(|_| None),
        &std::sync::Arc::new(palisade::quota::Overrides::new(Clock::system())),
    )
    .unwrap();
    tokio::spawn(edge::serve(
        edge::Listener { kind: edge::ListenerKind::Public, socket: listener, tls: None },
        stack,
        &settings.http,
        std::future::pending(),
    ));
    address
}

#[tokio::test]
async fn fail_02_panic_becomes_a_problem_and_the_next_request_is_served() {
    let actor = Actor::new(serve_faulty_app().await, None);
    for _ in 0..3 {
        let reply = actor.get("/panic").await;
        assert_eq!(reply.problem(500), "internal");
        assert!(!reply.text.contains("secret"), "{}", reply.text);
        assert_eq!(actor.get("/fine").await.text, "fine");
    }
}

#[tokio::test]
async fn input_08_other_error_bodies_are_replaced_by_problems() {
    let actor = Actor::new(serve_faulty_app().await, None);
    let reply = actor.get("/leak").await;
    assert_eq!(reply.problem(500), "internal");
    assert!(!reply.text.contains("secret"), "{}", reply.text);
}

/// Header compression lets an HTTP/2 client repeat a long path in one byte.
#[tokio::test]
async fn input_08_long_paths_are_not_echoed() {
    let anonymous = SERVICE.shared().anonymous();
    let path = |length: usize| format!("/{}", "a".repeat(length - 1));
    assert_eq!(anonymous.get(&path(256)).await.body["instance"], path(256));
    for (length, status) in [(257, 404), (8_000, 404), (9_000, 414)] {
        let reply = anonymous.get(&path(length)).await;
        reply.problem(status);
        assert!(reply.body["instance"].is_null() && reply.text.len() < 512, "{}", reply.text);
    }
    let code = "A".repeat(5_000);
    let reply = anonymous.get(&format!("/v1/items/{code}")).await;
    reply.problem(401);
    assert!(!reply.text.contains(&code));
}

#[tokio::test]
async fn rate_09_connections_with_slow_headers_are_closed() {
    let app = SERVICE.start_with(&[("APP_HTTP__HEADER_TIMEOUT_MS", "200")]).await;
    let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
    socket.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let mut response = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut response)).await;
    assert!(closed.is_ok(), "still open after 10 s");
    assert!(!response.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&response));
}

#[tokio::test]
async fn rate_09_silent_connections_are_closed() {
    let app = SERVICE.start_with(&[("APP_HTTP__HEADER_TIMEOUT_MS", "1000")]).await;
    // No bytes, and the beginning of an HTTP/2 preface.
    for sent in ["", "P", "PRI * HT"] {
        let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
        socket.write_all(sent.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut response)).await;
        assert!(closed.is_ok(), "{sent:?}: still open after 10 s");
    }
    // A request in time is served.
    let actor = app.anonymous();
    actor.get("/health/live").await.ok(200);
}

#[tokio::test]
async fn change_completes_after_its_caller_disconnects() {
    let app = SERVICE.start().await;
    let writer = app.user(roles::WRITER);
    let newest = async || writer.get("/v1/notes?limit=1").await.ok(200)["items"][0]["remark"].clone();
    // The lock stops the change after it has begun.
    let mut owner = PgConnection::connect(app.database.owner.expose_secret()).await.unwrap();
    let mut lock = owner.begin().await.unwrap();
    sqlx::raw_sql("lock table notes in exclusive mode").execute(&mut *lock).await.unwrap();

    let body = r#"{"items":[{"code":"PEN-BLUE","count":1}],"priority":"standard","remark":"hung up"}"#;
    let request = format!(
        "POST /v1/notes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        app.forge().token(),
        body.len()
    );
    let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let waiting = "select count(*) from pg_locks where not granted and relation = 'notes'::regclass";
    let is_waiting = async {
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *lock).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), is_waiting).await.expect("the change begins");
    drop(socket);
    // The service may notice the disconnection in this time; otherwise the test is weaker.
    let _ = tokio::time::timeout(Duration::from_millis(100), std::future::pending::<()>()).await;
    lock.commit().await.unwrap();

    eventually("the note is created", async || newest().await == "hung up").await;
}

#[tokio::test]
async fn rate_09_connections_over_the_limit_are_closed_at_once() {
    let app = SERVICE.start_with(&[("APP_HTTP__MAX_CONNECTIONS", "4")]).await;
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(tokio::net::TcpStream::connect(app.address).await.unwrap());
    }
    let mut last = held.pop().unwrap();
    let _ = last.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut response = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), last.read_to_end(&mut response)).await.expect("closed");
    assert!(response.is_empty(), "{}", String::from_utf8_lossy(&response));
}

#[tokio::test]
async fn crypto_01_plain_http_is_served_to_trusted_proxies_and_this_host_only() {
    let listen = ("APP_HTTP__LISTEN", "0.0.0.0:0");
    let variables = TestApp::variables(&SERVICE.database().await, "http://127.0.0.1:9");
    let faults = app().read_settings(variables.into_iter().chain([owned(listen)]).collect()).unwrap_err();
    assert!(faults.to_string().contains("APP_HTTP__LISTEN"), "{faults}");

    let proxy = ("APP_HTTP__TRUSTED_PROXIES", "127.0.0.7");
    let variables = TestApp::variables(&SERVICE.database().await, "http://127.0.0.1:9");
    let settings = app().read_settings(variables.into_iter().chain([owned(listen), owned(proxy)]).collect()).unwrap();
    let app = app::start(&app(), settings, Clock::system()).await.unwrap();
    let address = (Ipv4Addr::LOCALHOST, app.address().port());
    tokio::spawn(app.run(std::future::pending()));
    let direct = tokio::net::TcpSocket::new_v4().unwrap();
    direct.bind((Ipv4Addr::new(127, 0, 0, 9), 0).into()).unwrap();
    let mut direct = direct.connect(address.into()).await.unwrap();
    let _ = direct.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut response = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), direct.read_to_end(&mut response)).await.expect("closed");
    assert!(response.is_empty(), "{}", String::from_utf8_lossy(&response));
    let proxied = Actor::new(address.into(), None).at_address(Ipv4Addr::new(127, 0, 0, 7).into());
    proxied.get("/health/live").await.ok(200);
    Actor::new(address.into(), None).get("/health/live").await.ok(200);
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// A request from this network that is in progress until its last byte is sent.
async fn start_request(app: &TestApp, third: u8) -> tokio::net::TcpStream {
    let head = format!(
        "POST /v1/notes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: 2\r\n\r\n{{",
        app.forge().token()
    );
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, third, 1), 0).into()).unwrap();
    let mut socket = socket.connect(app.address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

#[tokio::test]
async fn rate_09_requests_over_the_concurrency_limit_get_503() {
    // One address may use a quarter of the limit, rounded up.
    for (limit, other_status) in [("2", 503), ("8", 200)] {
        let app = SERVICE.start_with(&[("APP_HTTP__MAX_CONCURRENT_REQUESTS", limit)]).await;
        let user = app.user(roles::VIEWER);
        let other_address = app.user(roles::VIEWER).at_address(Ipv4Addr::new(127, 0, 3, 1).into());
        let second = if limit == "2" { 4 } else { 0 };
        let requests = [start_request(&app, 0).await, start_request(&app, second).await];
        eventually("the limit is reached", async || user.get("/v1/me").await.status == 503).await;
        let reply = user.get("/v1/me").await;
        assert_eq!(reply.problem(503), "unavailable");
        assert_eq!(reply.header("retry-after"), Some("1"));
        eventually("the other address", async || other_address.get("/v1/me").await.status == other_status).await;
        // Probes are served under load.
        for probe in ["/health/live", "/health/ready"] {
            app.anonymous().get(probe).await.ok(200);
        }
        for mut socket in requests {
            socket.write_all(b"}").await.unwrap();
            let mut response = String::new();
            socket.read_to_string(&mut response).await.unwrap();
            assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
        }
        eventually("served again", async || user.get("/v1/me").await.status == 200).await;
    }
}
