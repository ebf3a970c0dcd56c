//! [`Objects`]: the objects of one tenant, made by the fixture of the service, or here if they are
//! the kernel's.

use palisade::{
    authz::policy::AUDIT_READ,
    dev::{database::Urls, people::Tenant},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Fixture;
use crate::{Actor, Operation, TestApp, run};

/// Objects of one tenant.
pub struct Objects<F> {
    /// An administrator of the tenant with every scope.
    pub admin: Actor,
    fixture: F,
    tenant: Uuid,
    subject: String,
    database: Urls,
}

impl<F: Fixture> Objects<F> {
    /// Objects of this tenant.
    pub fn new(app: &TestApp, tenant: &Tenant) -> Self {
        let admin = app.user_of(tenant, app.service.admin_role(), app.rights.scopes);
        let subject = app.service.person(tenant, app.service.admin_role()).subject;
        Self { admin, fixture: F::new(app, tenant), tenant: tenant.id.uuid(), subject, database: app.database.clone() }
    }

    /// A new object for the operation; empty if the operation takes none.
    pub async fn create(&self, operation: &Operation) -> String {
        if !operation.has_object() {
            return String::new();
        }
        if is_api_key(&operation.path) {
            let key = json!({ "name": "of the suite", "scopes": [AUDIT_READ.as_str()], "validForDays": 1 });
            let request = self.admin.request(http::Method::POST, "/v1/api-keys").json(&key);
            let created = self.admin.send_until_served(request).await.ok(201);
            return created["id"].as_str().unwrap().to_owned();
        }
        if is_session(&operation.path) {
            return new_session(&self.database, self.tenant, &self.subject).await;
        }
        let created = self.fixture.create(&operation.path).await;
        created.unwrap_or_else(|| {
            let fixture = std::any::type_name::<F>();
            panic!(
                "{operation} has no fixture: add a case for \"{}\" to `Fixture::create` of {fixture}",
                operation.path
            )
        })
    }

    /// The object as its own tenant reads it, never null. API keys and sessions are in lists only.
    pub async fn read(&self, path: &str, object: &str) -> Value {
        let read = if is_api_key(path) {
            let page = self.admin.get("/v1/api-keys?limit=100").await.ok(200);
            page["items"].as_array().unwrap().iter().find(|key| key["id"] == object).cloned().unwrap_or_default()
        } else if is_session(path) {
            let page = self.admin.get("/v1/sessions?limit=100").await.ok(200);
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .find(|session| session["id"] == object)
                .cloned()
                .unwrap_or_default()
        } else {
            self.fixture.read(path, object).await
        };
        let fixture = std::any::type_name::<F>();
        assert!(!read.is_null(), "`Fixture::read` of {fixture} must return the object {object:?} of \"{path}\"");
        read
    }
}

fn is_session(path: &str) -> bool {
    path.contains("/sessions/{")
}

/// Stores a session of this person, without a usable cookie.
async fn new_session(database: &Urls, tenant: Uuid, subject: &str) -> String {
    let id = Uuid::now_v7();
    let sql = format!(
        "select palisade.open_session('{tenant}', jsonb_build_object(
             'tenant_id', '{tenant}', 'id', '{id}', 'issuer', '', 'subject', '{subject}', 'client', 'demo-web',
             'roles', '[]'::jsonb, 'scopes', '[]'::jsonb, 'handle_hash', '\\x{}', 'generation', 0,
             'network', '192.0.2.7', 'user_agent', 'of the suite', 'rotated_at', now(), 'created_at', now(),
             'last_used_at', now(), 'access_expires_at', now() + interval '1 hour',
             'idle_expires_at', now() + interval '1 hour', 'expires_at', now() + interval '1 hour'))",
        "ab".repeat(32)
    );
    run(&database.owner, &sql).await.unwrap();
    id.to_string()
}

fn is_api_key(path: &str) -> bool {
    path.starts_with("/v1/api-keys/{")
}
