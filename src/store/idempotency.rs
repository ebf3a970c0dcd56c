//! Answers to requests that may be repeated (control INPUT-10).
//!
//! An answer is stored by the transaction whose change it tells of, under the tenant, the caller, the operation
//! and the key; so a crash leaves either both or neither. The primary key decides between two requests that
//! run at once: one commits, the other fails and changes nothing ([`StoreError::InFlight`]).

use chrono::{DateTime, Utc};

use super::{Statements, StoreError, WriteTx};
use crate::authz::{Change, Permit};

/// A request with an idempotency key.
#[derive(Clone, Debug)]
pub struct KeyedRequest {
    /// What the caller chose.
    pub key: String,
    /// A keyed digest of what is asked: path and body.
    pub fingerprint: [u8; 32],
    /// Now.
    pub at: DateTime<Utc>,
    /// Until when its answer counts.
    pub expires_at: DateTime<Utc>,
}

/// What was answered to the request that did the work: 201 with these.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// The body, in JSON.
    pub body: String,
    /// The `Location` header.
    pub location: Option<String>,
}

/// Without the body, which may be about a person.
impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("location", &self.location).finish_non_exhaustive()
    }
}

/// What is known about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// Nothing: do the work.
    Nothing,
    /// The same request was answered with this.
    Same(Answer),
    /// The same request was answered, but what the answer told of was erased since.
    Erased,
    /// The key was used for another request.
    Different,
}

impl Earlier {
    /// From the columns of a row that may not be there.
    pub(super) fn of(
        request: &KeyedRequest,
        fingerprint: Option<Vec<u8>>,
        body: Option<String>,
        location: Option<String>,
    ) -> Self {
        match (fingerprint, body) {
            (None, _) => Self::Nothing,
            (Some(fingerprint), _) if fingerprint != request.fingerprint => Self::Different,
            (Some(_), Some(body)) => Self::Same(Answer { body, location }),
            (Some(_), None) => Self::Erased,
        }
    }
}

impl<A: Change> Statements<A> {
    /// What is known about the key, asked in one message.
    pub async fn earlier_answer(&mut self, permit: &Permit<A>, request: &KeyedRequest) -> Result<Earlier, StoreError> {
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
        Ok(row.map_or(Earlier::Nothing, |row| Earlier::of(request, Some(row.fingerprint), row.body, row.location)))
    }
}

impl<A: Change> WriteTx<A> {
    /// What is known about the key; and keeps other requests with it out until the transaction ends.
    pub async fn earlier_answer(&mut self, permit: &Permit<A>, request: &KeyedRequest) -> Result<Earlier, StoreError> {
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
            return Err(StoreError::InFlight);
        }
        Ok(Earlier::of(request, row.fingerprint, row.body, row.location))
    }

    /// Stores the answer beside the change it tells of.
    pub async fn store_answer(
        &mut self,
        permit: &Permit<A>,
        request: &KeyedRequest,
        answer: &Answer,
    ) -> Result<(), StoreError> {
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
            answer.body,
            answer.location,
            request.at,
            request.expires_at
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}
