//! Transactions that are confined to the tenant of a permit (AUTHZ-03, AUTHZ-07).
//!
//! In: a [`Permit`] and the pools of [`Database`]. Out: typed transactions; their queries are
//! methods in the other files of this module. The handlers of `api/` open them. A transaction is
//! for one action only, so a query of another action does not compile.

use std::{fmt, marker::PhantomData, sync::Arc};

use sqlx::{Postgres, Transaction, pool::PoolConnection};

use super::Database;
use crate::{
    authz::{Action, Change, Permit},
    db::{DbError, Keyring, TracingExecutor},
    domain::TenantId,
};

/// A read-only transaction for one action in one tenant, with the reader's login.
///
/// There is nothing to commit. A dropped transaction rolls back before the connection is used
/// again, and the caller does not wait for that.
pub struct ReadTx<A> {
    tx: Transaction<'static, Postgres>,
    tenant: TenantId,
    keyring: Arc<Keyring>,
    action: PhantomData<fn() -> A>,
}

/// A writing transaction for one action in one tenant, with the writer's login.
///
/// Rolls back unless committed. The isolation level is read committed; rows to change are locked
/// when they are read. It has no keyring: a transaction must not stay open while a master key is
/// awaited.
pub struct WriteTx<A> {
    tx: Transaction<'static, Postgres>,
    tenant: TenantId,
    action: PhantomData<fn() -> A>,
}

/// A connection of the writer for autocommit: each statement is a transaction and one round trip.
///
/// It is kept for all statements of a request. The pool tests a returned connection, and the next
/// statement would wait for that test.
pub struct SingleStatement<A> {
    connection: PoolConnection<Postgres>,
    action: PhantomData<fn() -> A>,
}

impl Database {
    /// Takes a connection for single statements of a changing action. Sends nothing.
    pub async fn statements<A: Change>(&self, _: &Permit<A>) -> Result<SingleStatement<A>, DbError> {
        Ok(SingleStatement { connection: self.writer.connection().await?, action: PhantomData })
    }

    /// Begins a read-only transaction.
    pub async fn read<A: Action>(&self, permit: &Permit<A>) -> Result<ReadTx<A>, DbError> {
        let tenant = permit.tenant();
        let tx = self.reader.begin("begin read only", tenant).await?;
        Ok(ReadTx { tx, tenant, keyring: Arc::clone(&self.keyring), action: PhantomData })
    }

    /// Begins a writing transaction of a changing action.
    pub async fn write<A: Change>(&self, permit: &Permit<A>) -> Result<WriteTx<A>, DbError> {
        let tenant = permit.tenant();
        let tx = self.writer.begin("begin", tenant).await?;
        Ok(WriteTx { tx, tenant, action: PhantomData })
    }
}

impl<A> SingleStatement<A> {
    pub(super) fn connection(&mut self) -> TracingExecutor<'_> {
        TracingExecutor(&mut self.connection)
    }
}

impl<A> ReadTx<A> {
    pub(super) fn connection(&mut self) -> TracingExecutor<'_> {
        TracingExecutor(&mut self.tx)
    }

    pub(super) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Ends the transaction, returns its connection to the pool, and keeps the keyring.
    pub(super) fn into_keyring(self) -> Arc<Keyring> {
        self.keyring
    }

    pub(super) fn tenant(&self) -> TenantId {
        self.tenant
    }
}

impl<A> WriteTx<A> {
    pub(super) fn connection(&mut self) -> TracingExecutor<'_> {
        TracingExecutor(&mut self.tx)
    }

    pub(super) fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Commits. Only for [`commit_with`](Self::commit_with), which writes the audit events first.
    pub(super) async fn commit_unaudited(self) -> Result<(), DbError> {
        Ok(self.tx.commit().await?)
    }
}

impl<A> fmt::Debug for SingleStatement<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleStatement").finish_non_exhaustive()
    }
}

impl<A> fmt::Debug for ReadTx<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadTx").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl<A> fmt::Debug for WriteTx<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteTx").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}
