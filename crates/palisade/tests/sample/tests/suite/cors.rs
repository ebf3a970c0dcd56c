//! Cross-origin requests of browsers (AUTHZ-10): origins, preflights, and the headers by which a
//! page may read a response.

use std::collections::BTreeMap;

use http::Method;
use sample::access::roles;
use serde_json::{Value, json};

use crate::support::{Actor, PRODUCTION_SETTINGS, Reply, SERVICE, mtls::MtlsSetup, note_body};

const PAGE: &str = "https://app.example.com";
const ORIGINS: (&str, &str) = ("APP_HTTP__CORS_ORIGINS", "https://app.example.com,http://localhost:5173");
const EXPOSED: &str = "RateLimit, RateLimit-Policy, Retry-After, Location, Idempotent-Replayed, X-Request-Id, DPoP-Nonce, WWW-Authenticate";

/// Sends the request as a browser does for a page of this origin.
async fn from_page(actor: &Actor, origin: &str, method: Method, path: &str) -> Reply {
    actor.send(actor.request(method, path).header("origin", origin)).await
}

/// A preflight (Fetch standard section 4.8).
async fn preflight(actor: &Actor, origin: &str, method: &str, headers: &str) -> Reply {
    let request = actor.request(Method::OPTIONS, "/v1/notes").header("origin", origin);
    let request = request.header("access-control-request-method", method);
    let request = if headers.is_empty() { request } else { request.header("access-control-request-headers", headers) };
    actor.send(request).await
}

/// The headers of CORS, and `Vary`.
fn cors_headers(reply: &Reply) -> BTreeMap<&str, String> {
    let is_cors = |name: &str| name == "vary" || name.starts_with("access-control-");
    let mut found = BTreeMap::<&str, String>::new();
    for (name, value) in reply.headers.iter().filter(|(name, _)| is_cors(name.as_str())) {
        let values = found.entry(name.as_str()).or_default();
        *values = format!("{values}{}{}", if values.is_empty() { "" } else { ", " }, value.to_str().unwrap());
    }
    found
}

#[track_caller]
fn assert_readable(reply: &Reply, origin: &str, status: u16) {
    assert_eq!(reply.status, status, "{reply:#?}");
    let expected = BTreeMap::from([
        ("access-control-allow-origin", origin.to_owned()),
        ("access-control-allow-credentials", "true".to_owned()),
        ("access-control-expose-headers", EXPOSED.to_owned()),
        ("vary", "origin".to_owned()),
    ]);
    assert_eq!(cors_headers(reply), expected, "{reply:#?}");
}

#[tokio::test]
async fn authz_10_listed_origins_read_responses_and_problems() {
    let app = SERVICE.start_with(&[ORIGINS]).await;
    let writer = app.user(roles::WRITER);
    for origin in [PAGE, "http://localhost:5173"] {
        assert_readable(&from_page(&writer, origin, Method::GET, "/v1/notes").await, origin, 200);
    }
    let anonymous = app.anonymous();
    for (actor, method, path, status) in [
        (&anonymous, Method::GET, "/v1/notes", 401),
        (&app.user(roles::VIEWER), Method::POST, "/v1/api-keys", 403),
        (&writer, Method::GET, "/v1/none", 404),
        (&writer, Method::PUT, "/v1/notes", 405),
        (&writer, Method::POST, "/v1/notes", 415),
        (&anonymous, Method::GET, "/v1//notes", 400),
    ] {
        assert_readable(&from_page(actor, PAGE, method, path).await, PAGE, status);
    }
    let large = writer.request(Method::POST, "/v1/notes").header("origin", PAGE).body("x".repeat(100_000));
    assert_readable(&writer.send(large).await, PAGE, 413);
    let create = writer.request(Method::POST, "/v1/notes").header("origin", PAGE);
    let created = writer.send(create.header("idempotency-key", "one").json(&note_body("PAPER-A4", 1))).await;
    assert_readable(&created, PAGE, 201);
    assert!(created.headers.contains_key("location") && created.headers.contains_key("ratelimit"));
    // A page with its own `Vary` keeps it.
    let document = from_page(&anonymous, PAGE, Method::GET, "/openapi.json").await;
    assert_eq!(cors_headers(&document)["vary"], "accept-encoding, origin");

    let without_keys = SERVICE.start_with(&[ORIGINS, ("APP_OIDC__ISSUER", "http://127.0.0.1:9")]).await;
    let reply = from_page(&without_keys.anonymous(), PAGE, Method::GET, "/health/ready").await;
    assert_readable(&reply, PAGE, 503);
}

#[tokio::test]
async fn authz_10_rate_limits_count_pages_and_let_them_read_429() {
    let limits = [ORIGINS, ("APP_THROTTLE__ADDRESS_PER_SECOND", "0.02"), ("APP_THROTTLE__ADDRESS_BURST", "30")];
    let app = SERVICE.start_with(&limits).await;
    let anonymous = app.anonymous();
    let mut statuses = Vec::new();
    for _ in 0..31 {
        let reply = preflight(&anonymous, PAGE, "GET", "").await;
        statuses.push(reply.status.as_u16());
        if reply.status == 429 {
            assert_readable(&reply, PAGE, 429);
        }
    }
    assert_eq!((statuses.first(), statuses.last()), (Some(&204), Some(&429)), "{statuses:?}");
}

#[tokio::test]
async fn authz_10_preflights_need_no_credential() {
    let app = SERVICE.start_with(&[ORIGINS]).await;
    let anonymous = app.anonymous();
    for (method, headers) in [
        ("GET", ""),
        ("POST", "content-type,idempotency-key"),
        ("PATCH", "Authorization, Content-Type"),
        ("DELETE", "authorization"),
    ] {
        let reply = preflight(&anonymous, PAGE, method, headers).await;
        assert_eq!((reply.status.as_u16(), &*reply.text), (204, ""), "{method} {headers}: {reply:#?}");
        let found = cors_headers(&reply);
        assert_eq!(found["access-control-allow-origin"], PAGE);
        assert_eq!(found["access-control-allow-credentials"], "true");
        assert_eq!(found["access-control-allow-methods"], "GET, POST, PUT, PATCH, DELETE");
        let allowed = &found["access-control-allow-headers"];
        assert!(allowed.split(", ").all(|name| name != "*" && name != "x-api-key"), "{allowed}");
        assert_eq!(found["access-control-max-age"], "600");
    }
    for (origin, method, headers) in [
        (PAGE, "TRACE", ""),
        (PAGE, "get", ""),
        (PAGE, "POST", "x-forwarded-for"),
        (PAGE, "POST", "content-type, x-api-key"),
        ("https://other.example.com", "GET", ""),
        ("null", "GET", ""),
    ] {
        let reply = preflight(&anonymous, origin, method, headers).await;
        reply.problem(405);
        let found = cors_headers(&reply);
        let grants = ["access-control-allow-methods", "access-control-allow-headers", "access-control-max-age"];
        assert!(grants.iter().all(|name| !found.contains_key(name)), "{origin} {method} {headers}: {found:?}");
    }
    // Without the method of a request to come, it is no preflight.
    from_page(&anonymous, PAGE, Method::OPTIONS, "/v1/notes").await.problem(405);
}

#[tokio::test]
async fn authz_10_other_origins_get_no_permission() {
    let app = SERVICE.start_with(&[ORIGINS]).await;
    let viewer = app.user(roles::VIEWER);
    for origin in [
        "null",
        "*",
        "https://app.example.com.evil.example",
        "https://evil.example/https://app.example.com",
        "https://sub.app.example.com",
        "https://APP.example.com",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com/",
        "http://localhost:5174",
    ] {
        let reply = from_page(&viewer, origin, Method::GET, "/v1/notes").await;
        assert_eq!(cors_headers(&reply), BTreeMap::from([("vary", "origin".to_owned())]), "{origin}");
        reply.ok(200);
    }
    let repeated = viewer.request(Method::GET, "/v1/notes").header("origin", PAGE).header("origin", "null");
    let reply = viewer.send(repeated).await;
    assert!(!reply.headers.contains_key("access-control-allow-origin"), "{reply:#?}");
    // A cache may store this response, and must not give it to a page.
    let reply = viewer.get("/v1/notes").await;
    assert_eq!(cors_headers(&reply), BTreeMap::from([("vary", "origin".to_owned())]));
}

#[tokio::test]
async fn authz_10_cors_is_off_by_default() {
    let anonymous = SERVICE.shared().anonymous();
    let replies = [
        from_page(&anonymous, PAGE, Method::GET, "/health/live").await,
        from_page(&anonymous, PAGE, Method::GET, "/v1/notes").await,
        preflight(&anonymous, PAGE, "GET", "").await,
    ];
    for reply in &replies {
        assert_eq!(cors_headers(reply), BTreeMap::new(), "{reply:#?}");
    }
    assert_eq!(replies.map(|reply| reply.status.as_u16()), [200, 401, 405]);
}

#[test]
fn authz_10_inexact_and_unsafe_origins_prevent_startup() {
    let faults = |profile: &str, origins: &str| {
        let more = [("APP_PROFILE", profile), ("APP_HTTP__CORS_ORIGINS", origins)];
        let variables = PRODUCTION_SETTINGS.into_iter().chain(more);
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let faults = sample::app().read_settings(variables).map_or_else(|faults| faults.0, |_| Vec::new());
        faults.into_iter().map(|fault| format!("{}: {}", fault.variable, fault.message)).collect::<Vec<_>>()
    };
    for origins in ["https://app.example.com", "https://a.example,https://b.example:8443, http://127.0.0.1:3000"] {
        assert_eq!(faults("production", origins), Vec::<String>::new(), "{origins}");
    }
    for origin in [
        "*",
        "null",
        "app.example.com",
        "https://*.example.com",
        "https://app.example.com/",
        "https://app.example.com/path",
        "https://app.example.com:443",
        "https://App.example.com",
        "https://user@app.example.com",
        "https://app.example.com?x",
        "https://bücher.example",
        "file:///index.html",
        "https://app.example.com,*",
    ] {
        for profile in ["production", "development"] {
            let found = faults(profile, origin);
            assert!(
                found.len() == 1 && found[0].starts_with("APP_HTTP__CORS_ORIGINS: must be an exact origin"),
                "{origin}: {found:?}"
            );
        }
    }
    let plain = "https://app.example.com,http://app.example.com";
    assert_eq!(
        faults("production", plain),
        ["APP_HTTP__CORS_ORIGINS: must be https origins in production, or http on a loopback address"]
    );
    assert_eq!(faults("development", plain), Vec::<String>::new());
}

/// Linters ask for it: a client generator sees which responses a page can read.
#[test]
fn authz_10_document_states_the_header_of_every_response() {
    let document = SERVICE.document("https://login.example.com", "https://api.example.com");
    let name = "Access-Control-Allow-Origin";
    let reference = json!({ "$ref": format!("#/components/headers/{name}") });
    assert_eq!(document["components"]["headers"][name]["schema"]["type"], "string");
    let components = document["components"]["responses"].as_object().unwrap().iter();
    let mut responses: Vec<(String, &Value)> = components.map(|(name, response)| (name.clone(), response)).collect();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let all = operation["responses"].as_object().unwrap().iter();
            responses.extend(all.map(|(status, response)| (format!("{method} {path} {status}"), response)));
        }
    }
    assert!(responses.len() > 50);
    for (of, response) in responses.iter().filter(|(_, response)| response["$ref"].is_null()) {
        assert_eq!(response["headers"][name], reference, "{of}");
    }
}

/// Services with certificates call it, and no browser.
#[tokio::test]
async fn authz_10_internal_listener_gives_no_page_permission() {
    let setup = MtlsSetup::internal(&SERVICE, "notes:read", &[ORIGINS]).await;
    let reply = from_page(&setup.job(), PAGE, Method::GET, "/v1/me").await;
    assert_eq!(cors_headers(&reply), BTreeMap::new());
    reply.ok(200);
}
