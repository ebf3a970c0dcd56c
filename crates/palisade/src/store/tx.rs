//! Transactions that are confined to the tenant of a permit (AUTHZ-03, AUTHZ-07).
//!
//! In: a [`Permit`] and the pools of [`Database`]. Out: typed transactions, which take statements
//! by value and never hand out their connection. A transaction is for one action only. It borrows
//! its permit, so it ends with the request at the latest.
//!
//! All methods take `&self`, since a locked object borrows its transaction (`locked.rs`). So the
//! connection is in a mutex; statements run one after the other.

use std::{
    fmt,
    marker::PhantomData,
    sync::{
        Mutex as SyncMutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use sqlx::postgres::PgRow;
use tokio::{
    runtime::Handle,
    sync::{MappedMutexGuard, Mutex, MutexGuard, OwnedSemaphorePermit},
};

use super::{
    Database, KeyedRequest,
    audit::AuditRecord,
    statement::{Insert, InsertReturning, Select},
    text_check::CheckedText,
};
use crate::{
    authz::{Action, Change, OpenTransactions, Permit},
    db::{CheckedExecutor, DbError, PooledTransaction, TracingExecutor},
    model::TenantId,
};

/// What all transactions have in common.
pub(super) struct OpenTransaction {
    /// `None` after the end.
    transaction: Mutex<Option<PooledTransaction>>,
    tenant: TenantId,
    /// Tells the locked objects of this transaction from those of others.
    pub(super) number: u64,
    /// Whether a change was refused after it was written. Such a transaction does not commit.
    pub(super) is_refused: AtomicBool,
    /// The response waits until this is dropped.
    open: Option<OpenTransactions>,
    /// Of a writing transaction.
    slot: Option<OwnedSemaphorePermit>,
}

impl OpenTransaction {
    fn new<A: Action>(tx: PooledTransaction, permit: &Permit<A>, slot: Option<OwnedSemaphorePermit>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            transaction: Mutex::new(Some(tx)),
            tenant: permit.tenant(),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            is_refused: AtomicBool::new(false),
            open: permit.transactions(),
            slot,
        }
    }

    pub(super) fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The connection, for the statements of the kernel.
    pub(super) async fn connection(&self) -> Result<MappedMutexGuard<'_, sqlx::PgConnection>, DbError> {
        let transaction = self.transaction.lock().await;
        MutexGuard::try_map(transaction, |open| open.as_mut()?.connection().ok())
            .map_err(|_| DbError::Misuse("the transaction has ended"))
    }

    /// The connection, for a statement of a service.
    pub(super) async fn for_statement(
        &self,
        tenant: TenantId,
    ) -> Result<MappedMutexGuard<'_, sqlx::PgConnection>, DbError> {
        if tenant != self.tenant {
            return Err(DbError::Misuse("the statement is for another tenant"));
        }
        self.connection().await
    }

    pub(super) async fn fetch_all<F, O>(&self, statement: Select<F>) -> Result<Vec<O>, DbError>
    where
        F: FnMut(PgRow) -> Result<O, sqlx::Error> + Send,
        O: Send + Unpin,
    {
        let mut connection = self.for_statement(statement.tenant).await?;
        Ok(statement.query.fetch_all(executor(&mut connection, statement.text)).await?)
    }

    pub(super) async fn fetch_optional<F, O>(&self, statement: Select<F>) -> Result<Option<O>, DbError>
    where
        F: FnMut(PgRow) -> Result<O, sqlx::Error> + Send,
        O: Send + Unpin,
    {
        let mut connection = self.for_statement(statement.tenant).await?;
        Ok(statement.query.fetch_optional(executor(&mut connection, statement.text)).await?)
    }

    pub(super) async fn commit(mut self) -> Result<(), DbError> {
        match self.transaction.get_mut().take() {
            Some(tx) => Ok(tx.commit().await?),
            None => Err(DbError::Misuse("the transaction has ended")),
        }
    }
}

/// Rolls back, unless it has committed.
impl Drop for OpenTransaction {
    fn drop(&mut self) {
        // Without a runtime, the pool closes the connection.
        let Ok(runtime) = Handle::try_current() else { return };
        if let (Some(tx), Some(open)) = (self.transaction.get_mut().take(), self.open.take()) {
            let slot = self.slot.take();
            runtime.spawn(async move {
                // A connection that cannot roll back is closed, which ends the transaction too.
                let _ = tx.rollback().await;
                drop((slot, open));
            });
        }
    }
}

/// The executor of a service's statement: runs the checked text only.
pub(super) fn executor(
    connection: &mut sqlx::PgConnection,
    text: CheckedText,
) -> CheckedExecutor<'_, impl Fn(&str) -> bool + Send> {
    CheckedExecutor { connection: TracingExecutor(connection), is_checked: move |sql: &str| text.is(sql) }
}

/// A read-only transaction for one action in one tenant, with the reader's login. For reads of
/// several statements; [`Database::read_one`] takes one message.
///
/// There is nothing to commit.
pub struct ReadTx<'p, A> {
    pub(super) open: OpenTransaction,
    permit: PhantomData<&'p Permit<A>>,
}

/// A writing transaction for one action in one tenant, with the writer's login.
///
/// Rolls back unless committed, before the caller gets the response. The isolation level is read
/// committed; rows to change are locked when they are read. `K` is [`Unkeyed`], or [`Keyed`] after [`Database::write_once`].
pub struct WriteTx<'p, A, K = Unkeyed> {
    pub(super) open: OpenTransaction,
    pub(super) request: Option<Box<KeyedRequest>>,
    /// The events of further changed objects.
    pub(super) further: SyncMutex<Vec<AuditRecord>>,
    permit: PhantomData<&'p Permit<A>>,
    kind: PhantomData<fn() -> K>,
}

/// Marks a transaction that stores no response.
#[derive(Debug)]
pub enum Unkeyed {}

/// Marks a transaction that stores its response for retries.
#[derive(Debug)]
pub enum Keyed {}

impl Database {
    /// Begins a read-only transaction. All its statements see the same snapshot, so a search by
    /// several keys misses no row that a rotation moves from one to the other (CRYPTO-06).
    pub async fn read<'p, A: Action>(&self, permit: &'p Permit<A>) -> Result<ReadTx<'p, A>, DbError> {
        let tx = self.reader.begin("begin isolation level repeatable read read only", permit.tenant()).await?;
        Ok(ReadTx { open: OpenTransaction::new(tx, permit, None), permit: PhantomData })
    }

    /// Begins a writing transaction of a changing action.
    pub async fn write<'p, A: Change>(&self, permit: &'p Permit<A>) -> Result<WriteTx<'p, A>, DbError> {
        self.begin(permit, None).await
    }

    pub(super) async fn begin<'p, A: Change, K>(
        &self,
        permit: &'p Permit<A>,
        request: Option<KeyedRequest>,
    ) -> Result<WriteTx<'p, A, K>, DbError> {
        let slot = self.shares.acquire(permit.tenant()).await?;
        let open = OpenTransaction::new(self.writer.begin("begin", permit.tenant()).await?, permit, Some(slot));
        let request = request.map(Box::new);
        Ok(WriteTx { open, request, further: SyncMutex::default(), permit: PhantomData, kind: PhantomData })
    }
}

macro_rules! reads {
    ($($tx:ident<A $(, $k:ident)?>)+) => {$(
        impl<A $(, $k)?> $tx<'_, A $(, $k)?> {
            /// The tenant of the transaction.
            #[must_use]
            pub fn tenant(&self) -> TenantId {
                self.open.tenant()
            }

            /// Reads all rows of a `select`.
            pub async fn fetch_all<F, O>(&self, statement: Select<F>) -> Result<Vec<O>, DbError>
            where
                F: FnMut(PgRow) -> Result<O, sqlx::Error> + Send,
                O: Send + Unpin,
            {
                self.open.fetch_all(statement).await
            }

            /// Reads the first row of a `select`.
            pub async fn fetch_optional<F, O>(&self, statement: Select<F>) -> Result<Option<O>, DbError>
            where
                F: FnMut(PgRow) -> Result<O, sqlx::Error> + Send,
                O: Send + Unpin,
            {
                self.open.fetch_optional(statement).await
            }
        }

        impl<A $(, $k)?> fmt::Debug for $tx<'_, A $(, $k)?> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($tx)).field("tenant", &self.tenant()).finish_non_exhaustive()
            }
        }
    )+};
}

reads! { ReadTx<A> WriteTx<A, K> }

impl<A, K> WriteTx<'_, A, K> {
    /// Inserts rows. Needs no object permit: there is no object yet.
    pub async fn insert(&self, statement: Insert) -> Result<u64, DbError> {
        let mut connection = self.open.for_statement(statement.tenant).await?;
        Ok(statement.query.execute(executor(&mut connection, statement.text)).await?.rows_affected())
    }

    /// Inserts a row and returns what the database made of it.
    pub async fn insert_returning<F, O>(&self, statement: InsertReturning<F>) -> Result<O, DbError>
    where
        F: FnMut(PgRow) -> Result<O, sqlx::Error> + Send,
        O: Send + Unpin,
    {
        let mut connection = self.open.for_statement(statement.tenant).await?;
        Ok(statement.query.fetch_one(executor(&mut connection, statement.text)).await?)
    }
}
