//! Operations with one fault each, in variants of the sample service. Their handlers go around the
//! store of the kernel.

use std::sync::Mutex;

use palisade::{authz::Permit, dev::people::Tenant, model::Clock};
use palisade_test::control_suite::{Fixture, access, audit, identity, personal_data, responses, tenants};
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Header, Path},
    payload::Json,
};
use sample::domain::NoteId;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::{
    COPIES, DemoNotes, NO_ROW, PLAIN_CHANGE, PLAIN_LIST, UNCHECKED, UNFILTERED, UNMASKED, actions, assert_found,
    requests::Copies, start, variant,
};
use crate::support::{SERVICE, TestApp, start_issuer};

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
    async fn get(&self, _permit: &Permit<actions::GetPlainNote>, id: Path<NoteId>) -> Json<PlainNote> {
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

/// A note as a page shows it.
#[derive(Object)]
struct ListedNote {
    email: String,
    phone: String,
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct ListedNotes {
    items: Vec<ListedNote>,
    #[oai(nullable)]
    next_cursor: Option<String>,
}

/// Lists notes in plain text to callers that may see them.
struct UnmaskedList;

#[OpenApi]
impl UnmaskedList {
    #[oai(path = "/v1/plain-notes", method = "get", operation_id = "listPlainNotes")]
    async fn list(&self, permit: &Permit<actions::ListPlainNotes>) -> Json<ListedNotes> {
        let [email, phone] = match permit.personal_data_access() {
            Some(_) => ["ann@example.com", "+493012345678"],
            None => ["****", "****"],
        };
        let items = vec![ListedNote { email: email.to_owned(), phone: phone.to_owned() }];
        Json(ListedNotes { items, next_cursor: None })
    }
}

#[tokio::test]
async fn authz_06_list_in_plain_text_is_found() {
    let app = start(variant(&PLAIN_LIST, |_, ()| UnmaskedList)).await;
    assert_found(
        async move { personal_data::is_masked::<DemoNotes>(&app).await },
        &["GET /v1/plain-notes shows [\"+493012345678\", \"ann@example.com\"] to an administrator in a list"],
    )
    .await;
}

/// Answers a change in plain text to callers that may see it.
struct UnmaskedChange;

#[OpenApi]
impl UnmaskedChange {
    #[oai(path = "/v1/plain-notes/:id", method = "put", operation_id = "changePlainNote")]
    async fn change(&self, permit: &Permit<actions::ChangePlainNote>, id: Path<NoteId>) -> Json<PlainNote> {
        let email = permit.personal_data_access().map_or("****", |_| "ann@example.com").to_owned();
        Json(PlainNote { id: id.0.uuid(), email })
    }
}

#[tokio::test]
async fn authz_06_change_answered_in_plain_text_is_found() {
    let app = start(variant(&PLAIN_CHANGE, |_, ()| UnmaskedChange)).await;
    assert_found(
        async move { personal_data::is_masked::<DemoNotes>(&app).await },
        &["PUT /v1/plain-notes/{id} shows [\"ann@example.com\"] to an administrator who changes it"],
    )
    .await;
}

/// Has an e-mail address of its own in each object.
struct OneAddressEach;

impl Fixture for OneAddressEach {
    fn new(_app: &TestApp, _tenant: &Tenant) -> Self {
        Self
    }

    async fn create(&self, path: &str) -> Option<String> {
        Some(Self::unused_id(path))
    }

    async fn read(&self, _path: &str, object: &str) -> Value {
        json!({ "email": format!("{object}@example.com"), "phone": "+493012345678" })
    }
}

struct UnmaskedAddress;

#[OpenApi]
impl UnmaskedAddress {
    #[oai(path = "/v1/plain-notes/:id", method = "get", operation_id = "getPlainNote")]
    async fn get(&self, _permit: &Permit<actions::GetPlainNote>, id: Path<NoteId>) -> Json<PlainNote> {
        Json(PlainNote { id: id.0.uuid(), email: format!("{}@example.com", id.0) })
    }
}

#[tokio::test]
async fn authz_06_value_of_one_object_is_found() {
    let app = start(variant(&UNMASKED, |_, ()| UnmaskedAddress)).await;
    assert_found(
        async move { personal_data::is_masked::<OneAddressEach>(&app).await },
        &["GET /v1/plain-notes/{id} shows", "to the role viewer"],
    )
    .await;
}

/// Has an e-mail address and no phone.
struct NoPhone;

impl Fixture for NoPhone {
    fn new(_app: &TestApp, _tenant: &Tenant) -> Self {
        Self
    }

    async fn create(&self, path: &str) -> Option<String> {
        Some(Self::unused_id(path))
    }

    async fn read(&self, _path: &str, _object: &str) -> Value {
        json!({ "email": "ann@example.com" })
    }
}

#[tokio::test]
async fn authz_06_sealed_column_without_a_value_is_found() {
    let app = start(variant(&UNMASKED, |_, ()| Unmasked)).await;
    assert_found(
        async move { personal_data::is_masked::<NoPhone>(&app).await },
        &["no operation shows a plain value of the sealed columns [\"phone\"]"],
    )
    .await;
}

#[derive(ApiResponse)]
enum CachedNote {
    #[oai(status = 200)]
    Found(Json<PlainNote>, #[oai(header = "Cache-Control")] String),
}

struct Cached;

#[OpenApi]
impl Cached {
    #[oai(path = "/v1/plain-notes/:id", method = "get", operation_id = "getPlainNote")]
    async fn get(&self, _permit: &Permit<actions::GetPlainNote>, id: Path<NoteId>) -> CachedNote {
        CachedNote::Found(Json(PlainNote { id: id.0.uuid(), email: String::new() }), "max-age=60".to_owned())
    }
}

#[tokio::test]
async fn input_08_cacheable_response_is_found() {
    let app = start(variant(&UNMASKED, |_, ()| Cached)).await;
    assert_found(
        async move { responses::headers_are_set::<DemoNotes>(&app).await },
        &["GET /v1/plain-notes/{id} lets caches keep its response"],
    )
    .await;
}

/// The owners' URLs of the databases that [`Unfiltered`] and [`Credulous`] read.
static UNFILTERED_OWNER: Mutex<String> = Mutex::new(String::new());
static CREDULOUS_OWNER: Mutex<String> = Mutex::new(String::new());

#[derive(ApiResponse)]
pub(super) enum AnyNote {
    #[oai(status = 204)]
    Found,
    #[oai(status = 404)]
    Missing,
}

/// Searches a note by its id alone, as this tenant.
async fn find(owner: &Mutex<String>, tenant: &str, id: NoteId) -> AnyNote {
    let url = owner.lock().unwrap().clone();
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let enter = "select set_config('app.tenant_id', $1, false)";
    sqlx::query(enter).bind(tenant).execute(&mut owner).await.unwrap();
    let found = sqlx::query("select from notes where id = $1").bind(id.uuid()).fetch_optional(&mut owner).await;
    if found.unwrap().is_some() { AnyNote::Found } else { AnyNote::Missing }
}

struct Unfiltered;

#[OpenApi]
impl Unfiltered {
    #[oai(path = "/v1/any-notes/:id", method = "get", operation_id = "getAnyNote")]
    async fn get(&self, permit: &Permit<actions::GetAnyNote>, id: Path<NoteId>) -> AnyNote {
        find(&UNFILTERED_OWNER, &permit.tenant().to_string(), id.0).await
    }
}

#[tokio::test]
async fn authz_03_missing_tenant_filter_is_found() {
    let app = start(variant(&UNFILTERED, |_, ()| Unfiltered)).await;
    app.database.owner.expose_secret().clone_into(&mut UNFILTERED_OWNER.lock().unwrap());
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

/// Believes the header `X-Tenant-Id`.
struct Credulous;

#[OpenApi]
impl Credulous {
    #[oai(path = "/v1/any-notes/:id", method = "get", operation_id = "getAnyNote")]
    async fn get(
        &self,
        permit: &Permit<actions::GetAnyNote>,
        id: Path<NoteId>,
        #[oai(name = "X-Tenant-Id")] tenant: Header<Option<String>>,
    ) -> AnyNote {
        let tenant = tenant.0.unwrap_or_else(|| permit.tenant().to_string());
        find(&CREDULOUS_OWNER, &tenant, id.0).await
    }
}

#[tokio::test]
async fn authz_09_believed_header_is_found() {
    let app = start(variant(&UNFILTERED, |_, ()| Credulous)).await;
    app.database.owner.expose_secret().clone_into(&mut CREDULOUS_OWNER.lock().unwrap());
    assert_found(
        async move { identity::claims_are_ignored::<DemoNotes>(&app).await },
        &["GET /v1/any-notes/{id} believes a claim of the request about its tenant"],
    )
    .await;
}

#[derive(ApiResponse)]
pub(super) enum Touched {
    #[oai(status = 204)]
    Done,
}

struct Unchecked;

#[OpenApi]
impl Unchecked {
    #[oai(path = "/v1/notes/:id/touch", method = "post", operation_id = "touchNote")]
    async fn touch(&self, _permit: &Permit<actions::TouchNote>, _id: Path<NoteId>) -> Touched {
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
