//! The life of an issuer's keys: found, rotated, withdrawn, unreachable, poisoned.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::assert_refused;
use crate::support::{Actor, Door, OddIssuer, TestApp, TestKey, UNTHROTTLED, eventually};

pub(super) const EVERY_SECOND: [(&str, &str); 5] =
    [UNTHROTTLED[0], UNTHROTTLED[1], UNTHROTTLED[2], UNTHROTTLED[3], ("APP_OIDC__REFRESH_SECONDS", "1")];

/// What is read of an issuer's document, in bytes.
const MAX_DOCUMENT: usize = 256 * 1024;

/// What is wrong with an issuer; the other one is elsewhere.
type Change = fn(&OddIssuer, &OddIssuer);

/// Whoever holds a fresh token of this key.
fn holder(app: &TestApp, issuer: &OddIssuer, key: &TestKey) -> Actor {
    app.bearer(issuer.token(key, app.clock.timestamp()))
}

/// Asks until the answer has this status.
pub(super) async fn until(actor: &Actor, status: u16) {
    eventually(&format!("{status}"), async || actor.get("/v1/me").await.status == status).await;
}

/// Until the issuer was asked, and what it said was looked at.
async fn until_asked(issuer: &OddIssuer) {
    // The second begins after the first answer was dealt with.
    let before = issuer.discoveries();
    eventually("the issuer is asked", async || issuer.discoveries() >= before + 2).await;
}

#[tokio::test]
async fn authn_03_every_listed_algorithm_is_accepted() {
    let keys = [TestKey::es256("a"), TestKey::eddsa("b"), TestKey::rs256("c"), TestKey::ps256("d")];
    let issuer = OddIssuer::with_keys(&keys.each_ref()).await;
    // A document as long as may be is none too long.
    issuer.pad_to(MAX_DOCUMENT);
    let app = issuer.app(&[]).await;
    app.wait_until_ready().await;
    for key in &keys {
        assert_eq!(holder(&app, &issuer, key).get("/v1/me").await.status, 200, "{}", key.alg);
    }
}

#[tokio::test]
async fn authn_02_a_discovery_that_is_not_the_issuers_own_is_not_used() {
    let key = TestKey::es256("a");
    let elsewhere = OddIssuer::with_keys(&[&key]).await;
    let wrong: [(&str, Change); 6] = [
        ("another issuer", |issuer, _| issuer.metadata("issuer", "https://evil.example")),
        ("a slash more", |issuer, _| issuer.metadata("issuer", format!("{}/", issuer.url))),
        ("no keys", |issuer, _| issuer.metadata("jwks_uri", Value::Null)),
        ("too long", |issuer, _| issuer.pad_to(MAX_DOCUMENT + 1)),
        ("a redirect", |issuer, elsewhere| issuer.redirect_to(format!("{}/keys", elsewhere.url))),
        ("no address", |issuer, _| issuer.metadata("jwks_uri", "file:///etc/passwd")),
    ];
    for (case, change) in wrong {
        let issuer = OddIssuer::with_keys(&[&key]).await;
        change(&issuer, &elsewhere);
        let app = issuer.app(&[]).await;
        until_asked(&issuer).await;
        assert_eq!(holder(&app, &issuer, &key).get("/v1/me").await.problem(503), "unavailable", "{case}");
    }
    assert_eq!(elsewhere.key_requests(), 0, "a redirect was followed");
}

#[tokio::test]
async fn authn_09_a_flood_of_unknown_keys_is_no_flood_of_fetches() {
    let key = TestKey::es256("known");
    let issuer = OddIssuer::with_keys(&[&key]).await;
    let app = Arc::new(issuer.app(&UNTHROTTLED).await);
    app.wait_until_ready().await;
    let (before, started) = (issuer.key_requests(), Instant::now());
    let unknown = TestKey::es256("unknown");
    let mut flood = tokio::task::JoinSet::new();
    for lane in 0..10 {
        let attacker = holder(&app, &issuer, &unknown);
        flood.spawn(async move {
            for round in 0..100 {
                // Some hang up while the keys are being fetched.
                if (lane + round) % 5 == 0 {
                    let _ = tokio::time::timeout(Duration::from_millis(1), attacker.get("/v1/me")).await;
                } else {
                    assert_refused(&attacker.get("/v1/me").await, "unknown");
                }
            }
        });
    }
    while let Some(done) = flood.join_next().await {
        done.unwrap();
    }
    // One per cool-down of 5 s.
    let allowed = 1 + started.elapsed().as_secs() / 5;
    let fetches = issuer.key_requests() - before;
    assert!((1..=allowed).contains(&fetches), "{fetches} fetches in {:?}", started.elapsed());
    holder(&app, &issuer, &key).get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn authn_09_keys_rotate_and_end_while_requests_run() {
    let (old, new) = (TestKey::es256("old"), TestKey::eddsa("new"));
    let issuer = OddIssuer::with_keys(&[&old]).await;
    let app = issuer.app(&EVERY_SECOND).await;
    app.wait_until_ready().await;
    let with_old = holder(&app, &issuer, &old);
    with_old.get("/v1/me").await.ok(200);
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, busy) = (Arc::clone(&stop), holder(&app, &issuer, &old));
    let work = tokio::spawn(async move {
        let mut served = 0;
        while !stopped.load(Ordering::SeqCst) {
            busy.get("/v1/me").await.ok(200);
            served += 1;
        }
        served
    });

    issuer.publish(&[&new, &old]);
    // At once: the unknown key makes the service ask.
    holder(&app, &issuer, &new).get("/v1/me").await.ok(200);
    with_old.get("/v1/me").await.ok(200);
    stop.store(true, Ordering::SeqCst);
    assert!(work.await.unwrap() > 0);

    issuer.publish(&[&new]);
    // The token that was verified before ends with its key.
    until(&with_old, 401).await;
    assert_refused(&holder(&app, &issuer, &old).get("/v1/me").await, "a withdrawn key");
    holder(&app, &issuer, &new).get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn authn_09_a_poisoned_set_is_refused_whole_and_the_old_one_kept() {
    let (good, evil) = (TestKey::es256("good"), TestKey::es256("evil"));
    let issuer = OddIssuer::with_keys(&[&good]).await;
    let app = issuer.app(&EVERY_SECOND).await;
    app.wait_until_ready().await;
    let mut of_use = evil.jwk();
    of_use["use"] = json!("everything");
    let mut private = evil.jwk();
    private["d"] = json!("AAAA");
    let mut same_id = evil.jwk();
    same_id["kid"] = json!("good");
    for (case, keys) in [
        ("two of one id", json!({ "keys": [good.jwk(), evil.jwk(), same_id] })),
        ("a symmetric key", json!({ "keys": [evil.jwk(), { "kty": "oct", "kid": "s", "k": "AAAA" }] })),
        ("a private key", json!({ "keys": [evil.jwk(), private] })),
        ("an unknown use", json!({ "keys": [evil.jwk(), of_use] })),
        ("no keys", json!({ "keys": [] })),
        ("no set", json!(["keys"])),
    ] {
        issuer.publish_raw(keys);
        until_asked(&issuer).await;
        holder(&app, &issuer, &good).get("/v1/me").await.ok(200);
        assert_refused(&holder(&app, &issuer, &evil).get("/v1/me").await, case);
    }
    issuer.publish(&[&evil]);
    until(&holder(&app, &issuer, &evil), 200).await;
}

/// Whoever shows a key that is not known is not held up for as long as the issuer may be waited for.
#[tokio::test]
async fn authn_09_an_issuer_that_hangs_holds_nobody_up() {
    let (key, other) = (TestKey::es256("a"), TestKey::es256("b"));
    let (mut door, mut issuer) = (Door::new().await, OddIssuer::with_keys(&[&key]).await);
    let server = issuer.url.trim_start_matches("http://").parse().unwrap();
    issuer.url = door.url();
    issuer.metadata("issuer", door.url());
    issuer.metadata("jwks_uri", format!("{}/keys", door.url()));
    door.open_to(server).await;
    let app = issuer.app(&UNTHROTTLED).await;
    app.wait_until_ready().await;
    holder(&app, &issuer, &key).get("/v1/me").await.ok(200);
    door.shut().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    door.open_to(silent.local_addr().unwrap()).await;
    let forger = holder(&app, &issuer, &other);
    // It is asked, and has not been given up when the answer comes.
    let (reply, asked) = tokio::join!(forger.get("/v1/me"), silent.accept());
    assert_refused(&reply, "a key that is not known");
    let asked = asked.unwrap().0;
    while asked.try_read(&mut [0; 1024]).is_ok_and(|read| read > 0) {}
    let waited_for = asked.try_read(&mut [0; 1]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(waited_for, "the answer came when the issuer had been given up");
    holder(&app, &issuer, &key).get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn authn_10_known_keys_serve_until_the_limit_and_then_nothing_does() {
    let key = TestKey::es256("a");
    let issuer = OddIssuer::with_keys(&[&key]).await;
    let app = issuer.app(&EVERY_SECOND).await;
    app.wait_until_ready().await;
    issuer.set_down(true);
    // What was asked before may still be on its way.
    until_asked(&issuer).await;
    app.clock.advance(Duration::from_secs(3_500));
    holder(&app, &issuer, &key).get("/v1/me").await.ok(200);
    app.anonymous().get("/health/ready").await.ok(200);

    app.clock.advance(Duration::from_secs(200));
    let late = holder(&app, &issuer, &key);
    assert_eq!(late.get("/v1/me").await.problem(503), "unavailable");
    assert_eq!(app.anonymous().get("/health/ready").await.problem(503), "unavailable");

    issuer.set_down(false);
    until(&late, 200).await;
    app.anonymous().get("/health/ready").await.ok(200);
}

#[tokio::test]
async fn authn_10_a_token_that_was_verified_does_not_outlive_the_limit() {
    let key = TestKey::es256("a");
    let issuer = OddIssuer::with_keys(&[&key]).await;
    let mut variables = EVERY_SECOND.to_vec();
    variables.push(("APP_OIDC__MAX_STALENESS_SECONDS", "60"));
    let app = issuer.app(&variables).await;
    app.wait_until_ready().await;
    let user = holder(&app, &issuer, &key);
    user.get("/v1/me").await.ok(200);
    issuer.set_down(true);
    until_asked(&issuer).await;
    app.clock.advance(Duration::from_secs(62));
    assert_eq!(user.get("/v1/me").await.problem(503), "unavailable");
}

#[tokio::test]
async fn authn_10_an_issuer_that_fails_is_asked_less_and_less_often() {
    let issuer = OddIssuer::with_keys(&[&TestKey::es256("a")]).await;
    issuer.set_down(true);
    let _app = issuer.app(&[]).await;
    let asked = async |times: u64| eventually("the issuer is asked", async || issuer.discoveries() >= times).await;
    asked(1).await;
    let first = Instant::now();
    asked(4).await;
    // After 0.5 s, 1 s and 2 s more; some is left for when this saw the first.
    assert!(first.elapsed() >= Duration::from_secs(3), "asked four times in {:?}", first.elapsed());
}
