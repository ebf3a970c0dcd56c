//! Hostile until parsed.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use service::authz::policy::Role;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::TestApp;

const JSON: &str = "application/json";

fn an_order() -> Value {
    json!({ "lines": [{ "sku": "PAPER-A4", "quantity": 2 }], "shippingSpeed": "standard" })
}

#[tokio::test]
async fn input_01_an_unknown_field_is_refused_and_not_repeated() {
    let app = TestApp::shared();
    let sales = app.user(Role::Sales);
    let mut body = an_order();
    body["surprise"] = json!(true);
    body["lines"][0]["price"] = json!(1);
    let reply = sales.post("/v1/orders", &body).await;
    assert_eq!(reply.problem(400), "invalid_input");
    assert_eq!(reply.faults(), ["/lines/0 unknown_field", " unknown_field"]);
    assert!(!reply.text.contains("surprise") && !reply.text.contains("price"), "{}", reply.text);
}

#[tokio::test]
async fn input_01_a_key_given_twice_is_refused() {
    let app = TestApp::shared();
    let sales = app.user(Role::Sales);
    for body in [
        r#"{"lines":[{"sku":"PAPER-A4","quantity":1}],"shippingSpeed":"standard","shippingSpeed":"express"}"#,
        r#"{"lines":[{"sku":"PAPER-A4","quantity":1,"quantity":99}],"shippingSpeed":"standard"}"#,
    ] {
        assert_eq!(sales.post_raw("/v1/orders", JSON, body).await.problem(400), "malformed_request");
    }
}

#[tokio::test]
async fn input_01_unknown_and_repeated_query_parameters_are_refused() {
    let app = TestApp::shared();
    let viewer = app.user(Role::Viewer);
    for (path, fault) in [
        ("/v1/orders?tenant=globex", " unknown_parameter"),
        ("/v1/orders?Limit=5", " unknown_parameter"),
        ("/v1/orders?limit=5&limit=6", "limit repeated_parameter"),
        ("/v1/me?x", " unknown_parameter"),
        ("/health/live?x=1", " unknown_parameter"),
    ] {
        let reply = viewer.get(path).await;
        assert_eq!(reply.problem(400), "invalid_input", "{path}");
        assert_eq!(reply.faults(), [fault], "{path}");
    }
}

#[tokio::test]
async fn input_02_values_outside_the_schema_are_refused_with_their_place() {
    let app = TestApp::shared();
    let sales = app.user(Role::Sales);
    let line = |sku: &str, quantity: Value| json!({ "lines": [{ "sku": sku, "quantity": quantity }], "shippingSpeed": "standard" });
    let cases = [
        (json!({}), vec!["/lines required", "/shippingSpeed required"]),
        (json!([]), vec![" wrong_type"]),
        (json!("x"), vec![" wrong_type"]),
        (json!({ "lines": [], "shippingSpeed": "standard" }), vec!["/lines too_few"]),
        (json!({ "lines": null, "shippingSpeed": "standard" }), vec!["/lines wrong_type"]),
        (json!({ "lines": vec![json!({}); 51], "shippingSpeed": "standard" }), vec!["/lines too_many"]),
        (line("PAPER-A4", json!(0)), vec!["/lines/0/quantity too_small"]),
        (line("PAPER-A4", json!(101)), vec!["/lines/0/quantity too_large"]),
        (line("PAPER-A4", json!(-1)), vec!["/lines/0/quantity too_small"]),
        (line("PAPER-A4", json!(1.5)), vec!["/lines/0/quantity wrong_type"]),
        (line("PAPER-A4", json!("1")), vec!["/lines/0/quantity wrong_type"]),
        (line("PAPER-A4", json!(u64::MAX)), vec!["/lines/0/quantity wrong_type"]),
        (line("ab", json!(1)), vec!["/lines/0/sku too_short"]),
        (line(&"A".repeat(65), json!(1)), vec!["/lines/0/sku too_long"]),
        (line("PAPER A4", json!(1)), vec!["/lines/0/sku format"]),
        (line("PAPER-A4\n", json!(1)), vec!["/lines/0/sku format"]),
        (
            json!({ "lines": [{ "sku": "PAPER-A4", "quantity": 1 }], "shippingSpeed": "warp" }),
            vec!["/shippingSpeed not_allowed"],
        ),
    ];
    for (body, faults) in cases {
        let reply = sales.post("/v1/orders", &body).await;
        assert_eq!(reply.problem(400), "invalid_input", "{body}");
        assert_eq!(reply.faults(), faults, "{body}");
    }
    for path in [
        "/v1/orders?limit=0",
        "/v1/orders?limit=101",
        "/v1/orders?limit=x",
        "/v1/orders?limit=",
        "/v1/orders/1",
        "/v1/orders?cursor=AAAA",
        "/v1/orders?createdFrom=2026-11-24",
        "/v1/customers?email=nobody",
        "/v1/products/A_1",
        "/v1/orders/0190a0010000700080000000000000001",
    ] {
        assert_eq!(sales.get(path).await.problem(400), "invalid_input", "{path}");
    }
}

/// What a schema of the document lacks. A text is bounded and has a form, a number has two ends, a list has one.
fn unbounded(at: &str, schema: &Value, found: &mut Vec<String>) {
    let has = |names: &[&str]| names.iter().any(|name| !schema[*name].is_null());
    // What may be null has two types.
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    let sound = match kind {
        Some("string") => has(&["enum"]) || has(&["maxLength"]) && has(&["pattern", "format"]),
        Some("integer" | "number") => has(&["minimum"]) && has(&["maximum"]),
        Some("array") => has(&["maxItems"]),
        _ => true,
    };
    if !sound {
        found.push(at.to_owned());
    }
    match schema {
        Value::Object(members) => {
            // Examples are no schemas.
            let members = members.iter().filter(|(name, _)| !["example", "examples"].contains(&name.as_str()));
            members.for_each(|(name, member)| unbounded(&format!("{at}/{name}"), member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| unbounded(&format!("{at}/-"), item, found)),
        _ => {}
    }
}

#[test]
fn input_02_every_text_number_and_list_of_the_document_is_bounded() {
    let document = service::api::document("https://login.example.com", "https://api.example.com");
    let mut found = Vec::new();
    unbounded("", &document, &mut found);
    assert!(
        found.is_empty(),
        "without bounds: {found:#?}\nA text is a `Text<form::…>` of src/api/text; a number has `minimum` and `maximum`, a list \
         `max_items`."
    );
    found.clear();
    let lacking = json!([{ "type": "string", "maxLength": 9 }, { "type": ["string", "null"], "pattern": "^a$" },
        { "type": "integer", "minimum": 1 }, { "type": "array", "items": { "type": "string" } }]);
    unbounded("", &lacking, &mut found);
    assert_eq!(found, ["/-", "/-", "/-", "/-", "/-/items"]);
}

/// As the document's dialect has it: an integer is a number without a fraction, however it is written.
#[tokio::test]
async fn input_02_a_whole_number_is_an_integer() {
    let app = TestApp::shared();
    let whole = r#"{"lines":[{"sku":"PAPER-A4","quantity":3.0}],"shippingSpeed":"standard"}"#;
    let order = app.user(Role::Sales).post_raw("/v1/orders", "application/json", whole).await.ok(201);
    assert_eq!(order["lines"][0]["quantity"], 3);
    let half = r#"{"lines":[{"sku":"PAPER-A4","quantity":3.5}],"shippingSpeed":"standard"}"#;
    let half = app.user(Role::Sales).post_raw("/v1/orders", "application/json", half).await;
    assert_eq!((half.problem(400), half.faults()), ("invalid_input", vec!["/lines/0/quantity wrong_type".to_owned()]));
}

#[tokio::test]
async fn input_02_a_sku_stands_in_one_line_only() {
    let app = TestApp::shared();
    let body = json!({
        "lines": [{ "sku": "PAPER-A4", "quantity": 1 }, { "sku": "paper-a4", "quantity": 1 }],
        "shippingSpeed": "standard",
    });
    let reply = app.user(Role::Sales).post("/v1/orders", &body).await;
    assert_eq!(reply.problem(422), "unprocessable");
    assert_eq!(reply.faults(), ["/lines/1/sku duplicate"]);
}

#[tokio::test]
async fn input_03_only_json_in_utf_8_is_a_body() {
    let app = TestApp::shared();
    let sales = app.user(Role::Sales);
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/json; charset=iso-8859-1",
        "application/json; boundary=x",
        "application/jsonx",
        "application/problem+json",
        "",
    ] {
        let reply = sales.post_raw("/v1/orders", content_type, an_order().to_string()).await;
        assert_eq!(reply.problem(415), "unsupported_media_type", "{content_type:?}");
    }
    let none = sales.request(Method::POST, "/v1/orders").body(an_order().to_string());
    assert_eq!(sales.send(none).await.problem(415), "unsupported_media_type");
    for content_type in ["application/json; charset=utf-8", "Application/JSON;charset=\"UTF-8\""] {
        sales.post_raw("/v1/orders", content_type, an_order().to_string()).await.ok(201);
    }
}

#[tokio::test]
async fn input_04_an_over_long_body_is_refused_announced_or_not() {
    let app = TestApp::shared();
    let sales = app.user(Role::Sales);
    let announced = sales.post_raw("/v1/orders", JSON, " ".repeat(65_537)).await;
    assert_eq!(announced.problem(413), "payload_too_large");

    // Chunked: no length is announced, so it is the bytes themselves that count.
    let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
    let token = app.forge().token();
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: {JSON}\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 8192, " ".repeat(8192));
    for _ in 0..9 {
        // The service may answer and close before all is sent.
        if socket.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    let mut answer = String::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), socket.read_to_string(&mut answer)).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("payload_too_large"), "{answer}");
}

#[tokio::test]
async fn input_04_a_body_that_stalls_is_given_up_on() {
    let app = TestApp::start_with(&[("APP_HTTP__BODY_TIMEOUT_MS", "200")]).await;
    let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
    let token = app.forge().token();
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: {JSON}\r\n\
         Content-Length: 100\r\nConnection: close\r\n\r\n{{"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(5), socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn input_05_deep_json_is_refused() {
    let app = TestApp::shared();
    let body = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    assert_eq!(app.user(Role::Sales).post_raw("/v1/orders", JSON, body).await.problem(400), "malformed_request");
}

#[tokio::test]
async fn input_06_what_is_not_utf_8_or_hides_control_characters_is_refused() {
    let app = TestApp::shared();
    let sales = app.user(Role::Sales);
    let mut bytes = an_order().to_string().into_bytes();
    let at = bytes.iter().position(|b| *b == b'P').unwrap();
    bytes[at] = 0xff;
    assert_eq!(sales.post_raw("/v1/orders", JSON, bytes).await.problem(400), "malformed_request");
    for note in ["a\u{0}b", "a\u{1b}[31mb", "a\rb", " "] {
        let mut body = an_order();
        body["note"] = json!(note);
        assert_eq!(sales.post("/v1/orders", &body).await.faults(), ["/note format"], "{note:?}");
    }
}

#[tokio::test]
async fn input_07_metacharacters_are_data() {
    let app = TestApp::shared();
    let sales = app.user(Role::Sales);
    for note in [
        "'; drop table orders; --",
        "$(reboot)",
        "{{7*7}}",
        "<script>alert(1)</script>",
        "../../etc/passwd",
        "%0d%0aX: y",
    ] {
        let mut body = an_order();
        body["note"] = json!(note);
        let order = sales.post("/v1/orders", &body).await.ok(201);
        let read = sales.get(&format!("/v1/orders/{}", order["id"].as_str().unwrap())).await.ok(200);
        assert_eq!(read["note"], note);
    }
}

#[tokio::test]
async fn input_08_every_error_is_a_problem_that_says_nothing_of_the_inside() {
    let app = TestApp::shared();
    let sales = app.user(Role::Sales);
    let replies = [
        (400, sales.post_raw("/v1/orders", JSON, "{").await),
        (400, sales.get("/v1/orders?limit=ninety").await),
        (401, app.anonymous().get("/v1/me").await),
        (404, sales.get("/no/such/path").await),
        (404, sales.get("/v1/products/NO-SUCH-SKU").await),
        (405, sales.send(sales.request(Method::DELETE, "/v1/orders")).await),
        (405, sales.send(sales.request(Method::TRACE, "/v1/orders/1/cancel")).await),
        (415, sales.post_raw("/v1/orders", "text/plain", "x").await),
    ];
    for (status, reply) in replies {
        reply.problem(status);
        // What there is instead (RFC 9110 section 15.5.6).
        let allow =
            (status == 405).then(|| if reply.body["instance"] == "/v1/orders" { "POST, GET, HEAD" } else { "POST" });
        assert_eq!(reply.header("allow"), allow);
        for inside in ["serde", "poem", "sqlx", "expected", "line 1", "column", "src/", "panicked", "ninety"] {
            assert!(!reply.text.contains(inside), "{inside} in {}", reply.text);
        }
        assert_eq!(reply.header("server"), None);
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("content-security-policy"), Some("default-src 'none'; frame-ancestors 'none'"));
    }
}
