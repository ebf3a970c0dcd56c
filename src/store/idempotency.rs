//! Stored responses of requests with an `Idempotency-Key` (home of INPUT-10 and FAIL-03).
//!
//! An operation looks its key up ([`StoredOutcome`]), processes the request if the outcome is
//! `None`, and stores the response in the transaction of the change: a crash leaves both or
//! neither. Responses are stored by tenant, subject, client, operation and key, and only for
//! successful requests.
//!
//! Of two concurrent requests with the same key, one commits. The other fails on the advisory lock
//! or on the primary key, and changes nothing ([`DbError::InFlight`], 409).

use chrono::{DateTime, Utc};

use super::{SingleStatement, WriteTx};
use crate::{
    authz::{Change, Permit},
    db::DbError,
};

/// A request with an idempotency key, as the store compares it with earlier ones.
#[derive(Clone, Debug)]
pub struct KeyedRequest {
    /// The idempotency key that the caller chose.
    pub key: String,
    /// HMAC over operation, object id and canonical body. Tells a retry from another request.
    pub fingerprint: [u8; 32],
    /// Time of the request.
    pub at: DateTime<Utc>,
    /// End of the period in which a retry gets the stored response.
    pub expires_at: DateTime<Utc>,
}

/// The stored part of a response. The status is always 201.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredResponse {
    /// JSON body.
    pub body: String,
    /// `Location` header.
    pub location: Option<String>,
}

/// Omits the body, which may contain personal data.
impl std::fmt::Debug for StoredResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredResponse").field("location", &self.location).finish_non_exhaustive()
    }
}

/// Result of looking up an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredOutcome {
    /// The key is unused: process the request.
    None,
    /// A retry: return the stored response, change nothing.
    Replay(StoredResponse),
    /// The key was used for another request.
    Mismatch,
    /// A retry whose stored response was erased with the customer's personal data.
    Erased,
}

impl StoredOutcome {
    /// Interprets the columns of a left join: without a fingerprint there is no row for the key.
    pub(super) fn from_columns(
        request: &KeyedRequest,
        fingerprint: Option<Vec<u8>>,
        body: Option<String>,
        location: Option<String>,
    ) -> Self {
        match (fingerprint, body) {
            (None, _) => Self::None,
            (Some(fingerprint), _) if fingerprint != request.fingerprint => Self::Mismatch,
            (Some(_), Some(body)) => Self::Replay(StoredResponse { body, location }),
            (Some(_), None) => Self::Erased,
        }
    }
}

impl<A: Change> SingleStatement<A> {
    /// Looks the key up in one message, without a transaction and without a lock.
    pub async fn stored_outcome(
        &mut self,
        permit: &Permit<A>,
        request: &KeyedRequest,
    ) -> Result<StoredOutcome, DbError> {
        let row = sqlx::query!(
            r#"select fingerprint as "fingerprint!", body, location
               from read_earlier_answer($1, $2, $3, $4, $5, $6)"#,
            permit.tenant().uuid(),
            permit.principal().subject(),
            permit.principal().client(),
            A::OPERATION,
            request.key,
            request.at
        )
        .fetch_optional(self.connection())
        .await?;
        Ok(row.map_or(StoredOutcome::None, |row| {
            StoredOutcome::from_columns(request, Some(row.fingerprint), row.body, row.location)
        }))
    }
}

impl<A: Change> WriteTx<A> {
    /// Looks the key up and locks it until the transaction ends.
    ///
    /// # Errors
    /// [`DbError::InFlight`] if another transaction holds the lock.
    pub async fn claim_key(&mut self, permit: &Permit<A>, request: &KeyedRequest) -> Result<StoredOutcome, DbError> {
        let row = sqlx::query!(
            r#"select alone as "alone!", fingerprint, body, location from claim_key($1, $2, $3, $4, $5, $6)"#,
            permit.tenant().uuid(),
            permit.principal().subject(),
            permit.principal().client(),
            A::OPERATION,
            request.key,
            request.at
        )
        .fetch_one(self.connection())
        .await?;
        if !row.alone {
            return Err(DbError::InFlight);
        }
        Ok(StoredOutcome::from_columns(request, row.fingerprint, row.body, row.location))
    }

    /// Stores the response in the transaction of the change.
    pub async fn store_response(
        &mut self,
        permit: &Permit<A>,
        request: &KeyedRequest,
        response: &StoredResponse,
    ) -> Result<(), DbError> {
        sqlx::query!(
            "insert into idempotency_keys (tenant_id, subject, client, operation, key, fingerprint, body, location,
                                           created_at, expires_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            permit.tenant().uuid(),
            permit.principal().subject(),
            permit.principal().client(),
            A::OPERATION,
            request.key,
            &request.fingerprint,
            response.body,
            response.location,
            request.at,
            request.expires_at
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}
