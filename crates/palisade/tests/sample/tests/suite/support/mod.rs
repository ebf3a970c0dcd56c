//! The vocabulary of the suite: the test kit ([`palisade_test`]), the [`SERVICE`] under test, and
//! notes for its tests.
//!
//! Everything that more than one test file needs lives here; test files do not import each other.

mod backup_folder;
mod file_secrets_service;
pub mod interop_provider;
mod key_commands;
mod note_fixture;
mod raw_http;
use std::sync::LazyLock;

use palisade::{
    authz::{Matrix, Role},
    dev::{
        issuer::DevIssuer,
        people::{Person, Tenant},
    },
    model::Clock,
};
use sample::{access::ACCESS, app};
use serde_json::{Value, json};

pub use key_commands::{
    COUNT_INDEXED, DATA_KEY, INDEX_KEY, SHORT_TIMEOUTS, add_notes, assert_notes_readable, copy_notes, note,
    notes_by_key, restore_note, run_keys, run_keys_binary, run_keys_binary_with, save_note, start_error,
    start_with_vault, try_start, variables, vault_and_keyset, vault_key, vault_only, wrapping_keys,
};
pub use palisade_test::*;

pub use backup_folder::{BackupFolder, assert_fails, assert_succeeds, text_of};
pub use file_secrets_service::FileSecretsService;

pub use note_fixture::NoteFixture;

pub use raw_http::{assert_problem, send_raw, status};

/// The sample service.
pub static SERVICE: LazyLock<TestService> =
    LazyLock::new(|| TestService::new(app()).with_binary(env!("CARGO_BIN_EXE_palisade-sample")));

/// Its route matrix.
pub static MATRIX: LazyLock<Matrix> = LazyLock::new(|| SERVICE.matrix());

/// The demo person with this tenant and role.
pub fn person(tenant: &Tenant, role: Role) -> Person {
    SERVICE.person(tenant, role)
}

/// A development issuer for the service.
pub async fn start_issuer(clock: Clock) -> DevIssuer {
    issuer_of(ACCESS.rights, clock).await
}

/// The error of startup after the owner has run this SQL on a new database.
pub async fn start_error_after(change: &str) -> String {
    let database = SERVICE.database().await;
    run(&database.owner, change).await.unwrap();
    SERVICE.try_start(TestApp::variables(&database, "http://127.0.0.1:9")).await.unwrap_err()
}

/// The body that creates a note with one item.
pub fn note_body(code: &str, count: i32) -> Value {
    json!({ "items": [{ "code": code, "count": count }], "priority": "standard" })
}

/// The notes with this e-mail address, as the caller finds them.
pub async fn search(actor: &Actor, email: &str) -> Vec<Value> {
    let page = actor.post("/v1/notes/search", &json!({ "email": email })).await.ok(200);
    page["items"].as_array().unwrap().clone()
}

/// The id of a created object.
pub fn id(created: &Value) -> String {
    created["id"].as_str().unwrap().to_owned()
}

/// The last segment of an object's path.
pub fn id_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}
