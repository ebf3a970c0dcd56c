//! Data keys, unwrapped and remembered: so many, and for so long.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use quick_cache::sync::Cache;

use super::{StoreError, UnfitDatabase, data_keys::DataKeys};
use crate::{
    crypto::{DataKey, IndexKeys, MasterKeys, RowKey},
    domain::{Clock, TenantId},
    settings,
    telemetry::event,
};

/// Most data keys that are remembered.
const REMEMBERED: usize = 10_000;
/// How long one is remembered: so long a key that was destroyed may still be used by a replica.
const FOR: Duration = Duration::from_mins(1);
/// How long a tenant's newest data key is taken for its newest.
const NEWEST_FOR: Duration = Duration::from_secs(5);

/// What opens the keys of rows.
pub(super) struct Keyring {
    stored: DataKeys,
    master: Arc<MasterKeys>,
    index: Arc<IndexKeys>,
    clock: Clock,
    keys: Cache<(TenantId, i32), Remembered>,
    newest: Cache<TenantId, Remembered>,
}

#[derive(Clone)]
struct Remembered {
    key: Arc<DataKey>,
    since: Instant,
}

impl Keyring {
    pub(super) fn new(
        settings: &settings::Database,
        keys: &settings::Keys,
        clock: Clock,
    ) -> Result<Self, UnfitDatabase> {
        Ok(Self {
            stored: DataKeys::new(settings)?,
            master: Arc::clone(&keys.master),
            index: Arc::clone(&keys.index),
            clock,
            keys: Cache::new(REMEMBERED),
            newest: Cache::new(REMEMBERED),
        })
    }

    /// Checks the login, and that every data key there is can be opened: a service that finds out later has lost
    /// customers for as long as it lacks a key, and a service that goes on without would seal new ones with another.
    pub(super) async fn check_fit(&self) -> Result<(), UnfitDatabase> {
        self.stored.check_fit().await?;
        for (tenant, key) in self.stored.one_of_each_master().await? {
            self.master.open(tenant.uuid(), &key)?;
        }
        Ok(())
    }

    pub(super) async fn close(&self) {
        self.stored.close().await;
    }

    /// Keys of blind indexes.
    pub(super) fn indexes(&self) -> &IndexKeys {
        &self.index
    }

    /// The tenant's data key for new rows; its first one is made by who asks first.
    pub(super) async fn newest(&self, tenant: TenantId) -> Result<Arc<DataKey>, StoreError> {
        if let Some(known) = self.newest.get(&tenant).filter(|known| known.since.elapsed() < NEWEST_FOR) {
            return Ok(known.key);
        }
        let stored = if let Some(stored) = self.stored.newest(tenant).await? {
            stored
        } else {
            self.add(tenant, 1).await?;
            // It may be another replica's.
            self.stored.newest(tenant).await?.ok_or(StoreError::Inconsistent)?
        };
        let key = Arc::new(self.master.open(tenant.uuid(), &stored)?);
        self.newest.insert(tenant, Remembered { key: Arc::clone(&key), since: Instant::now() });
        Ok(key)
    }

    /// Tenants that have data keys.
    pub(super) async fn tenants(&self) -> Result<Vec<TenantId>, StoreError> {
        self.stored.tenants().await
    }

    /// The data keys of a tenant, by version, each with the master key that wraps it.
    pub(super) async fn versions(&self, tenant: TenantId) -> Result<Vec<(i32, String)>, StoreError> {
        self.stored.versions(tenant).await
    }

    /// Makes the data key after the newest, from now on the newest here.
    pub(super) async fn add_next(&self, tenant: TenantId) -> Result<i32, StoreError> {
        let newest = self.stored.newest(tenant).await?.map_or(0, |key| key.version);
        self.add(tenant, newest + 1).await?;
        self.newest.remove(&tenant);
        Ok(self.newest(tenant).await?.version())
    }

    /// Makes a data key of this version, unless somebody else just did.
    async fn add(&self, tenant: TenantId, version: i32) -> Result<(), StoreError> {
        let (_, wrapped) = self.master.generate(tenant.uuid(), version)?;
        self.stored.add(tenant, &wrapped, self.clock.now()).await
    }

    /// The data key of this version.
    async fn data_key(&self, tenant: TenantId, version: i32) -> Result<Arc<DataKey>, StoreError> {
        if let Some(known) = self.keys.get(&(tenant, version)).filter(|known| known.since.elapsed() < FOR) {
            return Ok(known.key);
        }
        let stored = self.stored.get(tenant, version).await?.ok_or(StoreError::KeyDestroyed)?;
        let key = Arc::new(self.master.open(tenant.uuid(), &stored)?);
        self.keys.insert((tenant, version), Remembered { key: Arc::clone(&key), since: Instant::now() });
        Ok(key)
    }

    /// The key of a row.
    pub(super) async fn row_key(
        &self,
        tenant: TenantId,
        table: &'static str,
        (row, version): (uuid::Uuid, i32),
        wrapped: Vec<u8>,
    ) -> Result<RowKey, StoreError> {
        let key = self.data_key(tenant, version).await?;
        Ok(key.open_row_key(table, row, wrapped).inspect_err(|_| {
            event::sealed_key_invalid(&tenant.to_string(), table, &row.to_string(), version);
        })?)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("master", &self.master).finish_non_exhaustive()
    }
}
