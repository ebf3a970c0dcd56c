//! Transactions confined to the tenant of a permit.

use std::{fmt, marker::PhantomData, sync::Arc};

use sqlx::{AssertSqlSafe, Postgres, Transaction, pool::PoolConnection};

use super::{Database, StoreError, keyring::Keyring, traced::Traced};
use crate::{
    authz::{Action, Change, Permit},
    domain::TenantId,
};

/// A reading transaction for one action in one tenant, on the reader's login.
///
/// There is nothing to commit: dropped, it is rolled back before the connection serves anybody else, and
/// the caller does not wait for that.
pub struct ReadTx<A> {
    tx: Transaction<'static, Postgres>,
    tenant: TenantId,
    keyring: Arc<Keyring>,
    action: PhantomData<fn() -> A>,
}

/// A writing transaction for one action in one tenant, on the writer's login.
/// Rolls back unless committed. Isolation is read committed; rows to change are locked when read. It reaches no keys: it
/// must not stay open while a master key is waited for.
pub struct WriteTx<A> {
    tx: Transaction<'static, Postgres>,
    tenant: TenantId,
    action: PhantomData<fn() -> A>,
}

/// A connection of the writer for statements that are each a transaction of their own, and so one message each.
///
/// It is kept from the first to the last: the pool tests a connection that is given back, and the next
/// statement need not wait for that.
pub struct Statements<A> {
    connection: PoolConnection<Postgres>,
    action: PhantomData<fn() -> A>,
}

impl Database {
    /// Takes a connection, which needs the permit of an action that changes something. Sends nothing.
    pub async fn statements<A: Change>(&self, _: &Permit<A>) -> Result<Statements<A>, StoreError> {
        Ok(Statements { connection: self.writer.connection().await?, action: PhantomData })
    }

    /// Opens a reading transaction.
    pub async fn read<A: Action>(&self, permit: &Permit<A>) -> Result<ReadTx<A>, StoreError> {
        let tenant = permit.tenant();
        let tx = self.reader.begin("begin read only", tenant).await?;
        Ok(ReadTx { tx, tenant, keyring: Arc::clone(&self.keyring), action: PhantomData })
    }

    /// Opens a writing transaction, which needs the permit of an action that changes something.
    pub async fn write<A: Change>(&self, permit: &Permit<A>) -> Result<WriteTx<A>, StoreError> {
        let tenant = permit.tenant();
        let tx = self.writer.begin("begin", tenant).await?;
        Ok(WriteTx { tx, tenant, action: PhantomData })
    }
}

/// One message, so one round trip: `begin`, and the tenant for row-level security.
///
/// `set local` ends with the transaction, however that ends, so a pooled connection can never
/// carry one tenant into another's request. The text holds nothing but a UUID's hexadecimal digits.
pub(super) fn begin(begin: &str, tenant: TenantId) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!("{begin}; set local app.tenant_id = '{tenant}'"))
}

impl<A> Statements<A> {
    pub(super) fn connection(&mut self) -> Traced<'_> {
        Traced(&mut self.connection)
    }
}

impl<A> ReadTx<A> {
    pub(super) fn connection(&mut self) -> Traced<'_> {
        Traced(&mut self.tx)
    }

    pub(super) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Gives the connection back.
    pub(super) fn end(self) -> Arc<Keyring> {
        self.keyring
    }

    pub(super) fn tenant(&self) -> TenantId {
        self.tenant
    }
}

impl<A> WriteTx<A> {
    pub(super) fn connection(&mut self) -> Traced<'_> {
        Traced(&mut self.tx)
    }

    pub(super) fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Makes the changes lasting. For [`commit`](Self::commit), which writes down that they were made.
    pub(super) async fn finish(self) -> Result<(), StoreError> {
        Ok(self.tx.commit().await?)
    }
}

impl<A> fmt::Debug for Statements<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statements").finish_non_exhaustive()
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
