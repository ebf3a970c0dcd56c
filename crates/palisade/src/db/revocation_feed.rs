//! New revocations and changed tenants, as LISTEN/NOTIFY announces them (AUTHN-11).
//!
//! In: the pool of revocations of `credentials`. Out: notifications, and the revocations of the
//! transactions that ended since the last read. [`crate::authn`] follows one feed per replica, and
//! opens another when the connection is lost.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::{Acquire as _, PgConnection, postgres::PgListener};
use tokio::sync::watch;

use super::{
    DbError, credentials::with_timeout, parse_stored, pooled::Pool, rotating_pool::RotatingPool, tenants::read_tenants,
    tracing_executor::TracingExecutor,
};
use crate::model::{RegisteredTenant, Revocation, TenantId};

/// LISTEN/NOTIFY channel. A notification has no payload for new revocations, and the tenant as its
/// payload for changes of API keys.
const CHANNEL: &str = "revocations";

/// Largest number of revocations in one round trip.
const PAGE_SIZE: usize = 10_000;

struct RevocationRow {
    position: i64,
    kind: String,
    value: String,
    issued_before: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    horizon: String,
}

impl TryFrom<RevocationRow> for Revocation {
    type Error = DbError;

    fn try_from(row: RevocationRow) -> Result<Self, DbError> {
        let RevocationRow { kind, value, issued_before, expires_at, .. } = row;
        Ok(Self { kind: parse_stored(&kind)?, value, issued_before, expires_at })
    }
}

/// A connection that listens for notifications and reads new revocations.
#[derive(Debug)]
pub struct RevocationFeed {
    listener: PgListener,
    reloads: watch::Receiver<Arc<Pool>>,
    /// All transactions before this one (`xid8`) had ended at the last read of revocations.
    horizon: String,
    /// The same for tenants.
    tenant_horizon: String,
}

/// A notification of a change of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notification {
    /// There are new revocations, or changed tenants.
    Revoked,
    /// An API key of this tenant changed, or the roles of its creator.
    KeysChanged(TenantId),
}

impl RevocationFeed {
    /// Opens a connection that listens for notifications.
    pub(super) async fn open(revocations: &RotatingPool) -> Result<Self, DbError> {
        let (current, reloads) = revocations.pool_and_reloads();
        // A separate pool, since a silent listener is never given back.
        let current = &current.sqlx;
        let pool = current.options().clone().connect_lazy_with(current.connect_options().as_ref().clone());
        let listen = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            // A lost connection is an error, since notifications may have been missed.
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok(Self { listener, reloads, horizon: first_transaction(), tenant_horizon: first_transaction() })
        };
        with_timeout(listen).await
    }

    /// Waits for the next notification. An error if the connection is lost, or if its password was
    /// replaced.
    pub async fn next(&mut self) -> Result<Notification, DbError> {
        let notification = tokio::select! {
            notification = self.listener.try_recv() => notification?,
            // An error means that the pool is gone, which ends the wait as a reload does.
            _ = self.reloads.changed() => None,
        };
        let notification = notification.ok_or(DbError::Unavailable(sqlx::Error::PoolClosed))?;
        let tenant = notification.payload().parse().map(TenantId::from_uuid);
        Ok(tenant.map_or(Notification::Revoked, Notification::KeysChanged))
    }

    /// Reads the revocations since the last call; the first call reads all in force. An error if
    /// the database does not answer within two seconds.
    pub async fn new_revocations(&mut self) -> Result<Vec<Revocation>, DbError> {
        let connection = with_timeout(self.listener.acquire()).await?;
        read_revocations(connection, &mut self.horizon).await
    }

    /// Reads the tenants that changed since the last call; the first call reads all.
    pub async fn changed_tenants(&mut self) -> Result<Vec<RegisteredTenant>, DbError> {
        let connection = with_timeout(self.listener.acquire()).await?;
        read_tenants(connection, &mut self.tenant_horizon).await
    }
}

/// The horizon before all transactions.
pub(super) fn first_transaction() -> String {
    "0".to_owned()
}

/// Reads the revocations in force that were written by transactions from `horizon` on, and moves
/// the horizon.
///
/// A row of a transaction that has not ended is read the next time, whatever its position. Some
/// rows are read twice.
pub(super) async fn read_revocations(
    connection: &mut PgConnection,
    horizon: &mut String,
) -> Result<Vec<Revocation>, DbError> {
    let from = horizon.clone();
    let mut revocations = Vec::new();
    let mut position = 0;
    loop {
        let page = sqlx::query_as!(
            RevocationRow,
            r#"select position, kind, value, issued_before, expires_at,
                      pg_snapshot_xmin(pg_current_snapshot())::text as "horizon!"
               from palisade.revocations where written_by >= $1::text::xid8 and position > $2 and expires_at > now()
               order by position limit $3"#,
            from,
            position,
            i64::try_from(PAGE_SIZE).unwrap_or(i64::MAX)
        );
        let page = with_timeout(page.fetch_all(TracingExecutor(&mut *connection))).await?;
        let is_last = page.len() < PAGE_SIZE;
        for row in page {
            if position == 0 {
                // The snapshot of the first page: later pages may see more transactions.
                horizon.clone_from(&row.horizon);
            }
            position = row.position;
            revocations.push(row.try_into()?);
        }
        if is_last {
            return Ok(revocations);
        }
    }
}
