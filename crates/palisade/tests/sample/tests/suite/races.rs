//! Concurrent changes (INPUT-11): of two transitions one succeeds, and changes of different fields
//! are both kept. Each test repeats its race.
//!
//! The isolation level is read committed. Every change of a note first locks its row
//! (`WriteTx::lock`).

use http::Method;
use sample::access::roles;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{SERVICE, count_successes, id, note_body};

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
