//! Idempotency of creating operations (home of INPUT-10 with [`crate::store`]).
//!
//! An operation turns the `Idempotency-Key` header into a [`KeyedRequest`]
//! ([`Context::idempotent`], [`Context::keyed_request`]) and gives it to the store. If the key was
//! used before ([`StoredOutcome`]), it returns [`Created::replay`]. Otherwise it processes the
//! request and stores [`Created::to_stored`].

use poem_openapi::{
    ApiResponse,
    payload::Json,
    types::{ParseFromJSON, ToJSON},
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

/// 201 with the created object.
#[derive(ApiResponse)]
pub enum Created<T: ToJSON> {
    /// The object was created.
    #[oai(status = 201)]
    Created(
        Json<T>,
        /// Path of the created object.
        #[oai(header = "Location")]
        Option<Text<formats::Location>>,
        /// `true` if this is the stored response of an earlier request with the same key.
        #[oai(header = "Idempotent-Replayed")]
        Option<bool>,
    ),
}

impl<T: ToJSON + ParseFromJSON> Created<T> {
    /// The response with a new object, whose path is `location`.
    #[must_use]
    pub fn new(created: T, location: Option<String>) -> Self {
        Self::Created(Json(created), location.map(Text::from), None)
    }

    /// The response in the form that is stored for retries.
    #[must_use]
    pub fn to_stored(&self) -> StoredResponse {
        let Self::Created(Json(created), location, _) = self;
        StoredResponse { body: created.to_json_string(), location: location.clone().map(String::from) }
    }

    /// The response to a request whose idempotency key was used before.
    ///
    /// # Errors
    /// 422 if the key was used for another request; 409 if the stored response was erased.
    pub fn replay(outcome: StoredOutcome) -> Result<Self, Problem> {
        match outcome {
            StoredOutcome::Mismatch => Err(Problem::new(Kind::KeyReused)),
            StoredOutcome::Erased => Err(Problem::new(Kind::Conflict)),
            StoredOutcome::Replay(stored) => {
                // An earlier version of this program may have stored it.
                let created = serde_json::from_str(&stored.body).ok().and_then(|v| T::parse_from_json(Some(v)).ok());
                let created = created.ok_or_else(|| {
                    tracing::error!("stored response does not match the type of its operation");
                    Problem::new(Kind::Internal)
                })?;
                Ok(Self::Created(Json(created), stored.location.map(Text::from), Some(true)))
            }
        }
    }
}

impl Context {
    /// The request of operation `A` for the store, if the caller sent an idempotency key.
    #[must_use]
    pub fn idempotent<A: Action>(
        &self,
        key: Option<Text<formats::IdempotencyKey>>,
        target: Option<Uuid>,
        body: &[u8],
    ) -> Option<KeyedRequest> {
        key.map(|key| self.keyed_request::<A>(key, target, body))
    }

    /// The request of operation `A` for the store. The fingerprint covers operation, object id and
    /// body.
    #[must_use]
    pub fn keyed_request<A: Action>(
        &self,
        key: Text<formats::IdempotencyKey>,
        target: Option<Uuid>,
        body: &[u8],
    ) -> KeyedRequest {
        let at = self.clock.now();
        // Keyed: a plain digest of a body with personal data could be guessed.
        let fingerprint = self.mac_key.tag(&format!("idempotency {} {target:?}", A::ROW.operation), body);
        KeyedRequest { key: key.into(), fingerprint, at, expires_at: at + self.idempotency_retention }
    }
}
