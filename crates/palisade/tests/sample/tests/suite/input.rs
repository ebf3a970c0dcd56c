//! Validation of requests (INPUT-01 to INPUT-08): fields and parameters, body types, sizes, encodings, and errors without internals.

use std::time::Duration;

use http::Method;
use sample::access::roles;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{SERVICE, id, note_body};

const JSON: &str = "application/json";

#[tokio::test]
async fn input_01_unknown_fields_are_rejected_and_not_echoed() {
    let app = SERVICE.shared();
    let writer = app.user(roles::WRITER);
    let mut body = note_body("PAPER-A4", 2);
    body["surprise"] = json!(true);
    body["items"][0]["price"] = json!(1);
    let reply = writer.post("/v1/notes", &body).await;
    assert_eq!(reply.problem(400), "invalid_input");
    assert_eq!(reply.faults(), ["/items/0 unknown_field", " unknown_field"]);
    assert!(!reply.text.contains("surprise") && !reply.text.contains("price"), "{}", reply.text);
}

#[tokio::test]
async fn input_01_duplicate_json_keys_are_rejected() {
    let app = SERVICE.shared();
    let writer = app.user(roles::WRITER);
    for body in [
        r#"{"items":[{"code":"PAPER-A4","count":1}],"priority":"standard","priority":"express"}"#,
        r#"{"items":[{"code":"PAPER-A4","count":1,"count":99}],"priority":"standard"}"#,
        r#"{"items":[{"code":"PAPER-A4","count":1,"count":1}],"priority":"standard"}"#,
    ] {
        assert_eq!(writer.post_raw("/v1/notes", JSON, body).await.problem(400), "malformed_request");
    }
}

#[tokio::test]
async fn input_01_unknown_and_repeated_query_parameters_are_rejected() {
    let app = SERVICE.shared();
    let viewer = app.user(roles::VIEWER);
    for (path, fault) in [
        ("/v1/notes?tenant=globex", " unknown_parameter"),
        ("/v1/notes?Limit=5", " unknown_parameter"),
        ("/v1/notes?limit=5&limit=6", "limit repeated_parameter"),
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
    let writer = app.user(roles::WRITER);
    let item =
        |code: &str, count: Value| json!({ "items": [{ "code": code, "count": count }], "priority": "standard" });
    let cases = [
        (json!({}), vec!["/items required", "/priority required"]),
        (json!([]), vec![" wrong_type"]),
        (json!("x"), vec![" wrong_type"]),
        (json!({ "items": [], "priority": "standard" }), vec!["/items too_few"]),
        (json!({ "items": null, "priority": "standard" }), vec!["/items wrong_type"]),
        (json!({ "items": vec![json!({}); 51], "priority": "standard" }), vec!["/items too_many"]),
        (item("PAPER-A4", json!(0)), vec!["/items/0/count too_small"]),
        (item("PAPER-A4", json!(1001)), vec!["/items/0/count too_large"]),
        (item("PAPER-A4", json!(-1)), vec!["/items/0/count too_small"]),
        (item("PAPER-A4", json!(1.5)), vec!["/items/0/count wrong_type"]),
        (item("PAPER-A4", json!("1")), vec!["/items/0/count wrong_type"]),
        (item("PAPER-A4", json!(u64::MAX)), vec!["/items/0/count wrong_type"]),
        (item("ab", json!(1)), vec!["/items/0/code too_short"]),
        (item(&"A".repeat(65), json!(1)), vec!["/items/0/code too_long"]),
        (item("PAPER A4", json!(1)), vec!["/items/0/code format"]),
        (item("PAPER-A4\n", json!(1)), vec!["/items/0/code format"]),
        (json!({ "items": [{ "code": "PAPER-A4", "count": 1 }], "priority": "warp" }), vec!["/priority not_allowed"]),
    ];
    for (body, faults) in cases {
        let reply = writer.post("/v1/notes", &body).await;
        assert_eq!(reply.problem(400), "invalid_input", "{body}");
        assert_eq!(reply.faults(), faults, "{body}");
    }
    let admin = app.user(roles::ADMIN);
    for path in [
        "/v1/notes?limit=0",
        "/v1/notes?limit=101",
        "/v1/notes?limit=x",
        "/v1/notes?limit=",
        "/v1/notes/1",
        "/v1/notes?cursor=AAAA",
        "/v1/audit-events?from=2026-11-24",
        "/v1/items/A_1",
        "/v1/notes/0190a0010000700080000000000000001",
    ] {
        assert_eq!(admin.get(path).await.problem(400), "invalid_input", "{path}");
    }
}

/// In JSON Schema, an integer is any number without a fraction (draft 2020-12, section 6.1.1).
#[tokio::test]
async fn input_02_numbers_without_fraction_are_integers() {
    let app = SERVICE.shared();
    let integer = r#"{"items":[{"code":"PAPER-A4","count":3.0}],"priority":"standard"}"#;
    let note = app.user(roles::WRITER).post_raw("/v1/notes", "application/json", integer).await.ok(201);
    assert_eq!(note["items"][0]["count"], 3);
    let fraction = r#"{"items":[{"code":"PAPER-A4","count":3.5}],"priority":"standard"}"#;
    let reply = app.user(roles::WRITER).post_raw("/v1/notes", "application/json", fraction).await;
    assert_eq!((reply.problem(400), reply.faults()), ("invalid_input", vec!["/items/0/count wrong_type".to_owned()]));
}

/// RFC 7396, and RFC 5789 section 2.2.
#[tokio::test]
async fn input_03_patch_takes_a_merge_patch_and_says_so() {
    let app = SERVICE.shared();
    let writer = app.user(roles::WRITER);
    let path = format!("/v1/notes/{}", id(&writer.post("/v1/notes", &note_body("PAPER-A4", 2)).await.ok(201)));
    let send = async |method: Method, path: &str, content_type: &str| {
        writer.send(writer.request(method, path).header("content-type", content_type).body("{}")).await
    };
    for content_type in
        ["application/json", "application/merge-patch+json", "Application/Merge-Patch+JSON; charset=utf-8;"]
    {
        send(Method::PATCH, &path, content_type).await.ok(200);
    }
    for content_type in ["application/merge-patch+json; charset=latin1", "application/json-patch+json", "text/plain"] {
        let reply = send(Method::PATCH, &path, content_type).await;
        assert_eq!(reply.problem(415), "unsupported_media_type", "{content_type}");
        assert_eq!(reply.header("accept-patch"), Some("application/merge-patch+json, application/json"));
    }
    let reply = send(Method::POST, "/v1/notes", "application/merge-patch+json").await;
    assert_eq!((reply.problem(415), reply.header("accept-post")), ("unsupported_media_type", Some("application/json")));
}

#[tokio::test]
async fn input_03_bodies_other_than_json_in_utf_8_are_rejected() {
    let app = SERVICE.shared();
    let writer = app.user(roles::WRITER);
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/json; charset=iso-8859-1",
        "application/json; boundary=x",
        "application/json; charset=",
        "application/json; charset=\"utf-8",
        "application/json; charset=utf-8; charset=utf-16",
        "application/merge-patch+json",
        "application/jsonx",
        "application/problem+json",
        "",
    ] {
        let reply = writer.post_raw("/v1/notes", content_type, note_body("PAPER-A4", 2).to_string()).await;
        assert_eq!(reply.problem(415), "unsupported_media_type", "{content_type:?}");
    }
    let without_type = writer.request(Method::POST, "/v1/notes").body(note_body("PAPER-A4", 2).to_string());
    assert_eq!(writer.send(without_type).await.problem(415), "unsupported_media_type");
    for content_type in [
        "application/json; charset=utf-8",
        "Application/JSON;charset=\"UTF-8\"",
        "application/json;",
        "application/json ; ;charset=UTF-8;",
        "application/json; charset=utf8",
        "application/json;charset=\"utf8\"; charset=utf-8",
    ] {
        writer.post_raw("/v1/notes", content_type, note_body("PAPER-A4", 2).to_string()).await.ok(201);
    }
}

#[tokio::test]
async fn input_04_long_bodies_are_rejected_with_or_without_a_length() {
    let app = SERVICE.shared();
    let writer = app.user(roles::WRITER);
    let with_length = writer.post_raw("/v1/notes", JSON, " ".repeat(65_537)).await;
    assert_eq!(with_length.problem(413), "payload_too_large");

    // A chunked body announces no length, so the received bytes count.
    let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
    let token = app.forge().token();
    let head = format!(
        "POST /v1/notes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: {JSON}\r\n\
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
    let _ = tokio::time::timeout(Duration::from_secs(10), socket.read_to_string(&mut response)).await;
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
    assert!(response.contains("payload_too_large"), "{response}");
}

#[tokio::test]
async fn input_04_stalled_body_times_out() {
    let app = SERVICE.start_with(&[("APP_HTTP__BODY_TIMEOUT_MS", "200")]).await;
    let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
    let token = app.forge().token();
    let head = format!(
        "POST /v1/notes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: {JSON}\r\n\
         Content-Length: 100\r\nConnection: close\r\n\r\n{{"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut response = String::new();
    tokio::time::timeout(Duration::from_secs(10), socket.read_to_string(&mut response)).await.unwrap().unwrap();
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
        let reply = app.user(roles::WRITER).post_raw("/v1/notes", JSON, body.clone()).await;
        assert_eq!(reply.problem(400), code, "{body:.300}");
    }
}

#[tokio::test]
async fn input_06_invalid_utf_8_and_control_characters_are_rejected() {
    let app = SERVICE.shared();
    let writer = app.user(roles::WRITER);
    let mut bytes = note_body("PAPER-A4", 2).to_string().into_bytes();
    let at = bytes.iter().position(|b| *b == b'P').unwrap();
    bytes[at] = 0xff;
    assert_eq!(writer.post_raw("/v1/notes", JSON, bytes).await.problem(400), "malformed_request");
    let two_values = format!("{} {{}}", note_body("PAPER-A4", 2));
    assert_eq!(writer.post_raw("/v1/notes", JSON, two_values).await.problem(400), "malformed_request");
    for remark in ["a\u{0}b", "a\u{1b}[31mb", "a\rb", " "] {
        let mut body = note_body("PAPER-A4", 2);
        body["remark"] = json!(remark);
        assert_eq!(writer.post("/v1/notes", &body).await.faults(), ["/remark format"], "{remark:?}");
    }
}

#[tokio::test]
async fn input_07_metacharacters_are_stored_and_returned_as_data() {
    let app = SERVICE.shared();
    let writer = app.user(roles::WRITER);
    for remark in [
        "'; drop table notes; --",
        "$(reboot)",
        "{{7*7}}",
        "<script>alert(1)</script>",
        "../../etc/passwd",
        "%0d%0aX: y",
    ] {
        let mut body = note_body("PAPER-A4", 2);
        body["remark"] = json!(remark);
        let note = writer.post("/v1/notes", &body).await.ok(201);
        let read = writer.get(&format!("/v1/notes/{}", note["id"].as_str().unwrap())).await.ok(200);
        assert_eq!(read["remark"], remark);
    }
}

#[tokio::test]
async fn input_08_errors_are_problems_without_internals() {
    let app = SERVICE.shared();
    let writer = app.user(roles::WRITER);
    let replies = [
        (400, writer.post_raw("/v1/notes", JSON, "{").await),
        (400, writer.get("/v1/notes?limit=ninety").await),
        (401, app.anonymous().get("/v1/me").await),
        (404, writer.get("/no/such/path").await),
        (404, writer.get("/v1/items/NO-SUCH-SKU").await),
        (405, writer.send(writer.request(Method::DELETE, "/v1/notes")).await),
        (405, writer.send(writer.request(Method::TRACE, "/v1/notes/1/archive")).await),
        (415, writer.post_raw("/v1/notes", "text/plain", "x").await),
    ];
    for (status, reply) in replies {
        reply.problem(status);
        // A 405 names the allowed methods (RFC 9110 section 15.5.6).
        let allow =
            (status == 405).then(|| if reply.body["instance"] == "/v1/notes" { "GET, HEAD, POST" } else { "POST" });
        assert_eq!(reply.header("allow"), allow);
        for internal in ["serde", "poem", "sqlx", "expected", "line 1", "column", "src/", "panicked", "ninety"] {
            assert!(!reply.text.contains(internal), "{internal} in {}", reply.text);
        }
        assert_eq!(reply.header("server"), None);
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(
            reply.header("content-security-policy"),
            Some("default-src 'none'; base-uri 'none'; frame-ancestors 'none'")
        );
    }
}

/// A client that sends such a header relies on it, so it is not ignored.
#[tokio::test]
async fn input_10_conditions_on_versions_are_refused() {
    let app = SERVICE.shared();
    let admin = app.user(roles::ADMIN);
    let path = format!("/v1/notes/{}", sample::demo::FIRST_NOTE);
    let now = "Mon, 30 Nov 2026 12:00:00 GMT";
    for (name, value) in [("If-Match", "\"stale\""), ("If-None-Match", "*"), ("If-Unmodified-Since", now)] {
        let note = note_body("PAPER-A4", 1);
        for request in [
            admin.request(Method::PATCH, &path).json(&json!({ "remark": "conditional" })),
            admin.request(Method::POST, "/v1/notes").json(&note),
            admin.request(Method::DELETE, &path),
        ] {
            let reply = admin.send(request.header(name, value)).await;
            assert_eq!(reply.problem(400), "invalid_input", "{name}");
            assert_eq!(reply.faults(), [format!("{name} not_supported")]);
        }
        // A read without versions has no condition to fail.
        admin.send(admin.request(Method::GET, &path).header("If-None-Match", "\"x\"")).await.ok(200);
    }
    assert_ne!(admin.get(&path).await.ok(200)["remark"], "conditional");
    // A search reads, but it is a POST, whose condition could fail.
    let search = admin.request(Method::POST, "/v1/notes/search").json(&json!({ "email": "a@example.com" }));
    assert_eq!(admin.send(search.header("If-None-Match", "\"x\"")).await.faults(), ["If-None-Match not_supported"]);
}
