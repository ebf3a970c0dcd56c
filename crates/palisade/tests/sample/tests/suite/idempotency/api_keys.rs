//! Idempotency keys of programs with API keys (INPUT-10): a retry survives the rotation of its API
//! key, and gets only what its own API key may do.

use http::Method;
use sample::access::{roles, scopes};
use serde_json::{Value, json};

use super::{archive, count_notes, create, is_replay};
use crate::support::{
    Actor, SERVICE, TestApp,
    api_keys::{key_path, key_text},
    id, note_body,
};

/// The holder of an API key, which this replica has verified: a new key may have to wait for a hash.
async fn program(app: &TestApp, created: &Value) -> Actor {
    let actor = app.api_key(key_text(created));
    actor.send_until_served(actor.request(Method::GET, "/v1/me")).await.ok(200);
    actor
}

/// All API keys of one creator share their stored responses, so that a retry may come with the key
/// that replaced the first one.
#[tokio::test]
async fn input_10_retry_survives_the_rotation_of_its_api_key() {
    let app = SERVICE.shared();
    let admin = app.user(roles::ADMIN);
    let old = app.new_api_key(&[scopes::NOTES_WRITE]).await;
    let first = create(&program(app, &old).await, "rotated", &note_body("PAPER-A4", 7)).await.ok(201);
    let body = json!({ "validForDays": 30, "overlapHours": 1 });
    let new = admin.post(&format!("{}/rotate", key_path(&old)), &body).await.ok(201);
    for api_key in [&new, &old] {
        let again = create(&program(app, api_key).await, "rotated", &note_body("PAPER-A4", 7)).await;
        assert!(is_replay(&again), "{again:?}");
        assert_eq!(again.ok(201), first);
    }
    // An operation of several statements claims its key the same way.
    let note = id(&first);
    let archived = archive(&program(app, &old).await, &note, "rotated").await.ok(201);
    let again = archive(&program(app, &new).await, &note, "rotated").await;
    assert!(is_replay(&again));
    assert_eq!(again.ok(201), archived);
    // The creator itself is another caller.
    assert!(!is_replay(&create(&admin, "rotated", &note_body("PAPER-A4", 7)).await));
}

/// A retry is authorized like any call: another API key of the same creator reads no response of an
/// operation that it may not call. API keys of other creators share nothing.
#[tokio::test]
async fn input_10_api_key_replays_only_what_it_may_do() {
    let app = SERVICE.shared();
    let writing = app.new_api_key(&[scopes::NOTES_WRITE]).await;
    let reading = app.new_api_key(&[scopes::NOTES_READ]).await;
    let body = note_body("PAPER-A4", 8);
    create(&program(app, &writing).await, "scoped", &body).await.ok(201);
    let refused = create(&program(app, &reading).await, "scoped", &body).await;
    assert_eq!(refused.problem(403), "insufficient_scope");
    // Another request under the same key gets no response of the first one.
    let other = create(&program(app, &writing).await, "scoped", &note_body("PAPER-A4", 9)).await;
    assert_eq!(other.problem(422), "idempotency_key_reused");
    let new_key = json!({ "name": "a program", "scopes": [scopes::NOTES_WRITE.as_str()], "validForDays": 1 });
    let subject = app.forge().claim("sub", "another-admin").token();
    let foreign = app.bearer(subject).post("/v1/api-keys", &new_key).await.ok(201);
    let created = create(&program(app, &foreign).await, "scoped", &body).await;
    assert!(!is_replay(&created), "a response went to another creator: {created:?}");
    created.ok(201);
}

#[tokio::test]
async fn input_10_concurrent_api_keys_of_one_creator_create_one_object() {
    let app = SERVICE.shared();
    let keys = [app.new_api_key(&[scopes::NOTES_WRITE]).await, app.new_api_key(&[scopes::NOTES_WRITE]).await];
    let programs = [program(app, &keys[0]).await, program(app, &keys[1]).await];
    for round in 0..10 {
        let key = format!("rotation-{round}");
        let body = note_body("PAPER-A4", 100 + round);
        let call = |n: usize| create(&programs[n], &key, &body);
        let (a, b, c, d) = tokio::join!(call(0), call(1), call(0), call(1));
        for reply in [a, b, c, d].iter().filter(|reply| reply.status != 201) {
            assert_eq!((reply.problem(409), reply.header("retry-after")), ("request_in_flight", Some("1")));
        }
        assert_eq!(count_notes(app, 100 + round).await, 1);
    }
}
