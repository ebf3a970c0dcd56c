//! The operations of the sample service work: what all other tests rely on.

use http::Method;
use sample::access::roles;
use serde_json::json;
use uuid::Uuid;

use crate::support::{SERVICE, id, note_body};

#[tokio::test]
async fn note_is_created_read_changed_archived_and_erased() {
    let app = SERVICE.shared();
    let admin = app.user(roles::ADMIN);
    let mut body = note_body("PAPER-A4", 2);
    body["email"] = json!("ann@example.com");
    let created = admin.post("/v1/notes", &body).await.ok(201);
    let path = format!("/v1/notes/{}", id(&created));
    assert_eq!(admin.get(&path).await.ok(200)["email"], "ann@example.com");
    assert_ne!(app.user(roles::WRITER).get(&path).await.ok(200)["email"], "ann@example.com");
    let change = admin.request(Method::PATCH, &path).json(&json!({ "remark": "changed", "email": null }));
    let changed = admin.send(change).await.ok(200);
    assert_eq!((&changed["remark"], &changed["email"]), (&json!("changed"), &json!(null)));
    let archive = admin.request(Method::POST, &format!("{path}/archive"));
    admin.send(archive.header("idempotency-key", Uuid::now_v7().to_string())).await.ok(201);
    assert!(admin.send(admin.request(Method::DELETE, &path)).await.status.is_success());
    admin.get(&path).await.problem(404);
}
