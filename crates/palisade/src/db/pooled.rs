//! Connections and transactions of a pool (RATE-09).
//!
//! `sqlx` tests each connection that is given back, by a message and its answer. A connection whose
//! statement has finished outside of a transaction needs no test: [`PooledConnection::release`]
//! keeps it for the next request, and so does the end of a transaction. Every other connection goes
//! through the test, also that of a request that was cancelled in the middle of a statement.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Postgres, pool::PoolConnection, raw_sql};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a connection is used without the checks of `sqlx`, which enforce its age.
const MAX_KEPT: Duration = Duration::from_secs(10);
/// How long a released connection may wait for its next use without a test.
const MAX_IDLE: Duration = Duration::from_secs(1);
/// Time-out of that test. A firewall can drop an idle connection without a word.
const TEST_TIMEOUT: Duration = Duration::from_millis(200);

/// The connections of one login and password.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) sqlx: PgPool,
    /// One permit for each connection, so that a released one is never waited for in `sqlx`.
    permits: Arc<Semaphore>,
    released: Mutex<Vec<Kept>>,
}

/// A connection, and since when `sqlx` has not seen it.
#[derive(Debug)]
struct Kept {
    connection: PoolConnection<Postgres>,
    since: Instant,
    released_at: Instant,
}

/// A connection in use. Dropped without [`release`](Self::release), it is tested first.
#[derive(Debug)]
pub(crate) struct PooledConnection {
    kept: Kept,
    pool: Arc<Pool>,
    permit: OwnedSemaphorePermit,
}

/// An open transaction. Dropped before its end, it closes its connection, so the server rolls back.
/// `None` after its end.
#[derive(Debug)]
pub(crate) struct PooledTransaction(Option<PooledConnection>);

impl Pool {
    pub(super) fn new(sqlx: PgPool) -> Arc<Self> {
        let permits = usize::try_from(sqlx.options().get_max_connections()).unwrap_or(Semaphore::MAX_PERMITS);
        Arc::new(Self { sqlx, permits: Arc::new(Semaphore::new(permits)), released: Mutex::default() })
    }

    /// Takes a connection, within the acquire time-out.
    pub(super) async fn connection(self: Arc<Self>) -> Result<PooledConnection, sqlx::Error> {
        let limit = self.sqlx.options().get_acquire_timeout();
        tokio::time::timeout(limit, self.take()).await.map_err(|_| sqlx::Error::PoolTimedOut)?
    }

    async fn take(self: Arc<Self>) -> Result<PooledConnection, sqlx::Error> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let kept = if let Some(kept) = self.take_released().await {
            kept
        } else {
            let connection = self.sqlx.acquire().await?;
            Kept { connection, since: Instant::now(), released_at: Instant::now() }
        };
        Ok(PooledConnection { kept, pool: self, permit })
    }

    /// The connection that was released last, if it is alive. One at its age limit goes to `sqlx`.
    async fn take_released(&self) -> Option<Kept> {
        while let Some(mut kept) = self.pop_released() {
            if kept.is_idle() {
                let test = tokio::time::timeout(TEST_TIMEOUT, kept.connection.ping()).await;
                if !matches!(test, Ok(Ok(()))) {
                    drop(kept.connection.detach());
                    continue;
                }
            }
            return (kept.since.elapsed() < MAX_KEPT).then_some(kept);
        }
        None
    }

    fn pop_released(&self) -> Option<Kept> {
        self.released().pop()
    }

    /// Gives the connections that a burst of requests left to `sqlx`, which closes those that stay
    /// idle or grow old. Runs every few seconds.
    pub(super) fn trim(&self) {
        let idle: Vec<Kept> = self.released().extract_if(.., |kept| kept.is_idle()).collect();
        drop(idle); // Without the lock.
    }

    pub(super) async fn begin(self: Arc<Self>, begin: String) -> Result<PooledTransaction, sqlx::Error> {
        let mut transaction = PooledTransaction(Some(self.connection().await?));
        raw_sql(AssertSqlSafe(begin)).execute(transaction.connection()?).await?;
        Ok(transaction)
    }

    /// Number of open connections that are not in use.
    pub(super) fn idle(&self) -> usize {
        self.sqlx.num_idle() + self.released().len()
    }

    /// Closes the connections after the work that they do.
    pub(super) async fn close(&self) {
        let closed = self.sqlx.close();
        self.released().clear();
        closed.await;
    }

    fn released(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.released.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn is_idle(&self) -> bool {
        self.released_at.elapsed() >= MAX_IDLE
    }
}

impl PooledConnection {
    /// Gives the connection back without a test. Only after a statement outside of a transaction
    /// that has finished.
    pub(crate) fn release(self) {
        let Self { mut kept, pool, permit } = self;
        kept.released_at = Instant::now();
        let mut released = pool.released();
        // Under the lock: `close` marks the pool as closed before it clears the released ones.
        if !pool.sqlx.is_closed() {
            released.push(kept);
        }
        drop((released, permit));
    }

    /// For a pool of one connection, which is seldom used: gives it to the test at once if its
    /// statement was answered, and closes it otherwise. The test of a silent connection would keep
    /// its place in the pool.
    pub(crate) fn return_or_close(self, is_answered: bool) {
        if !is_answered {
            drop(self.kept.connection.detach());
        }
    }
}

impl PooledTransaction {
    /// The connection, for a statement of the transaction.
    pub(crate) fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.0.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        self.end("commit").await
    }

    pub(crate) async fn rollback(self) -> Result<(), sqlx::Error> {
        self.end("rollback").await
    }

    async fn end(mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        raw_sql(statement).execute(self.connection()?).await?;
        if let Some(connection) = self.0.take() {
            connection.release();
        }
        Ok(())
    }
}

impl Drop for PooledTransaction {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.kept.connection.detach());
        }
    }
}

impl Deref for PooledConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.kept.connection
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.kept.connection
    }
}
