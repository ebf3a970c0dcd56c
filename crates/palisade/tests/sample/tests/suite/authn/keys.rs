//! Keys of an issuer: discovery (AUTHN-02), algorithms (AUTHN-03), rotation and invalid key sets
//! (AUTHN-09), and an issuer that is down (AUTHN-10).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use palisade::model::Clock;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{
    Actor, GLOBEX, MisbehavingIssuer, SERVICE, ServiceProcess, TcpSwitch, TestApp, TestKey, UNTHROTTLED,
    authn::{REFRESH_EVERY_SECOND, assert_rejected, until_status},
    eventually,
};

/// The largest accepted document of an issuer, in bytes.
const MAX_DOCUMENT: usize = 256 * 1024;

/// Breaks the first issuer; the second one is a redirect target.
type Fault = fn(&MisbehavingIssuer, &MisbehavingIssuer);

/// A client with a new token signed by this key.
fn holder(app: &TestApp, issuer: &MisbehavingIssuer, key: &TestKey) -> Actor {
    app.bearer(issuer.token(key, app.clock.timestamp()))
}

/// Waits until the service has processed the documents of the issuer.
async fn until_refreshed(issuer: &MisbehavingIssuer) {
    // The second refresh begins after the first was processed.
    let before = issuer.discoveries();
    eventually("the service refreshes twice", async || issuer.discoveries() >= before + 2).await;
}

#[tokio::test]
async fn authn_03_listed_algorithms_are_accepted() {
    let keys = [TestKey::es256("a"), TestKey::eddsa("b"), TestKey::rs256("c"), TestKey::ps256("d")];
    let issuer = MisbehavingIssuer::with_keys(&SERVICE, &keys.each_ref()).await;
    // A document of exactly the limit is accepted.
    issuer.pad_to(MAX_DOCUMENT);
    let app = issuer.app(&[]).await;
    app.wait_until_ready().await;
    for key in &keys {
        assert_eq!(holder(&app, &issuer, key).get("/v1/me").await.status, 200, "{}", key.alg);
    }
}

#[tokio::test]
async fn authn_02_invalid_discovery_documents_are_rejected() {
    let key = TestKey::es256("a");
    let other_issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&key]).await;
    let faults: [(&str, Fault); 6] = [
        ("another issuer", |issuer, _| issuer.set_metadata("issuer", "https://evil.example")),
        ("a slash more", |issuer, _| issuer.set_metadata("issuer", format!("{}/", issuer.url))),
        ("no keys", |issuer, _| issuer.set_metadata("jwks_uri", Value::Null)),
        ("too long", |issuer, _| issuer.pad_to(MAX_DOCUMENT + 1)),
        ("a redirect", |issuer, other_issuer| issuer.redirect_to(format!("{}/keys", other_issuer.url))),
        ("no address", |issuer, _| issuer.set_metadata("jwks_uri", "file:///etc/passwd")),
    ];
    for (case, fault) in faults {
        let issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&key]).await;
        fault(&issuer, &other_issuer);
        let app = issuer.app(&[]).await;
        until_refreshed(&issuer).await;
        assert_eq!(holder(&app, &issuer, &key).get("/v1/me").await.problem(503), "unavailable", "{case}");
    }
    assert_eq!(other_issuer.key_requests(), 0, "the service followed a redirect");
}

#[tokio::test]
async fn authn_09_unknown_key_ids_cause_one_fetch_in_five_seconds() {
    let key = TestKey::es256("known");
    let issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&key]).await;
    let app = Arc::new(issuer.app(&UNTHROTTLED).await);
    app.wait_until_ready().await;
    let before = issuer.key_requests();
    let started = Instant::now();
    let unknown = TestKey::es256("unknown");
    let mut flood = tokio::task::JoinSet::new();
    for client in 0..10 {
        let attacker = holder(&app, &issuer, &unknown);
        flood.spawn(async move {
            for round in 0..100 {
                // Some clients disconnect while the keys are fetched.
                if (client + round) % 5 == 0 {
                    let _ = tokio::time::timeout(Duration::from_millis(1), attacker.get("/v1/me")).await;
                } else {
                    assert_rejected(&attacker.get("/v1/me").await, "unknown");
                }
            }
        });
    }
    while let Some(done) = flood.join_next().await {
        done.unwrap();
    }
    // One fetch per five seconds.
    let allowed = 1 + started.elapsed().as_secs() / 5;
    let fetches = issuer.key_requests() - before;
    assert!((1..=allowed).contains(&fetches), "{fetches} fetches in {:?}", started.elapsed());
    holder(&app, &issuer, &key).get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn authn_09_keys_rotate_without_a_failed_request() {
    let old = TestKey::es256("old");
    let new = TestKey::eddsa("new");
    let issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&old]).await;
    let app = issuer.app(&REFRESH_EVERY_SECOND).await;
    app.wait_until_ready().await;
    let with_old = holder(&app, &issuer, &old);
    with_old.get("/v1/me").await.ok(200);
    let stop = Arc::new(AtomicBool::new(false));
    let is_stopped = Arc::clone(&stop);
    let background_client = holder(&app, &issuer, &old);
    let background = tokio::spawn(async move {
        let mut served = 0;
        while !is_stopped.load(Ordering::SeqCst) {
            background_client.get("/v1/me").await.ok(200);
            served += 1;
        }
        served
    });

    issuer.publish(&[&new, &old]);
    // The unknown key id makes the service fetch the keys at once.
    holder(&app, &issuer, &new).get("/v1/me").await.ok(200);
    with_old.get("/v1/me").await.ok(200);
    stop.store(true, Ordering::SeqCst);
    assert!(background.await.unwrap() > 0);

    issuer.publish(&[&new]);
    // A cached token becomes invalid together with its key.
    until_status(&with_old, 401).await;
    assert_rejected(&holder(&app, &issuer, &old).get("/v1/me").await, "a withdrawn key");
    holder(&app, &issuer, &new).get("/v1/me").await.ok(200);
}

/// Nodes of an issuer may list the same keys in another order. With another key set, all tokens
/// would be verified again and their roles recorded again, at each refresh.
#[tokio::test]
async fn authn_09_reordered_key_set_keeps_cached_tokens() {
    let [a, b] = ["a", "b"].map(TestKey::es256);
    let issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&a, &b]).await;
    let app = issuer.app(&REFRESH_EVERY_SECOND).await;
    app.wait_until_ready().await;
    let user = holder(&app, &issuer, &a);
    let is_verified = async || {
        let reply = user.get("/v1/me").await;
        reply.events().iter().any(|event| event["event"] == "authn_login_success")
    };
    assert!(is_verified().await);
    let mut annotated = a.jwk();
    annotated["x5t"] = json!("AAAA");
    issuer.publish_raw(json!({ "keys": [b.jwk(), annotated], "more": true }));
    until_refreshed(&issuer).await;
    assert!(!is_verified().await, "the token was verified again");
    issuer.publish(&[&a]);
    eventually("another set of keys is one", is_verified).await;
}

/// For a signing key that leaked: no replica needs to wait for its next refresh.
#[tokio::test]
async fn authn_09_sighup_fetches_the_keys_of_every_issuer() {
    let [old, new] = ["old", "new"].map(TestKey::es256);
    let first = MisbehavingIssuer::with_keys(&SERVICE, &[&old]).await;
    let partner = MisbehavingIssuer::with_keys(&SERVICE, &[&old]).await;
    let mut variables = TestApp::variables(&SERVICE.database().await, &first.url);
    let more = [
        ("APP_OIDC__FURTHER__PARTNER__ISSUER", &partner.url),
        ("APP_OIDC__FURTHER__PARTNER__TENANTS", &GLOBEX.id.to_string()),
    ];
    variables.extend(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let process = ServiceProcess::start(&SERVICE, &variables).await;
    let now = Clock::system().timestamp();
    let thief = Actor::new(process.address, Some(first.token(&old, now)));
    eventually("both issuers are read", async || partner.key_requests() == 1 && first.key_requests() == 1).await;
    thief.get("/v1/me").await.ok(200);
    for issuer in [&first, &partner] {
        issuer.publish(&[&new]);
    }
    process.send_sighup();
    until_status(&thief, 401).await;
    Actor::new(process.address, Some(first.token(&new, now))).get("/v1/me").await.ok(200);
    eventually("the further issuer is read again", async || partner.key_requests() == 2).await;
    // Signals during a refresh share the next one.
    for _ in 0..50 {
        process.send_sighup();
    }
    eventually("a refresh", async || first.key_requests() >= 3).await;
    process.terminate().await;
    assert!(first.key_requests() < 40, "{} fetches", first.key_requests());
}

#[tokio::test]
async fn authn_09_invalid_key_set_is_rejected_and_the_previous_one_kept() {
    let good = TestKey::es256("good");
    let evil = TestKey::es256("evil");
    let issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&good]).await;
    let app = issuer.app(&REFRESH_EVERY_SECOND).await;
    app.wait_until_ready().await;
    let mut private = evil.jwk();
    private["d"] = json!("AAAA");
    let mut same_id = evil.jwk();
    same_id["kid"] = json!("good");
    for (case, keys) in [
        ("two keys with one id", json!({ "keys": [good.jwk(), evil.jwk(), same_id] })),
        ("a symmetric key", json!({ "keys": [evil.jwk(), { "kty": "oct", "kid": "s", "k": "AAAA" }] })),
        ("a private key", json!({ "keys": [evil.jwk(), private] })),
        ("no keys", json!({ "keys": [] })),
        ("not a key set", json!(["keys"])),
    ] {
        issuer.publish_raw(keys);
        until_refreshed(&issuer).await;
        holder(&app, &issuer, &good).get("/v1/me").await.ok(200);
        assert_rejected(&holder(&app, &issuer, &evil).get("/v1/me").await, case);
    }
    issuer.publish(&[&evil]);
    until_status(&holder(&app, &issuer, &evil), 200).await;
}

/// Issuers publish keys for encryption, TLS or new algorithms in the same set, also under an id that
/// a signing key has (RFC 7517 sections 4.5 and 5).
#[tokio::test]
async fn authn_09_keys_that_cannot_be_used_are_left_out() {
    let key = TestKey::rs256("key/a");
    let mut same_id = TestKey::rs256("key/a").jwk();
    (same_id["use"], same_id["alg"]) = (json!("enc"), json!("RSA-OAEP"));
    let mut unknown_use = TestKey::es256("t").jwk();
    unknown_use["use"] = json!("tls");
    let also = ["RS512", "RS384"].map(|alg| {
        let mut jwk = key.jwk();
        jwk["alg"] = json!(alg);
        jwk
    });
    let unknown_type = json!({ "kty": "AKP", "alg": "ML-DSA-44", "kid": "p", "pub": "AAAA" });
    let issuer = MisbehavingIssuer::with_keys(&SERVICE, &[]).await;
    let [first, second] = also;
    issuer.publish_raw(json!({ "keys": [same_id, first, key.jwk(), second, unknown_use, unknown_type] }));
    let app = issuer.app(&[]).await;
    app.wait_until_ready().await;
    holder(&app, &issuer, &key).get("/v1/me").await.ok(200);
}

/// A token with an unknown key id is rejected before the fetch of the keys times out.
#[tokio::test]
async fn authn_09_hanging_issuer_does_not_delay_requests() {
    let key = TestKey::es256("a");
    let unknown_key = TestKey::es256("b");
    let mut switch = TcpSwitch::new().await;
    let mut issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&key]).await;
    let server = issuer.url.trim_start_matches("http://").parse().unwrap();
    issuer.url = switch.url();
    issuer.set_metadata("issuer", switch.url());
    issuer.set_metadata("jwks_uri", format!("{}/keys", switch.url()));
    switch.open_to(server).await;
    let app = issuer.app(&UNTHROTTLED).await;
    app.wait_until_ready().await;
    holder(&app, &issuer, &key).get("/v1/me").await.ok(200);
    switch.close().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    switch.open_to(silent.local_addr().unwrap()).await;
    let attacker = holder(&app, &issuer, &unknown_key);
    // The fetch has begun, and has not timed out when the reply arrives.
    let (reply, fetch) = tokio::join!(attacker.get("/v1/me"), silent.accept());
    assert_rejected(&reply, "an unknown key");
    let fetch = fetch.unwrap().0;
    while fetch.try_read(&mut [0; 1024]).is_ok_and(|read| read > 0) {}
    let is_open = fetch.try_read(&mut [0; 1]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(is_open, "the reply came after the fetch had timed out");
    holder(&app, &issuer, &key).get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn authn_10_known_keys_stay_valid_for_one_hour_of_an_outage() {
    let key = TestKey::es256("a");
    let issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&key]).await;
    let app = issuer.app(&REFRESH_EVERY_SECOND).await;
    app.wait_until_ready().await;
    issuer.set_down(true);
    // A fetch from before the outage may still be in flight.
    until_refreshed(&issuer).await;
    app.clock.advance(Duration::from_secs(3_500));
    holder(&app, &issuer, &key).get("/v1/me").await.ok(200);
    app.anonymous().get("/health/ready").await.ok(200);

    app.clock.advance(Duration::from_secs(200));
    let after_limit = holder(&app, &issuer, &key);
    assert_eq!(after_limit.get("/v1/me").await.problem(503), "unavailable");
    assert_eq!(app.anonymous().get("/health/ready").await.problem(503), "unavailable");

    issuer.set_down(false);
    until_status(&after_limit, 200).await;
    app.anonymous().get("/health/ready").await.ok(200);
}

#[tokio::test]
async fn authn_10_cached_token_is_rejected_after_the_staleness_limit() {
    let key = TestKey::es256("a");
    let issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&key]).await;
    let mut variables = REFRESH_EVERY_SECOND.to_vec();
    variables.push(("APP_OIDC__MAX_STALENESS_SECONDS", "60"));
    let app = issuer.app(&variables).await;
    app.wait_until_ready().await;
    let user = holder(&app, &issuer, &key);
    user.get("/v1/me").await.ok(200);
    issuer.set_down(true);
    until_refreshed(&issuer).await;
    app.clock.advance(Duration::from_secs(62));
    assert_eq!(user.get("/v1/me").await.problem(503), "unavailable");
}

#[tokio::test]
async fn authn_10_fetches_back_off_while_the_issuer_fails() {
    let issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&TestKey::es256("a")]).await;
    issuer.set_down(true);
    let _app = issuer.app(&[]).await;
    let fetched = async |times: u64| eventually("a fetch", async || issuer.discoveries() >= times).await;
    fetched(1).await;
    let first = Instant::now();
    fetched(4).await;
    // The pauses are 0.5 s, 1 s and 2 s; the test may have seen the first fetch late.
    assert!(first.elapsed() >= Duration::from_secs(3), "four fetches in {:?}", first.elapsed());
}
