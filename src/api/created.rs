//! Answers to creating operations, and to their repetitions (control INPUT-10).

use poem_openapi::{
    ApiResponse,
    payload::Json,
    types::{ParseFromJSON, ToJSON},
};
use uuid::Uuid;

use super::{
    Context,
    text::{Text, form},
};
use crate::{
    authz::Action,
    problem::{Kind, Problem},
    store::{Answer, Earlier, KeyedRequest},
};

/// 201 with what was created.
#[derive(ApiResponse)]
pub(super) enum Created<T: ToJSON> {
    /// It was created.
    #[oai(status = 201)]
    Created(
        Json<T>,
        /// Where it is.
        #[oai(header = "Location")]
        Option<Text<form::Location>>,
        /// `true` if an earlier request with the same `Idempotency-Key` did the work, and this is its answer.
        #[oai(header = "Idempotent-Replayed")]
        Option<bool>,
    ),
}

impl<T: ToJSON + ParseFromJSON> Created<T> {
    pub(super) fn new(created: T, location: Option<String>) -> Self {
        Self::Created(Json(created), location.map(Text::from), None)
    }

    /// As it is stored for repetitions.
    pub(super) fn answer(&self) -> Answer {
        let Self::Created(Json(created), location, _) = self;
        Answer { body: created.to_json_string(), location: location.clone().map(String::from) }
    }

    /// The answer to a repetition; `None` if the request is none.
    pub(super) fn earlier(earlier: Earlier) -> Result<Option<Self>, Problem> {
        match earlier {
            Earlier::Nothing => Ok(None),
            Earlier::Erased => Err(Problem::new(Kind::Conflict)),
            Earlier::Different => Err(Problem::new(Kind::KeyReused)),
            Earlier::Same(answer) => {
                // Written by this program, maybe an earlier version of it.
                let created = serde_json::from_str(&answer.body).ok().and_then(|v| T::parse_from_json(Some(v)).ok());
                let created = created.ok_or_else(|| {
                    tracing::error!("a stored answer does not fit its operation any more");
                    Problem::new(Kind::Internal)
                })?;
                Ok(Some(Self::Created(Json(created), answer.location.map(Text::from), Some(true))))
            }
        }
    }
}

impl Context {
    /// The request of operation `A` as the store tells it from others, if it has a key.
    pub(super) fn keyed<A: Action>(
        &self,
        key: Option<Text<form::IdempotencyKey>>,
        target: Option<Uuid>,
        body: &[u8],
    ) -> Option<KeyedRequest> {
        key.map(|key| self.keyed_by::<A>(key, target, body))
    }

    /// The same where a key is required. What is asked is told by the object's identifier and the body.
    pub(super) fn keyed_by<A: Action>(
        &self,
        key: Text<form::IdempotencyKey>,
        target: Option<Uuid>,
        body: &[u8],
    ) -> KeyedRequest {
        let at = self.clock.now();
        // With a key of ours, since the body may be about a person and easy to guess.
        let fingerprint = self.mac_key.tag(&format!("idempotency {} {target:?}", A::OPERATION), body);
        KeyedRequest { key: key.into(), fingerprint, at, expires_at: at + self.idempotency_retention }
    }
}
