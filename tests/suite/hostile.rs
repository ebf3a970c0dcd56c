//! Bytes that are no honest request, over raw sockets. Each ends in a stated status or a closed connection, and the
//! service goes on.

use std::time::Duration;

use serde_json::json;
use service::authz::policy::Role;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Actor, TestApp};

const PATIENCE: Duration = Duration::from_secs(10);

/// All that comes back until the service closes. What it does not read any more is not sent.
async fn answer(app: &TestApp, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(app.address).await.unwrap();
    let _ = socket.write_all(request).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("the service closes");
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
}

/// A problem with this code, as the only answer.
#[track_caller]
fn assert_problem(answer: &str, wanted: u16, code: &str, what: &str) {
    assert_eq!(status(answer), wanted, "{what}: {answer}");
    assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{what}: {answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: {answer}");
}

#[tokio::test]
async fn input_06_a_request_that_two_readers_could_take_for_two_is_refused() {
    let app = TestApp::shared();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for (what, head, body) in [
        ("two lengths", "POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 38", smuggled),
        ("a list of lengths", "POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 38", smuggled),
        ("a signed length", "POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: +4", "0\r\n\r\n"),
        ("another coding", "POST /v1/orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked", "0\r\n\r\n"),
        (
            "a coding after chunked",
            "POST /v1/orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity",
            "0\r\n\r\n",
        ),
        (
            "two codings",
            "POST /v1/orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked",
            "0\r\n\r\n",
        ),
        ("chunked in HTTP/1.0", "POST /v1/orders HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        ("a folded header", "GET /health/live HTTP/1.1\r\nHost: x\r\nX-A: b\r\n Transfer-Encoding: chunked", ""),
        ("a space before the colon", "GET /health/live HTTP/1.1\r\nHost: x\r\nContent-Length : 0", ""),
        ("a NUL in a header", "GET /health/live HTTP/1.1\r\nHost: x\r\nX-A: a\0b", ""),
        ("a return in a header", "GET /health/live HTTP/1.1\r\nHost: x\r\nX-A: a\rTransfer-Encoding: chunked", ""),
        ("no host", "GET /health/live HTTP/1.1", ""),
        ("a user in the host", "GET /health/live HTTP/1.1\r\nHost: x@y", ""),
        ("a list of hosts", "GET /health/live HTTP/1.1\r\nHost: x, y", ""),
        ("a host that is a target", "GET /health/live HTTP/1.1\r\nHost: x/y?z", ""),
        (
            "a packed body in pieces",
            "POST /v1/orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked",
            "0\r\n\r\n",
        ),
        ("two hosts", "GET /health/live HTTP/1.1\r\nHost: x\r\nHost: y", ""),
        ("an empty host", "GET /health/live HTTP/1.1\r\nHost:", ""),
        ("two hosts, one in the target", "GET http://y/health/live HTTP/1.1\r\nHost: x", ""),
        (
            "two types",
            "POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Type: text/plain",
            "",
        ),
        ("another protocol", "GET /health/live HTTP/1.9", ""),
        ("no protocol", "GET /health/live", ""),
        ("a space in the target", "GET /health/live x HTTP/1.1\r\nHost: x", ""),
    ] {
        let request = format!("{head}\r\nConnection: close\r\n\r\n{body}");
        let answer = answer(app, request.as_bytes()).await;
        assert!(matches!(status(&answer), 0 | 400), "{what}: {answer}");
        assert!(answer.matches("HTTP/1.1 ").count() <= 1 && !answer.contains("smuggled"), "{what}: {answer}");
    }
    app.still_serves().await;
}

/// The coding counts then, and the length is as if it were not there (RFC 9112 section 6.3, rule 3).
#[tokio::test]
async fn input_06_a_length_beside_a_coding_is_not_a_second_reading() {
    let app = TestApp::shared();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let head = "POST /v1/orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    for both in ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 40"]
    {
        let answer = answer(app, format!("{head}{both}\r\n\r\n0\r\n\r\n{smuggled}").as_bytes()).await;
        assert_problem(&answer, 401, "unauthenticated", both);
    }
}

#[tokio::test]
async fn input_06_a_body_where_none_is_meant_is_no_second_request() {
    let app = TestApp::shared();
    let token = app.forge().token();
    for (method, framing) in [("GET", "Content-Length: 38\r\n"), ("GET", "Transfer-Encoding: chunked\r\n")] {
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: xyz\r\n\r\n\r";
        assert_eq!(smuggled.len(), 38);
        let body =
            if framing.starts_with('T') { format!("26\r\n{smuggled}\r\n0\r\n\r\n") } else { smuggled.to_owned() };
        let request = format!(
            "{method} /v1/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{framing}Connection: close\r\n\r\n{body}"
        );
        let answer = answer(app, request.as_bytes()).await;
        assert_problem(&answer, 400, "malformed_request", framing);
    }
    // On operations that change something too.
    let sales = app.user(Role::Sales);
    let path = format!("/v1/orders/{}/cancel", service::dev::demo::FIRST_ORDER);
    assert_eq!(sales.post(&path, &json!({})).await.problem(400), "malformed_request");
}

#[tokio::test]
async fn input_06_a_target_says_one_thing() {
    let app = TestApp::shared();
    for target in [
        "/v1/../health/live",
        "/v1/%2e%2e/health/live",
        "/health/./live",
        "//health/live",
        "/health%2flive",
        "/health%5clive",
        "/v1/products/%00",
        "/v1/products/%ff",
        "/v1/products/%c0%af",
        "/v1/products/%zz",
        "/v1/products/A%0d%0aX-Evil:%201",
        "/v1/orders?status=%ff",
        "/v1/orders?status=%",
        "/v1/orders?cursor=%00",
    ] {
        let answer =
            answer(app, format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert_problem(&answer, 400, "malformed_request", target);
    }
    for old in [
        "GET /health/live HTTP/1.0\r\n\r\n",
        "GET http://x:80/health/live HTTP/1.1\r\nHost: X\r\nConnection: close\r\n\r\n",
    ] {
        assert_eq!(status(&answer(app, old.as_bytes()).await.replace("HTTP/1.0", "HTTP/1.1")), 200, "{old}");
    }
    let same = "GET http://X/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&answer(app, same.as_bytes()).await), 200);
    let unknown = "GET /health/live/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_problem(&answer(app, unknown.as_bytes()).await, 404, "not_found", "a slash at the end");
}

#[tokio::test]
async fn input_04_heads_are_bounded() {
    let app = TestApp::shared();
    let request = |target: &str, header: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n").into_bytes()
    };
    let long = format!("/health/live?{}", "a".repeat(9_000));
    assert_problem(&answer(app, &request(&long, "")).await, 414, "uri_too_long", "a long target");
    let header = |bytes: usize| format!("X-A: {}\r\n", "a".repeat(bytes));
    let large = answer(app, &request("/health/live", &header(20_000))).await;
    assert_problem(&large, 431, "headers_too_large", "20 kB of headers");
    assert_eq!(status(&answer(app, &request("/health/live", &header(10_000))).await), 200);
    // Beyond this the service stops reading; it has no more than a status to say.
    let many = (0..100).map(|n| format!("X-{n}: a\r\n")).collect::<Vec<_>>().concat();
    for (what, head) in [("100 headers", many), ("10 MB of headers", header(10_000_000))] {
        let answer = answer(app, &request("/health/live", &head)).await;
        assert!(matches!(status(&answer), 0 | 431), "{what}: {answer}");
    }
    app.still_serves().await;
}

#[tokio::test]
async fn input_05_nothing_is_unpacked() {
    let app = TestApp::shared();
    let sales = app.user(Role::Sales);
    for coding in ["gzip", "deflate", "br", "zstd", "gzip, gzip"] {
        // A few bytes of gzip, as a bomb begins.
        let request = sales.request(http::Method::POST, "/v1/orders");
        let request = request.header("content-type", "application/json").header("content-encoding", coding);
        let reply = sales.send(request.body(&b"\x1f\x8b\x08\0\0\0\0\0"[..])).await;
        assert_eq!(reply.problem(415), "unsupported_media_type", "{coding}");
        assert_eq!(reply.header("accept-encoding"), Some("identity"));
    }
    // However many lines say it.
    let twice = sales.request(http::Method::POST, "/v1/orders").header("content-encoding", "identity");
    let twice = twice.header("content-encoding", "gzip").header("content-type", "application/json").body("{}");
    assert_eq!(sales.send(twice).await.problem(415), "unsupported_media_type");
}

/// RFC 9113 section 8.3.1: one that names two hosts is malformed in HTTP/2 too.
#[tokio::test]
async fn input_06_an_http_2_request_is_for_one_host() {
    let app = TestApp::shared();
    let client = reqwest::Client::builder().tls_certs_only([]).http2_prior_knowledge().build().unwrap();
    let ask = async |host: &str| {
        let request = client.get(format!("http://{}/health/live", app.address)).header("host", host);
        request.send().await.map(|reply| (reply.version(), reply.status().as_u16()))
    };
    assert_eq!(ask(&app.address.to_string()).await.unwrap(), (http::Version::HTTP_2, 200));
    assert_eq!(ask("elsewhere.example").await.unwrap(), (http::Version::HTTP_2, 400));
}

#[tokio::test]
async fn input_05_a_million_members_do_not_fit() {
    let app = TestApp::shared();
    let object = |members: u32| {
        let members: Vec<String> = (0..members).map(|n| format!("\"{n}\":0")).collect();
        format!("{{{}}}", members.join(","))
    };
    let body = object(1_000_000);
    let request = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        app.forge().token(),
        body.len()
    );
    // Whoever goes on sending to a closed connection may miss what was said.
    let answer = answer(app, request.as_bytes()).await;
    assert!(matches!(status(&answer), 0 | 413), "{answer}");
    // Of as many as fit no more than 256 are read.
    let reply = app.user(Role::Sales).post_raw("/v1/orders", "application/json", object(6_000)).await;
    assert_eq!(reply.problem(400), "malformed_request");
    // What is read is refused with one fault.
    let reply = app.user(Role::Sales).post_raw("/v1/orders", "application/json", object(256)).await;
    assert_eq!(reply.problem(400), "invalid_input");
    assert!(reply.faults().len() <= 3, "{:?}", reply.faults());
    app.still_serves().await;
}

#[tokio::test]
async fn input_06_text_is_brought_into_one_form_and_hides_nothing() {
    let app = TestApp::shared();
    let sales = app.user(Role::Sales);
    let add = async |name: &str| sales.post("/v1/customers", &json!({ "name": name, "email": "a@example.com" })).await;
    for (written, stored) in [
        ("  Zoe\u{308}  ", "Zo\u{eb}"),
        ("\u{212b}ngstrom", "\u{c5}ngstrom"),
        // A joiner that belongs to the language, and one that belongs to the picture.
        (
            "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}",
            "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}",
        ),
        ("\u{1f469}\u{200d}\u{1f467}", "\u{1f469}\u{200d}\u{1f467}"),
    ] {
        assert_eq!(add(written).await.ok(201)["name"], stored, "{written:?}");
    }
    for hidden in [
        "\u{202e}",
        "\u{3164}",
        "\u{2800}",
        "\u{34f}",
        "\u{2066}",
        "\u{200b}",
        "\u{200f}",
        "\u{feff}",
        "\u{ad}",
        "\u{2028}",
        "\u{e0041}",
        "\u{85}",
        "\u{7f}",
    ] {
        assert_eq!(add(&format!("A{hidden}B")).await.faults(), ["/name format"], "{hidden:?}");
    }
    for blank in ["\u{200d}", " \u{fe0f} ", "\u{200c}\u{200d}"] {
        assert_eq!(add(blank).await.faults(), ["/name format"], "{blank:?}");
    }
    // Half of a pair of surrogates is no character.
    let body = r#"{"name":"\ud800","email":"a@example.com"}"#;
    assert_eq!(sales.post_raw("/v1/customers", "application/json", body).await.problem(400), "malformed_request");
}

#[tokio::test]
async fn input_03_what_would_not_be_accepted_is_not_done() {
    let app = TestApp::shared();
    let sales = app.user(Role::Sales);
    let ask = async |actor: &Actor, path: &str, accept: &str| {
        actor.send(actor.request(http::Method::GET, path).header("accept", accept)).await
    };
    for accept in ["application/json", "application/*", "*/*", "text/html, */*;q=0.1"] {
        ask(&sales, "/v1/orders", accept).await.ok(200);
    }
    for accept in ["text/html", "application/xml", "*/*;q=0", "application/json;q=0, */*", "json"] {
        assert_eq!(ask(&sales, "/v1/orders", accept).await.problem(406), "not_acceptable", "{accept}");
    }
    // Probes and documents are for whoever asks.
    ask(&app.anonymous(), "/health/live", "text/plain").await.ok(200);
    ask(&app.anonymous(), "/docs", "text/html").await.ok(200);
    ask(&sales, "/v1/orders", "").await.ok(200);
    let order =
        json!({ "lines": [{ "sku": "PAPER-A4", "quantity": 1 }], "shippingSpeed": "standard", "note": "unwanted" });
    let request = sales.request(http::Method::POST, "/v1/orders").header("accept", "text/csv").json(&order);
    assert_eq!(sales.send(request).await.problem(406), "not_acceptable");
    let listed = sales.get("/v1/orders?limit=100").await.text;
    assert!(!listed.contains("unwanted"));
}
