//! Ends of a session by time, changes of its browser, and limits of credential operations (AUTHN-14,
//! AUTHN-17, RATE-04).

use std::time::Duration;

use http::Method;

use super::{SESSIONS, admin, signed_in, start};
use crate::support::{Browser, SERVICE, UNTHROTTLED, eventually, incident};

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
    let third = browser.get("/auth/login").await;
    assert_eq!(third.status, 303, "a refresh or sign-in of a session has its own bucket: {third:#?}");
    let mut other = Browser::new(&app);
    assert_eq!(other.get("/auth/login").await.status, 303);
    let refused = other.get("/auth/login").await;
    assert_eq!(refused.problem(429), "rate_limited");
    assert_eq!(refused.body["limit"], "credential");
    assert!(refused.header("retry-after").is_some());
    other.get("/auth/callback?state=x").await.problem(429);
    let form = "application/x-www-form-urlencoded";
    app.anonymous().post_raw("/auth/backchannel-logout", form, "logout_token=a.b.c").await.problem(429);
    let elsewhere = app.anonymous().at_address("127.0.0.3".parse().unwrap());
    assert_eq!(elsewhere.get("/auth/login").await.status, 303, "another network is not limited");
    // One of three is the third sign-in, which had the cookie.
    for _ in 0..2 {
        browser.change(Method::POST, "/auth/refresh").await.ok(200);
    }
    browser.change(Method::POST, "/auth/refresh").await.problem(429);
    browser.get("/v1/me").await.ok(200);
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
