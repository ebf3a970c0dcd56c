//! Cross-site requests, and requests with two credentials (AUTHN-08, AUTHN-14).

use http::Method;
use serde_json::json;

use super::{admin, signed_in, start};
use crate::support::{Browser, note_body, superuser};

#[tokio::test]
async fn authn_14_change_needs_the_csrf_token_and_the_same_origin() {
    let app = start().await;
    let mut browser = signed_in(&app).await;
    let csrf = browser.csrf_token().await;
    let mut other = signed_in(&app).await;
    let foreign = other.csrf_token().await;
    let note = note_body("PAPER-A4", 1);
    let plain = || browser.with_cookies(app.anonymous().request(Method::POST, "/v1/notes")).json(&note);
    let own = || plain().header("origin", &browser.origin);
    for (name, reason, request) in [
        ("no CSRF token", "csrf_token", own()),
        ("an empty one", "csrf_token", own().header("x-csrf-token", "")),
        ("that of another session", "csrf_token", own().header("x-csrf-token", &foreign)),
        ("no origin", "no_origin", plain().header("x-csrf-token", &csrf)),
        ("a foreign origin", "origin", plain().header("origin", "https://evil.example").header("x-csrf-token", &csrf)),
        ("the origin null", "origin", plain().header("origin", "null").header("x-csrf-token", &csrf)),
        ("another port", "origin", plain().header("origin", "http://127.0.0.1:1").header("x-csrf-token", &csrf)),
        ("a cross-site page", "site", own().header("sec-fetch-site", "cross-site").header("x-csrf-token", &csrf)),
        ("a sibling site", "site", own().header("sec-fetch-site", "same-site").header("x-csrf-token", &csrf)),
        ("a typed address", "site", own().header("sec-fetch-site", "none").header("x-csrf-token", &csrf)),
    ] {
        let reply = browser.clone().send(request).await;
        assert_eq!(reply.problem(403), "forbidden", "{name}");
        assert_eq!(reply.event("malicious_csrf")["reason"], reason, "{name}");
    }
    for path in ["/auth/refresh", "/auth/logout"] {
        let request = browser.with_cookies(app.anonymous().request(Method::POST, path));
        browser.clone().send(request.header("origin", &browser.origin)).await.problem(403);
    }
    let request = own().header("x-csrf-token", &csrf);
    browser.clone().send(request).await.ok(201);
    let request = plain().header("sec-fetch-site", "same-origin").header("x-csrf-token", &csrf);
    browser.send(request).await.ok(201);
}

#[tokio::test]
async fn authn_14_cookie_never_authenticates_a_cross_site_read() {
    let app = start().await;
    let browser = signed_in(&app).await;
    let read = |path: &str| browser.with_cookies(app.anonymous().request(Method::GET, path));
    for path in ["/v1/me", "/auth/session"] {
        for (header, value) in
            [("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site"), ("origin", "https://evil.example")]
        {
            let reply = browser.clone().send(read(path).header(header, value)).await;
            assert_eq!(reply.problem(403), "forbidden", "{path} {header}");
        }
        // Without these headers, the client is no page of another site.
        browser.clone().send(read(path)).await.ok(200);
        browser.clone().send(read(path).header("sec-fetch-site", "none")).await.ok(200);
    }
}

#[tokio::test]
async fn authn_08_cookie_beside_another_credential_is_refused() {
    let app = start().await;
    let browser = signed_in(&app).await;
    let token = app.issuer.access_token(&admin(), app.rights.scopes);
    for path in ["/v1/me", "/auth/session"] {
        for (header, value) in [("authorization", format!("Bearer {token}")), ("x-api-key", "a_key".to_owned())] {
            let request = browser.request(Method::GET, path).header(header, value);
            let reply = browser.clone().send(request).await;
            assert_eq!(reply.problem(400), "malformed_request", "{path} {header}");
            assert_eq!(reply.event("authn_token_invalid")["reason"], "two_credentials", "{path} {header}");
        }
    }
    let cookie = format!("__Host-session={0}; __Host-session={0}", browser.session_cookie());
    for path in ["/v1/me", "/auth/session"] {
        let twice = app.anonymous().request(Method::GET, path).header("cookie", &cookie);
        let reply = browser.clone().send(twice).await;
        assert_eq!(reply.event("authn_token_invalid")["reason"], "two_credentials", "{path}");
        assert_eq!(reply.problem(400), "malformed_request", "{path}");
    }
}

/// The tag alone is not enough: the database knows the newest secret.
#[tokio::test]
async fn authn_14_cookie_is_compared_with_the_stored_digest() {
    let app = start().await;
    let mut browser = signed_in(&app).await;
    let mut superuser = superuser(&app.database).await;
    let set = "update palisade.sessions set handle_hash = $1 returning (select handle_hash from palisade.sessions)";
    let own: Vec<u8> = sqlx::query_scalar(set).bind(&[0_u8; 32][..]).fetch_one(&mut superuser).await.unwrap();
    let reply = browser.clone().get("/v1/me").await;
    assert_eq!(reply.problem(401), "unauthenticated");
    assert_eq!(reply.event("authn_token_invalid")["reason"], "session_unknown");
    sqlx::query(set).bind(own).execute(&mut superuser).await.unwrap();
    browser.get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn authn_14_changed_cookie_is_refused() {
    let app = start().await;
    let browser = signed_in(&app).await;
    let cookie = browser.session_cookie();
    for value in [
        String::new(),
        "x".to_owned(),
        format!("_{}", &cookie[1..]),
        format!("{}{}", &cookie[..111], if cookie.ends_with('A') { 'B' } else { 'A' }),
        format!("{cookie}AAAA"),
    ] {
        let mut other = Browser::new(&app);
        other.cookies.insert("__Host-session".to_owned(), value.clone());
        let reply = other.get("/v1/me").await;
        assert_eq!(reply.problem(401), "unauthenticated", "{value}");
        assert_eq!(reply.event("authn_token_invalid")["reason"], "session_unknown", "{value}");
        assert_eq!(reply.body["errors"], json!(null));
    }
}
