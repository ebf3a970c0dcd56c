//! What meets a request before any handler.

use std::{net::Ipv4Addr, time::Duration};

use http::Method;
use poem::EndpointExt as _;
use secrecy::ExposeSecret as _;
use service::{app, authz::policy::Role, domain::Clock, edge, settings::Settings};
use sqlx::{Connection as _, PgConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{Actor, TestApp, eventually, test_database};

#[tokio::test]
async fn rate_01_an_address_that_asks_too_often_is_told_when_to_come_back() {
    let app =
        TestApp::start_with(&[("APP_THROTTLE__ADDRESS_PER_SECOND", "0.02"), ("APP_THROTTLE__ADDRESS_BURST", "30")])
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
    let limited = limited.expect("40 requests at once pass a limit of 30");
    assert_eq!(limited.problem(429), "rate_limited");
    let seconds: u64 = limited.header("retry-after").unwrap().parse().unwrap();
    assert!((40..=51).contains(&seconds), "{seconds}");

    assert_eq!(limited.body["limit"], "address");
    // Claiming another address changes nothing; being at another one does.
    for name in ["x-forwarded-for", "forwarded", "x-real-ip"] {
        let spoofed = anonymous.request(Method::GET, "/health/live").header(name, "203.0.113.9");
        assert_eq!(anonymous.send(spoofed).await.problem(429), "rate_limited", "{name}");
    }
    let elsewhere = app.anonymous().at_address(Ipv4Addr::new(127, 0, 0, 2).into());
    elsewhere.get("/health/live").await.ok(200);
}

/// The whole stack around another application, since none of the real operations panics.
async fn serve_with_faults() -> std::net::SocketAddr {
    let variables = TestApp::variables(&test_database().await, "http://127.0.0.1:9");
    let settings: &'static Settings = Box::leak(Box::new(Settings::from_variables(variables).unwrap()));
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
        edge::Door::Public,
        settings,
        std::sync::Arc::new(|_| None),
        &std::sync::Arc::new(service::measures::Measures::new(Clock::system())),
    )
    .unwrap();
    tokio::spawn(edge::serve(
        edge::Listener { door: edge::Door::Public, socket: listener, tls: None },
        stack,
        &settings.http,
        std::future::pending(),
    ));
    address
}

#[tokio::test]
async fn fail_02_a_panic_is_a_problem_and_the_next_request_is_served() {
    let actor = Actor::new(serve_with_faults().await, None);
    for _ in 0..3 {
        let reply = actor.get("/panic").await;
        assert_eq!(reply.problem(500), "internal");
        assert!(!reply.text.contains("secret"), "{}", reply.text);
        assert_eq!(actor.get("/fine").await.text, "fine");
    }
}

#[tokio::test]
async fn input_08_an_error_nobody_made_a_problem_of_is_replaced() {
    let actor = Actor::new(serve_with_faults().await, None);
    let reply = actor.get("/leak").await;
    assert_eq!(reply.problem(500), "internal");
    assert!(!reply.text.contains("secret"), "{}", reply.text);
}

/// In HTTP/2 a path that was sent once costs one byte.
#[tokio::test]
async fn input_08_long_paths_are_not_echoed() {
    let anonymous = TestApp::shared().anonymous();
    let path = |length: usize| format!("/{}", "a".repeat(length - 1));
    assert_eq!(anonymous.get(&path(256)).await.body["instance"], path(256));
    for (length, status) in [(257, 404), (8_000, 404), (9_000, 414)] {
        let reply = anonymous.get(&path(length)).await;
        reply.problem(status);
        assert!(reply.body["instance"].is_null() && reply.text.len() < 512, "{}", reply.text);
    }
    let sku = "A".repeat(5_000);
    let reply = anonymous.get(&format!("/v1/products/{sku}")).await;
    reply.problem(401);
    assert!(!reply.text.contains(&sku));
}

#[tokio::test]
async fn rate_09_a_connection_that_does_not_finish_its_headers_is_closed() {
    let app = TestApp::start_with(&[("APP_HTTP__HEADER_TIMEOUT_MS", "200")]).await;
    let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
    socket.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "still open after 5 s");
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn rate_09_a_connection_that_says_nothing_is_closed() {
    let app = TestApp::start_with(&[("APP_HTTP__HEADER_TIMEOUT_MS", "200")]).await;
    // Nothing at all, and the beginning of what could become HTTP/2.
    for said in ["", "P", "PRI * HT"] {
        let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
        socket.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut answer)).await;
        assert!(closed.is_ok(), "{said:?}: still open after 5 s");
    }
    // One that spoke in time stays.
    let actor = app.anonymous();
    actor.get("/health/live").await.ok(200);
}

#[tokio::test]
async fn a_change_whose_caller_hung_up_is_finished() {
    let app = TestApp::start().await;
    let sales = app.user(Role::Sales);
    let newest = async || sales.get("/v1/orders?limit=1").await.ok(200)["items"][0]["note"].clone();
    // Holds the change up in the middle, so that it is certain to have begun and not to have ended.
    let mut owner = PgConnection::connect(app.database.owner.expose_secret()).await.unwrap();
    let mut lock = owner.begin().await.unwrap();
    sqlx::raw_sql("lock table orders in exclusive mode").execute(&mut *lock).await.unwrap();

    let body = r#"{"lines":[{"sku":"PEN-BLUE","quantity":1}],"shippingSpeed":"standard","note":"hung up"}"#;
    let request = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        app.forge().token(),
        body.len()
    );
    let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let waiting = "select count(*) from pg_locks where not granted and relation = 'orders'::regclass";
    let begun = async {
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *lock).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), begun).await.expect("the change begins");
    drop(socket);
    // For the service to notice; if it has not by then, the test is only easier to pass.
    let _ = tokio::time::timeout(Duration::from_millis(100), std::future::pending::<()>()).await;
    lock.commit().await.unwrap();

    eventually("the order is placed", async || newest().await == "hung up").await;
}

#[tokio::test]
async fn rate_09_connections_over_the_limit_are_closed_at_once() {
    let app = TestApp::start_with(&[("APP_HTTP__MAX_CONNECTIONS", "4")]).await;
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(tokio::net::TcpStream::connect(app.address).await.unwrap());
    }
    let mut last = held.pop().unwrap();
    let _ = last.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), last.read_to_end(&mut answer)).await.expect("closed");
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn crypto_01_plain_http_over_a_network_is_for_declared_proxies() {
    let listen = ("APP_HTTP__LISTEN", "0.0.0.0:0");
    let variables = TestApp::variables(&test_database().await, "http://127.0.0.1:9");
    let refused = Settings::from_variables(variables.into_iter().chain([owned(listen)]).collect()).unwrap_err();
    assert!(refused.to_string().contains("APP_HTTP__LISTEN"), "{refused}");

    let proxy = ("APP_HTTP__TRUSTED_PROXIES", "127.0.0.7");
    let variables = TestApp::variables(&test_database().await, "http://127.0.0.1:9");
    let settings =
        Settings::from_variables(variables.into_iter().chain([owned(listen), owned(proxy)]).collect()).unwrap();
    let app = app::start(settings, Clock::system()).await.unwrap();
    let address = (Ipv4Addr::LOCALHOST, app.address().port());
    tokio::spawn(app.run(std::future::pending()));
    let mut stranger = tokio::net::TcpStream::connect(address).await.unwrap();
    let _ = stranger.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stranger.read_to_end(&mut answer)).await.expect("closed");
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    let proxied = Actor::new(address.into(), None).at_address(Ipv4Addr::new(127, 0, 0, 7).into());
    proxied.get("/health/live").await.ok(200);
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// A request in work, from this address, that is not finished until its last byte is sent.
async fn unfinished(app: &TestApp, last: u8) -> tokio::net::TcpStream {
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: 2\r\n\r\n{{",
        app.forge().token()
    );
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into()).unwrap();
    let mut socket = socket.connect(app.address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

#[tokio::test]
async fn rate_09_more_requests_at_once_than_can_be_worked_on_are_turned_away() {
    // A quarter of them, rounded up, from one address.
    for (most, others) in [("2", 503), ("8", 200)] {
        let app = TestApp::start_with(&[("APP_HTTP__MAX_CONCURRENT_REQUESTS", most)]).await;
        let user = app.user(Role::Viewer);
        let elsewhere = app.user(Role::Viewer).at_address(Ipv4Addr::new(127, 0, 0, 3).into());
        let second = if most == "2" { 4 } else { 1 };
        let requests = [unfinished(&app, 1).await, unfinished(&app, second).await];
        eventually("turned away", async || user.get("/v1/me").await.status == 503).await;
        let reply = user.get("/v1/me").await;
        assert_eq!(reply.problem(503), "unavailable");
        assert_eq!(reply.header("retry-after"), Some("1"));
        eventually("the other address", async || elsewhere.get("/v1/me").await.status == others).await;
        // Busy is not ill.
        for probe in ["/health/live", "/health/ready"] {
            app.anonymous().get(probe).await.ok(200);
        }
        for mut socket in requests {
            socket.write_all(b"}").await.unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        }
        eventually("let in again", async || user.get("/v1/me").await.status == 200).await;
    }
}
