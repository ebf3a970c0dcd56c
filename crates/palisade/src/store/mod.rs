//! SQL on the data of tenants. Needs a [`Permit`](crate::authz::Permit), and confines every
//! statement to the tenant of that permit.
//!
//! Two lines of defence keep tenants apart, each sufficient alone: every query names the tenant, and
//! row-level security hides the rows of other tenants. Every key begins with the tenant, so no row
//! can refer to a row of another tenant (AUTHZ-03, AUTHZ-07). Reader and writer are different logins, so that a reading
//! operation cannot write (AUTHZ-08).
//!
//! There are two shapes. [`ReadTx`] and [`WriteTx`] are transactions of several statements. The
//! most frequent reads and creations are one statement, one transaction and one message
//! ([`Database::read_one`], [`SingleStatement`]). Both take typed statements (`select!` and its
//! relatives), and no caller receives a connection. [`maintenance`] works without a permit and is
//! for operators only.

#[cfg(feature = "api_keys")]
mod api_keys;
mod audit;
mod idempotency;
mod keyset;
mod listed;
mod locked;
#[cfg(feature = "internals")]
pub mod maintenance;
#[cfg(not(feature = "internals"))]
pub(crate) mod maintenance;
mod row_keys;
mod sealed_table;
#[cfg(feature = "sessions")]
mod sessions;
mod single;
mod statement;
mod tenant_share;
mod text_check;
mod text_scan;
mod tx;

pub use crate::db::{DbError, parse_stored};
pub use audit::AuditFilter;
pub use idempotency::{Claim, KeyLookup, KeyedRequest, StoredColumns, StoredOutcome, StoredResponse};
pub use keyset::{Period, Position, clamp_time};
pub use listed::Listed;
pub use locked::{Loader, Lockable, Locked, Next, ObjectPermit, PartOf};
pub use row_keys::SealedRow;
pub use sealed_table::{Erasure, RegisteredTable, SealedColumn, SealedTable};
pub use single::{CreateRecord, SingleStatement};
pub use sqlx::{migrate, migrate::Migrator, types::Json};
pub use statement::{Create, Insert, InsertReturning, Read, Select, Transition, Update};
pub use tx::{Keyed, ReadTx, Unkeyed, WriteTx};

/// For the macros of statements only.
#[doc(hidden)]
pub mod __macro {
    pub use sqlx;

    pub use super::{
        locked::{Next, ObjectPermit},
        statement::{Create, Insert, InsertReturning, Read, Select, Transition, Update},
        text_check::{CheckedText, Use},
    };
}

use std::{sync::Arc, time::Duration};

use tenant_share::TenantShares;
use tokio::time::{Instant, timeout_at};

use crate::{
    crypto::IndexKeys,
    db::{Keyring, RotatingPool, TracingExecutor},
};

/// The database as operations see it: every access to rows needs a permit. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    writer: RotatingPool,
    /// The share of the writer's connections that a tenant may hold.
    shares: TenantShares,
    reader: RotatingPool,
    /// One connection of each of the two logins, for the readiness probe.
    probes: [RotatingPool; 2],
    keyring: Arc<Keyring>,
    sealed_tables: Arc<[RegisteredTable]>,
}

impl Database {
    /// The keys of blind indexes, by which sealed fields are searched.
    #[must_use]
    pub fn indexes(&self) -> Arc<IndexKeys> {
        self.keyring.indexes()
    }

    /// Whether the reader's and the writer's login get an answer within `limit`. Requests that hold
    /// all connections do not delay it (FAIL-04).
    pub async fn is_ready(&self, limit: Duration) -> bool {
        let [writer, reader] = &self.probes;
        tokio::join!(answers(writer, limit), answers(reader, limit)) == (true, true)
    }
}

/// Whether the database answers within `limit`. Drops a connection that is silent but open, since
/// the pool has no other.
async fn answers(pool: &RotatingPool, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    let Ok(Ok(mut connection)) = timeout_at(deadline, pool.connection()).await else { return false };
    let ping = sqlx::query("select 1").execute(TracingExecutor(&mut connection));
    let is_answered = matches!(timeout_at(deadline, ping).await, Ok(Ok(_)));
    connection.return_or_close(is_answered);
    is_answered
}
