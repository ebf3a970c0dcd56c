//! Keys of sealed rows, as services change them (CRYPTO-06, CRYPTO-08).
//!
//! In: the permit of a new row, or the object permit of a [`SealedRow`]. Creations write the key with `create!`;
//! rotation and destruction are in [`maintenance`](super::maintenance). The row is locked first and
//! its key second, everywhere.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{Database, Lockable, ObjectPermit, SealedTable, WriteTx, sealed_table::erase_statement};
use crate::{
    authz::{Action, Change, Permit},
    crypto::{DataKey, RowKey, SealError},
    db::{DbError, TracingExecutor},
    model::ObjectId as _,
    telemetry::event,
};

/// An object whose row is in a sealed table.
pub trait SealedRow: Lockable {
    /// The table.
    type Table: SealedTable;
}

impl Database {
    /// Creates the key of a new row, wrapped by the tenant's newest data key.
    ///
    /// May wait for a vault, so it precedes taking a connection.
    pub async fn new_row_key<T: SealedTable>(
        &self,
        permit: &Permit<impl Change>,
        row: Uuid,
    ) -> Result<RowKey, DbError> {
        Ok(self.keyring.newest(permit.tenant()).await?.new_row_key(T::TABLE, row)?)
    }

    /// A data key of the permit's tenant, to unwrap row keys. May wait for a vault.
    ///
    /// The tenant is the caller's, whatever a row says: a row of another tenant does not open, even
    /// if a statement finds it (CRYPTO-03).
    ///
    /// # Errors
    /// [`DbError::KeyDropped`] or [`DbError::KeyDestroyed`], or it cannot be unwrapped.
    pub async fn data_key(&self, permit: &Permit<impl Action>, version: i32) -> Result<Arc<DataKey>, DbError> {
        self.keyring.fetch(permit.tenant(), version).await
    }

    /// The error of a row of `T` without a row key: it does not open, and an event says so.
    #[must_use]
    pub fn missing_row_key<T: SealedTable>(permit: &Permit<impl Action>, row: Uuid) -> DbError {
        event::row_key_missing(&permit.tenant().to_string(), T::TABLE, &row.to_string());
        SealError.into()
    }

    /// The data key if it is cached, without waiting: for use while a row is locked.
    #[must_use]
    pub fn cached_data_key(&self, permit: &Permit<impl Action>, version: i32) -> Option<Arc<DataKey>> {
        self.keyring.cached(permit.tenant(), version)
    }
}

impl<A: Change, K> WriteTx<'_, A, K> {
    /// Records the version of the index key with which all blind indexes of the permitted row are
    /// computed.
    pub async fn set_index_key<R: SealedRow>(
        &self,
        permit: &ObjectPermit<'_, A, R>,
        index_key: u16,
    ) -> Result<(), DbError> {
        self.check_object(permit)?;
        // A change to the same value would be in the audit trail.
        let is_there = sqlx::query_scalar!(
            r#"with k as (
                   update palisade.row_keys set index_key = $4
                   where tenant_id = $1 and sealed_table = $2 and row_id = $3 and index_key is distinct from $4)
               select exists (select from palisade.row_keys
                              where tenant_id = $1 and sealed_table = $2 and row_id = $3) as "exists!""#,
            permit.tenant().uuid(),
            R::Table::TABLE,
            permit.id().__uuid(),
            i32::from(index_key)
        )
        .fetch_one(TracingExecutor(&mut *self.open.connection().await?))
        .await?;
        DbError::unless(is_there)
    }

    /// Erases the permitted row: clears its sealed columns, its blind indexes and the columns that
    /// `sealed_table!` names after `erased`, and deletes its key. Copies of the row, such as backups,
    /// do not open any more.
    ///
    /// Stored responses with its location in `collection` are emptied. Their idempotency keys stay,
    /// so that a late retry does not repeat the creation.
    pub async fn erase<R: SealedRow>(
        &self,
        permit: &ObjectPermit<'_, A, R>,
        collection: &str,
        now: DateTime<Utc>,
    ) -> Result<(), DbError> {
        let erasure = const { R::Table::ERASURE.expect("`sealed_table!` names no columns after `erased`") };
        self.erase_responses(permit, collection).await?;
        let erase = sqlx::query(AssertSqlSafe(erase_statement::<R::Table>(erasure)))
            .bind(permit.tenant().uuid())
            .bind(permit.id().__uuid())
            .bind(now);
        let done = erase.execute(TracingExecutor(&mut *self.open.connection().await?)).await?;
        DbError::unless(done.rows_affected() == 1)
    }
}
