//! Validation of requests (INPUT-01 to INPUT-08): fields and parameters, the published schema, body
//! types, sizes, encodings, and errors without internals.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use service::access::roles;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{MATRIX, SERVICE, order_body};

const JSON: &str = "application/json";

#[tokio::test]
async fn input_01_unknown_fields_are_rejected_and_not_echoed() {
    let app = SERVICE.shared();
    let sales = app.user(roles::SALES);
    let mut body = order_body("PAPER-A4", 2);
    body["surprise"] = json!(true);
    body["lines"][0]["price"] = json!(1);
    let reply = sales.post("/v1/orders", &body).await;
    assert_eq!(reply.problem(400), "invalid_input");
    assert_eq!(reply.faults(), ["/lines/0 unknown_field", " unknown_field"]);
    assert!(!reply.text.contains("surprise") && !reply.text.contains("price"), "{}", reply.text);
}

#[tokio::test]
async fn input_01_duplicate_json_keys_are_rejected() {
    let app = SERVICE.shared();
    let sales = app.user(roles::SALES);
    for body in [
        r#"{"lines":[{"sku":"PAPER-A4","quantity":1}],"shippingSpeed":"standard","shippingSpeed":"express"}"#,
        r#"{"lines":[{"sku":"PAPER-A4","quantity":1,"quantity":99}],"shippingSpeed":"standard"}"#,
        r#"{"lines":[{"sku":"PAPER-A4","quantity":1,"quantity":1}],"shippingSpeed":"standard"}"#,
    ] {
        assert_eq!(sales.post_raw("/v1/orders", JSON, body).await.problem(400), "malformed_request");
    }
}

#[tokio::test]
async fn input_01_unknown_and_repeated_query_parameters_are_rejected() {
    let app = SERVICE.shared();
    let viewer = app.user(roles::VIEWER);
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
async fn input_02_values_outside_the_schema_are_rejected_with_their_pointer() {
    let app = SERVICE.shared();
    let sales = app.user(roles::SALES);
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

/// Collects the schemas without bounds. A text needs a maximum length and a form, a number a
/// minimum and a maximum, a list a maximum length.
fn collect_unbounded(at: &str, schema: &Value, found: &mut Vec<String>) {
    let has = |names: &[&str]| names.iter().any(|name| !schema[*name].is_null());
    // A nullable schema has two types.
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    let is_bounded = match kind {
        Some("string") => has(&["enum"]) || has(&["maxLength"]) && has(&["pattern", "format"]),
        Some("integer" | "number") => has(&["minimum"]) && has(&["maximum"]),
        Some("array") => has(&["maxItems"]),
        _ => true,
    };
    if !is_bounded {
        found.push(at.to_owned());
    }
    match schema {
        Value::Object(members) => {
            // Examples are not schemas.
            let members = members.iter().filter(|(name, _)| !["example", "examples"].contains(&name.as_str()));
            members.for_each(|(name, member)| collect_unbounded(&format!("{at}/{name}"), member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_unbounded(&format!("{at}/-"), item, found)),
        _ => {}
    }
}

#[test]
fn input_02_every_text_number_and_list_of_the_document_is_bounded() {
    let document = service::app().document().render(&MATRIX, "https://login.example.com", "https://api.example.com");
    let mut found = Vec::new();
    collect_unbounded("", &document, &mut found);
    assert!(
        found.is_empty(),
        "without bounds: {found:#?}\nA text is a `Text<formats::…>` of crates/palisade/src/http/text; a number has `minimum` and \
         `maximum`, a list `max_items`."
    );
    found.clear();
    let lacking = json!([{ "type": "string", "maxLength": 9 }, { "type": ["string", "null"], "pattern": "^a$" },
        { "type": "integer", "minimum": 1 }, { "type": "array", "items": { "type": "string" } }]);
    collect_unbounded("", &lacking, &mut found);
    assert_eq!(found, ["/-", "/-", "/-", "/-", "/-/items"]);
}

/// In JSON Schema, an integer is any number without a fraction (draft 2020-12, section 6.1.1).
#[tokio::test]
async fn input_02_numbers_without_fraction_are_integers() {
    let app = SERVICE.shared();
    let integer = r#"{"lines":[{"sku":"PAPER-A4","quantity":3.0}],"shippingSpeed":"standard"}"#;
    let order = app.user(roles::SALES).post_raw("/v1/orders", "application/json", integer).await.ok(201);
    assert_eq!(order["lines"][0]["quantity"], 3);
    let fraction = r#"{"lines":[{"sku":"PAPER-A4","quantity":3.5}],"shippingSpeed":"standard"}"#;
    let reply = app.user(roles::SALES).post_raw("/v1/orders", "application/json", fraction).await;
    assert_eq!(
        (reply.problem(400), reply.faults()),
        ("invalid_input", vec!["/lines/0/quantity wrong_type".to_owned()])
    );
}

#[tokio::test]
async fn input_02_duplicate_skus_in_an_order_are_rejected() {
    let app = SERVICE.shared();
    let body = json!({
        "lines": [{ "sku": "PAPER-A4", "quantity": 1 }, { "sku": "paper-a4", "quantity": 1 }],
        "shippingSpeed": "standard",
    });
    let reply = app.user(roles::SALES).post("/v1/orders", &body).await;
    assert_eq!(reply.problem(422), "unprocessable");
    assert_eq!(reply.faults(), ["/lines/1/sku duplicate"]);
}

#[tokio::test]
async fn input_03_bodies_other_than_json_in_utf_8_are_rejected() {
    let app = SERVICE.shared();
    let sales = app.user(roles::SALES);
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
        let reply = sales.post_raw("/v1/orders", content_type, order_body("PAPER-A4", 2).to_string()).await;
        assert_eq!(reply.problem(415), "unsupported_media_type", "{content_type:?}");
    }
    let without_type = sales.request(Method::POST, "/v1/orders").body(order_body("PAPER-A4", 2).to_string());
    assert_eq!(sales.send(without_type).await.problem(415), "unsupported_media_type");
    for content_type in ["application/json; charset=utf-8", "Application/JSON;charset=\"UTF-8\""] {
        sales.post_raw("/v1/orders", content_type, order_body("PAPER-A4", 2).to_string()).await.ok(201);
    }
}

#[tokio::test]
async fn input_04_long_bodies_are_rejected_with_or_without_a_length() {
    let app = SERVICE.shared();
    let sales = app.user(roles::SALES);
    let with_length = sales.post_raw("/v1/orders", JSON, " ".repeat(65_537)).await;
    assert_eq!(with_length.problem(413), "payload_too_large");

    // A chunked body announces no length, so the received bytes count.
    let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
    let token = app.forge().token();
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: {JSON}\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 8192, " ".repeat(8192));
    for _ in 0..9 {
        // The service may respond and close before all is sent.
        if socket.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    let mut response = String::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), socket.read_to_string(&mut response)).await;
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
    assert!(response.contains("payload_too_large"), "{response}");
}

#[tokio::test]
async fn input_04_stalled_body_times_out() {
    let app = SERVICE.start_with(&[("APP_HTTP__BODY_TIMEOUT_MS", "200")]).await;
    let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
    let token = app.forge().token();
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: {JSON}\r\n\
         Content-Length: 100\r\nConnection: close\r\n\r\n{{"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut response = String::new();
    tokio::time::timeout(Duration::from_secs(5), socket.read_to_string(&mut response)).await.unwrap().unwrap();
    assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
}

#[tokio::test]
async fn input_05_depth_and_breadth_of_json_are_limited() {
    let app = SERVICE.shared();
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let items = |items| format!("[{}]", vec!["0"; items].join(","));
    for (body, code) in [
        (nested(16), "invalid_input"),
        (nested(17), "malformed_request"),
        (nested(20_000), "malformed_request"),
        (items(256), "invalid_input"),
        (items(257), "malformed_request"),
    ] {
        let reply = app.user(roles::SALES).post_raw("/v1/orders", JSON, body.clone()).await;
        assert_eq!(reply.problem(400), code, "{body:.300}");
    }
}

#[tokio::test]
async fn input_06_invalid_utf_8_and_control_characters_are_rejected() {
    let app = SERVICE.shared();
    let sales = app.user(roles::SALES);
    let mut bytes = order_body("PAPER-A4", 2).to_string().into_bytes();
    let at = bytes.iter().position(|b| *b == b'P').unwrap();
    bytes[at] = 0xff;
    assert_eq!(sales.post_raw("/v1/orders", JSON, bytes).await.problem(400), "malformed_request");
    let two_values = format!("{} {{}}", order_body("PAPER-A4", 2));
    assert_eq!(sales.post_raw("/v1/orders", JSON, two_values).await.problem(400), "malformed_request");
    for note in ["a\u{0}b", "a\u{1b}[31mb", "a\rb", " "] {
        let mut body = order_body("PAPER-A4", 2);
        body["note"] = json!(note);
        assert_eq!(sales.post("/v1/orders", &body).await.faults(), ["/note format"], "{note:?}");
    }
}

#[tokio::test]
async fn input_07_metacharacters_are_stored_and_returned_as_data() {
    let app = SERVICE.shared();
    let sales = app.user(roles::SALES);
    for note in [
        "'; drop table orders; --",
        "$(reboot)",
        "{{7*7}}",
        "<script>alert(1)</script>",
        "../../etc/passwd",
        "%0d%0aX: y",
    ] {
        let mut body = order_body("PAPER-A4", 2);
        body["note"] = json!(note);
        let order = sales.post("/v1/orders", &body).await.ok(201);
        let read = sales.get(&format!("/v1/orders/{}", order["id"].as_str().unwrap())).await.ok(200);
        assert_eq!(read["note"], note);
    }
}

#[tokio::test]
async fn input_08_errors_are_problems_without_internals() {
    let app = SERVICE.shared();
    let sales = app.user(roles::SALES);
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
        // A 405 names the allowed methods (RFC 9110 section 15.5.6).
        let allow =
            (status == 405).then(|| if reply.body["instance"] == "/v1/orders" { "POST, GET, HEAD" } else { "POST" });
        assert_eq!(reply.header("allow"), allow);
        for internal in ["serde", "poem", "sqlx", "expected", "line 1", "column", "src/", "panicked", "ninety"] {
            assert!(!reply.text.contains(internal), "{internal} in {}", reply.text);
        }
        assert_eq!(reply.header("server"), None);
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("content-security-policy"), Some("default-src 'none'; frame-ancestors 'none'"));
    }
}
