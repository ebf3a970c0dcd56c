//! Idempotency of changes by `POST` (home of INPUT-10 with [`crate::store`]).
//!
//! An operation turns the `Idempotency-Key` header into a [`KeyedRequest`]
//! ([`Context::idempotent`]) and gives it to the store. If the key was used before
//! ([`StoredOutcome`]), it returns [`KeyedResponse::replay`]. Otherwise it processes the request and
//! stores [`KeyedResponse::stored`]. An operation that takes no key refuses one
//! ([`strictness`](super::strictness)).

use std::marker::PhantomData;

use http::{HeaderName, HeaderValue, StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::{
    ApiResponse,
    payload::{Json, Payload},
    registry::{MetaHeader, MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::{ToJSON, Type},
};
use uuid::Uuid;

use super::{
    Context,
    text::{Text, formats},
};
use crate::{
    authz::Action,
    problem::{Kind, Problem},
    store::{KeyedRequest, StoredOutcome, StoredResponse},
};

/// A response that is stored for retries: the bytes of a `T`, with this status in the document.
pub struct KeyedResponse<T, const STATUS: u16> {
    response: StoredResponse,
    is_replay: bool,
    schema: PhantomData<fn() -> T>,
}

/// 201 with the created object.
pub type Created<T> = KeyedResponse<T, 201>;

/// 200 with the changed object.
pub type Changed<T> = KeyedResponse<T, 200>;

impl<T: ToJSON, const STATUS: u16> KeyedResponse<T, STATUS> {
    /// The response with an object, and the path of a created one.
    #[must_use]
    pub fn new(object: &T, location: Option<String>) -> Self {
        Self::of(StoredResponse { status: STATUS, body: object.to_json_string(), location }, false)
    }
}

impl<T, const STATUS: u16> KeyedResponse<T, STATUS> {
    fn of(response: StoredResponse, is_replay: bool) -> Self {
        Self { response, is_replay, schema: PhantomData }
    }

    /// The response in the form that is stored for retries.
    #[must_use]
    pub fn stored(&self) -> &StoredResponse {
        &self.response
    }

    /// The response to a request whose idempotency key was used before: the stored bytes. An earlier
    /// version of this program may have stored them, so they are not read.
    ///
    /// # Errors
    /// 422 if the key was used for another request; 409 if the stored response was erased.
    pub fn replay(outcome: StoredOutcome) -> Result<Self, Problem> {
        match outcome {
            StoredOutcome::Mismatch => Err(Problem::new(Kind::KeyReused)),
            StoredOutcome::Erased => Err(Problem::new(Kind::Conflict)),
            StoredOutcome::Replay(stored) => Ok(Self::of(stored, true)),
        }
    }
}

impl<T: Send, const STATUS: u16> IntoResponse for KeyedResponse<T, STATUS> {
    fn into_response(self) -> Response {
        let StoredResponse { status, body, location } = self.response;
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        let mut response = Response::builder().status(status).content_type(Json::<bool>::CONTENT_TYPE).body(body);
        if let Some(location) = location.and_then(|location| HeaderValue::try_from(location).ok()) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        if self.is_replay {
            let name = HeaderName::from_static("idempotent-replayed");
            response.headers_mut().insert(name, HeaderValue::from_static("true"));
        }
        response
    }
}

impl<T: Type + ToJSON, const STATUS: u16> ApiResponse for KeyedResponse<T, STATUS> {
    fn meta() -> MetaResponses {
        let header = |name: &str, description: &str, schema| MetaHeader {
            name: name.to_owned(),
            description: Some(description.to_owned()),
            required: false,
            deprecated: false,
            schema,
        };
        let replayed = "`true` if this is the stored response of an earlier request with the same key.";
        let mut headers = vec![header("Idempotent-Replayed", replayed, bool::schema_ref())];
        if STATUS == 201 {
            let location = Text::<formats::Location>::schema_ref();
            headers.insert(0, header("Location", "Path of the created object.", location));
        }
        let content = vec![MetaMediaType { content_type: Json::<T>::CONTENT_TYPE, schema: Json::<T>::schema_ref() }];
        let description = if STATUS == 201 { "The object was created." } else { "The object was changed." };
        MetaResponses {
            responses: vec![MetaResponse { description, status: Some(STATUS), status_range: None, content, headers }],
        }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
        Text::<formats::Location>::register(registry);
    }
}

impl Context {
    /// The request of operation `A` for the store, if the caller sent an idempotency key. The
    /// fingerprint covers operation, object id and body.
    #[must_use]
    pub fn idempotent<A: Action>(
        &self,
        key: impl Into<Option<Text<formats::IdempotencyKey>>>,
        target: Option<Uuid>,
        body: &[u8],
    ) -> Option<KeyedRequest> {
        let at = self.clock.now();
        key.into().map(|key| KeyedRequest {
            key: key.into(),
            // Keyed: a plain digest of a body with personal data could be guessed.
            fingerprint: self.mac_key.tag(&format!("idempotency {} {target:?}", A::ROW.operation), body),
            at,
            expires_at: at + self.idempotency_retention,
        })
    }
}
