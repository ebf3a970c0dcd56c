//! Ends of a session by time, changes of its browser, and limits of credential operations (AUTHN-14,
//! AUTHN-17, RATE-04).

use std::time::Duration;

use http::Method;

use super::{SESSIONS, admin, logout::send_logout, signed_in, start};
use crate::support::{Browser, SERVICE, UNTHROTTLED, eventually, incident, superuser};

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn authn_14_session_ends_without_requests_and_after_its_lifetime() {
    let limits = [("APP_SESSIONS__IDLE_MINUTES", "10"), ("APP_SESSIONS__LIFETIME_MINUTES", "30")];
    let app = SERVICE.start_with(&[&SESSIONS[..], &limits].concat()).await;
    let mut idle = signed_in(&app).await;
    let mut used = signed_in(&app).await;
    for _ in 0..3 {
        app.clock.advance(9 * MINUTE);
        used.get("/v1/me").await.ok(200);
    }
    assert_eq!(idle.get("/v1/me").await.problem(401), "unauthenticated");
    app.clock.advance(4 * MINUTE);
    let reply = used.get("/auth/session").await;
    assert_eq!(reply.problem(401), "unauthenticated");
    assert_eq!(reply.event("authn_token_invalid")["reason"], "session_ended");
    assert!(used.cookies.is_empty(), "the browser keeps a cookie that is of no use");
}

#[tokio::test]
async fn authn_14_change_of_the_browser_is_an_event_and_no_lock_out() {
    let app = start().await;
    let browser = signed_in(&app).await;
    let request = || browser.request(Method::GET, "/v1/me");
    let reply = browser.clone().send(request().header("user-agent", "Another/1.0")).await;
    assert_eq!(reply.event("session_client_changed")["changed"], "user_agent");
    reply.ok(200);
    let reply = browser.clone().send(request().header("user-agent", "Another/1.0")).await;
    assert!(reply.events().iter().all(|event| event["event"] != "session_client_changed"), "raised once per change");
    // Of a long one, or one with other characters, a part is kept.
    let long = format!("{}é", "a".repeat(300));
    browser.clone().send(request().header("user-agent", long.as_bytes())).await.ok(200);
    let agent = "select user_agent from palisade.sessions";
    let agent: String = sqlx::query_scalar(agent).fetch_one(&mut superuser(&app.database).await).await.unwrap();
    assert_eq!(agent, "a".repeat(200));
    browser.clone().send(request().header("user-agent", "Another/1.0")).await.ok(200);
    let elsewhere = app.anonymous().at_address("127.0.0.2".parse().unwrap());
    let request = browser.with_cookies(elsewhere.request(Method::GET, "/v1/me")).header("user-agent", "Another/1.0");
    let reply = elsewhere.send(request).await;
    assert_eq!(reply.event("session_client_changed")["changed"], "network");
    reply.ok(200);
}

#[tokio::test]
async fn rate_04_sign_ins_count_by_network_and_refreshes_by_session() {
    let few = ("APP_SESSIONS__ATTEMPTS_PER_MINUTE", "3");
    let app = SERVICE.start_with(&[&UNTHROTTLED[..], &[SESSIONS[4], few]].concat()).await;
    let mut browser = signed_in(&app).await;
    // No cookie has a limit of its own for sign-ins: there are as many as there were sessions.
    assert_eq!(browser.get("/auth/login").await.status, 303);
    for refused in [browser.get("/auth/login").await, Browser::new(&app).get("/auth/login").await] {
        assert_eq!(refused.problem(429), "rate_limited");
        assert_eq!(refused.body["limit"], "credential");
        assert!(refused.header("retry-after").is_some());
    }
    browser.clone().get("/auth/callback?state=x").await.problem(429);
    let elsewhere = app.anonymous().at_address("127.0.0.3".parse().unwrap());
    assert_eq!(elsewhere.get("/auth/login").await.status, 303, "another network is not limited");
    for _ in 0..3 {
        browser.change(Method::POST, "/auth/refresh").await.ok(200);
    }
    browser.change(Method::POST, "/auth/refresh").await.problem(429);
    browser.get("/v1/me").await.ok(200);
}

/// An issuer signs out many people at once, from one address.
#[tokio::test]
async fn rate_04_logout_tokens_of_an_issuer_are_all_taken() {
    let few = ("APP_SESSIONS__ATTEMPTS_PER_MINUTE", "3");
    let app = SERVICE.start_with(&[&UNTHROTTLED[..], &[SESSIONS[4], few]].concat()).await;
    for number in 0..10 {
        let reply = send_logout(&app, |claims| claims["sid"] = number.to_string().into()).await;
        assert_eq!(reply.status, 200, "{number}: {reply:#?}");
    }
}

/// A page of another site must not use up the sign-ins of a network, or have it blocked.
#[tokio::test]
async fn authn_14_embedded_sign_in_is_refused_and_not_counted() {
    let limit = [
        ("APP_SESSIONS__ATTEMPTS_PER_MINUTE", "3"),
        ("APP_FAILURE_LIMIT__FREE_FAILURES", "0"),
        ("APP_FAILURE_LIMIT__MAX_FAILURES", "2"),
    ];
    let app = SERVICE.start_with(&[&UNTHROTTLED[..1], &SESSIONS[4..5], &limit].concat()).await;
    let anonymous = app.anonymous();
    for path in ["/auth/login", "/auth/callback?code=x&state=y"] {
        for (mode, destination) in [("no-cors", "image"), ("navigate", "iframe"), ("cors", "empty")] {
            let request = anonymous.request(Method::GET, path).header("sec-fetch-site", "cross-site");
            let request = request.header("sec-fetch-mode", mode).header("sec-fetch-dest", destination);
            let reply = anonymous.send(request).await;
            assert_eq!(reply.problem(403), "forbidden", "{path} {mode}");
            assert_eq!(reply.event("malicious_csrf")["reason"], "embedded", "{path} {mode}");
        }
    }
    let navigation = anonymous.request(Method::GET, "/auth/login").header("sec-fetch-site", "cross-site");
    let navigation = navigation.header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "document");
    assert_eq!(anonymous.send(navigation).await.status, 303);
    signed_in(&app).await;
}

#[tokio::test]
async fn authn_17_failed_sign_ins_block_their_source() {
    let limit = [("APP_FAILURE_LIMIT__FREE_FAILURES", "0"), ("APP_FAILURE_LIMIT__MAX_FAILURES", "3")];
    let app = SERVICE.start_with(&[&SESSIONS[..2], &SESSIONS[4..], &limit].concat()).await;
    let attacker = app.anonymous().at_address("127.0.0.9".parse().unwrap());
    for _ in 0..2 {
        attacker.get("/auth/callback?code=x&state=y").await.problem(401);
    }
    attacker.get("/auth/callback?code=x&state=y").await.problem(429);
    let token =
        attacker.post_raw("/auth/backchannel-logout", "application/x-www-form-urlencoded", "logout_token=a.b.c");
    assert_eq!(token.await.body["limit"], "failed_authentications");
    let mut browser = Browser::new(&app);
    browser.sign_in(&admin()).await;
}

#[tokio::test]
async fn authn_11_incident_command_ends_browser_sessions_on_every_replica() {
    let [first, second] = super::two_replicas().await;
    let mut browser = super::browser_of(&first);
    browser.sign_in(&admin()).await;
    let mut at_second = browser.at(&second);
    at_second.get("/v1/me").await.ok(200);
    first.clock.advance(Duration::from_secs(1));
    incident(&SERVICE, &first.database, &["sessions", &admin().subject]);
    eventually("the first replica rejects it", async || browser.get("/v1/me").await.status == 401).await;
    eventually("the second replica rejects it", async || at_second.get("/v1/me").await.status == 401).await;
    // A new sign-in is accepted, and a refreshed access token does not revive the old session.
    for app in [&first, &second] {
        app.clock.advance(Duration::from_secs(2));
    }
    browser.cookies.clear();
    browser.sign_in(&admin()).await;
    browser.get("/v1/me").await.ok(200);
    at_second.get("/v1/me").await.problem(401);
}
