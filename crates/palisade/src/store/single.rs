//! Whole reads and creations in one message each: the statement is the transaction.
//!
//! In: a permit and a statement of `read_one!`, `read_inputs!` or `create!`. Out: rows. The
//! statement sets the tenant itself, for its own duration, so no connection carries a tenant into
//! another request.

use std::{fmt, marker::PhantomData};

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{postgres::PgRow, types::Json};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::{
    Database, KeyedRequest, SealedTable, StoredResponse,
    audit::{AuditRecord, trace_id},
    statement::{Create, Read},
    tx::executor,
};
use crate::{
    authn::Principal,
    authz::{Action, Change, Permit},
    crypto::{RowKey, hex},
    db::{DbError, PooledConnection},
    model::AuditObject,
};

/// A connection of the writer for autocommit: each statement is a transaction and one message.
///
/// It is kept for all statements of a request.
pub struct SingleStatement<A> {
    pub(super) connection: PooledConnection,
    _slot: OwnedSemaphorePermit,
    action: PhantomData<fn() -> A>,
}

/// What `palisade.record_change` adds to a change: its audit event, and the stored response if the
/// request has a key.
#[derive(Debug)]
pub struct CreateRecord<'p> {
    principal: &'p Principal,
    operation: &'static str,
    pub(super) event: AuditRecord,
    /// The events of further changed objects. They precede the event.
    pub(super) further: Vec<AuditRecord>,
    keyed: Option<(&'p KeyedRequest, &'p StoredResponse)>,
    row_key: Option<(&'static str, &'p RowKey, Option<u16>)>,
}

impl<'p> CreateRecord<'p> {
    /// A record of the permit's caller and operation, for the new `object`.
    pub fn new<A: Change>(
        permit: &'p Permit<A>,
        object: impl AuditObject,
        keyed: Option<(&'p KeyedRequest, &'p StoredResponse)>,
    ) -> Self {
        Self {
            principal: permit.principal(),
            operation: A::ROW.operation,
            event: AuditRecord::new(permit, permit.audit(), object.__object()),
            further: Vec::new(),
            keyed,
            row_key: None,
        }
    }

    /// Adds the key of the created row, whose fields are sealed. `index_key` is the version of the
    /// index key of its blind indexes, if it has any.
    #[must_use]
    pub fn with_row_key<T: SealedTable>(self, key: &'p RowKey, index_key: Option<u16>) -> Self {
        Self { row_key: Some((T::TABLE, key, index_key)), ..self }
    }

    /// The record as the argument of `palisade.record_change`.
    #[doc(hidden)]
    #[must_use]
    pub fn json(&self) -> Json<RecordColumns<'_>> {
        let (request, response) = self.keyed.unzip();
        let (key_subject, key_client) = self.principal.retry_owner();
        Json(RecordColumns {
            subject: self.principal.subject(),
            client: self.principal.recorded_client(),
            key_subject,
            key_client,
            operation: self.operation,
            event: self.event.id,
            action: self.event.action,
            object: &self.event.object,
            further: &self.further,
            trace_id: trace_id(),
            key: request.map(|request| request.key.as_str()),
            fingerprint: request.map(|request| hex(&request.fingerprint)),
            status: response.map(|response| response.status),
            body: response.map(|response| response.body.as_str()),
            location: response.and_then(|response| response.location.as_deref()),
            at: request.map(|request| request.at),
            expires_at: request.map(|request| request.expires_at),
            sealed_table: self.row_key.map(|(table, ..)| table),
            row_id: self.row_key.map(|(_, key, _)| key.row()),
            data_key: self.row_key.map(|(_, key, _)| key.data_key_version()),
            wrapped: self.row_key.map(|(_, key, _)| hex(key.wrapped())),
            index_key: self.row_key.and_then(|(.., index_key)| index_key),
        })
    }
}

#[doc(hidden)]
#[derive(Debug, Serialize)]
pub struct RecordColumns<'p> {
    subject: &'p str,
    client: &'p str,
    key_subject: &'p str,
    key_client: &'p str,
    operation: &'p str,
    event: Uuid,
    action: &'p str,
    object: &'p str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    further: &'p [AuditRecord],
    trace_id: String,
    key: Option<&'p str>,
    fingerprint: Option<String>,
    status: Option<u16>,
    body: Option<&'p str>,
    location: Option<&'p str>,
    at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    sealed_table: Option<&'static str>,
    row_id: Option<Uuid>,
    data_key: Option<i32>,
    wrapped: Option<String>,
    index_key: Option<u16>,
}

impl Database {
    /// Runs a whole read of at most one row, with the reader's login.
    pub async fn read_one<A, F, O>(&self, permit: &Permit<A>, statement: Read<F>) -> Result<Option<O>, DbError>
    where
        A: Action,
        F: FnMut(PgRow) -> Result<O, sqlx::Error> + Send,
        O: Send + Unpin,
    {
        statement.check(permit)?;
        let mut connection = self.reader.connection().await?;
        let row = statement.query.fetch_optional(executor(&mut connection, statement.text)).await?;
        connection.release();
        Ok(row)
    }

    /// Runs a whole read of many rows, with the reader's login.
    pub async fn read_page<A, F, O>(&self, permit: &Permit<A>, statement: Read<F>) -> Result<Vec<O>, DbError>
    where
        A: Action,
        F: FnMut(PgRow) -> Result<O, sqlx::Error> + Send,
        O: Send + Unpin,
    {
        statement.check(permit)?;
        let mut connection = self.reader.connection().await?;
        let rows = statement.query.fetch_all(executor(&mut connection, statement.text)).await?;
        connection.release();
        Ok(rows)
    }

    /// Takes a connection for single statements of a changing action. Sends nothing.
    pub async fn statements<A: Change>(&self, permit: &Permit<A>) -> Result<SingleStatement<A>, DbError> {
        let slot = self.shares.acquire(permit.tenant()).await?;
        Ok(SingleStatement { connection: self.writer.connection().await?, _slot: slot, action: PhantomData })
    }
}

impl<A: Change> SingleStatement<A> {
    /// Reads what a creation needs, as `read_inputs!` states it.
    pub async fn read_inputs<F, O>(&mut self, permit: &Permit<A>, statement: Read<F>) -> Result<O, DbError>
    where
        F: FnMut(PgRow) -> Result<O, sqlx::Error> + Send,
        O: Send + Unpin,
    {
        statement.check(permit)?;
        Ok(statement.query.fetch_one(executor(&mut self.connection, statement.text)).await?)
    }

    /// Runs a whole creation: rows, audit event and stored response. All or nothing.
    pub async fn create(
        mut self,
        permit: &Permit<A>,
        record: &CreateRecord<'_>,
        statement: Create,
    ) -> Result<(), DbError> {
        if statement.tenant != permit.tenant() {
            return Err(DbError::Misuse("the statement is for another tenant"));
        }
        statement.query.execute(executor(&mut self.connection, statement.text)).await?;
        self.connection.release();
        record.event.log(permit);
        Ok(())
    }
}

impl<F> Read<F> {
    fn check<A: Action>(&self, permit: &Permit<A>) -> Result<(), DbError> {
        if self.tenant == permit.tenant() {
            return Ok(());
        }
        Err(DbError::Misuse("the statement is for another tenant"))
    }
}

impl<A> fmt::Debug for SingleStatement<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleStatement").finish_non_exhaustive()
    }
}
