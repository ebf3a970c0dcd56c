//! Operations that create copies, with faults of bodies (INPUT-01) and retries (INPUT-10).

use std::{collections::HashMap, sync::Mutex};

use palisade::{authz::Permit, http::strict_json::StrictJson, model::Clock};
use palisade_test::control_suite::idempotency;
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::Header,
    payload::{Json, PlainText},
    types::Example,
};
use uuid::Uuid;

use crate::support::{SERVICE, TestApp, start_issuer};

use super::{COPIES, DemoNotes, LISTED_COPIES, actions, assert_found, start, variant};

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

pub(super) struct Copies;

#[OpenApi]
impl Copies {
    #[oai(path = "/v1/copies", method = "post", operation_id = "createCopy")]
    async fn create(
        &self,
        _permit: &Permit<actions::CreateCopy>,
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

struct Unkeyed;

#[OpenApi]
impl Unkeyed {
    #[oai(path = "/v1/copies", method = "post", operation_id = "createCopy")]
    async fn create(&self, _permit: &Permit<actions::CreateCopy>) -> CopyCreated {
        CopyCreated::Created(Json(Copied { id: Uuid::now_v7() }))
    }
}

#[tokio::test]
async fn input_10_creation_without_an_idempotency_key_is_found() {
    let app = start(variant(&COPIES, |_, ()| Unkeyed)).await;
    assert_found(
        async move { idempotency::retries_replay::<DemoNotes>(&app).await },
        &["POST /v1/copies creates an object and takes no idempotency key"],
    )
    .await;
}

struct Text;

#[OpenApi]
impl Text {
    #[oai(path = "/v1/copies", method = "post", operation_id = "createCopy")]
    async fn create(&self, _permit: &Permit<actions::CreateCopy>, _body: PlainText<String>) -> CopyCreated {
        CopyCreated::Created(Json(Copied { id: Uuid::now_v7() }))
    }
}

#[tokio::test]
async fn input_01_body_of_text_prevents_startup() {
    let service = variant(&COPIES, |_, ()| Text);
    let issuer = start_issuer(Clock::system()).await;
    let variables = TestApp::variables(&SERVICE.database().await, issuer.url());
    let error = service.try_start(variables).await.unwrap_err();
    assert!(error.contains("the body of createCopy is not checked strictly"), "{error}");
}

#[derive(Object)]
struct CopyPage {
    items: Vec<Copied>,
}

#[derive(ApiResponse)]
enum CopyMade {
    #[oai(status = 200)]
    Made(Json<Copied>),
}

/// The copies of [`Quiet`].
static QUIET_COPIES: Mutex<Vec<Uuid>> = Mutex::new(Vec::new());

/// Answers a creation with 200.
struct Quiet;

#[OpenApi]
impl Quiet {
    #[oai(path = "/v1/copies", method = "post", operation_id = "createCopy")]
    async fn create(&self, _permit: &Permit<actions::CreateCopy>) -> CopyMade {
        let id = Uuid::now_v7();
        QUIET_COPIES.lock().unwrap().push(id);
        CopyMade::Made(Json(Copied { id }))
    }

    #[oai(path = "/v1/copies", method = "get", operation_id = "listCopies")]
    async fn list(&self, _permit: &Permit<actions::ListCopies>) -> Json<CopyPage> {
        let items = QUIET_COPIES.lock().unwrap().iter().map(|id| Copied { id: *id }).collect();
        Json(CopyPage { items })
    }
}

#[tokio::test]
async fn input_10_creation_without_the_status_of_one_is_found() {
    let app = start(variant(&LISTED_COPIES, |_, ()| Quiet)).await;
    assert_found(
        async move { idempotency::retries_replay::<DemoNotes>(&app).await },
        &["POST /v1/copies creates an object and takes no idempotency key"],
    )
    .await;
}

#[derive(Object)]
#[oai(example)]
struct NewCopy {
    #[oai(validator(minimum(value = "1"), maximum(value = "9")))]
    count: i32,
}

impl Example for NewCopy {
    fn example() -> Self {
        Self { count: 1 }
    }
}

#[derive(ApiResponse)]
enum CopyReplayed {
    #[oai(status = 201)]
    Created(Json<Copied>, #[oai(header = "Idempotent-Replayed")] Option<String>),
}

/// The copies of [`KeyAlone`], by their keys.
static COPIES_BY_KEY: Mutex<Option<HashMap<String, Uuid>>> = Mutex::new(None);

/// Compares the keys of requests and not their bodies.
struct KeyAlone;

#[OpenApi]
impl KeyAlone {
    #[oai(path = "/v1/copies", method = "post", operation_id = "createCopy")]
    async fn create(
        &self,
        _permit: &Permit<actions::CreateCopy>,
        #[oai(name = "Idempotency-Key")] key: Header<String>,
        _body: StrictJson<NewCopy>,
    ) -> CopyReplayed {
        let mut copies = COPIES_BY_KEY.lock().unwrap();
        let copies = copies.get_or_insert_default();
        let replayed = copies.contains_key(&key.0).then(|| "true".to_owned());
        let id = *copies.entry(key.0).or_insert_with(Uuid::now_v7);
        CopyReplayed::Created(Json(Copied { id }), replayed)
    }
}

#[tokio::test]
async fn input_10_replay_for_another_body_is_found() {
    let app = start(variant(&COPIES, |_, ()| KeyAlone)).await;
    assert_found(
        async move { idempotency::retries_replay::<DemoNotes>(&app).await },
        &["POST /v1/copies must refuse a used idempotency key for another body"],
    )
    .await;
}
