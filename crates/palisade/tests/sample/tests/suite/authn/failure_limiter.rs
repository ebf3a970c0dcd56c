//! The failure limiter (AUTHN-17): failed authentications are delayed, then lock their source out.
//! Valid credentials and other addresses are not affected.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use sample::access::{roles, scopes};
use serde_json::json;

use crate::support::{
    Actor, Reply, SERVICE,
    api_keys::{key_text, with_secret},
    authn::{assert_rejected, until_status},
    eventually, run,
};

/// The first three failures are not delayed; the sixth locks the source out.
const LOW_LIMITS: [(&str, &str); 2] =
    [("APP_FAILURE_LIMIT__FREE_FAILURES", "3"), ("APP_FAILURE_LIMIT__MAX_FAILURES", "6")];

fn at_address(actor: Actor, last: u8) -> Actor {
    actor.at_address(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)))
}

fn events(reply: &Reply) -> Vec<String> {
    reply.events().into_iter().map(|event| event["event"].clone()).collect()
}

/// An API key with a wrong secret.
fn wrong_secret(key: &str, n: u32) -> String {
    with_secret(key, &format!("{n:044}"))
}

#[track_caller]
fn assert_locked_out(reply: &Reply, at_most: i64) {
    let seconds = retry_after(reply);
    assert!((1..=at_most).contains(&seconds), "{seconds}");
}

#[track_caller]
fn retry_after(reply: &Reply) -> i64 {
    assert_eq!(reply.problem(429), "rate_limited", "{reply:#?}");
    reply.header("retry-after").unwrap().parse().unwrap()
}

/// A well-formed API key with the id of no API key.
fn unknown_id(key: &str, n: u32) -> String {
    let (id, _) = key.rsplit_once('_').unwrap();
    wrong_secret(&format!("{}{}_", &id[..id.len() - 22], palisade::crypto::base62(u128::from(n))), n)
}

#[tokio::test]
async fn authn_17_failures_are_delayed_and_then_lock_the_source_out() {
    let app = SERVICE.start_with(&LOW_LIMITS).await;
    let user = app.user(roles::VIEWER);
    let attacker = app.bearer("e30.e30.e30");
    for n in 1..=5 {
        let started = Instant::now();
        assert_rejected(&attacker.get("/v1/me").await, "a failure");
        // The delay of the fourth failure is 50 ms; it doubles with each failure.
        let minimum = Duration::from_millis(match n {
            4 => 50,
            5 => 100,
            _ => 0,
        });
        assert!(started.elapsed() >= minimum, "failure {n} took {:?}", started.elapsed());
    }
    let reply = attacker.get("/v1/me").await;
    assert_locked_out(&reply, 60);
    assert_eq!(events(&reply), ["authn_login_lock", "authn_token_invalid", "excess_rate_limit_exceeded"]);
    let lockout = &reply.events()[0];
    assert_eq!((lockout["source"].as_str(), lockout["failures"].as_str()), ("127.0.0.1", "6"));
    assert_eq!((lockout["seconds"].as_str(), lockout.get("key")), ("60", None));
    let again = attacker.get("/v1/me").await;
    assert_locked_out(&again, 60);
    // The lock-out is one event; each rejected token is another.
    assert_eq!(events(&again), ["authn_token_invalid", "excess_rate_limit_exceeded"]);
    // Valid tokens, other addresses and API keys are not affected.
    user.get("/v1/me").await.ok(200);
    assert_rejected(&at_address(app.bearer("e30.e30.e30"), 2).get("/v1/me").await, "at_address");
    let created = app.new_api_key(&[scopes::NOTES_READ]).await;
    app.api_key(created["key"].as_str().unwrap()).get("/v1/notes").await.ok(200);

    app.clock.advance(Duration::from_secs(61));
    for _ in 0..5 {
        assert_rejected(&attacker.get("/v1/me").await, "after the lock-out");
    }
    // The second lock-out is twice as long; `Retry-After` counts down to its end.
    assert_eq!(retry_after(&attacker.get("/v1/me").await), 120);
    app.clock.advance(Duration::from_secs(100));
    assert!((15..=20).contains(&retry_after(&attacker.get("/v1/me").await)));
    app.clock.advance(Duration::from_secs(21 + 3_600));
    for _ in 0..5 {
        assert_rejected(&attacker.get("/v1/me").await, "after the reset");
    }
    assert_eq!(retry_after(&attacker.get("/v1/me").await), 60);
}

#[tokio::test]
async fn authn_17_locked_out_source_can_use_only_verified_api_keys() {
    let app = SERVICE.start_with(&LOW_LIMITS).await;
    let first = app.new_api_key(&[scopes::NOTES_READ]).await;
    let second = app.new_api_key(&[scopes::NOTES_READ]).await;
    let used = key_text(&first);
    let unused = key_text(&second);
    app.api_key(used).get("/v1/notes").await.ok(200);
    for n in 1..=5 {
        assert_rejected(&app.api_key(&unknown_id(used, n)).get("/v1/notes").await, "no such key");
    }
    assert_locked_out(&app.api_key(&unknown_id(used, 6)).get("/v1/notes").await, 60);
    // A valid API key that was never verified here is locked out too: verifying it costs a hash.
    assert_locked_out(&app.api_key(unused).get("/v1/notes").await, 60);
    at_address(app.api_key(unused), 2).get("/v1/notes").await.ok(200);
    // Verified API keys still work. The second one was verified at the other address.
    for key in [used, unused] {
        app.api_key(key).get("/v1/notes").await.ok(200);
    }
    app.clock.advance(Duration::from_secs(50));
    for n in 10..16 {
        app.api_key(&unknown_id(used, n)).get("/v1/notes").await;
    }
    app.clock.advance(Duration::from_secs(11));
    app.api_key(used).get("/v1/notes").await.ok(200);
}

#[tokio::test]
async fn authn_17_guessing_at_one_api_key_locks_out_sooner_and_only_the_source() {
    let app = SERVICE
        .start_with(&[("APP_FAILURE_LIMIT__FREE_FAILURES", "2"), ("APP_FAILURE_LIMIT__MAX_FAILURES", "6")])
        .await;
    let first = app.new_api_key(&[scopes::NOTES_READ]).await;
    let second = app.new_api_key(&[scopes::NOTES_READ]).await;
    let key = key_text(&first);
    let other = key_text(&second);
    for n in 0..2 {
        assert_rejected(&app.api_key(&wrong_secret(key, n)).get("/v1/notes").await, "a guess");
    }
    let reply = app.api_key(&wrong_secret(key, 2)).get("/v1/notes").await;
    assert_locked_out(&reply, 60);
    assert_eq!(events(&reply), ["authn_login_lock", "authn_token_invalid", "excess_rate_limit_exceeded"]);
    let id = first["id"].as_str().unwrap();
    let lockout = &reply.events()[0];
    assert_eq!((lockout["source"].as_str(), lockout["key"].as_str()), ("127.0.0.1", id));
    // The lock-out covers this API key at this address only.
    assert_locked_out(&app.api_key(key).get("/v1/notes").await, 60);
    app.api_key(other).get("/v1/notes").await.ok(200);
    at_address(app.api_key(key), 2).get("/v1/notes").await.ok(200);

    // Guesses from many addresses raise one event, and lock out no address that did not guess.
    let mut guessing_events = 0;
    for last in 10..16 {
        let reply = at_address(app.api_key(&wrong_secret(key, u32::from(last))), last).get("/v1/notes").await;
        assert_rejected(&reply, "a guess from another address");
        for event in reply.events().iter().filter(|event| event["event"] == "authn_login_fail_max") {
            assert_eq!(event["key"], id);
            guessing_events += 1;
        }
    }
    assert_eq!(guessing_events, 1);
    app.clock.advance(Duration::from_secs(61));
    at_address(app.api_key(key), 3).get("/v1/notes").await.ok(200);
}

/// After `revoke everything`, programs keep sending their revoked API keys, while other callers at
/// the same address get new ones.
#[tokio::test]
async fn authn_17_revoked_api_keys_do_not_lock_their_source_out() {
    let app = SERVICE.start_with(&LOW_LIMITS).await;
    let old = app.api_key(key_text(&app.new_api_key(&[scopes::NOTES_READ]).await));
    let new = app.api_key(key_text(&app.new_api_key(&[scopes::NOTES_READ]).await));
    old.get("/v1/notes").await.ok(200);
    let id = old.get("/v1/me").await.ok(200)["subject"].as_str().unwrap().to_owned();
    let revoke = format!("select palisade.record_revocation('subject', '{id}', now(), 'a test')");
    run(&app.database.operator, &revoke).await.unwrap();
    eventually("it is revoked", async || old.get("/v1/notes").await.status == 401).await;
    for _ in 0..20 {
        assert_rejected(&old.get("/v1/notes").await, "revoked");
    }
    // By now the cache entry of the API key has expired.
    app.clock.advance(Duration::from_secs(61));
    for _ in 0..20 {
        assert_rejected(&old.get("/v1/notes").await, "revoked");
    }
    new.get("/v1/notes").await.ok(200);
}

#[tokio::test]
async fn authn_17_expired_revoked_and_missing_tokens_are_not_counted() {
    let app = SERVICE.start_with(&LOW_LIMITS).await;
    let expired = app.forge().claim("iat", json!(1_000)).claim("exp", json!(1_600)).token();
    let revoked = app.forge().claim("jti", "revoked").token();
    run(&app.database.operator, "select palisade.record_revocation('token', 'revoked', now(), 'a test')")
        .await
        .unwrap();
    until_status(&app.bearer(revoked.clone()), 401).await;
    for _ in 0..10 {
        assert_rejected(&app.bearer(expired.clone()).get("/v1/me").await, "expired");
        assert_rejected(&app.bearer(revoked.clone()).get("/v1/me").await, "revoked");
    }
    for _ in 0..10 {
        assert_eq!(app.anonymous().get("/v1/me").await.problem(401), "unauthenticated");
    }
}
