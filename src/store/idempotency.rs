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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The body, in JSON.
    pub body: String,
    /// The `Location` header.
    pub location: Option<String>,
}

/// What is known about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// Nothing: do the work.
    Nothing,
    /// The same request was answered with this.
    Same(Answer),
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
            (Some(fingerprint), Some(body)) if fingerprint == request.fingerprint => {
                Self::Same(Answer { body, location })
            }
            (Some(_), _) => Self::Different,
            (None, _) => Self::Nothing,
        }
    }
}

impl<A: Change> Statements<A> {
    /// What is known about the key, asked in one message.
    pub async fn earlier_answer(&mut self, permit: &Permit<A>, request: &KeyedRequest) -> Result<Earlier, StoreError> {
        let row = sqlx::query!(
            r#"select fingerprint as "fingerprint!", body as "body!", location
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
        Ok(row
            .map_or(Earlier::Nothing, |row| Earlier::of(request, Some(row.fingerprint), Some(row.body), row.location)))
    }
}

impl<A: Change> WriteTx<A> {
    /// What is known about the key; and keeps other requests with it out until the transaction ends.
    ///
    /// The lock may be had an instant after the answer of another request was missed. Then storing
    /// an answer fails, and nothing of this transaction stays.
    pub async fn earlier_answer(&mut self, permit: &Permit<A>, request: &KeyedRequest) -> Result<Earlier, StoreError> {
        let row = sqlx::query!(
            r#"select pg_try_advisory_xact_lock(hashtextextended(
                          concat_ws(e'\x1f', $1::uuid, $2::text, $3::text, $4::text, $5::text), 0)) as "alone!",
                      k.fingerprint as "fingerprint?", k.body as "body?", k.location as "location?"
               from (select 1) as always left join earlier_answer($1, $2, $3, $4, $5, $6) k on true"#,
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
