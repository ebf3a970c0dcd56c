//! Failures cost, first time and then access; those of others cost nothing.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use serde_json::json;
use service::authz::{matrix::Scope, policy::Role};

use super::{api_keys::with_secret, assert_refused};
use crate::support::{Actor, Reply, TestApp, eventually, run};

const SOON: [(&str, &str); 2] = [("APP_PENALTY__FREE_FAILURES", "3"), ("APP_PENALTY__FAILURES", "6")];

fn elsewhere(actor: Actor, last: u8) -> Actor {
    actor.at_address(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)))
}

fn events(reply: &Reply) -> Vec<String> {
    reply.events().into_iter().map(|event| event["event"].clone()).collect()
}

/// A text of the right form whose secret is another.
fn wrong(key: &str, n: u32) -> String {
    with_secret(key, &format!("{n:044}"))
}

#[track_caller]
fn assert_shut_out(reply: &Reply, at_most: i64) {
    let seconds = retry_after(reply);
    assert!((1..=at_most).contains(&seconds), "{seconds}");
}

#[track_caller]
fn retry_after(reply: &Reply) -> i64 {
    assert_eq!(reply.problem(429), "rate_limited", "{reply:#?}");
    reply.header("retry-after").unwrap().parse().unwrap()
}

/// A text of the right form with the id of no key.
fn unknown(key: &str, n: u32) -> String {
    let (id, _) = key.rsplit_once('_').unwrap();
    wrong(&format!("{}{}_", &id[..id.len() - 22], service::crypto::base62(u128::from(n))), n)
}

#[tokio::test]
async fn authn_17_failures_are_slowed_and_then_shut_their_source_out() {
    let app = TestApp::start_with(&SOON).await;
    let user = app.user(Role::Viewer);
    let attacker = app.bearer("e30.e30.e30");
    for n in 1..=5 {
        let started = Instant::now();
        assert_refused(&attacker.get("/v1/me").await, "a failure");
        // After the three free ones: 50 ms, 100 ms.
        let least = Duration::from_millis(match n {
            4 => 50,
            5 => 100,
            _ => 0,
        });
        assert!(started.elapsed() >= least, "failure {n} took {:?}", started.elapsed());
    }
    let reply = attacker.get("/v1/me").await;
    assert_shut_out(&reply, 60);
    assert_eq!(events(&reply), ["authn_login_lock", "authn_token_invalid", "excess_rate_limit_exceeded"]);
    let told = &reply.events()[0];
    assert_eq!((told["source"].as_str(), told["failures"].as_str()), ("127.0.0.1", "6"));
    assert_eq!((told["seconds"].as_str(), told.get("key")), ("60", None));
    let again = attacker.get("/v1/me").await;
    assert_shut_out(&again, 60);
    // Being shut out is told once, what was refused every time.
    assert_eq!(events(&again), ["authn_token_invalid", "excess_rate_limit_exceeded"]);
    // A token that verifies is let in all the same, another address never was concerned, and neither are keys.
    user.get("/v1/me").await.ok(200);
    assert_refused(&elsewhere(app.bearer("e30.e30.e30"), 2).get("/v1/me").await, "elsewhere");
    let created = app.new_api_key(&[Scope::OrdersRead]).await;
    app.api_key(created["key"].as_str().unwrap()).get("/v1/orders").await.ok(200);

    app.clock.advance(Duration::from_secs(61));
    for _ in 0..5 {
        assert_refused(&attacker.get("/v1/me").await, "forgiven");
    }
    // The second time it is twice as long, and counted to its end.
    assert_eq!(retry_after(&attacker.get("/v1/me").await), 120);
    app.clock.advance(Duration::from_secs(100));
    assert!((15..=20).contains(&retry_after(&attacker.get("/v1/me").await)));
    app.clock.advance(Duration::from_secs(21 + 3_600));
    for _ in 0..5 {
        assert_refused(&attacker.get("/v1/me").await, "forgotten");
    }
    assert_eq!(retry_after(&attacker.get("/v1/me").await), 60);
}

#[tokio::test]
async fn authn_17_a_source_that_is_shut_out_has_no_key_hashed_but_those_that_were_right() {
    let app = TestApp::start_with(&SOON).await;
    let (first, second) = (app.new_api_key(&[Scope::OrdersRead]).await, app.new_api_key(&[Scope::OrdersRead]).await);
    let (used, unused) = (first["key"].as_str().unwrap(), second["key"].as_str().unwrap());
    app.api_key(used).get("/v1/orders").await.ok(200);
    for n in 1..=5 {
        assert_refused(&app.api_key(&unknown(used, n)).get("/v1/orders").await, "no such key");
    }
    assert_shut_out(&app.api_key(&unknown(used, 6)).get("/v1/orders").await, 60);
    // Not even with a right key: whether it is right takes a hash.
    assert_shut_out(&app.api_key(unused).get("/v1/orders").await, 60);
    elsewhere(app.api_key(unused), 2).get("/v1/orders").await.ok(200);
    // What was right before costs one in a minute and is no guess; so this one, too, from now on.
    for key in [used, unused] {
        app.api_key(key).get("/v1/orders").await.ok(200);
    }
    app.clock.advance(Duration::from_secs(50));
    for n in 10..16 {
        app.api_key(&unknown(used, n)).get("/v1/orders").await;
    }
    app.clock.advance(Duration::from_secs(11));
    app.api_key(used).get("/v1/orders").await.ok(200);
}

#[tokio::test]
async fn authn_17_guessing_at_one_key_ends_sooner_and_locks_nobody_else_out() {
    let app = TestApp::start_with(&[("APP_PENALTY__FREE_FAILURES", "2"), ("APP_PENALTY__FAILURES", "6")]).await;
    let (first, second) = (app.new_api_key(&[Scope::OrdersRead]).await, app.new_api_key(&[Scope::OrdersRead]).await);
    let (key, other) = (first["key"].as_str().unwrap(), second["key"].as_str().unwrap());
    for n in 0..2 {
        assert_refused(&app.api_key(&wrong(key, n)).get("/v1/orders").await, "a guess");
    }
    let reply = app.api_key(&wrong(key, 2)).get("/v1/orders").await;
    assert_shut_out(&reply, 60);
    assert_eq!(events(&reply), ["authn_login_lock", "authn_token_invalid", "excess_rate_limit_exceeded"]);
    let id = first["id"].as_str().unwrap();
    let told = &reply.events()[0];
    assert_eq!((told["source"].as_str(), told["key"].as_str()), ("127.0.0.1", id));
    // Here it is of no use to know the key now; another key is, and this one at another address.
    assert_shut_out(&app.api_key(key).get("/v1/orders").await, 60);
    app.api_key(other).get("/v1/orders").await.ok(200);
    elsewhere(app.api_key(key), 2).get("/v1/orders").await.ok(200);

    // From many addresses: nobody is shut out who did not fail, but it is told.
    let mut told = 0;
    for last in 10..16 {
        let reply = elsewhere(app.api_key(&wrong(key, u32::from(last))), last).get("/v1/orders").await;
        assert_refused(&reply, "a guess from elsewhere");
        for event in reply.events().iter().filter(|event| event["event"] == "authn_login_fail_max") {
            assert_eq!(event["key"], id);
            told += 1;
        }
    }
    assert_eq!(told, 1);
    app.clock.advance(Duration::from_secs(61));
    elsewhere(app.api_key(key), 3).get("/v1/orders").await.ok(200);
}

/// Programs go on with keys that an operator revoked, as after `revoke everything`, and others there get new ones.
#[tokio::test]
async fn authn_17_who_shows_a_revoked_key_keeps_no_new_one_out() {
    let app = TestApp::start_with(&SOON).await;
    let (old, other) = (app.new_api_key(&[Scope::OrdersRead]).await, app.new_api_key(&[Scope::OrdersRead]).await);
    let (old, new) = (app.api_key(old["key"].as_str().unwrap()), app.api_key(other["key"].as_str().unwrap()));
    old.get("/v1/orders").await.ok(200);
    let id = old.get("/v1/me").await.ok(200)["subject"].as_str().unwrap().to_owned();
    let note = format!("select note_revocation('subject', '{id}', now(), 'a test')");
    run(&app.database.operator, &note).await.unwrap();
    eventually("it is revoked", async || old.get("/v1/orders").await.status == 401).await;
    for _ in 0..20 {
        assert_refused(&old.get("/v1/orders").await, "revoked");
    }
    // What is remembered of it is gone too.
    app.clock.advance(Duration::from_secs(61));
    for _ in 0..20 {
        assert_refused(&old.get("/v1/orders").await, "revoked");
    }
    new.get("/v1/orders").await.ok(200);
}

#[tokio::test]
async fn authn_17_honest_failures_are_not_held_against_anybody() {
    let app = TestApp::start_with(&SOON).await;
    let expired = app.forge().claim("iat", json!(1_000)).claim("exp", json!(1_600)).token();
    let revoked = app.forge().claim("jti", "revoked").token();
    run(&app.database.operator, "select note_revocation('token', 'revoked', now(), 'a test')").await.unwrap();
    eventually("it is revoked", async || app.bearer(revoked.clone()).get("/v1/me").await.status == 401).await;
    for _ in 0..10 {
        assert_refused(&app.bearer(expired.clone()).get("/v1/me").await, "expired");
        assert_refused(&app.bearer(revoked.clone()).get("/v1/me").await, "revoked");
    }
    for _ in 0..10 {
        assert_eq!(app.anonymous().get("/v1/me").await.problem(401), "unauthenticated");
    }
}
