//! [`Objects`]: the objects of one tenant, made by the fixture of the service, or here if they are
//! the kernel's.

use palisade::{authz::policy::AUDIT_READ, dev::people::Tenant};
use serde_json::{Value, json};

use super::Fixture;
use crate::{Actor, Operation, TestApp};

/// Objects of one tenant.
pub struct Objects<F> {
    /// An administrator of the tenant with every scope.
    pub admin: Actor,
    fixture: F,
}

impl<F: Fixture> Objects<F> {
    /// Objects of this tenant.
    pub fn new(app: &TestApp, tenant: &Tenant) -> Self {
        let admin = app.user_of(tenant, app.service.admin_role(), app.rights.scopes);
        Self { admin, fixture: F::new(app, tenant) }
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
        let created = self.fixture.create(&operation.path).await;
        created.unwrap_or_else(|| {
            let fixture = std::any::type_name::<F>();
            panic!(
                "{operation} has no fixture: add a case for \"{}\" to `Fixture::create` of {fixture}",
                operation.path
            )
        })
    }

    /// The object as its own tenant reads it, never null. API keys are in lists only.
    pub async fn read(&self, path: &str, object: &str) -> Value {
        let read = if is_api_key(path) {
            let page = self.admin.get("/v1/api-keys?limit=100").await.ok(200);
            page["items"].as_array().unwrap().iter().find(|key| key["id"] == object).cloned().unwrap_or_default()
        } else {
            self.fixture.read(path, object).await
        };
        let fixture = std::any::type_name::<F>();
        assert!(!read.is_null(), "`Fixture::read` of {fixture} must return the object {object:?} of \"{path}\"");
        read
    }
}

fn is_api_key(path: &str) -> bool {
    path.starts_with("/v1/api-keys/{")
}
