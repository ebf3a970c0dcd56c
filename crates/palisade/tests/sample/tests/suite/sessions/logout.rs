//! Sign-out by the browser, and by logout tokens of the issuer (AUTHN-16).

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{SESSIONS, admin, answers::SignIn, browser_of, signed_in, start, two_replicas};
use crate::support::{ACME, Browser, Reply, SERVICE, TestApp, eventually, superuser};

const FORM: &str = "application/x-www-form-urlencoded";

#[tokio::test]
async fn authn_16_logout_holds_at_once_on_every_replica() {
    let [first, second] = two_replicas().await;
    let mut browser = browser_of(&first);
    browser.sign_in(&admin()).await;
    let copy = browser.clone();
    copy.at(&second).get("/v1/me").await.ok(200);
    let reply = browser.change(Method::POST, "/auth/logout").await;
    assert_eq!(reply.event("session_ended")["reason"], "logout");
    assert!(!reply.text.contains(".eyJ"), "the page sees a token: {reply:#?}");
    let body = reply.ok(200);
    let url = body["endSessionUrl"].as_str().unwrap();
    assert!(url.starts_with(&format!("{}/end-session?client_id=demo-web&", first.issuer.url())), "{url}");
    assert!(browser.cookies.is_empty());
    for app in [&first, &second] {
        for path in ["/v1/me", "/auth/session"] {
            copy.at(app).get(path).await.problem(401);
        }
    }
}

#[tokio::test]
async fn authn_16_sign_out_at_the_issuer_ends_the_session_here() {
    let app = start().await;
    let mut browser = signed_in(&app).await;
    let mut other = signed_in(&app).await;
    let sid = sid_of(&app, &browser).await;
    let url = format!("{}/end-session?client_id=demo-web&logout_hint={sid}", app.issuer.url());
    reqwest::Client::builder().tls_certs_only([]).build().unwrap().get(url).send().await.unwrap();
    let reply = browser.get("/v1/me").await;
    assert_eq!(reply.problem(401), "unauthenticated");
    other.get("/v1/me").await.ok(200);
}

/// The `sid` of the session that this browser has.
async fn sid_of(app: &TestApp, browser: &Browser) -> String {
    let sessions = browser.clone().get("/v1/me/sessions").await.ok(200);
    let current = sessions["items"].as_array().unwrap().iter().find(|it| it["current"] == true).unwrap().clone();
    let sid = "select logout_hint from palisade.sessions where id = $1";
    let id: Uuid = current["id"].as_str().unwrap().parse().unwrap();
    sqlx::query_scalar(sid).bind(id).fetch_one(&mut superuser(&app.database).await).await.unwrap()
}

/// The claims of a valid logout token without `sid` and `sub`.
fn claims(app: &TestApp) -> Value {
    let now = app.clock.timestamp();
    json!({
        "iss": app.issuer.url(), "aud": "demo-web", "iat": now, "exp": now + 120, "jti": Uuid::now_v7().to_string(),
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
    })
}

async fn send(app: &TestApp, header: &Value, claims: &Value) -> Reply {
    let token = app.issuer.key().sign(header, claims);
    app.anonymous().post_raw("/auth/backchannel-logout", FORM, format!("logout_token={token}")).await
}

/// Sends a logout token with these changes.
pub(super) async fn send_logout(app: &TestApp, change: impl FnOnce(&mut Value)) -> Reply {
    let mut claims = claims(app);
    change(&mut claims);
    send(app, &header(app), &claims).await
}

fn header(app: &TestApp) -> Value {
    json!({ "alg": "ES256", "typ": "logout+jwt", "kid": app.issuer.key().id() })
}

#[tokio::test]
async fn authn_16_logout_token_ends_one_sign_in_and_its_bearer_tokens() {
    let [app, second] = two_replicas().await;
    let mut browser = browser_of(&app);
    browser.sign_in(&admin()).await;
    let mut other = browser_of(&app);
    other.sign_in(&admin()).await;
    let sid = sid_of(&app, &browser).await;
    let of_sign_in = app.bearer(app.forge().claim("sid", &*sid).token());
    of_sign_in.get("/v1/me").await.ok(200);
    let mut claims = claims(&app);
    claims["sid"] = json!(sid);
    claims["sub"] = json!(*admin().subject);
    let reply = send(&app, &header(&app), &claims).await;
    assert_eq!(reply.status, 200, "{reply:#?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.event("issuer_logout")["kind"], "token");
    // At once on the replica that got it, within two seconds on the others.
    browser.get("/v1/me").await.problem(401);
    of_sign_in.get("/v1/me").await.problem(401);
    let mut at_second = browser.at(&second);
    eventually("the other replica rejects it", async || at_second.get("/v1/me").await.status == 401).await;
    other.get("/v1/me").await.ok(200);
    app.bearer(app.forge().claim("sid", "another").token()).get("/v1/me").await.ok(200);
    // A replay changes nothing.
    let reply = send(&app, &header(&app), &claims).await;
    assert_eq!(reply.problem(400), "invalid_input");
    assert_eq!(reply.event("authn_token_invalid")["claim"], "jti");
}

#[tokio::test]
async fn authn_16_logout_token_of_a_person_ends_all_sign_ins() {
    let app = start().await;
    let mut browsers = [signed_in(&app).await, signed_in(&app).await];
    let token = app.bearer(app.issuer.access_token(&admin(), app.rights.scopes));
    let mut viewer = Browser::new(&app);
    viewer.sign_in(&SERVICE.person(&ACME, sample::access::roles::VIEWER)).await;
    app.clock.advance(Duration::from_secs(1));
    let mut claims = claims(&app);
    claims["sub"] = json!(*admin().subject);
    assert_eq!(send(&app, &header(&app), &claims).await.status, 200);
    for browser in &mut browsers {
        browser.get("/v1/me").await.problem(401);
    }
    token.get("/v1/me").await.problem(401);
    viewer.get("/v1/me").await.ok(200);
    app.clock.advance(Duration::from_secs(1));
    signed_in(&app).await.get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn authn_16_logout_token_is_validated_in_full() {
    let app = start().await;
    let mut browser = signed_in(&app).await;
    let sid = sid_of(&app, &browser).await;
    let now = app.clock.timestamp();
    for (claim, value) in [
        ("iss", json!("https://evil.example")),
        ("aud", json!("another-client")),
        ("aud", json!(["demo-web", "another-client"])),
        ("aud", Value::Null),
        ("exp", json!(now - 60)),
        ("exp", Value::Null),
        ("iat", json!(now + 3_600)),
        ("iat", json!(now - 601)),
        ("iat", Value::Null),
        ("jti", Value::Null),
        ("jti", json!("")),
        ("events", Value::Null),
        ("events", json!({})),
        ("events", json!({ "http://schemas.openid.net/event/backchannel-logout": true })),
        ("nonce", json!("n")),
        ("sid", Value::Null),
        ("sid", json!(7)),
        ("sub", json!("service:x")),
    ] {
        let mut claims = claims(&app);
        claims["sid"] = json!(sid);
        claims[claim] = value.clone();
        let reply = send(&app, &header(&app), &claims).await;
        assert_eq!(reply.problem(400), "invalid_input", "{claim} {value}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
    for (name, value) in [("typ", json!("JWT")), ("typ", json!("at+jwt")), ("alg", json!("none")), ("kid", json!("x"))]
    {
        let (mut header, mut claims) = (header(&app), claims(&app));
        claims["sid"] = json!(sid);
        header[name] = value.clone();
        send(&app, &header, &claims).await.problem(400);
        header.as_object_mut().unwrap().remove(name);
        send(&app, &header, &claims).await.problem(400);
    }
    let anonymous = app.anonymous();
    for body in ["", "logout_token=", "token=x", "logout_token=a.b.c", "logout_token=a&logout_token=b"] {
        anonymous.post_raw("/auth/backchannel-logout", FORM, body).await.problem(400);
    }
    anonymous.post_raw("/auth/backchannel-logout", "application/json", "{}").await.problem(415);
    browser.get("/v1/me").await.ok(200);
}

/// A page opens the URL that it gets, so it must not be a script.
#[tokio::test]
async fn authn_14_sign_out_url_is_one_of_the_web() {
    let sign_in = SignIn::new().await;
    for (url, is_returned) in
        [("javascript:alert(document.domain)//", false), ("data:text/html,x", false), ("http://127.0.0.1:1/end", true)]
    {
        sign_in.issuer.set_metadata("end_session_endpoint", url);
        let app = sign_in.issuer.app(&SESSIONS).await;
        app.wait_until_ready().await;
        let mut browser = sign_in.browser_of(&app).await;
        let body = browser.change(Method::POST, "/auth/logout").await.ok(200);
        assert_eq!(body["endSessionUrl"].as_str().is_some_and(|it| it.starts_with(url)), is_returned, "{url}: {body}");
        assert_eq!(body["endSessionUrl"].is_null(), !is_returned, "{url}: {body}");
    }
}

/// An issuer whose subjects are in another claim than `sub`.
#[tokio::test]
async fn authn_16_logout_token_names_the_person_by_the_claim_of_the_issuer() {
    let app = SERVICE.start_with(&[&SESSIONS[..], &[("APP_OIDC__SUBJECT_CLAIM", "person")]].concat()).await;
    let token = || app.bearer(app.forge().claim("person", "p-1").token());
    token().get("/v1/me").await.ok(200);
    // It would end no session: the issuer must learn that.
    send_logout(&app, |claims| claims["sub"] = json!("p-1")).await.problem(400);
    token().get("/v1/me").await.ok(200);
    let logout = send_logout(&app, |claims| {
        claims["sub"] = json!("another-name");
        claims["person"] = json!("p-1");
    });
    assert_eq!(logout.await.status, 200);
    let earlier = app.clock.timestamp() - 1;
    app.bearer(app.forge().claim("person", "p-1").claim("iat", earlier).token()).get("/v1/me").await.problem(401);
}
