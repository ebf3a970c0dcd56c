//! Failures cost, first time and then access; those of others cost nothing.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use serde_json::json;
use service::authz::{matrix::Scope, policy::Role};

use super::assert_refused;
use crate::support::{Actor, Reply, TestApp};

const SOON: [(&str, &str); 2] = [("APP_PENALTY__FREE_FAILURES", "3"), ("APP_PENALTY__FAILURES", "6")];

fn elsewhere(actor: Actor, last: u8) -> Actor {
    actor.at_address(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)))
}

fn events(reply: &Reply) -> Vec<String> {
    reply.events().into_iter().map(|event| event["event"].clone()).collect()
}

/// A text of the right form whose secret is another.
fn wrong(key: &str, n: u32) -> String {
    let unchecked = format!("{}_{n:044}", key.rsplit_once('_').unwrap().0);
    let sum = service::crypto::sha256(unchecked.as_bytes());
    let digits = service::crypto::base62(u128::from(u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]])));
    format!("{unchecked}{}", &digits[16..])
}

#[track_caller]
fn assert_shut_out(reply: &Reply, at_most: i64) {
    assert_eq!(reply.problem(429), "rate_limited", "{reply:#?}");
    let seconds: i64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=at_most).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn authn_17_failures_are_slowed_and_then_shut_their_source_out() {
    let app = TestApp::start_with(&SOON).await;
    let created = app.new_api_key(&[Scope::OrdersRead]).await;
    let key = created["key"].as_str().unwrap();
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
    assert_eq!(events(&reply), ["authn_login_lock", "excess_rate_limit_exceeded"]);
    let again = attacker.get("/v1/me").await;
    assert_shut_out(&again, 60);
    assert_eq!(events(&again), ["excess_rate_limit_exceeded"], "being shut out is told once");
    // What costs is not done for this source any more, not even with the right key.
    assert_shut_out(&app.api_key(key).get("/v1/orders").await, 60);
    // A token that verifies is let in all the same; and another address never was concerned.
    user.get("/v1/me").await.ok(200);
    elsewhere(app.api_key(key), 2).get("/v1/orders").await.ok(200);
    // What was checked there is remembered, so it costs nothing here either.
    app.api_key(key).get("/v1/orders").await.ok(200);

    app.clock.advance(Duration::from_secs(61));
    assert_refused(&attacker.get("/v1/me").await, "forgiven");
    for _ in 0..4 {
        attacker.get("/v1/me").await;
    }
    // The second time it is twice as long.
    let reply = attacker.get("/v1/me").await;
    assert_shut_out(&reply, 120);
    assert!(reply.header("retry-after").unwrap().parse::<i64>().unwrap() > 100);
    app.clock.advance(Duration::from_secs(120 + 3_601));
    for _ in 0..6 {
        attacker.get("/v1/me").await;
    }
    assert_shut_out(&attacker.get("/v1/me").await, 60);
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
    assert_eq!(events(&reply), ["authn_login_lock", "excess_rate_limit_exceeded"]);
    // Here it is of no use to know the key now; another key is, and this one at another address.
    assert_shut_out(&app.api_key(key).get("/v1/orders").await, 60);
    app.api_key(other).get("/v1/orders").await.ok(200);
    elsewhere(app.api_key(key), 2).get("/v1/orders").await.ok(200);

    // From many addresses: nobody is shut out who did not fail, but it is told.
    let mut told = 0;
    for last in 10..16 {
        let reply = elsewhere(app.api_key(&wrong(key, u32::from(last))), last).get("/v1/orders").await;
        assert_refused(&reply, "a guess from elsewhere");
        told += events(&reply).iter().filter(|event| *event == "authn_login_fail_max").count();
    }
    assert_eq!(told, 1);
    app.clock.advance(Duration::from_secs(61));
    elsewhere(app.api_key(key), 3).get("/v1/orders").await.ok(200);
}

#[tokio::test]
async fn authn_17_honest_failures_are_not_held_against_anybody() {
    let app = TestApp::start_with(&SOON).await;
    let expired = app.forge().claim("iat", json!(1_000)).claim("exp", json!(1_600)).token();
    for _ in 0..10 {
        assert_refused(&app.bearer(expired.clone()).get("/v1/me").await, "expired");
    }
    for _ in 0..10 {
        assert_eq!(app.anonymous().get("/v1/me").await.problem(401), "unauthenticated");
    }
    // Whoever gets a key right in between is not guessing at it.
    let created = app.new_api_key(&[Scope::OrdersRead]).await;
    let key = created["key"].as_str().unwrap();
    for n in 0..2 {
        assert_refused(&app.api_key(&wrong(key, n)).get("/v1/orders").await, "a slip");
        app.api_key(key).get("/v1/orders").await.ok(200);
        app.clock.advance(Duration::from_secs(1));
    }
}
