//! The fixture of the control suite: notes of one tenant, which its administrator creates through
//! the API.

use palisade::dev::people::Tenant;
use sample::access::{roles, scopes};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Actor, Fixture, TestApp, id, note_body};

/// An administrator who creates notes of a tenant.
pub struct NoteFixture {
    pub admin: Actor,
}

impl Fixture for NoteFixture {
    fn new(app: &TestApp, tenant: &Tenant) -> Self {
        Self { admin: app.user_of(tenant, roles::ADMIN, &scopes::ALL) }
    }

    async fn create(&self, path: &str) -> Option<String> {
        match path {
            "/v1/items/{code}" => {
                let code = Self::unused_id(path);
                self.note(&code).await;
                Some(code)
            }
            path if path.starts_with("/v1/notes/{id}") => Some(self.note("PAPER-A4").await),
            _ => None,
        }
    }

    async fn read(&self, path: &str, object: &str) -> Value {
        let (collection, _) = path.split_once("/{").unwrap();
        self.admin.get(&format!("{collection}/{object}")).await.ok(200)
    }

    fn unused_id(path: &str) -> String {
        let id = Uuid::now_v7();
        if path.contains("{code}") { format!("CODE-{}", id.simple()).to_uppercase() } else { id.to_string() }
    }
}

impl NoteFixture {
    async fn note(&self, code: &str) -> String {
        let mut body = note_body(code, 1);
        body["email"] = json!("ann@example.com");
        body["phone"] = json!("+15550100200");
        id(&self.admin.post("/v1/notes", &body).await.ok(201))
    }
}
