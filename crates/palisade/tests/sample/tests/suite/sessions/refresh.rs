//! Refresh of a session (AUTHN-15): parallel ones, reuse of a replaced cookie, and an issuer that is
//! away or answers what it should not.

use std::{collections::BTreeSet, time::Duration};

use http::Method;
use serde_json::{Value, json};

use super::{admin, answers::SignIn, browser_of, signed_in, start, two_replicas};
use crate::support::{Browser, GLOBEX, Reply, TestKey, eventually, superuser};

/// After this time a replaced cookie is no longer accepted.
const AFTER_WINDOW: Duration = Duration::from_secs(11);

/// `REFRESH_ROUNDS` sets another number of rounds.
#[tokio::test]
async fn authn_15_parallel_refreshes_have_one_successor_and_no_lock_out() {
    let replicas = two_replicas().await;
    let mut browser = browser_of(&replicas[0]);
    browser.sign_in(&admin()).await;
    let csrf = browser.csrf_token().await;
    let rounds = std::env::var("REFRESH_ROUNDS").map_or(5_i32, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        for app in &replicas {
            app.clock.advance(AFTER_WINDOW);
        }
        let before = browser.session_cookie().to_owned();
        let mut calls = tokio::task::JoinSet::new();
        for call in 0..50 {
            let mut parallel = browser.at(&replicas[call % 2]);
            let csrf = csrf.clone();
            calls.spawn(async move {
                let request = parallel.request(Method::POST, "/auth/refresh").header("x-csrf-token", csrf);
                let reply = parallel.send(request).await;
                (reply, parallel)
            });
        }
        let mut successors = BTreeSet::new();
        for (reply, parallel) in calls.join_all().await {
            assert_eq!(reply.status, 200, "round {round}: {reply:#?}");
            successors.insert(parallel.session_cookie().to_owned());
            browser = parallel;
        }
        assert_eq!(successors.len(), 1, "round {round}: more than one live successor");
        assert!(!successors.contains(&before), "round {round}: the cookie was not replaced");
        for app in &replicas {
            browser.at(app).get("/v1/me").await.ok(200);
        }
    }
    let live = "select count(*) from palisade.sessions where ended_at is null and generation = $1";
    let live = sqlx::query_scalar::<_, i64>(live).bind(rounds);
    assert_eq!(live.fetch_one(&mut superuser(&replicas[0].database).await).await.unwrap(), 1);
}

/// A request that read the session before another one renewed it must not send the refresh token of
/// before: to the issuer, that is reuse.
#[tokio::test]
async fn authn_15_parallel_operations_renew_the_access_token_without_a_lock_out() {
    let replicas = two_replicas().await;
    let mut browser = browser_of(&replicas[0]);
    browser.sign_in(&admin()).await;
    for round in 0..5 {
        for app in &replicas {
            app.clock.advance(Duration::from_secs(901));
        }
        let mut calls = tokio::task::JoinSet::new();
        for call in 0..120 {
            let mut parallel = browser.at(&replicas[call % 2]);
            calls.spawn(async move { parallel.get("/v1/me").await });
        }
        for reply in calls.join_all().await {
            assert_eq!(reply.status, 200, "round {round}: {reply:#?}");
        }
    }
}

#[tokio::test]
async fn authn_15_key_rollover_of_the_issuer_never_signs_out() {
    let sign_in = SignIn::new().await;
    let mut browser = sign_in.browser().await;
    let new_key = TestKey::es256("new");
    // A forged token makes the service fetch the keys: for five seconds it does not fetch them again.
    sign_in.app.bearer(sign_in.issuer.token(&new_key, sign_in.app.clock.timestamp())).get("/v1/me").await.problem(401);
    sign_in.issuer.publish(&[&new_key]);
    for (sent, next) in [("r-1", "r-2"), ("r-2", "r-3")] {
        let token = sign_in.issuer.token(&new_key, sign_in.app.clock.timestamp());
        let answer = json!({ "access_token": token, "token_type": "Bearer", "refresh_token": next });
        sign_in.issuer.answer_token_requests(200, answer);
        assert_eq!(refresh(&mut browser).await.problem(503), "unavailable");
        assert_eq!(sign_in.issuer.token_forms().last().and_then(|form| refresh_token(form)).unwrap(), sent);
        browser.get("/v1/me").await.ok(200);
    }
}

#[tokio::test]
async fn authn_15_replaced_cookie_works_for_a_moment_and_then_ends_the_session() {
    let app = start().await;
    let mut browser = signed_in(&app).await;
    let stolen = browser.clone();
    browser.change(Method::POST, "/auth/refresh").await.ok(200);
    assert_ne!(browser.session_cookie(), stolen.session_cookie());
    // Requests that were sent before the answer arrived.
    let mut in_flight = stolen.clone();
    in_flight.get("/v1/me").await.ok(200);
    in_flight.change(Method::POST, "/auth/refresh").await.ok(200);
    assert_eq!(in_flight.session_cookie(), browser.session_cookie());
    app.clock.advance(AFTER_WINDOW);
    browser.get("/v1/me").await.ok(200);
    let reply = stolen.clone().get("/v1/me").await;
    assert_eq!(reply.problem(401), "unauthenticated");
    assert_eq!(reply.event("session_reused")["subject"], *admin().subject);
    assert_eq!(reply.event("authn_token_reuse")["reason"], "revoked");
    browser.get("/v1/me").await.problem(401);
    browser.get("/auth/session").await.problem(401);
}

#[tokio::test]
async fn authn_15_cookie_that_was_replaced_twice_ends_the_session() {
    let app = start().await;
    let mut browser = signed_in(&app).await;
    let csrf = browser.csrf_token().await;
    let stolen = browser.clone();
    for _ in 0..2 {
        app.clock.advance(AFTER_WINDOW);
        browser.change(Method::POST, "/auth/refresh").await.ok(200);
    }
    let request = stolen.request(Method::POST, "/auth/refresh").header("x-csrf-token", csrf);
    let reply = stolen.clone().send(request).await;
    assert_eq!(reply.problem(401), "unauthenticated");
    assert_eq!(reply.event("session_reused")["subject"], *admin().subject);
    browser.get("/v1/me").await.problem(401);
}

async fn refresh(browser: &mut Browser) -> Reply {
    browser.change(Method::POST, "/auth/refresh").await
}

#[tokio::test]
async fn authn_16_sign_out_wins_over_a_refresh_that_waits() {
    let app = start().await;
    let browser = signed_in(&app).await;
    let mut other = browser.clone();
    let csrf = other.csrf_token().await;
    app.clock.advance(Duration::from_secs(901));
    // Another replica has the claim, and never ends it.
    let claim = "update palisade.sessions set claimed_until = clock_timestamp() + interval '5 s'";
    sqlx::query(claim).execute(&mut superuser(&app.database).await).await.unwrap();
    let mut waiting = browser.clone();
    let call = tokio::spawn(async move { waiting.get("/v1/me").await });
    let has_begun = "select last_used_at > created_at + interval '900 s' from palisade.sessions";
    eventually("the request has read the session", async || {
        sqlx::query_scalar(has_begun).fetch_one(&mut superuser(&app.database).await).await.unwrap()
    })
    .await;
    let logout = other.request(Method::POST, "/auth/logout").header("x-csrf-token", csrf);
    other.send(logout).await.ok(200);
    assert_eq!(call.await.unwrap().problem(401), "unauthenticated");
}

#[tokio::test]
async fn authn_16_sign_out_wins_over_a_refresh_at_the_issuer() {
    let sign_in = SignIn::new().await;
    let mut browser = sign_in.browser().await;
    let csrf = browser.csrf_token().await;
    let renewed = json!({ "access_token": sign_in.access_token(), "token_type": "Bearer", "refresh_token": "r-2" });
    sign_in.issuer.answer_token_requests(200, renewed);
    let before = sign_in.issuer.token_forms().len();
    let answers = sign_in.issuer.hold_token_requests().await;
    let mut refreshing = browser.clone();
    let call = tokio::spawn(async move { (refresh(&mut refreshing).await, refreshing) });
    eventually("the issuer has the refresh token", async || sign_in.issuer.token_forms().len() > before).await;
    let logout = browser.request(Method::POST, "/auth/logout").header("x-csrf-token", csrf);
    browser.send(logout).await.ok(200);
    drop(answers);
    let (reply, mut refreshed) = call.await.unwrap();
    assert_eq!(reply.problem(401), "unauthenticated");
    assert!(refreshed.cookies.is_empty());
    refreshed.cookies.clone_from(&browser.cookies);
    refreshed.get("/v1/me").await.problem(401);
}

#[tokio::test]
async fn authn_15_issuer_that_is_away_never_signs_out() {
    let sign_in = SignIn::new().await;
    let mut browser = sign_in.browser().await;
    let cookie = browser.session_cookie().to_owned();
    sign_in.issuer.set_down(true);
    for _ in 0..2 {
        let reply = refresh(&mut browser).await;
        assert_eq!(reply.problem(503), "unavailable");
        assert_eq!(browser.session_cookie(), cookie);
        browser.get("/v1/me").await.ok(200);
    }
    // The access token ends.
    sign_in.app.clock.advance(Duration::from_secs(601));
    assert_eq!(browser.get("/v1/me").await.problem(503), "unavailable");
    browser.session().await;
    sign_in.issuer.set_down(false);
    // The issuer refuses this client, or sends no token: a fault of its settings.
    for (status, body) in [(401, json!({ "error": "invalid_client" })), (200, json!({})), (500, json!({}))] {
        sign_in.issuer.answer_token_requests(status, body);
        assert_eq!(browser.get("/v1/me").await.problem(503), "unavailable");
    }
    let renewed = json!({ "access_token": sign_in.access_token(), "token_type": "bearer", "refresh_token": "r-2" });
    sign_in.issuer.answer_token_requests(200, renewed);
    browser.get("/v1/me").await.ok(200);
    assert_eq!(browser.session_cookie(), cookie, "an operation replaces no cookie");
    refresh(&mut browser).await.ok(200);
    assert_ne!(browser.session_cookie(), cookie);
    let sent: Vec<String> = sign_in.issuer.token_forms().iter().filter_map(|form| refresh_token(form)).collect();
    assert_eq!((&*sent[0], &*sent[sent.len() - 1]), ("r-1", "r-2"), "the newest refresh token is sent");
}

/// The refresh token in a form.
fn refresh_token(form: &str) -> Option<String> {
    url::form_urlencoded::parse(form.as_bytes())
        .find(|(name, _)| name == "refresh_token")
        .map(|(_, it)| it.into_owned())
}

#[tokio::test]
async fn authn_15_refusal_of_the_issuer_ends_the_session() {
    let sign_in = SignIn::new().await;
    let answer = |token: String| json!({ "access_token": token, "token_type": "Bearer", "refresh_token": "r-2" });
    let answers: [(&str, u16, Value); 5] = [
        ("a refused refresh token", 400, json!({ "error": "invalid_grant" })),
        ("a token of another person", 200, answer(sign_in.access_token_with("sub", json!("another")))),
        (
            "a token of another tenant",
            200,
            answer(sign_in.access_token_with("tenant_id", json!(GLOBEX.id.to_string()))),
        ),
        ("a token for another API", 200, answer(sign_in.access_token_with("aud", json!("api://another")))),
        (
            "a token bound to a certificate",
            200,
            answer(sign_in.access_token_with("cnf", json!({ "x5t#S256": "A".repeat(43) }))),
        ),
    ];
    for (name, status, body) in answers {
        let mut browser = sign_in.browser().await;
        let before = browser.clone();
        sign_in.issuer.answer_token_requests(status, body);
        assert_eq!(refresh(&mut browser).await.problem(401), "unauthenticated", "{name}");
        before.clone().get("/v1/me").await.problem(401);
    }
}

#[tokio::test]
async fn authn_15_refresh_takes_new_roles_and_a_new_cookie() {
    let sign_in = SignIn::new().await;
    let mut browser = sign_in.browser().await;
    assert_eq!(browser.session().await["roles"], json!(["admin"]));
    let token = sign_in.access_token_with("roles", json!(["viewer"]));
    sign_in.issuer.answer_token_requests(200, json!({ "access_token": token, "token_type": "Bearer" }));
    let cookie = browser.session_cookie().to_owned();
    let reply = refresh(&mut browser).await;
    assert_eq!(reply.event("session_renewed")["subject"], "a-caller");
    assert_eq!(reply.ok(200)["roles"], json!(["viewer"]));
    assert_ne!(browser.session_cookie(), cookie);
    assert_eq!(browser.get("/v1/me").await.ok(200)["roles"], json!(["viewer"]));
    // An issuer that does not rotate its refresh token: the old one is used again.
    sign_in.app.clock.advance(AFTER_WINDOW);
    refresh(&mut browser).await.ok(200);
    let sent: Vec<String> = sign_in.issuer.token_forms().iter().filter_map(|form| refresh_token(form)).collect();
    assert_eq!(sent, ["r-1", "r-1"]);
}
