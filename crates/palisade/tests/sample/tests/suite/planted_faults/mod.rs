//! The control suite finds faults: each test plants one, in an operation of a variant of the service
//! or in the database, and the check fails with a message that names it.
//!
//! Not here, since such a service does not compile: a change that counts as a read
//! (`misuse/row_of_a_change_with_a_read_quota.rs`), and a change without an audit event in the
//! store of the kernel (`change_without_an_audit_event.rs`). The kernel refuses to start an operation
//! without a row.

mod operations;
mod requests;
mod tenants_apart;

use std::sync::Arc;

use palisade::{
    App,
    authz::{Access, Rights},
    dev::{database::Urls, people::Tenant},
    http::Context,
    model::TenantId,
};
use palisade_test::{
    control_suite::{Fixture, Objects, access, personal_data, quotas, tenants},
    superuser,
};
use poem_openapi::OpenApi;
use sample::{
    access::{
        roles::{self, READ_NOTES, WRITE_NOTES},
        scopes::{self, NOTES_READ, NOTES_WRITE},
    },
    demo,
    store::{MIGRATIONS, NoteTable, RIGHTS},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{ACME, NoteFixture, SERVICE, TestApp, TestService, UNTHROTTLED, catalog::violations, run};

mod actions {
    use super::{NOTES_READ, NOTES_WRITE, READ_NOTES, WRITE_NOTES};

    palisade::actions! {
        pub static UNMASKED;
        Read GetPlainNote = Get "/v1/plain-notes/{id}" as "getPlainNote" {
            Authenticated, scope Some(NOTES_READ), permission Some(READ_NOTES), quota Read,
            data Personal, audit "note_read", outage Closed, read_only Served,
        }
    }
    palisade::actions! {
        pub static PLAIN_LIST;
        Read ListPlainNotes = Get "/v1/plain-notes" as "listPlainNotes" {
            Authenticated, scope Some(NOTES_READ), permission Some(READ_NOTES), quota Read,
            data Personal, audit "notes_listed", outage Closed, read_only Served,
        }
    }
    palisade::actions! {
        pub static PLAIN_CHANGE;
        Change ChangePlainNote = Put "/v1/plain-notes/{id}" as "changePlainNote" {
            Authenticated, scope Some(NOTES_WRITE), permission Some(WRITE_NOTES), quota Write,
            data Personal, audit "note_updated", outage Closed, read_only Refused,
        }
    }
    palisade::actions! {
        pub static UNFILTERED;
        Read GetAnyNote = Get "/v1/any-notes/{id}" as "getAnyNote" {
            Authenticated, scope Some(NOTES_READ), permission Some(READ_NOTES), quota Read,
            data Tenant, audit "note_read", outage Closed, read_only Served,
        }
    }
    palisade::actions! {
        pub static UNCHECKED;
        Change TouchNote = Post "/v1/notes/{id}/touch" as "touchNote" {
            Authenticated, scope Some(NOTES_WRITE), permission Some(WRITE_NOTES), quota Write,
            data Tenant, audit "note_touched", outage Closed, read_only Refused,
        }
    }
    palisade::actions! {
        pub static COPIES;
        Change CreateCopy = Post "/v1/copies" as "createCopy" {
            Authenticated, scope Some(NOTES_WRITE), permission Some(WRITE_NOTES), quota Write,
            data Tenant, audit "copy_created", outage Closed, read_only Refused,
        }
    }
    palisade::actions! {
        pub static COPY_LIST;
        Read ListCopies = Get "/v1/copies" as "listCopies" {
            Authenticated, scope Some(NOTES_READ), permission Some(READ_NOTES), quota Read,
            data Tenant, audit "copies_listed", outage Closed, read_only Served,
        }
    }
    palisade::actions! {
        pub static REPLACING;
        Change ReplaceNote = Put "/v1/notes/{id}" as "replaceNote" {
            Authenticated, scope Some(NOTES_WRITE), permission Some(WRITE_NOTES), quota Write,
            data Tenant, audit "note_replaced", outage Closed, read_only Refused,
        }
    }
    palisade::actions! {
        pub static LISTING;
        Read ListAnyNotes = Get "/v1/any-notes" as "listAnyNotes" {
            Authenticated, scope Some(NOTES_READ), permission Some(READ_NOTES), quota Read,
            data Tenant, audit "notes_listed", outage Closed, read_only Served,
        }
    }
}

const RIGHTS_OF_NOTES: Rights = Rights { scopes: &scopes::ALL, roles: roles::TABLE };
static UNMASKED: Access = Access { actions: &[actions::UNMASKED], rights: RIGHTS_OF_NOTES };
static PLAIN_LIST: Access = Access { actions: &[actions::PLAIN_LIST], rights: RIGHTS_OF_NOTES };
static PLAIN_CHANGE: Access = Access { actions: &[actions::PLAIN_CHANGE], rights: RIGHTS_OF_NOTES };
static UNFILTERED: Access = Access { actions: &[actions::UNFILTERED], rights: RIGHTS_OF_NOTES };
static UNCHECKED: Access = Access { actions: &[actions::UNCHECKED], rights: RIGHTS_OF_NOTES };
static COPIES: Access = Access { actions: &[actions::COPIES], rights: RIGHTS_OF_NOTES };
static LISTED_COPIES: Access = Access { actions: &[actions::COPIES, actions::COPY_LIST], rights: RIGHTS_OF_NOTES };
static REPLACING: Access = Access { actions: &[actions::REPLACING], rights: RIGHTS_OF_NOTES };
static LISTING: Access = Access { actions: &[actions::UNFILTERED, actions::LISTING], rights: RIGHTS_OF_NOTES };
static NO_ROW: Access = Access { actions: &[], rights: RIGHTS_OF_NOTES };

/// A variant of the sample service with these operations and no others of its own.
fn variant<O: OpenApi + 'static>(
    access: &'static Access,
    operations: fn(&Arc<Context>, &()) -> O,
) -> &'static TestService {
    let app = App::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")).access(access);
    let app = app.database(&MIGRATIONS, RIGHTS).sealed::<NoteTable>().operations(operations).demo(demo::DEMO);
    TestService::new(app).leak()
}

/// The first demo note of this tenant.
fn first_note(tenant: TenantId) -> Uuid {
    Uuid::from_u128(demo::FIRST_NOTE.as_u128() + if tenant == ACME.id { 0 } else { 1 << 96 })
}

/// Has the demo notes of the tenant as its objects.
struct DemoNotes {
    note: Uuid,
    database: Urls,
}

impl Fixture for DemoNotes {
    fn new(app: &TestApp, tenant: &Tenant) -> Self {
        Self { note: first_note(tenant.id), database: app.database.clone() }
    }

    async fn create(&self, _path: &str) -> Option<String> {
        Some(self.note.to_string())
    }

    /// The row, with the plain values of the sealed columns.
    async fn read(&self, _path: &str, object: &str) -> Value {
        let row = sqlx::query_scalar("select to_jsonb(n)::text from notes n where id = $1::uuid").bind(object);
        let row: String = row.fetch_one(&mut superuser(&self.database).await).await.unwrap();
        let mut row: Value = serde_json::from_str(&row).unwrap();
        row["email"] = json!("billing@initech.example");
        row["phone"] = json!("+493012345678");
        row
    }
}

/// Runs the check in a task of its own. It must panic with all of these texts.
async fn assert_found(check: impl Future<Output = ()> + 'static, expected: &[&str]) {
    let tasks = tokio::task::LocalSet::new();
    let task = tasks.spawn_local(check);
    let result = tasks.run_until(task).await;
    let panic = result.expect_err("the check does not find the fault").into_panic();
    let message = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    for text in expected {
        assert!(message.is_some_and(|message| message.contains(text)), "{text} is not in {message:?}");
    }
}

async fn start(service: &'static TestService) -> TestApp {
    service.start_on(SERVICE.database().await, &UNTHROTTLED).await
}

#[tokio::test]
async fn rate_04_operation_that_is_not_refused_is_found() {
    // Its quotas allow more than one call.
    let app = SERVICE.start_with(&UNTHROTTLED).await;
    assert_found(
        async move { quotas::classes_are_counted::<NoteFixture>(&app).await },
        &["GET /v1/api-keys must count in the class `sensitive` of its row"],
    )
    .await;
}

/// Knows no path.
struct NoFixture;

impl Fixture for NoFixture {
    fn new(_app: &TestApp, _tenant: &Tenant) -> Self {
        Self
    }

    async fn create(&self, _path: &str) -> Option<String> {
        None
    }

    async fn read(&self, _path: &str, _object: &str) -> Value {
        Value::Null
    }
}

#[tokio::test]
async fn authz_03_operation_without_a_fixture_is_found() {
    assert_found(
        access::foreign_is_like_missing::<NoFixture>(SERVICE.shared()),
        &[
            "GET /v1/items/{code} has no fixture: add a case for \"/v1/items/{code}\" to `Fixture::create` of",
            "NoFixture",
        ],
    )
    .await;
}

/// Has objects that no operation finds.
struct Absent;

impl Fixture for Absent {
    fn new(_app: &TestApp, _tenant: &Tenant) -> Self {
        Self
    }

    async fn create(&self, path: &str) -> Option<String> {
        Some(NoteFixture::unused_id(path))
    }

    async fn read(&self, path: &str, _object: &str) -> Value {
        if path.starts_with("/v1/items") { json!({}) } else { Value::Null }
    }
}

#[tokio::test]
async fn authz_03_fixture_without_objects_is_found() {
    assert_found(
        access::foreign_is_like_missing::<Absent>(SERVICE.shared()),
        &["GET /v1/items/{code} must succeed for the owner of an object"],
    )
    .await;
    assert_found(
        async { drop(Objects::<Absent>::new(SERVICE.shared(), &ACME).read("/v1/notes/{id}", "").await) },
        &["`Fixture::read` of", "Absent must return the object"],
    )
    .await;
}

#[tokio::test]
async fn authz_07_table_with_a_name_of_the_kernel_is_found() {
    let database = SERVICE.database().await;
    run(&database.owner, "create table overrides (id uuid primary key)").await.unwrap();
    let found = "overrides has no tenant_id: add it, or the table to NAMES";
    assert_found(async move { tenants::tables_are_isolated(&database).await }, &[found]).await;
}

#[tokio::test]
async fn authz_07_table_without_isolation_is_found() {
    let unforced = "notes is not under forced row-level security";
    let unprotected = "notes must have the policy tenant_isolation and no other";
    for (fault, found) in [
        ("alter table notes no force row level security", unforced),
        ("alter table notes disable row level security", unforced),
        ("drop policy tenant_isolation on notes", unprotected),
        ("create policy another on notes using (true)", unprotected),
    ] {
        let database = SERVICE.database().await;
        run(&database.owner, fault).await.unwrap();
        assert_eq!(violations(&database.owner).await, [found], "{fault}");
        assert_found(async move { tenants::tables_are_isolated(&database).await }, &[found]).await;
    }
}

#[tokio::test]
async fn crypto_02_plain_value_in_another_column_is_found() {
    let app = SERVICE.start_with(&UNTHROTTLED).await;
    let leak = "create table leak as select '{\"to\": \"ann@example.com\"}'::jsonb as mail";
    run(&app.database.owner, leak).await.unwrap();
    assert_found(
        async move { personal_data::is_stored_sealed::<NoteFixture>(&app).await },
        &["leak has the plain values of sealed columns in [\"mail\"]"],
    )
    .await;
}
