//! A fresh or stronger sign-in, as the challenge of a sensitive operation asks for it (AUTHN-13,
//! RFC 9470).

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::answers::SignIn;
use crate::support::{Browser, Reply};

const STRENGTHS: (&str, &str) = ("APP_OIDC__ACR_VALUES", "mfa,hardware");

async fn export(browser: &mut Browser) -> Reply {
    let csrf = browser.csrf_token().await;
    let body = json!({ "kind": "notes", "from": "2000-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z" });
    let request = browser.request(Method::POST, "/v1/exports").header("x-csrf-token", csrf).json(&body);
    browser.send(request).await
}

#[tokio::test]
async fn authn_13_page_answers_the_challenge_by_a_new_sign_in() {
    let sign_in = SignIn::with(&[STRENGTHS]).await;
    let now = sign_in.app.clock.timestamp();
    let weak = [("auth_time", json!(now - 1_000)), ("acr", json!("password"))];
    let (mut browser, reply) = sign_in.sign_in_again(Browser::new(&sign_in.app), "/auth/login", &weak).await;
    assert_eq!(reply.status, 303, "{reply:#?}");
    let before = browser.session_cookie().to_owned();
    let challenged = export(&mut browser).await;
    assert_eq!(challenged.problem(401), "insufficient_user_authentication");
    let challenge = challenged.header("www-authenticate").unwrap().to_owned();
    assert!(challenge.contains("max_age=\"900\", acr_values=\"mfa hardware\""), "{challenge}");
    // The page passes both on.
    let path = "/auth/login?max_age=900&acr_values=mfa+hardware";
    let strong = [("auth_time", json!(now - 5)), ("acr", json!("hardware"))];
    let (mut browser, reply) = sign_in.sign_in_again(browser, path, &strong).await;
    assert_eq!(reply.status, 303, "{reply:#?}");
    assert_ne!(browser.session_cookie(), before, "a stronger sign-in has a new cookie");
    assert_eq!(export(&mut browser).await.status, 200);
    // A refresh is no sign-in: its token says neither when nor how the person signed in.
    sign_in.app.clock.advance(Duration::from_secs(11));
    let renewed = json!({ "access_token": sign_in.access_token(), "token_type": "Bearer" });
    sign_in.issuer.answer_token_requests(200, renewed);
    browser.change(Method::POST, "/auth/refresh").await.ok(200);
    assert_eq!(export(&mut browser).await.status, 200);
    sign_in.app.clock.advance(Duration::from_secs(900));
    let renewed = json!({ "access_token": sign_in.access_token(), "token_type": "Bearer" });
    sign_in.issuer.answer_token_requests(200, renewed);
    assert_eq!(export(&mut browser).await.problem(401), "insufficient_user_authentication");
}

#[tokio::test]
async fn authn_13_sign_in_that_is_not_what_the_page_asked_for_is_refused() {
    let sign_in = SignIn::with(&[STRENGTHS]).await;
    let now = sign_in.app.clock.timestamp();
    for (query, claims, fault) in [
        ("max_age=900", vec![], "auth_time"),
        ("max_age=900", vec![("auth_time", json!(now - 1_000))], "auth_time"),
        ("max_age=900", vec![("auth_time", json!(now + 600))], "auth_time"),
        ("max_age=0", vec![("auth_time", json!(now - 100))], "auth_time"),
        ("acr_values=mfa", vec![], "acr"),
        ("acr_values=mfa", vec![("acr", json!("hardware"))], "acr"),
        ("acr_values=mfa+hardware", vec![("acr", json!("mfa hardware"))], "acr"),
        ("max_age=900&acr_values=mfa", vec![("acr", json!("mfa"))], "auth_time"),
    ] {
        let path = format!("/auth/login?{query}");
        let (browser, reply) = sign_in.sign_in_again(Browser::new(&sign_in.app), &path, &claims).await;
        assert_eq!(reply.problem(401), "unauthenticated", "{query} {claims:?}");
        assert_eq!(reply.event("authn_token_invalid")["claim"], fault, "{query} {claims:?}");
        assert!(browser.cookies.is_empty(), "{query}");
    }
    for (query, claims) in [
        ("max_age=900", vec![("auth_time", json!(now - 890))]),
        ("max_age=0", vec![("auth_time", json!(now))]),
        ("acr_values=mfa", vec![("acr", json!("mfa"))]),
        ("max_age=86400&acr_values=hardware+mfa", vec![("auth_time", json!(now - 86_390)), ("acr", json!("mfa"))]),
    ] {
        let path = format!("/auth/login?{query}");
        let (_, reply) = sign_in.sign_in_again(Browser::new(&sign_in.app), &path, &claims).await;
        assert_eq!(reply.status, 303, "{query} {claims:?}: {reply:#?}");
    }
}

#[tokio::test]
async fn authn_13_sign_in_asks_the_issuer_for_age_and_strength() {
    let sign_in = SignIn::with(&[STRENGTHS]).await;
    let mut browser = Browser::new(&sign_in.app);
    let url = browser.begin("/auth/login?max_age=900&acr_values=mfa+hardware").await;
    let parameters: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    assert!(parameters.contains(&("max_age".to_owned(), "900".to_owned())), "{url}");
    assert!(parameters.contains(&("acr_values".to_owned(), "mfa hardware".to_owned())), "{url}");
    let url = browser.begin("/auth/login").await;
    assert!(url.query_pairs().all(|(name, _)| name != "max_age" && name != "acr_values"), "{url}");
    for query in [
        "max_age=-1",
        "max_age=86401",
        "max_age=1.5",
        "max_age=",
        "max_age=now",
        "max_age=1&max_age=2",
        "acr_values=password",
        "acr_values=mfa+password",
        "acr_values=",
        "acr_values=+",
        "acr_values=mfa,hardware",
    ] {
        let mut browser = Browser::new(&sign_in.app);
        assert_eq!(browser.get(&format!("/auth/login?{query}")).await.problem(400), "invalid_input", "{query}");
        assert!(browser.cookies.is_empty(), "{query}");
    }
    // The wish is under the tag of the cookie.
    browser.begin("/auth/login?max_age=0").await;
    let weakened = browser.cookies["__Host-login"].replacen(".0.", "..", 1);
    assert_ne!(weakened, browser.cookies["__Host-login"]);
    browser.cookies.insert("__Host-login".to_owned(), weakened);
    let reply = browser.get("/auth/callback?code=c&state=s").await;
    assert_eq!(reply.event("authn_token_invalid")["claim"], "cookie");
    assert_eq!(reply.body["errors"], Value::Null);
}
