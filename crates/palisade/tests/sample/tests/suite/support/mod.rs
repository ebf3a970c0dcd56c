//! The vocabulary of the suite: the test kit ([`palisade_test`]), the [`SERVICE`] under test, and
//! notes for its tests.
//!
//! Everything that more than one test file needs lives here; test files do not import each other.

mod file_secrets_service;
mod key_commands;

use std::sync::LazyLock;

use palisade::{
    authz::{Matrix, Role},
    dev::{
        issuer::DevIssuer,
        people::{Person, Tenant},
    },
    model::Clock,
};
pub use palisade_test::*;
use sample::{access::ACCESS, app};
use serde_json::{Value, json};

pub use file_secrets_service::FileSecretsService;
pub use key_commands::{start_with_vault, vault_only};

/// The sample service.
pub static SERVICE: LazyLock<TestService> =
    LazyLock::new(|| TestService::new(app()).with_binary(env!("CARGO_BIN_EXE_palisade-sample")));

/// Its route matrix.
#[allow(dead_code, reason = "tests that use it move here one by one")]
pub static MATRIX: LazyLock<Matrix> = LazyLock::new(|| SERVICE.matrix());

/// The demo person with this tenant and role.
#[allow(dead_code, reason = "tests that use it move here one by one")]
pub fn person(tenant: &Tenant, role: Role) -> Person {
    SERVICE.person(tenant, role)
}

/// A development issuer for the service.
#[allow(dead_code, reason = "tests that use it move here one by one")]
pub async fn start_issuer(clock: Clock) -> DevIssuer {
    issuer_of(ACCESS.rights, clock).await
}

/// The body that creates a note with one item.
pub fn note_body(code: &str, count: i32) -> Value {
    json!({ "items": [{ "code": code, "count": count }], "priority": "standard" })
}

/// The id of a created object.
pub fn id(created: &Value) -> String {
    created["id"].as_str().unwrap().to_owned()
}

/// The last segment of an object's path.
#[allow(dead_code, reason = "tests that use it move here one by one")]
pub fn id_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}
