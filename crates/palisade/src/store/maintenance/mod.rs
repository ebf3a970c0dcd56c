//! Work on the database that needs no permit: key rotation, retention, sealing of the audit trail,
//! reload of passwords and keys.
//!
//! Only [`crate::app`] and operator commands hold a [`Maintenance`]. A handler holds a
//! [`Database`], which cannot be turned into one: so no handler opens a transaction without a
//! permit (AUTHZ-04). The module is public with the feature `internals` only, which no service has.

mod audit_owner;
mod audit_reader;
mod operator;
mod operator_keys;
mod operator_tenants;
#[cfg(feature = "backup")]
mod restore;
mod retention;
mod rotation;
mod sealing;
#[cfg(feature = "exports")]
mod tenant_export;

pub use audit_owner::{AuditOwner, Pruning};
pub use audit_reader::{AuditReader, AuditSnapshot, JournaledEvent, StoredSeal};
pub use operator::{Operator, OperatorError};
pub use operator_keys::{Rewrapped, TenantItem};
pub use operator_tenants::{DeletedRows, DeletionItem, TenantChange, TenantEntry};
#[cfg(feature = "backup")]
pub use restore::{ErasedAgain, RestoreError, RestoreTransaction, Snapshot};
pub use rotation::{KeyUse, ResealPosition, ResealedBatch};
#[cfg(feature = "exports")]
pub use tenant_export::{ExportSubject, TenantExport};

use std::sync::Arc;

use secrecy::SecretString;

use super::{Database, RegisteredTable, tenant_share::TenantShares};
use crate::{
    crypto::{IndexKeys, MasterKeySettings},
    db::{DbError, DbRole, Keyring, RetiredPools, RotatingPool, UnfitDatabase, check_sealed_columns},
    model::Clock,
    settings::{self, Settings},
};

/// The database as operators and the composition root see it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Maintenance(Database);

/// Opens the database for operations and for maintenance. Both use the same pools, which connect
/// when they are first used. Maintenance rotates the keys of the `sealed` tables.
///
/// # Errors
/// A URL that cannot be parsed, or master keys that cannot be used.
pub fn open(
    settings: &Settings,
    sealed: &[RegisteredTable],
    clock: Clock,
) -> Result<(Database, Maintenance), UnfitDatabase> {
    let settings::Database { writer_url, reader_url, keys_url, .. } = &settings.database;
    let pool = |role, url| RotatingPool::new(role, url, &settings.database, &settings.sources);
    let single = settings::Database { max_connections: 1, ..settings.database.clone() };
    let probe = |role, url| RotatingPool::new(role, url, &single, &settings.sources);
    let keys = pool(DbRole::Keys, keys_url)?;
    let database = Database {
        writer: pool(DbRole::Writer, writer_url)?,
        shares: TenantShares::new(settings.database.max_connections, settings.database.acquire_timeout),
        reader: pool(DbRole::Reader, reader_url)?,
        probes: [probe(DbRole::Writer, writer_url)?, probe(DbRole::Reader, reader_url)?],
        keyring: Arc::new(Keyring::new(keys, &settings.keys, clock)?),
        sealed_tables: sealed.into(),
    };
    Ok((database.clone(), Maintenance(database)))
}

impl Maintenance {
    /// Checks that each login has exactly its rights and the schema the expected version, that the
    /// sealed tables are the registered ones, and that every needed master key and index key is
    /// configured.
    ///
    /// # Errors
    /// The first deviation found. The service must not serve with such a database.
    pub async fn validate(&self) -> Result<(), UnfitDatabase> {
        // Each login on its own: the URLs may name different databases.
        self.0.writer.validate().await?;
        self.0.reader.validate().await?;
        let registered = self.0.sealed_tables.iter().flat_map(RegisteredTable::parts).collect();
        let mut connection = self.0.writer.connection().await.map_err(DbError::from)?;
        check_sealed_columns(&mut connection, &registered).await?;
        self.0.keyring.validate().await
    }

    /// Connects the writer with this URL, after the same checks as at startup (SECRET-04).
    ///
    /// # Errors
    /// The URL names another database, or its login fails a check; the old pool stays in use.
    pub async fn reload_writer(&self, url: &SecretString) -> Result<RetiredPools, UnfitDatabase> {
        let [writer, _] = &self.0.probes;
        Ok(self.0.writer.reload(url).await?.merge(writer.reload_unchecked(url)?))
    }

    /// Connects the reader with this URL; otherwise as [`reload_writer`](Self::reload_writer).
    pub async fn reload_reader(&self, url: &SecretString) -> Result<RetiredPools, UnfitDatabase> {
        let [_, reader] = &self.0.probes;
        Ok(self.0.reader.reload(url).await?.merge(reader.reload_unchecked(url)?))
    }

    /// Connects the login of data keys with this URL; otherwise as
    /// [`reload_writer`](Self::reload_writer).
    pub async fn reload_keys_login(&self, url: &SecretString) -> Result<RetiredPools, UnfitDatabase> {
        self.0.keyring.reload_login(url).await
    }

    /// Takes new master keys into use.
    ///
    /// # Errors
    /// They cannot unwrap a data key that the old ones unwrap; the old keys stay in use.
    pub async fn reload_master_keys(&self, keys: &MasterKeySettings) -> Result<(), UnfitDatabase> {
        self.0.keyring.reload_master(keys).await
    }

    /// Takes a new vault token into use.
    ///
    /// # Errors
    /// The vault refuses it; the old token stays in use.
    pub async fn reload_vault_token(&self, keys: &MasterKeySettings) -> Result<(), UnfitDatabase> {
        self.0.keyring.reload_token(keys).await
    }

    /// Takes new index keys into use.
    ///
    /// # Errors
    /// A key that rows are indexed by is missing; the old keys stay in use.
    pub async fn reload_index_keys(&self, keys: Arc<IndexKeys>) -> Result<(), UnfitDatabase> {
        self.0.keyring.reload_index(keys).await
    }

    /// Removes expired data keys from memory, once a second. Never ends.
    pub async fn evict_expired_keys(&self) {
        self.0.keyring.evict_expired().await;
    }

    /// Records the sizes of the connection pools as metrics.
    pub fn record_pool_metrics(&self) {
        self.0.writer.record_pool_metrics();
        self.0.reader.record_pool_metrics();
        self.0.keyring.record_pool_metrics();
    }

    /// Closes all connections after the work they are doing.
    pub async fn close(&self) {
        let Database { writer, reader, probes: [of_writer, of_reader], keyring, .. } = &self.0;
        tokio::join!(writer.close(), reader.close(), of_writer.close(), of_reader.close(), keyring.close());
    }
}
