//! The control suite finds faults: each test plants one, in an operation of a variant of the service
//! or in the database, and the check fails with a message that names it.
//!
//! Not here, since such a service does not compile: a change that counts as a read
//! (`tests/misuse/row_of_a_change_with_a_read_quota.rs`), and a change without an audit event in the
//! store of the kernel (`change_without_an_audit_event.rs`). The faulty operations go around the
//! store.

use std::sync::{Arc, Mutex};

use palisade::{
    App,
    authz::{Access, Permit, Rights},
    dev::people::Tenant,
    http::Context,
    model::Clock,
};
use palisade_test::control_suite::{Fixture, access, audit, idempotency, personal_data, quotas, tenants};
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Header, Path},
    payload::Json,
};
use sample::{
    access::{
        roles::{self, READ_NOTES, WRITE_NOTES},
        scopes::{self, NOTES_READ, NOTES_WRITE},
    },
    demo,
    domain::NoteId,
    store::{MIGRATIONS, NoteTable, RIGHTS},
};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::support::{
    ACME, NoteFixture, SERVICE, TestApp, TestService, UNTHROTTLED, catalog::violations, run, start_issuer,
};

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
}

const RIGHTS_OF_NOTES: Rights = Rights { scopes: &scopes::ALL, roles: roles::TABLE };
static UNMASKED: Access = Access { actions: &[actions::UNMASKED], rights: RIGHTS_OF_NOTES };
static UNFILTERED: Access = Access { actions: &[actions::UNFILTERED], rights: RIGHTS_OF_NOTES };
static UNCHECKED: Access = Access { actions: &[actions::UNCHECKED], rights: RIGHTS_OF_NOTES };
static COPIES: Access = Access { actions: &[actions::COPIES], rights: RIGHTS_OF_NOTES };
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

/// Has the demo notes of the tenant as its objects.
struct DemoNotes {
    note: Uuid,
}

impl Fixture for DemoNotes {
    fn new(_app: &TestApp, tenant: &Tenant) -> Self {
        let number = if tenant.id == ACME.id { 0 } else { 1_u128 << 96 };
        Self { note: Uuid::from_u128(demo::FIRST_NOTE.as_u128() + number) }
    }

    async fn create(&self, _path: &str) -> Option<String> {
        Some(self.note.to_string())
    }

    async fn read(&self, _path: &str, _object: &str) -> Value {
        Value::Null
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

/// A note with its e-mail address in plain text.
#[derive(Object)]
struct PlainNote {
    id: Uuid,
    email: String,
}

struct Unmasked;

#[OpenApi]
impl Unmasked {
    #[oai(path = "/v1/plain-notes/:id", method = "get", operation_id = "getPlainNote")]
    async fn get(&self, _permit: Permit<actions::GetPlainNote>, id: Path<NoteId>) -> Json<PlainNote> {
        Json(PlainNote { id: id.0.uuid(), email: "ann@example.com".to_owned() })
    }
}

#[tokio::test]
async fn authz_06_unmasked_property_is_found() {
    let app = start(variant(&UNMASKED, |_, ()| Unmasked)).await;
    assert_found(
        async move { personal_data::is_masked::<DemoNotes>(&app).await },
        &[
            "GET /v1/plain-notes/{id} shows [\"ann@example.com\"] to the role viewer",
            "render the property with `Sealed::masked`",
        ],
    )
    .await;
}

/// The owner's URL of the database that [`Unfiltered`] reads.
static OWNER: Mutex<String> = Mutex::new(String::new());

#[derive(ApiResponse)]
enum AnyNote {
    #[oai(status = 204)]
    Found,
    #[oai(status = 404)]
    Missing,
}

struct Unfiltered;

#[OpenApi]
impl Unfiltered {
    #[oai(path = "/v1/any-notes/:id", method = "get", operation_id = "getAnyNote")]
    async fn get(&self, permit: Permit<actions::GetAnyNote>, id: Path<NoteId>) -> AnyNote {
        let url = OWNER.lock().unwrap().clone();
        let mut owner = PgConnection::connect(&url).await.unwrap();
        let enter = "select set_config('app.tenant_id', $1, false)";
        sqlx::query(enter).bind(permit.tenant().to_string()).execute(&mut owner).await.unwrap();
        let found = sqlx::query("select from notes where id = $1").bind(id.0.uuid()).fetch_optional(&mut owner).await;
        if found.unwrap().is_some() { AnyNote::Found } else { AnyNote::Missing }
    }
}

#[tokio::test]
async fn authz_03_missing_tenant_filter_is_found() {
    let app = start(variant(&UNFILTERED, |_, ()| Unfiltered)).await;
    app.database.owner.expose_secret().clone_into(&mut OWNER.lock().unwrap());
    // Row-level security hides the fault.
    access::foreign_is_like_missing::<DemoNotes>(&app).await;
    assert_found(
        async move { tenants::queries_filter_tenants::<DemoNotes>(&app).await },
        &[
            "GET /v1/any-notes/{id} finds an object of another tenant without row-level security",
            "its query must have `tenant_id = t.tenant`",
        ],
    )
    .await;
}

#[derive(ApiResponse)]
enum Touched {
    #[oai(status = 204)]
    Done,
}

struct Unchecked;

#[OpenApi]
impl Unchecked {
    #[oai(path = "/v1/notes/:id/touch", method = "post", operation_id = "touchNote")]
    async fn touch(&self, _permit: Permit<actions::TouchNote>, _id: Path<NoteId>) -> Touched {
        Touched::Done
    }
}

#[tokio::test]
async fn authz_03_missing_object_check_is_found() {
    let app = start(variant(&UNCHECKED, |_, ()| Unchecked)).await;
    assert_found(
        async move { access::foreign_is_like_missing::<DemoNotes>(&app).await },
        &["POST /v1/notes/{id}/touch must answer an object of another tenant with 404"],
    )
    .await;
}

/// A copy of nothing.
#[derive(Object)]
struct Copied {
    id: Uuid,
}

#[derive(ApiResponse)]
enum CopyCreated {
    #[oai(status = 201)]
    Created(Json<Copied>),
}

struct Copies;

#[OpenApi]
impl Copies {
    #[oai(path = "/v1/copies", method = "post", operation_id = "createCopy")]
    async fn create(
        &self,
        _permit: Permit<actions::CreateCopy>,
        #[oai(name = "Idempotency-Key")] _key: Header<Option<String>>,
    ) -> CopyCreated {
        CopyCreated::Created(Json(Copied { id: Uuid::now_v7() }))
    }
}

#[tokio::test]
async fn input_10_ignored_idempotency_key_is_found() {
    let app = start(variant(&COPIES, |_, ()| Copies)).await;
    assert_found(
        async move { idempotency::retries_replay::<DemoNotes>(&app).await },
        &["POST /v1/copies ignores its idempotency key"],
    )
    .await;
}

#[tokio::test]
async fn log_05_missing_audit_event_is_found() {
    let app = start(variant(&COPIES, |_, ()| Copies)).await;
    assert_found(
        async move { audit::changes_have_their_event::<DemoNotes>(&app).await },
        &["POST /v1/copies must append exactly one audit event, `copy_created`, and appended []"],
    )
    .await;
}

/// The kernel refuses to start it, so no check is needed.
#[tokio::test]
async fn threat_01_operation_without_a_row_prevents_startup() {
    let service = variant(&NO_ROW, |_, ()| Copies);
    let issuer = start_issuer(Clock::system()).await;
    let variables = TestApp::variables(&SERVICE.database().await, issuer.url());
    let error = service.try_start(variables).await.unwrap_err();
    assert!(error.contains("POST /v1/copies has no row in the route matrix"), "{error}");
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
