//! How a key ends: by itself, revoked, with what it was made by, or replaced.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use service::authz::{matrix::Scope, policy::Role};

use super::{delete, path, revoke, revoke_at, text};
use crate::{
    authn::assert_refused,
    support::{ACME, TestApp, UNTHROTTLED, Wire, eventually, run, test_database},
};

#[tokio::test]
async fn authn_12_a_key_ends_when_it_says_also_if_it_was_just_used() {
    let app = TestApp::start().await;
    let body = json!({ "name": "short", "scopes": ["orders:read"], "validForDays": 1 });
    let created = app.user(Role::Admin).post("/v1/api-keys", &body).await.ok(201);
    let program = app.api_key(text(&created));
    app.clock.advance(Duration::from_secs(24 * 3_600 - 20));
    program.get("/v1/orders").await.ok(200);
    app.clock.advance(Duration::from_secs(20));
    let reply = program.get("/v1/orders").await;
    assert_refused(&reply, "ended");
    assert_eq!(reply.events()[0]["reason"], "expired");
}

#[tokio::test]
async fn authn_12_a_revoked_key_ends_at_once_here_and_everywhere() {
    let database = test_database().await;
    let here = TestApp::start_on(database.clone(), &[]).await;
    // The same pepper, as replicas have it.
    let created = here.new_api_key(&[Scope::OrdersRead]).await;
    let there = TestApp::start_on(database, &[("APP_SECRETS__PEPPER", here.pepper.as_str())]).await;
    let (at_home, abroad) = (here.api_key(text(&created)), there.api_key(text(&created)));
    for program in [&at_home, &abroad] {
        program.get("/v1/orders").await.ok(200);
    }
    let admin = here.user(Role::Admin);
    assert_eq!(delete(&admin, &path(&created)).await.status, 204);
    let reply = at_home.get("/v1/orders").await;
    assert_refused(&reply, "at once");
    assert_eq!(reply.events()[0]["event"], "authn_token_reuse");
    eventually("the other replica refuses it", async || abroad.get("/v1/orders").await.status == 401).await;
    // Once more changes nothing, and nothing brings it back.
    let listed = admin.get("/v1/api-keys").await.ok(200);
    assert_eq!(delete(&admin, &path(&created)).await.status, 204);
    assert_eq!(admin.get("/v1/api-keys").await.ok(200), listed);
    let back = format!("set local app.tenant_id = '{}'; update api_keys set revoked_at = null", ACME.id);
    let error = run(&here.database.writer, &back).await.unwrap_err().to_string();
    assert!(error.contains("does not come back"), "{error}");
    let rotate = json!({ "validForDays": 1 });
    assert_eq!(admin.post(&format!("{}/rotate", path(&created)), &rotate).await.problem(409), "conflict");
}

#[tokio::test]
async fn authn_12_who_loses_everything_loses_their_keys_too() {
    for arguments in [["subject", "admin@acme.example"], ["tenant", &ACME.id.to_string()], ["everything", ""]] {
        let app = TestApp::start().await;
        let created = app.new_api_key(&[Scope::OrdersRead]).await;
        let program = app.api_key(text(&created));
        program.get("/v1/orders").await.ok(200);
        revoke(&app, arguments[0], arguments[1]).await;
        assert_refused(&program.get("/v1/orders").await, arguments[0]);
        // For as long as it could have lived: what is no longer known is forgotten at the next revocation.
        app.clock.advance(Duration::from_hours(29 * 24));
        revoke(&app, "token", "another").await;
        let reply = program.get("/v1/orders").await;
        assert_eq!((reply.problem(401), &*reply.events()[0]["reason"]), ("unauthenticated", "revoked"));
    }
}

/// However fast whoever has a stolen token makes keys by it: they end with it.
#[tokio::test]
async fn authn_12_a_key_made_by_a_revoked_credential_ends_with_it() {
    let body = json!({ "name": "kept", "scopes": ["orders:read"], "validForDays": 30 });
    for (kind, value, left) in [("token", "stolen", 200), ("subject", "thief", 401)] {
        let app = TestApp::start_with(&UNTHROTTLED).await;
        let of_thief = |jti: &str| app.bearer(app.forge().claim("sub", "thief").claim("jti", jti).token());
        let (stolen, own) = (of_thief("stolen"), of_thief("own"));
        app.clock.advance(Duration::from_mins(5));
        let before = own.post("/v1/api-keys", &body).await.ok(201);
        let made = stolen.post("/v1/api-keys", &body).await.ok(201);
        app.clock.advance(Duration::from_secs(1));
        let rotate = json!({ "validForDays": 30 });
        let rotated = stolen.post(&format!("{}/rotate", path(&made)), &rotate).await.ok(201);
        // One is remembered, the other was never seen.
        app.api_key(text(&made)).get("/v1/orders").await.ok(200);
        // Up to now: the keys were made minutes later by the clock of the service.
        revoke(&app, kind, value).await;
        for key in [&made, &rotated] {
            assert_refused(&app.api_key(text(key)).get("/v1/orders").await, "made by a revoked token");
        }
        assert_eq!(app.api_key(text(&before)).get("/v1/orders").await.status, left, "{kind}");
        // For as long as it could have lived.
        app.clock.advance(Duration::from_hours(29 * 24));
        revoke(&app, "token", "another").await;
        let reply = app.api_key(text(&rotated)).get("/v1/orders").await;
        assert_eq!((reply.problem(401), &*reply.events()[0]["reason"]), ("unauthenticated", "revoked"));
    }
}

/// An issuer whose clock is ahead dates a token later than the key that is made by it.
#[tokio::test]
async fn authn_12_a_key_is_no_newer_than_when_it_was_made() {
    let app = TestApp::start().await;
    let ahead = app.clock.timestamp() + 25;
    let maker = app.bearer(app.forge().claim("sub", "ahead").claim("iat", ahead).token());
    let body = json!({ "name": "kept", "scopes": ["orders:read"], "validForDays": 30 });
    let made = maker.post("/v1/api-keys", &body).await.ok(201);
    revoke(&app, "subject", "ahead").await;
    assert_refused(&app.api_key(text(&made)).get("/v1/orders").await, "made before it was revoked");
}

#[tokio::test]
async fn authn_12_a_key_is_rotated_with_overlap() {
    let app = TestApp::start().await;
    let old = app.new_api_key(&[Scope::OrdersRead]).await;
    let admin = app.user(Role::Admin);
    let rotate = |id: &Value, overlap: i64| {
        let body = json!({ "validForDays": 30, "overlapHours": overlap });
        admin.request(Method::POST, &format!("{}/rotate", path(id))).json(&body)
    };
    let new = admin.send(rotate(&old, 2)).await.ok(201);
    assert_eq!((&new["replaces"], &new["scopes"], &new["name"]), (&old["id"], &old["scopes"], &old["name"]));
    let (with_old, with_new) = (app.api_key(text(&old)), app.api_key(text(&new)));
    for program in [&with_old, &with_new] {
        program.get("/v1/orders").await.ok(200);
    }
    // Rotating again, as after an answer that was lost, does not make the old one live longer, nor end sooner.
    let again = admin.send(rotate(&old, 100)).await.ok(201);
    app.api_key(text(&again)).get("/v1/orders").await.ok(200);
    with_old.get("/v1/orders").await.ok(200);
    app.clock.advance(Duration::from_secs(2 * 3_600 + 1));
    assert_refused(&with_old.get("/v1/orders").await, "after the overlap");
    with_new.get("/v1/orders").await.ok(200);
    let admin = app.user(Role::Admin);
    let ended = admin.request(Method::POST, &format!("{}/rotate", path(&old))).json(&json!({ "validForDays": 1 }));
    assert_eq!(admin.send(ended).await.problem(409), "conflict");
    // At once, if there shall be none.
    let body = json!({ "validForDays": 1, "overlapHours": 0 });
    let last = admin.post(&format!("{}/rotate", path(&new)), &body).await.ok(201);
    assert_refused(&with_new.get("/v1/orders").await, "without overlap");
    app.api_key(text(&last)).get("/v1/orders").await.ok(200);
    // Nobody gets a key out of it that they could not have made.
    let narrow = app.user_of(&ACME, Role::Admin, &[Scope::KeysManage]);
    let path = format!("{}/rotate", path(&last));
    assert_eq!(narrow.post(&path, &json!({ "validForDays": 1 })).await.problem(403), "forbidden");
    assert_eq!(admin.post(&path, &json!({ "validForDays": 91 })).await.faults(), ["/validForDays too_large"]);
}

/// The replica that made the change needs no message to know it.
#[tokio::test]
async fn authn_12_a_deleted_key_is_refused_at_once_while_revocations_cannot_be_read() {
    let app = TestApp::start().await;
    let created = app.new_api_key(&[Scope::OrdersRead]).await;
    let program = app.api_key(text(&created));
    program.get("/v1/orders").await.ok(200);
    run(&app.database.owner, "revoke select on revocations from app_authn").await.unwrap();
    assert_eq!(delete(&app.user(Role::Admin), &path(&created)).await.status, 204);
    assert_refused(&program.get("/v1/orders").await, "revoked");
}

/// By its id, which is what whoever looks into it goes by; and it is nobody's any more for the throttle.
#[tokio::test]
async fn authn_12_a_key_that_an_operator_revoked_is_told_of_and_uses_up_its_address() {
    let throttled = [("APP_THROTTLE__ADDRESS_PER_SECOND", "0.02"), ("APP_THROTTLE__ADDRESS_BURST", "20")];
    let lenient = [("APP_PENALTY__FREE_FAILURES", "1000"), ("APP_PENALTY__FAILURES", "1000")];
    let app = TestApp::start_with(&[throttled, lenient].concat()).await;
    let created = app.new_api_key(&[Scope::OrdersRead]).await;
    let program = app.api_key(text(&created));
    program.get("/v1/orders").await.ok(200);
    let id = created["id"].as_str().unwrap();
    revoke_at(&app.database, "subject", &format!("api-key:{id}")).await;
    let mut reply = program.get("/v1/orders").await;
    eventually("it is refused", async || {
        reply = program.get("/v1/orders").await;
        reply.status == 401
    })
    .await;
    let event = &reply.events()[0];
    assert_eq!((&*event["event"], &*event["key"]), ("authn_token_reuse", id));
    eventually("its address is used up", async || program.get("/v1/orders").await.status == 429).await;
    assert_eq!(app.anonymous().get("/v1/orders").await.status, 429);
}

/// Each of them would wait for as long as a connection may take.
#[tokio::test]
async fn authn_12_calls_with_one_key_do_not_wait_one_after_the_other_for_a_database_that_is_away() {
    let database = test_database().await;
    let wire = Wire::to(&database.authn).await;
    let own = [
        ("APP_DATABASE__AUTHN_URL", wire.url()),
        ("APP_REVOCATION__MAX_FEED_AGE_SECONDS", "3600"),
        // Nothing else ends them.
        ("APP_HTTP__REQUEST_TIMEOUT_MS", "60000"),
    ];
    let app = TestApp::start_on(database, &own).await;
    let created = app.new_api_key(&[Scope::OrdersRead]).await;
    let program = app.api_key(text(&created));
    program.get("/v1/me").await.ok(200);
    // No longer remembered; and new connections say nothing.
    app.clock.advance(Duration::from_secs(61));
    wire.silence_for_good();
    wire.down(true);
    wire.down(false);
    let began = Instant::now();
    for reply in join_all((0..10).map(|_| program.get("/v1/me"))).await {
        assert_eq!(reply.problem(503), "unavailable");
    }
    // Twice three seconds, and as much again for a machine that is busy; not ten times.
    assert!(began.elapsed() < Duration::from_secs(12), "they took {:?}", began.elapsed());
}

#[tokio::test]
async fn authn_12_keys_that_are_revoked_one_after_the_other_all_end() {
    let app = TestApp::start().await;
    let keys = [app.new_api_key(&[Scope::OrdersRead]).await, app.new_api_key(&[Scope::OrdersRead]).await];
    for key in &keys {
        app.api_key(text(key)).get("/v1/orders").await.ok(200);
    }
    for key in &keys {
        assert_eq!(delete(&app.user(Role::Admin), &path(key)).await.status, 204);
    }
    for key in &keys {
        assert_refused(&app.api_key(text(key)).get("/v1/orders").await, "revoked");
    }
}
