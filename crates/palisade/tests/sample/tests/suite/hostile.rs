//! Malformed and ambiguous HTTP over raw sockets: request smuggling and targets (INPUT-06), sizes
//! (INPUT-04, INPUT-05), and content negotiation (INPUT-03). Each request gets a stated status or a
//! closed connection, and the service keeps serving.

use http::Method;
use sample::access::roles;
use serde_json::json;

use crate::support::{Actor, SERVICE, assert_problem, note_body, send_raw, status};

#[tokio::test]
async fn input_06_ambiguous_requests_are_rejected() {
    let app = SERVICE.shared();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for (case, head, body) in [
        ("two lengths", "POST /v1/notes HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 38", smuggled),
        ("a list of lengths", "POST /v1/notes HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 38", smuggled),
        ("a signed length", "POST /v1/notes HTTP/1.1\r\nHost: x\r\nContent-Length: +4", "0\r\n\r\n"),
        ("another coding", "POST /v1/notes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked", "0\r\n\r\n"),
        (
            "a coding after chunked",
            "POST /v1/notes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity",
            "0\r\n\r\n",
        ),
        (
            "two codings",
            "POST /v1/notes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked",
            "0\r\n\r\n",
        ),
        ("chunked in HTTP/1.0", "POST /v1/notes HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
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
            "POST /v1/notes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked",
            "0\r\n\r\n",
        ),
        ("two hosts", "GET /health/live HTTP/1.1\r\nHost: x\r\nHost: y", ""),
        ("an empty host", "GET /health/live HTTP/1.1\r\nHost:", ""),
        ("two hosts, one in the target", "GET http://y/health/live HTTP/1.1\r\nHost: x", ""),
        (
            "two types",
            "POST /v1/notes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Type: text/plain",
            "",
        ),
        ("another protocol", "GET /health/live HTTP/1.9", ""),
        ("no protocol", "GET /health/live", ""),
        ("a space in the target", "GET /health/live x HTTP/1.1\r\nHost: x", ""),
    ] {
        let request = format!("{head}\r\nConnection: close\r\n\r\n{body}");
        let response = send_raw(app, request.as_bytes()).await;
        assert!(matches!(status(&response), 0 | 400), "{case}: {response}");
        assert!(response.matches("HTTP/1.1 ").count() <= 1 && !response.contains("smuggled"), "{case}: {response}");
    }
    app.still_serves().await;
}

/// `Transfer-Encoding` overrides `Content-Length` (RFC 9112 section 6.3, rule 3).
#[tokio::test]
async fn input_06_transfer_encoding_overrides_content_length() {
    let app = SERVICE.shared();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let head = "POST /v1/notes HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    for both in ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 40"]
    {
        let response = send_raw(app, format!("{head}{both}\r\n\r\n0\r\n\r\n{smuggled}").as_bytes()).await;
        assert_problem(&response, 401, "unauthenticated", both);
    }
}

#[tokio::test]
async fn input_06_unexpected_bodies_are_rejected() {
    let app = SERVICE.shared();
    let token = app.forge().token();
    for (method, framing) in [("GET", "Content-Length: 38\r\n"), ("GET", "Transfer-Encoding: chunked\r\n")] {
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: xyz\r\n\r\n\r";
        assert_eq!(smuggled.len(), 38);
        let body =
            if framing.starts_with('T') { format!("26\r\n{smuggled}\r\n0\r\n\r\n") } else { smuggled.to_owned() };
        let request = format!(
            "{method} /v1/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{framing}Connection: close\r\n\r\n{body}"
        );
        let response = send_raw(app, request.as_bytes()).await;
        assert_problem(&response, 400, "malformed_request", framing);
    }
    // The same holds for operations that change something.
    let writer = app.user(roles::WRITER);
    let path = format!("/v1/notes/{}/archive", sample::demo::FIRST_NOTE);
    assert_eq!(writer.post(&path, &json!({})).await.problem(400), "malformed_request");
}

#[tokio::test]
async fn input_06_ambiguous_request_targets_are_rejected() {
    let app = SERVICE.shared();
    for target in [
        "/v1/../health/live",
        "/v1/%2e%2e/health/live",
        "/health/./live",
        "//health/live",
        "/health%2flive",
        "/health%5clive",
        "/health\\live",
        "/v1/..",
        "/health/live//",
        "/v1/items/%00",
        "/v1/items/%ff",
        "/v1/items/%c0%af",
        "/v1/items/%ed%a0%80",
        "/v1/items/%c2%85",
        "/v1/items/%2",
        "/v1/items/%zz",
        "/v1/items/A%0d%0aX-Evil:%201",
        "/v1/notes?cursor=%ff",
        "/v1/notes?cursor=%",
        "/v1/notes?cursor=%00",
    ] {
        let response =
            send_raw(app, format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert_problem(&response, 400, "malformed_request", target);
    }
    for old in [
        "GET /health/live HTTP/1.0\r\n\r\n",
        "GET http://x:80/health/live HTTP/1.1\r\nHost: X\r\nConnection: close\r\n\r\n",
    ] {
        assert_eq!(status(&send_raw(app, old.as_bytes()).await.replace("HTTP/1.0", "HTTP/1.1")), 200, "{old}");
    }
    let same = "GET http://X/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&send_raw(app, same.as_bytes()).await), 200);
    let unknown = "GET /health/live/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_problem(&send_raw(app, unknown.as_bytes()).await, 404, "not_found", "a slash at the end");
}

#[tokio::test]
async fn input_04_targets_and_headers_are_limited() {
    let app = SERVICE.shared();
    let request = |target: &str, header: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n").into_bytes()
    };
    let long = format!("/health/live?{}", "a".repeat(9_000));
    assert_problem(&send_raw(app, &request(&long, "")).await, 414, "uri_too_long", "a long target");
    let header = |bytes: usize| format!("X-A: {}\r\n", "a".repeat(bytes));
    let large = send_raw(app, &request("/health/live", &header(20_000))).await;
    assert_problem(&large, 431, "headers_too_large", "20 kB of headers");
    assert_eq!(status(&send_raw(app, &request("/health/live", &header(10_000))).await), 200);
    let many = |count| "X-A: a\r\n".repeat(count);
    let large = send_raw(app, &request("/health/live", &many(63))).await;
    assert_problem(&large, 431, "headers_too_large", "65 headers");
    // Beyond these limits the service stops reading, and may close without a response.
    for (case, head) in [("1000 headers", many(1_000)), ("10 MB of headers", header(10_000_000))] {
        let response = send_raw(app, &request("/health/live", &head)).await;
        assert!(matches!(status(&response), 0 | 431), "{case}: {response}");
    }
    app.still_serves().await;
}

#[tokio::test]
async fn input_05_compressed_bodies_are_rejected() {
    let app = SERVICE.shared();
    let writer = app.user(roles::WRITER);
    for coding in ["gzip", "deflate", "br", "zstd", "gzip, gzip"] {
        // The first bytes of a gzip stream.
        let request = writer.request(Method::POST, "/v1/notes");
        let request = request.header("content-type", "application/json").header("content-encoding", coding);
        let reply = writer.send(request.body(&b"\x1f\x8b\x08\0\0\0\0\0"[..])).await;
        assert_eq!(reply.problem(415), "unsupported_media_type", "{coding}");
        assert_eq!(reply.header("accept-encoding"), Some("identity"));
    }
    // Two `Content-Encoding` headers.
    let twice = writer.request(Method::POST, "/v1/notes").header("content-encoding", "identity");
    let twice = twice.header("content-encoding", "gzip").header("content-type", "application/json").body("{}");
    assert_eq!(writer.send(twice).await.problem(415), "unsupported_media_type");
}

/// An HTTP/2 request with two hosts is malformed (RFC 9113 section 8.3.1).
#[tokio::test]
async fn input_06_http_2_request_with_two_hosts_is_rejected() {
    let app = SERVICE.shared();
    let client = reqwest::Client::builder().tls_certs_only([]).http2_prior_knowledge().build().unwrap();
    let get = async |host: &str| {
        let request = client.get(format!("http://{}/health/live", app.address)).header("host", host);
        request.send().await.map(|reply| (reply.version(), reply.status().as_u16()))
    };
    assert_eq!(get(&app.address.to_string()).await.unwrap(), (http::Version::HTTP_2, 200));
    assert_eq!(get("elsewhere.example").await.unwrap(), (http::Version::HTTP_2, 400));
}

#[tokio::test]
async fn input_05_members_of_json_objects_are_limited() {
    let app = SERVICE.shared();
    let object = |members: u32| {
        let members: Vec<String> = (0..members).map(|n| format!("\"{n}\":0")).collect();
        format!("{{{}}}", members.join(","))
    };
    let body = object(1_000_000);
    let request = format!(
        "POST /v1/notes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        app.forge().token(),
        body.len()
    );
    // A client that keeps sending to a closed connection may miss the response.
    let response = send_raw(app, request.as_bytes()).await;
    assert!(matches!(status(&response), 0 | 413), "{response}");
    // At most 256 members are parsed.
    let reply = app.user(roles::WRITER).post_raw("/v1/notes", "application/json", object(257)).await;
    assert_eq!(reply.problem(400), "malformed_request");
    // Many unknown members are one fault.
    let reply = app.user(roles::WRITER).post_raw("/v1/notes", "application/json", object(256)).await;
    assert_eq!(reply.problem(400), "invalid_input");
    assert!(reply.faults().len() <= 3, "{:?}", reply.faults());
    app.still_serves().await;
}

#[tokio::test]
async fn input_06_text_is_normalised_and_hidden_characters_are_rejected() {
    let app = SERVICE.shared();
    let writer = app.user(roles::WRITER);
    let add = async |remark: &str| {
        let mut note = note_body("PAPER-A4", 1);
        note["remark"] = json!(remark);
        writer.post("/v1/notes", &note).await
    };
    for (written, stored) in [
        ("  Zoe\u{308}  ", "Zo\u{eb}"),
        ("\u{212b}ngstrom", "\u{c5}ngstrom"),
        // A joiner that Persian needs, and one inside an emoji.
        (
            "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}",
            "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}",
        ),
        ("\u{1f469}\u{200d}\u{1f467}", "\u{1f469}\u{200d}\u{1f467}"),
    ] {
        assert_eq!(add(written).await.ok(201)["remark"], stored, "{written:?}");
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
        assert_eq!(add(&format!("A{hidden}B")).await.faults(), ["/remark format"], "{hidden:?}");
    }
    for blank in ["\u{200d}", " \u{fe0f} ", "\u{200c}\u{200d}"] {
        assert_eq!(add(blank).await.faults(), ["/remark format"], "{blank:?}");
    }
}

/// A surrogate without its other half is not a character (RFC 8259 section 8.2, RFC 3629 section 3).
#[tokio::test]
async fn input_06_half_an_emoji_is_rejected_wherever_it_stands() {
    let app = SERVICE.shared();
    let admin = app.user(roles::ADMIN);
    for half in [r"\ud83d", r"\ude00", r"\ude00\ud83d", r"\ud83dx", r"\ud83d\ud83d\ude00"] {
        let value = format!(r#"{{"items":[],"priority":"standard","remark":"a{half}"}}"#);
        let member = format!(r#"{{"items":[],"priority":"standard","a{half}":1}}"#);
        let search = format!(r#"{{"email":"a{half}@example.com"}}"#);
        for (path, body) in [("/v1/notes", value), ("/v1/notes", member), ("/v1/notes/search", search)] {
            let reply = admin.post_raw(path, "application/json", body.clone()).await;
            assert_eq!(reply.problem(400), "malformed_request", "{body}");
        }
        let note = format!("/v1/notes/{}", sample::demo::FIRST_NOTE);
        let patch = admin.request(Method::PATCH, &note).header("content-type", "application/merge-patch+json");
        let reply = admin.send(patch.body(format!(r#"{{"remark":"{half}"}}"#))).await;
        assert_eq!(reply.problem(400), "malformed_request", "{half}");
    }
    for target in ["/v1/items/%ed%a0%bd", "/v1/notes?cursor=%ed%b8%80", "/v1/notes?%ed%a0%bd=1"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert_problem(&send_raw(app, request.as_bytes()).await, 400, "malformed_request", target);
    }
    // A whole one is a character.
    let whole = r#"{"items":[{"code":"PAPER-A4","count":1}],"priority":"standard","remark":"\ud83d\ude00"}"#;
    assert_eq!(admin.post_raw("/v1/notes", "application/json", whole).await.ok(201)["remark"], "\u{1f600}");
}

#[tokio::test]
async fn input_03_unacceptable_response_type_prevents_the_change() {
    let app = SERVICE.shared();
    let writer = app.user(roles::WRITER);
    let get = async |actor: &Actor, path: &str, accept: &str| {
        actor.send(actor.request(Method::GET, path).header("accept", accept)).await
    };
    for accept in ["application/json", "application/*", "*/*", "text/html, */*;q=0.1"] {
        get(&writer, "/v1/notes", accept).await.ok(200);
    }
    for accept in ["text/html", "application/xml", "*/*;q=0", "application/json;q=0, */*", "json"] {
        assert_eq!(get(&writer, "/v1/notes", accept).await.problem(406), "not_acceptable", "{accept}");
    }
    // Probes and documents ignore `Accept`.
    get(&app.anonymous(), "/health/live", "text/plain").await.ok(200);
    get(&app.anonymous(), "/docs", "text/html").await.ok(200);
    get(&writer, "/v1/notes", "").await.ok(200);
    let mut note = note_body("PAPER-A4", 1);
    note["remark"] = json!("unwanted");
    let request = writer.request(Method::POST, "/v1/notes").header("accept", "text/csv").json(&note);
    assert_eq!(writer.send(request).await.problem(406), "not_acceptable");
    let listed = writer.get("/v1/notes?limit=100").await.text;
    assert!(!listed.contains("unwanted"));
}
