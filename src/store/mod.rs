//! SQL on the data of tenants. Needs a [`Permit`](crate::authz::Permit), and confines every
//! statement to the tenant of that permit.
//!
//! Three lines of defence keep tenants apart, each sufficient alone: every query names the tenant,
//! row-level security hides the rows of other tenants, and every key and foreign key begins with
//! the tenant (AUTHZ-03, AUTHZ-07). Reader and writer are different logins, so that a reading
//! operation cannot write (AUTHZ-08).
//!
//! There are two shapes. [`ReadTx`] and [`WriteTx`] are transactions of several statements. The
//! most frequent reads and creations are one statement, one transaction and one message
//! ([`Database::read_one`], [`SingleStatement`]). Both take typed statements (`select!` and its
//! relatives), and no caller receives a connection. [`maintenance`] works without a permit and is
//! for operators only.

mod api_keys;
mod audit;
pub mod customers;
pub mod exports;
mod idempotency;
pub mod invoices;
mod keyset;
mod locked;
pub mod maintenance;
pub mod orders;
pub mod payments;
pub mod products;
mod row_keys;
mod single;
mod statement;
#[cfg(all(test, feature = "dev"))]
mod tests;
mod text_check;
mod tx;

pub use audit::AuditFilter;
pub use idempotency::{Claim, KeyLookup, KeyedRequest, StoredColumns, StoredOutcome, StoredResponse};
pub use keyset::{Period, Position, clamp_time};
pub use locked::{Loader, Lockable, Locked, Next, ObjectPermit};
pub use maintenance::Maintenance;
pub use single::{CreateRecord, SingleStatement};
pub use sqlx::types::Json;
pub use statement::{Create, Insert, InsertReturning, Read, Select, Update};
pub use tx::{Keyed, ReadTx, Unkeyed, WriteTx};

/// For the macros of statements only.
#[doc(hidden)]
pub mod __macro {
    pub use sqlx;

    pub use super::{
        statement::{Create, Insert, InsertReturning, Read, Select, Update},
        text_check::{CheckedText, Use},
    };
}

use std::{sync::Arc, time::Duration};

use crate::{
    crypto::IndexKeys,
    db::{DbRole, Keyring, RotatingPool, TracingExecutor, UnfitDatabase},
    model::Clock,
    settings::Settings,
};

/// The database as operations see it: every access to rows needs a permit. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    writer: RotatingPool,
    reader: RotatingPool,
    keyring: Arc<Keyring>,
}

/// Opens the database for operations and for maintenance. Both use the same pools, which connect
/// when they are first used.
///
/// # Errors
/// A URL that cannot be parsed, or master keys that cannot be used.
pub fn open(settings: &Settings, clock: Clock) -> Result<(Database, Maintenance), UnfitDatabase> {
    let pool = |role, url| RotatingPool::new(role, url, &settings.database, &settings.sources);
    let keys = pool(DbRole::Keys, &settings.database.keys_url)?;
    let database = Database {
        writer: pool(DbRole::Writer, &settings.database.writer_url)?,
        reader: pool(DbRole::Reader, &settings.database.reader_url)?,
        keyring: Arc::new(Keyring::new(keys, &settings.keys, clock)?),
    };
    let maintenance = Maintenance::new(database.clone());
    Ok((database, maintenance))
}

impl Database {
    /// The keys of blind indexes, by which sealed fields are searched.
    #[must_use]
    pub fn indexes(&self) -> Arc<IndexKeys> {
        self.keyring.indexes()
    }

    /// Whether the reader's and the writer's login get an answer within `limit`.
    pub async fn is_ready(&self, limit: Duration) -> bool {
        let ping = async |pool: &RotatingPool| {
            let mut connection = pool.connection().await?;
            sqlx::query("select 1").execute(TracingExecutor(&mut connection)).await
        };
        let both = async { tokio::join!(ping(&self.writer), ping(&self.reader)) };
        matches!(tokio::time::timeout(limit, both).await, Ok((Ok(_), Ok(_))))
    }
}
