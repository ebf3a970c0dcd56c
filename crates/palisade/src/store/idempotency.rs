//! Stored responses of requests with an `Idempotency-Key` (home of INPUT-10 and FAIL-03).
//!
//! An operation claims or looks up its key, processes the request if the key is unused, and stores
//! the response in the transaction of the change: a crash leaves both or neither. Responses are
//! stored by tenant, subject, client, operation and key, and only for successful requests. API keys
//! of one creator share subject and client. A retry is authorized like any call, so it gets only
//! responses of operations that its own credential may call.
//!
//! Of two concurrent requests with the same key, one commits. The other fails on the advisory lock
//! or on the primary key, and changes nothing ([`DbError::InFlight`], 409).

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::{Database, Keyed, Lockable, ObjectPermit, SingleStatement, WriteTx};
use crate::{
    authz::{Change, Permit},
    crypto::hex,
    db::{DbError, TracingExecutor},
    model::ObjectId as _,
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

/// The stored part of a response. A retry gets it as it is, whatever this program answers today.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredResponse {
    /// Status, 200 to 299.
    pub status: u16,
    /// JSON body.
    pub body: String,
    /// `Location` header.
    pub location: Option<String>,
}

/// Omits the body, which may contain personal data.
impl std::fmt::Debug for StoredResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredResponse")
            .field("status", &self.status)
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

/// What an earlier request with the same idempotency key left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredOutcome {
    /// A retry: return the stored response, change nothing.
    Replay(StoredResponse),
    /// The key was used for another request.
    Mismatch,
    /// A retry whose stored response was erased with personal data.
    Erased,
}

/// The row of an idempotency key, as `read_inputs!` reads it. [`KeyLookup::outcome`] interprets it.
#[derive(Debug, Deserialize)]
pub struct StoredColumns {
    fingerprint: String,
    status: u16,
    body: Option<String>,
    location: Option<String>,
}

/// Result of claiming an idempotency key.
#[derive(Debug)]
pub enum Claim<'p, A> {
    /// The key is unused, or there is none: process the request in this transaction.
    New(WriteTx<'p, A, Keyed>),
    /// The key was used: change nothing.
    Used(StoredOutcome),
}

impl StoredOutcome {
    fn new(is_same: bool, status: u16, body: Option<String>, location: Option<String>) -> Self {
        match body {
            _ if !is_same => Self::Mismatch,
            Some(body) => Self::Replay(StoredResponse { status, body, location }),
            None => Self::Erased,
        }
    }
}

/// The arguments with which `read_inputs!` looks an idempotency key up.
#[derive(Debug)]
pub struct KeyLookup<'p> {
    subject: &'p str,
    client: &'p str,
    operation: &'static str,
    request: Option<&'p KeyedRequest>,
}

impl<'p> KeyLookup<'p> {
    /// A look-up for the caller and the operation of the permit.
    #[must_use]
    pub fn new<A: Change>(permit: &'p Permit<A>, request: Option<&'p KeyedRequest>) -> Self {
        let (subject, client) = permit.principal().retry_owner();
        Self { subject, client, operation: A::ROW.operation, request }
    }

    /// What an earlier request left; `None` if the key is unused.
    #[must_use]
    pub fn outcome(&self, stored: Option<StoredColumns>) -> Option<StoredOutcome> {
        let (request, stored) = self.request.zip(stored)?;
        let is_same = stored.fingerprint == hex(&request.fingerprint);
        Some(StoredOutcome::new(is_same, stored.status, stored.body, stored.location))
    }

    #[doc(hidden)]
    #[must_use]
    pub fn subject(&self) -> &str {
        self.subject
    }

    #[doc(hidden)]
    #[must_use]
    pub fn client(&self) -> &str {
        self.client
    }

    #[doc(hidden)]
    #[must_use]
    pub fn operation(&self) -> &str {
        self.operation
    }

    #[doc(hidden)]
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.request.map(|request| request.key.as_str())
    }

    #[doc(hidden)]
    #[must_use]
    pub fn at(&self) -> Option<DateTime<Utc>> {
        self.request.map(|request| request.at)
    }
}

impl<A: Change> SingleStatement<A> {
    /// Looks the key up in one message, without a transaction and without a lock. `None` if it is
    /// unused.
    pub async fn stored_outcome(
        &mut self,
        permit: &Permit<A>,
        request: &KeyedRequest,
    ) -> Result<Option<StoredOutcome>, DbError> {
        let (subject, client) = permit.principal().retry_owner();
        let row = sqlx::query!(
            r#"select fingerprint as "fingerprint!", status as "status!", body, location
               from palisade.read_stored_response($1, $2, $3, $4, $5, $6)"#,
            permit.tenant().uuid(),
            subject,
            client,
            A::ROW.operation,
            request.key,
            request.at
        )
        .fetch_optional(TracingExecutor(&mut self.connection))
        .await?;
        Ok(row.map(|row| {
            let is_same = row.fingerprint == request.fingerprint;
            StoredOutcome::new(is_same, row.status.unsigned_abs(), row.body, row.location)
        }))
    }
}

impl Database {
    /// Begins a writing transaction that stores its response, if the request has a key. Claims the
    /// key: other requests with it fail until the transaction ends.
    ///
    /// # Errors
    /// [`DbError::InFlight`] if another transaction holds the claim.
    pub async fn write_once<'p, A: Change>(
        &self,
        permit: &'p Permit<A>,
        request: Option<KeyedRequest>,
    ) -> Result<Claim<'p, A>, DbError> {
        let tx: WriteTx<'p, A, Keyed> = self.begin(permit, request).await?;
        let Some(request) = &tx.request else { return Ok(Claim::New(tx)) };
        let (subject, client) = permit.principal().retry_owner();
        let row = sqlx::query!(
            r#"select claimed as "claimed!", fingerprint, status, body, location
               from palisade.claim_key($1, $2, $3, $4, $5, $6)"#,
            permit.tenant().uuid(),
            subject,
            client,
            A::ROW.operation,
            request.key,
            request.at
        )
        .fetch_one(TracingExecutor(&mut *tx.open.connection().await?))
        .await?;
        match row.fingerprint.zip(row.status) {
            _ if !row.claimed => Err(DbError::InFlight),
            Some((fingerprint, status)) => {
                let is_same = fingerprint == request.fingerprint;
                Ok(Claim::Used(StoredOutcome::new(is_same, status.unsigned_abs(), row.body, row.location)))
            }
            None => Ok(Claim::New(tx)),
        }
    }
}

impl<A: Change, K> WriteTx<'_, A, K> {
    /// Empties the stored responses with the `Location` of the permitted object in `collection`,
    /// since they hold its data. Their keys stay, so that a late retry does not repeat the creation.
    pub(super) async fn erase_responses<R: Lockable>(
        &self,
        permit: &ObjectPermit<'_, A, R>,
        collection: &str,
    ) -> Result<(), DbError> {
        self.check_object(permit)?;
        sqlx::query!(
            "update palisade.idempotency_keys set body = null, location = null
             where tenant_id = $1 and location = $2 and body is not null",
            permit.tenant().uuid(),
            format!("{collection}/{}", permit.id().__uuid())
        )
        .execute(TracingExecutor(&mut *self.open.connection().await?))
        .await?;
        Ok(())
    }
}
