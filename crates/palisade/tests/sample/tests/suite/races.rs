//! Concurrent changes (INPUT-11): of two transitions one succeeds, and changes of different fields
//! are both kept. Each test repeats its race.
//!
//! The isolation level is read committed. Every change of a note first locks its row
//! (`WriteTx::lock`).

use http::Method;
use sample::access::roles;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _};
use uuid::Uuid;

use crate::support::{GLOBEX, SERVICE, count_successes, eventually, id, note_body, superuser};

const ROUNDS: usize = 15;

#[tokio::test]
async fn input_11_concurrent_transitions_succeed_once() {
    let app = SERVICE.shared();
    let writer = app.user(roles::WRITER);
    for _ in 0..ROUNDS {
        let path = format!("/v1/notes/{}", id(&writer.post("/v1/notes", &note_body("PAPER-A4", 1)).await.ok(201)));
        let archive = async || {
            let request = writer.request(Method::POST, &format!("{path}/archive"));
            writer.send(request.header("idempotency-key", Uuid::now_v7().to_string())).await
        };
        let (a, b, c) = tokio::join!(archive(), archive(), archive());
        assert_eq!(count_successes(&[a, b, c], 409), 1);
        assert_eq!(writer.get(&path).await.ok(200)["status"], "archived");
    }
}

#[tokio::test]
async fn input_11_concurrent_changes_of_different_fields_are_both_kept() {
    let app = SERVICE.shared();
    let writer = app.user(roles::WRITER);
    for round in 0..ROUNDS {
        let path = format!("/v1/notes/{}", id(&writer.post("/v1/notes", &note_body("PAPER-A4", 1)).await.ok(201)));
        let change = async |body: Value| writer.send(writer.request(Method::PATCH, &path).json(&body)).await;
        let remark = format!("round {round}");
        let (a, b) = tokio::join!(change(json!({ "remark": remark })), change(json!({ "phone": "+493012345678" })));
        assert_eq!(count_successes(&[a, b], 409), 2);
        let after = writer.get(&path).await.ok(200);
        assert_eq!((&after["remark"], &after["phone"]), (&json!(remark), &json!("****5678")));
    }
}

/// Changes of one row wait for its lock, each with a connection of the writer.
#[tokio::test]
async fn rate_03_one_tenant_cannot_hold_all_writer_connections() {
    let app = SERVICE.start_with(&[("APP_DATABASE__MAX_CONNECTIONS", "4")]).await;
    let acme = app.user(roles::WRITER);
    let note = id(&acme.post("/v1/notes", &note_body("PAPER-A4", 1)).await.ok(201));
    let globex = app.user_of(&GLOBEX, roles::WRITER, app.rights.scopes);
    let (mut holder, mut observer) = (superuser(&app.database).await, superuser(&app.database).await);
    let mut lock = holder.begin().await.unwrap();
    let lock_note = AssertSqlSafe(format!("select from notes where id = '{note}' for update"));
    sqlx::raw_sql(lock_note).execute(&mut *lock).await.unwrap();
    let path = format!("/v1/notes/{note}");
    let change = async || acme.send(acme.request(Method::PATCH, &path).json(&json!({ "remark": "x" }))).await;
    let changes = async { tokio::join!(change(), change(), change(), change(), change(), change()) };
    let waiting =
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let other_tenant = async {
        eventually("three changes wait", async || {
            let count: i64 = sqlx::query_scalar(waiting).fetch_one(&mut observer).await.unwrap();
            count >= 3
        })
        .await;
        globex.post("/v1/notes", &note_body("PAPER-A4", 1)).await.ok(201);
        lock.rollback().await.unwrap();
    };
    let (changes, ()) = tokio::join!(changes, other_tenant);
    // The changes that waited get their turn.
    changes.0.ok(200);
    changes.5.ok(200);
}
