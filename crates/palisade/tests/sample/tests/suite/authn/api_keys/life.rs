//! The end of API keys (AUTHN-12): expiry, deletion, rotation with overlap, and revocation of the
//! API key, its creator, its tenant or the token that created it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Method;
use sample::access::{roles, scopes};
use serde_json::{Value, json};

use crate::support::{
    ACME, PgProxy, SERVICE, UNTHROTTLED,
    api_keys::{add_revocation, delete, key_path, key_text, revoke},
    authn::assert_rejected,
    eventually, run,
};

#[tokio::test]
async fn authn_12_cached_api_key_expires() {
    let app = SERVICE.start().await;
    let body = json!({ "name": "short", "scopes": ["notes:read"], "validForDays": 1 });
    let created = app.user(roles::ADMIN).post("/v1/api-keys", &body).await.ok(201);
    let program = app.api_key(key_text(&created));
    app.clock.advance(Duration::from_secs(24 * 3_600 - 20));
    program.get("/v1/notes").await.ok(200);
    app.clock.advance(Duration::from_secs(20));
    let reply = program.get("/v1/notes").await;
    assert_rejected(&reply, "expired");
    assert_eq!(reply.events()[0]["reason"], "expired");
}

#[tokio::test]
async fn authn_12_deleted_api_key_is_rejected_on_every_replica() {
    let database = SERVICE.database().await;
    let first = SERVICE.start_on(database.clone(), &[]).await;
    // Replicas share the pepper.
    let created = first.new_api_key(&[scopes::NOTES_READ]).await;
    let second = SERVICE.start_on(database, &[("APP_SECRETS__PEPPER", first.pepper.as_str())]).await;
    let at_first = first.api_key(key_text(&created));
    let at_second = second.api_key(key_text(&created));
    for program in [&at_first, &at_second] {
        program.get("/v1/notes").await.ok(200);
    }
    let admin = first.user(roles::ADMIN);
    assert_eq!(delete(&admin, &key_path(&created)).await.status, 204);
    let reply = at_first.get("/v1/notes").await;
    assert_rejected(&reply, "at once");
    assert_eq!(reply.events()[0]["event"], "authn_token_reuse");
    eventually("the other replica rejects it", async || at_second.get("/v1/notes").await.status == 401).await;
    // A second deletion changes nothing, and the database refuses to clear the time of deletion.
    let listed = admin.get("/v1/api-keys").await.ok(200);
    assert_eq!(delete(&admin, &key_path(&created)).await.status, 204);
    assert_eq!(admin.get("/v1/api-keys").await.ok(200), listed);
    let clear = format!("set local app.tenant_id = '{}'; update palisade.api_keys set revoked_at = null", ACME.id);
    let error = run(&first.database.writer, &clear).await.unwrap_err().to_string();
    assert!(error.contains("cannot be extended or restored"), "{error}");
    let rotate = json!({ "validForDays": 1 });
    assert_eq!(admin.post(&format!("{}/rotate", key_path(&created)), &rotate).await.problem(409), "conflict");
}

#[tokio::test]
async fn authn_12_revoking_a_subject_or_tenant_revokes_its_api_keys() {
    for arguments in [["subject", "admin@acme.example"], ["tenant", &ACME.id.to_string()], ["everything", ""]] {
        let app = SERVICE.start().await;
        let created = app.new_api_key(&[scopes::NOTES_READ]).await;
        let program = app.api_key(key_text(&created));
        program.get("/v1/notes").await.ok(200);
        revoke(&app, arguments[0], arguments[1]).await;
        assert_rejected(&program.get("/v1/notes").await, arguments[0]);
        // The revocation lasts as long as the API key; the next one deletes expired revocations.
        app.clock.advance(Duration::from_hours(29 * 24));
        revoke(&app, "token", "another").await;
        let reply = program.get("/v1/notes").await;
        assert_eq!((reply.problem(401), &*reply.events()[0]["reason"]), ("unauthenticated", "revoked"));
    }
}

/// An attacker may create API keys by a stolen token before it is revoked.
#[tokio::test]
async fn authn_12_api_key_created_by_a_revoked_token_is_rejected() {
    let body = json!({ "name": "kept", "scopes": ["notes:read"], "validForDays": 30 });
    for (kind, value, earlier_status) in [("token", "stolen", 200), ("subject", "thief", 401)] {
        let app = SERVICE.start_with(&UNTHROTTLED).await;
        let [stolen, other] =
            ["stolen", "other"].map(|jti| app.bearer(app.forge().claim("sub", "thief").claim("jti", jti).token()));
        app.clock.advance(Duration::from_mins(5));
        let earlier = other.post("/v1/api-keys", &body).await.ok(201);
        let created_key = stolen.post("/v1/api-keys", &body).await.ok(201);
        app.clock.advance(Duration::from_secs(1));
        let rotate = json!({ "validForDays": 30 });
        let rotated = stolen.post(&format!("{}/rotate", key_path(&created_key)), &rotate).await.ok(201);
        // One of the two API keys is cached.
        app.api_key(key_text(&created_key)).get("/v1/notes").await.ok(200);
        // The database sets the time of the revocation; the clock of the service is minutes ahead.
        revoke(&app, kind, value).await;
        for key in [&created_key, &rotated] {
            assert_rejected(&app.api_key(key_text(key)).get("/v1/notes").await, "created by a revoked token");
        }
        assert_eq!(app.api_key(key_text(&earlier)).get("/v1/notes").await.status, earlier_status, "{kind}");
        // The revocation lasts as long as the API key.
        app.clock.advance(Duration::from_hours(29 * 24));
        revoke(&app, "token", "another").await;
        let reply = app.api_key(key_text(&rotated)).get("/v1/notes").await;
        assert_eq!((reply.problem(401), &*reply.events()[0]["reason"]), ("unauthenticated", "revoked"));
    }
}

/// The clock of an issuer may be ahead, so that its token is later than the API key it creates.
#[tokio::test]
async fn authn_12_postdated_token_does_not_postdate_its_api_key() {
    let app = SERVICE.start().await;
    let ahead = app.clock.timestamp() + 25;
    let creator = app.bearer(app.forge().claim("sub", "ahead").claim("iat", ahead).token());
    let body = json!({ "name": "kept", "scopes": ["notes:read"], "validForDays": 30 });
    let created_key = creator.post("/v1/api-keys", &body).await.ok(201);
    revoke(&app, "subject", "ahead").await;
    assert_rejected(&app.api_key(key_text(&created_key)).get("/v1/notes").await, "created before the revocation");
}

#[tokio::test]
async fn authn_12_api_key_rotates_with_overlap() {
    let app = SERVICE.start().await;
    let old = app.new_api_key(&[scopes::NOTES_READ]).await;
    let admin = app.user(roles::ADMIN);
    let rotate = |id: &Value, overlap: i64| {
        let body = json!({ "validForDays": 30, "overlapHours": overlap });
        admin.request(Method::POST, &format!("{}/rotate", key_path(id))).json(&body)
    };
    let new = admin.send(rotate(&old, 2)).await.ok(201);
    assert_eq!((&new["replaces"], &new["scopes"], &new["name"]), (&old["id"], &old["scopes"], &old["name"]));
    let with_old = app.api_key(key_text(&old));
    let with_new = app.api_key(key_text(&new));
    for program in [&with_old, &with_new] {
        program.get("/v1/notes").await.ok(200);
    }
    // A repeated rotation, as after a lost response, does not change the end of the old API key.
    let again = admin.send(rotate(&old, 100)).await.ok(201);
    app.api_key(key_text(&again)).get("/v1/notes").await.ok(200);
    with_old.get("/v1/notes").await.ok(200);
    app.clock.advance(Duration::from_secs(2 * 3_600 + 1));
    assert_rejected(&with_old.get("/v1/notes").await, "after the overlap");
    with_new.get("/v1/notes").await.ok(200);
    let admin = app.user(roles::ADMIN);
    let ended = admin.request(Method::POST, &format!("{}/rotate", key_path(&old))).json(&json!({ "validForDays": 1 }));
    assert_eq!(admin.send(ended).await.problem(409), "conflict");
    // Without overlap, the old API key ends at once.
    let body = json!({ "validForDays": 1, "overlapHours": 0 });
    let last = admin.post(&format!("{}/rotate", key_path(&new)), &body).await.ok(201);
    assert_rejected(&with_new.get("/v1/notes").await, "without overlap");
    app.api_key(key_text(&last)).get("/v1/notes").await.ok(200);
    // A rotation needs the rights of a creation.
    let without_scopes = app.user_of(&ACME, roles::ADMIN, &[scopes::KEYS_MANAGE]);
    let path = format!("{}/rotate", key_path(&last));
    assert_eq!(without_scopes.post(&path, &json!({ "validForDays": 1 })).await.problem(403), "forbidden");
    assert_eq!(admin.post(&path, &json!({ "validForDays": 91 })).await.faults(), ["/validForDays too_large"]);
}

/// The replica that deletes an API key needs no notification.
#[tokio::test]
async fn authn_12_deleted_api_key_is_rejected_while_revocations_cannot_be_read() {
    let app = SERVICE.start().await;
    let created = app.new_api_key(&[scopes::NOTES_READ]).await;
    let program = app.api_key(key_text(&created));
    program.get("/v1/notes").await.ok(200);
    run(&app.database.owner, "revoke select on palisade.revocations from app_authn").await.unwrap();
    assert_eq!(delete(&app.user(roles::ADMIN), &key_path(&created)).await.status, 204);
    assert_rejected(&program.get("/v1/notes").await, "revoked");
}

/// The event contains its id. The rate limit treats its calls as unauthenticated.
#[tokio::test]
async fn authn_12_revoked_api_key_is_logged_and_counts_against_its_address() {
    let rate_limit = [("APP_THROTTLE__ADDRESS_PER_SECOND", "0.02"), ("APP_THROTTLE__ADDRESS_BURST", "20")];
    let lenient = [("APP_FAILURE_LIMIT__FREE_FAILURES", "1000"), ("APP_FAILURE_LIMIT__MAX_FAILURES", "1000")];
    let app = SERVICE.start_with(&[rate_limit, lenient].concat()).await;
    let created = app.new_api_key(&[scopes::NOTES_READ]).await;
    let program = app.api_key(key_text(&created));
    program.get("/v1/notes").await.ok(200);
    let id = created["id"].as_str().unwrap();
    add_revocation(&app.database, "subject", &format!("api-key:{id}")).await;
    let mut reply = program.get("/v1/notes").await;
    eventually("it is rejected", async || {
        reply = program.get("/v1/notes").await;
        reply.status == 401
    })
    .await;
    let event = &reply.events()[0];
    assert_eq!((&*event["event"], &*event["key"]), ("authn_token_reuse", id));
    eventually("the rate limit of its address is exhausted", async || program.get("/v1/notes").await.status == 429)
        .await;
    assert_eq!(app.anonymous().get("/v1/notes").await.status, 429);
}

/// Calls that waited in sequence would each take the connection timeout.
#[tokio::test]
async fn authn_12_calls_with_one_api_key_share_the_wait_for_the_database() {
    let database = SERVICE.database().await;
    let proxy = PgProxy::start(&database.authn).await;
    let variables = [
        ("APP_DATABASE__AUTHN_URL", proxy.url()),
        ("APP_REVOCATION__MAX_FEED_AGE_SECONDS", "3600"),
        // No other timeout applies.
        ("APP_HTTP__REQUEST_TIMEOUT_MS", "60000"),
    ];
    let app = SERVICE.start_on(database, &variables).await;
    let created = app.new_api_key(&[scopes::NOTES_READ]).await;
    let program = app.api_key(key_text(&created));
    program.get("/v1/me").await.ok(200);
    // The cache entry has expired, and new connections stay silent.
    app.clock.advance(Duration::from_secs(61));
    proxy.silence_all();
    proxy.set_down(true);
    proxy.set_down(false);
    let started = Instant::now();
    for reply in join_all((0..10).map(|_| program.get("/v1/me"))).await {
        assert_eq!(reply.problem(503), "unavailable");
    }
    // Two timeouts of 3 s, doubled for a busy machine. Ten in sequence take 30 s.
    assert!(started.elapsed() < Duration::from_secs(12), "the calls took {:?}", started.elapsed());
}

#[tokio::test]
async fn authn_12_several_api_keys_can_be_deleted_in_sequence() {
    let app = SERVICE.start().await;
    let keys = [app.new_api_key(&[scopes::NOTES_READ]).await, app.new_api_key(&[scopes::NOTES_READ]).await];
    for key in &keys {
        app.api_key(key_text(key)).get("/v1/notes").await.ok(200);
    }
    for key in &keys {
        assert_eq!(delete(&app.user(roles::ADMIN), &key_path(key)).await.status, 204);
    }
    for key in &keys {
        assert_rejected(&app.api_key(key_text(key)).get("/v1/notes").await, "revoked");
    }
}
