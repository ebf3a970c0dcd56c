//! Idempotency keys (INPUT-10): retries get the stored response and repeat no work. A key belongs
//! to one caller, operation and body, and expires after 24 hours.

mod api_keys;

use std::time::Duration;

use http::Method;
use sample::access::{roles, scopes};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::support::{
    ACME, Actor, GLOBEX, ProxiedApp, Reply, SERVICE, TestApp, Vault, id, keyset, note_body, query, run,
    run_as_superuser, search, start_with_vault, vault_only, wait_for_lock_wait,
};

/// Creates a note with this idempotency key.
async fn create(actor: &Actor, key: &str, body: &Value) -> Reply {
    actor.send(actor.request(Method::POST, "/v1/notes").header("idempotency-key", key).json(body)).await
}

/// Archives a note with this idempotency key.
async fn archive(actor: &Actor, note: &str, key: &str) -> Reply {
    actor.send(actor.request(Method::POST, &archive_path(note)).header("idempotency-key", key)).await
}

fn archive_path(note: &str) -> String {
    format!("/v1/notes/{note}/archive")
}

/// A new note, by its id.
async fn add(actor: &Actor) -> String {
    id(&actor.post("/v1/notes", &note_body("PEN-BLUE", 1)).await.ok(201))
}

fn is_replay(reply: &Reply) -> bool {
    reply.header("idempotent-replayed") == Some("true")
}

/// The number of notes with an item of this count.
async fn count_notes(app: &TestApp, count: i32) -> usize {
    let sql = format!("select id::text from notes where items @> '[{{\"count\": {count}}}]'");
    query(&app.database.owner, &sql).await.len()
}

/// Otherwise a retry right after the response could find its own key in use.
#[tokio::test]
async fn input_10_failed_request_releases_its_key_before_the_response() {
    let proxied = ProxiedApp::start(&SERVICE).await;
    let admin = proxied.app.user(roles::ADMIN);
    let missing = Uuid::now_v7().to_string();
    proxied.writer.delay("rollback", Duration::from_millis(100));
    assert_eq!(archive(&admin, &missing, "tried").await.problem(404), "not_found");
    let messages = proxied.writer.take_messages();
    assert!(messages.contains(&"rollback".to_owned()), "{messages:?}");
}

#[tokio::test]
async fn input_10_retry_gets_the_stored_response_and_repeats_no_work() {
    let app = SERVICE.start().await;
    let writer = app.user(roles::WRITER);
    let first = create(&writer, "k-1", &note_body("PAPER-A4", 41)).await;
    let note = first.clone().ok(201);
    assert!(!is_replay(&first));
    // The note changes; the stored response does not.
    archive(&writer, &id(&note), "k-2").await.ok(201);
    for _ in 0..3 {
        let again = create(&writer, "k-1", &note_body("PAPER-A4", 41)).await;
        assert!(is_replay(&again));
        assert_eq!(again.header("location"), first.header("location"));
        assert_eq!(again.ok(201), note);
    }
    // Another spelling of the same JSON is the same request.
    let other_spelling = r#" {"priority" : "standard", "items":[{"count":41,"code":"PAPER-A4"}]}"#;
    let request = writer.request(Method::POST, "/v1/notes").header("idempotency-key", "k-1");
    let again = writer.send(request.header("content-type", "application/json").body(other_spelling)).await;
    assert!(is_replay(&again), "{again:?}");
    assert_eq!(count_notes(&app, 41).await, 1);
    // Without an idempotency key, each request creates a note.
    writer.post("/v1/notes", &note_body("PAPER-A4", 41)).await.ok(201);
    assert_eq!(count_notes(&app, 41).await, 2);
}

#[tokio::test]
async fn input_10_idempotency_key_with_another_request_is_rejected() {
    let app = SERVICE.shared();
    let admin = app.user(roles::ADMIN);
    create(&admin, "reused", &note_body("PAPER-A4", 1)).await.ok(201);
    let mut express = note_body("PAPER-A4", 1);
    express["priority"] = json!("express");
    for other in [note_body("PAPER-A4", 2), express] {
        assert_eq!(create(&admin, "reused", &other).await.problem(422), "idempotency_key_reused");
    }
    // The same request for another object is another request.
    let (first, second) = (add(&admin).await, add(&admin).await);
    archive(&admin, &first, "for-one").await.ok(201);
    assert_eq!(archive(&admin, &second, "for-one").await.problem(422), "idempotency_key_reused");
    assert!(is_replay(&archive(&admin, &first, "for-one").await));
}

#[tokio::test]
async fn input_10_idempotency_keys_are_separate_per_caller_and_operation() {
    let app = SERVICE.shared();
    let callers = [
        app.user(roles::ADMIN),
        app.user(roles::WRITER),
        app.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL),
        app.bearer(app.forge().claim("client_id", "another-client").token()),
    ];
    let mut created = Vec::new();
    for actor in &callers {
        let reply = create(actor, "shared-key", &note_body("PAPER-A4", 1)).await;
        assert!(!is_replay(&reply), "a response went to another caller: {reply:?}");
        let note = id(&reply.ok(201));
        // The same key for another operation is another key.
        let archived = archive(actor, &note, "shared-key").await;
        assert!(!is_replay(&archived));
        archived.ok(201);
        created.push(note);
    }
    created.sort();
    created.dedup();
    assert_eq!(created.len(), callers.len());
}

#[tokio::test]
async fn input_10_retry_needs_the_rights_of_the_request() {
    let app = SERVICE.shared();
    let writer = app.user(roles::WRITER);
    create(&writer, "right", &note_body("PAPER-A4", 1)).await.ok(201);
    // The same user, without the scope.
    let without = app.user_of(&ACME, roles::WRITER, &[scopes::NOTES_READ]);
    assert_eq!(create(&without, "right", &note_body("PAPER-A4", 1)).await.problem(403), "insufficient_scope");
}

/// A replica of another version may have stored it.
#[tokio::test]
async fn input_10_stored_response_is_replayed_as_it_is() {
    let app = SERVICE.start().await;
    let writer = app.user(roles::WRITER);
    create(&writer, "later", &note_body("PAPER-A4", 1)).await.ok(201);
    let note = add(&writer).await;
    archive(&writer, &note, "later").await.ok(201);
    let body = r#"{ "memberOf": ["another version"],  "id":1 }"#;
    let replace = format!(
        "set session_replication_role = replica;
         update palisade.idempotency_keys set status = 202, body = '{body}', location = '/v2/notes/1'"
    );
    run_as_superuser(&app, replace).await;
    for again in [create(&writer, "later", &note_body("PAPER-A4", 1)).await, archive(&writer, &note, "later").await] {
        assert!(is_replay(&again), "{again:?}");
        assert_eq!((again.status.as_u16(), &*again.text, again.header("location")), (202, body, Some("/v2/notes/1")));
        assert_eq!(again.header("content-type"), Some("application/json; charset=utf-8"));
    }
}

#[tokio::test]
async fn input_10_changes_without_idempotency_refuse_a_key() {
    let app = SERVICE.shared();
    let admin = app.user(roles::ADMIN);
    let path = format!("/v1/notes/{}", add(&admin).await);
    let export = json!({ "kind": "notes", "from": "2020-01-01T00:00:00Z", "to": "2040-01-01T00:00:00Z" });
    for request in [
        admin.request(Method::PATCH, &path).json(&json!({ "remark": "keyed" })),
        admin.request(Method::DELETE, &path),
        admin.request(Method::POST, "/v1/exports").json(&export),
        admin.request(Method::POST, "/v1/notes/search").json(&json!({ "email": "ann@example.com" })),
    ] {
        let reply = admin.send(request.header("idempotency-key", "a-key")).await;
        assert_eq!(reply.problem(400), "invalid_input");
        assert_eq!(reply.faults(), ["Idempotency-Key not_supported"]);
    }
    // A read changes nothing, with or without a key.
    let read = admin.send(admin.request(Method::GET, &path).header("idempotency-key", "a-key")).await.ok(200);
    let two = admin.request(Method::GET, &path).header("idempotency-key", "a b").header("idempotency-key", "b");
    assert_eq!(admin.send(two).await.ok(200), read);
    assert_eq!(read["remark"], Value::Null);
}

/// The first response is stored in the database, so its replay needs no key.
#[tokio::test]
async fn fail_01_retry_is_answered_while_the_vault_is_down() {
    let vault = Vault::start().await;
    let database = start_with_vault(&vault).await.database;
    let mac_key = keyset(1).split_off(2);
    let url = vault.url();
    let vault_only = [&vault_only(&url)[..], &[("APP_SECRETS__MAC_KEY", &*mac_key)]].concat();
    let mut note = note_body("PAPER-A4", 1);
    note["email"] = json!("ann@example.com");
    let first = SERVICE.start_on(database.clone(), &vault_only).await;
    let first = create(&first.user(roles::WRITER), "before", &note).await.ok(201);
    // The second replica has no data key in its cache.
    let second = SERVICE.start_on(database, &vault_only).await;
    let writer = second.user(roles::WRITER);
    vault.seal(true);
    assert_eq!(create(&writer, "after", &note).await.problem(503), "unavailable");
    let again = create(&writer, "before", &note).await;
    assert!(is_replay(&again), "{again:?}");
    assert_eq!(again.ok(201), first);
}

#[tokio::test]
async fn input_10_archiving_needs_a_valid_idempotency_key() {
    let app = SERVICE.shared();
    let admin = app.user(roles::ADMIN);
    let note = add(&admin).await;
    let path = archive_path(&note);
    let reply = admin.send(admin.request(Method::POST, &path)).await;
    assert_eq!(reply.problem(400), "invalid_input");
    assert_eq!(reply.faults(), ["Idempotency-Key invalid"]);
    // Where the key is optional, an invalid one is rejected too.
    for key in ["", "two words", &"k".repeat(256), "t\u{e9}"] {
        for reply in [archive(&admin, &note, key).await, create(&admin, key, &note_body("PAPER-A4", 1)).await] {
            assert_eq!(reply.faults(), ["Idempotency-Key invalid"], "{key:?}");
        }
    }
    let two = admin.request(Method::POST, &path).header("idempotency-key", "a").header("idempotency-key", "b");
    assert_eq!(admin.send(two).await.faults(), ["Idempotency-Key invalid"]);
    assert_eq!(archive(&admin, &note, &"k".repeat(255)).await.status, 201);
}

#[tokio::test]
async fn input_10_failed_requests_are_not_stored() {
    let app = SERVICE.shared();
    let admin = app.user(roles::ADMIN);
    assert_eq!(create(&admin, "tried", &note_body("RESERVED", 1)).await.status, 422);
    let note = id(&create(&admin, "tried", &note_body("PEN-BLUE", 1)).await.ok(201));
    assert_eq!(archive(&admin, &Uuid::now_v7().to_string(), "tried").await.status, 404);
    archive(&admin, &note, "tried").await.ok(201);
}

#[tokio::test]
async fn input_10_retry_of_a_request_in_flight_gets_409() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let note = add(&admin).await;
    // Another transaction locks the note, so the first request waits.
    let mut holder = PgConnection::connect(app.database.owner.expose_secret()).await.unwrap();
    let begin = sqlx::AssertSqlSafe(format!("begin; set local app.tenant_id = '{}'", ACME.id));
    let mut tx = holder.begin_with(begin).await.unwrap();
    let lock = sqlx::AssertSqlSafe(format!("select id from notes where id = '{note}' for update"));
    sqlx::query(lock).execute(&mut *tx).await.unwrap();
    let first = archive(&admin, &note, "slow");
    let retry = async {
        wait_for_lock_wait(&app.database).await;
        let second = archive(&admin, &note, "slow").await;
        tx.rollback().await.unwrap();
        second
    };
    let (first, second) = tokio::join!(first, retry);
    assert_eq!((second.problem(409), second.header("retry-after")), ("request_in_flight", Some("1")));
    let first = first.ok(201);
    let third = archive(&admin, &note, "slow").await;
    assert!(is_replay(&third));
    assert_eq!(third.ok(201), first);
}

#[tokio::test]
async fn input_10_concurrent_requests_with_one_key_create_one_object() {
    let app = SERVICE.shared();
    let admin = app.user(roles::ADMIN);
    let mut created = 0;
    let mut in_flight = 0;
    for round in 0..20 {
        let note = add(&admin).await;
        for path in ["/v1/notes", &archive_path(&note)] {
            let key = format!("race-{round}");
            let call = || {
                let request = admin.request(Method::POST, path).header("idempotency-key", &key);
                let request = if path == "/v1/notes" { request.json(&note_body("PAPER-A4", 1)) } else { request };
                admin.send(request)
            };
            let (a, b, c, d) = tokio::join!(call(), call(), call(), call());
            let mut ids = Vec::new();
            for reply in [a, b, c, d] {
                if reply.status == 201 {
                    ids.push((is_replay(&reply), id(&reply.body)));
                } else {
                    assert_eq!(reply.problem(409), "request_in_flight");
                    in_flight += 1;
                }
            }
            created += ids.iter().filter(|(replay, _)| !replay).count();
            ids.sort();
            ids.dedup_by(|a, b| a.1 == b.1);
            assert_eq!(ids.len(), 1, "{path}: one idempotency key created two objects");
        }
    }
    assert_eq!(created, 40);
    assert!(in_flight > 0, "no two requests were concurrent, so the test proves nothing");
}

#[tokio::test]
async fn input_10_stored_responses_expire_after_a_day() {
    let app = SERVICE.start_with(&[("APP_OIDC__REFRESH_SECONDS", "1")]).await;
    let first = id(&create(&app.user(roles::WRITER), "daily", &note_body("PAPER-A4", 1)).await.ok(201));
    let hours = Duration::from_hours;
    app.clock.advance(hours(23));
    // Tokens and the issuer's keys have expired by now.
    app.wait_until_ready().await;
    let again = create(&app.user(roles::WRITER), "daily", &note_body("PAPER-A4", 1)).await;
    assert_eq!((is_replay(&again), id(&again.body)), (true, first.clone()));
    app.clock.advance(hours(2));
    app.wait_until_ready().await;
    let next_day = create(&app.user(roles::WRITER), "daily", &note_body("PAPER-A4", 1)).await;
    assert!(!is_replay(&next_day));
    assert_ne!(id(&next_day.ok(201)), first);
    // The sweep deletes the expired responses of other keys (see `retention`).
    let stored = query(&app.database.owner, "select key from palisade.idempotency_keys").await;
    assert_eq!(stored, ["daily"], "the second response replaced the first");
}

#[tokio::test]
async fn input_10_stored_responses_are_immutable_and_erased_with_the_note() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let mut note = note_body("PAPER-A4", 1);
    note["remark"] = json!("Canary Remark");
    note["email"] = json!("canary@example.com");
    let created = create(&admin, "person", &note).await.ok(201);
    let stored = query(&app.database.owner, "select body from palisade.idempotency_keys").await;
    assert!(stored[0].contains("Canary Remark") && !stored[0].contains("canary@example.com"), "{stored:?}");
    for (change, message) in
        [("body = '{}'", "a stored response can only be emptied"), ("fingerprint = ''", "permission denied")]
    {
        let change = format!("set local app.tenant_id = '{}'; update palisade.idempotency_keys set {change}", ACME.id);
        let error = run(&app.database.writer, &change).await.unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let path = format!("/v1/notes/{}", id(&created));
    assert_eq!(admin.send(admin.request(Method::DELETE, &path)).await.status, 204);
    let left = "select coalesce(body, location, 'nothing') from palisade.idempotency_keys";
    assert_eq!(query(&app.database.owner, left).await, ["nothing"]);
    // A late retry does not create the note again.
    assert_eq!(create(&admin, "person", &note).await.problem(409), "conflict");
    assert!(search(&admin, "canary@example.com").await.is_empty());
}
