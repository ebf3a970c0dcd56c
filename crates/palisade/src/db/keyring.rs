//! Cache of unwrapped data keys, with a time-to-live and a size limit (CRYPTO-04, CRYPTO-05).
//!
//! In: wrapped data keys from `data_keys`, and master keys from the settings or a vault. Out: data
//! keys, which wrap and unwrap row keys, and the keys of blind indexes. A look-up is
//! single-flight: concurrent requests for one data key cause one read and one unwrap.
//! [`crate::store`] uses it; `checks` validates keys at startup and before each reload.

mod checks;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use quick_cache::sync::Cache;
use secrecy::SecretString;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{DbError, RetiredPools, UnfitDatabase, data_keys::DataKeys, rotating_pool::RotatingPool};
use crate::{
    crypto::{DataKey, IndexKeys, MasterKeyError, MasterKeySettings, MasterKeys, WrappedDataKey},
    model::{Clock, TenantId},
    settings,
    telemetry::event,
};

/// Size limit of each cache: data keys, and newest data keys per tenant.
const CACHE_SIZE: usize = 10_000;

/// Time-to-live of a data key. A replica may use a destroyed key for that long.
const KEY_TTL: Duration = Duration::from_mins(1);

/// The data keys, master keys and index keys of this replica.
pub(crate) struct Keyring {
    stored: DataKeys,
    master: ArcSwap<MasterKeys>,
    /// The settings of `master`. Locked during a reload, so that reloads run one at a time.
    master_settings: Mutex<MasterKeySettings>,
    index: ArcSwap<IndexKeys>,
    clock: Clock,
    keys: Cache<(TenantId, i32), CachedKey>,
    newest: Cache<TenantId, CachedKey>,
    /// How long the newest data key of a tenant is cached.
    pub(crate) newest_ttl: Duration,
}

/// The state of a stored data key.
#[derive(Clone, Debug)]
pub struct DataKeyState {
    /// The version of the data key, unique in its tenant.
    pub version: i32,
    /// The name of the master key that wraps it, such as `keyset:2`.
    pub wrapped_by: String,
    /// Why it cannot be unwrapped; `None` if it can.
    pub fault: Option<MasterKeyError>,
}

#[derive(Clone)]
struct CachedKey {
    key: Arc<DataKey>,
    read_at: Instant,
}

impl Keyring {
    pub(crate) fn new(pool: RotatingPool, keys: &settings::Keys, clock: Clock) -> Result<Self, UnfitDatabase> {
        Ok(Self {
            stored: DataKeys(pool),
            master: ArcSwap::from_pointee(MasterKeys::new(&keys.master)?),
            master_settings: Mutex::new(keys.master.clone()),
            index: ArcSwap::new(Arc::clone(&keys.index)),
            clock,
            keys: Cache::new(CACHE_SIZE),
            newest: Cache::new(CACHE_SIZE),
            newest_ttl: keys.refresh,
        })
    }

    pub(crate) async fn reload_login(&self, url: &SecretString) -> Result<RetiredPools, UnfitDatabase> {
        self.stored.0.reload(url).await
    }

    /// Removes expired keys once a second. Without it, an expired key would stay in memory until
    /// its next use. Never ends.
    pub(crate) async fn evict_expired(&self) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tick.tick().await;
            self.keys.retain(|_, cached| cached.is_younger_than(KEY_TTL));
            self.newest.retain(|_, cached| cached.is_younger_than(self.newest_ttl));
        }
    }

    /// Records the sizes of the connection pool as metrics.
    pub(crate) fn record_pool_metrics(&self) {
        self.stored.0.record_pool_metrics();
    }

    pub(crate) async fn close(&self) {
        self.stored.0.close().await;
    }

    /// The keys of blind indexes.
    pub(crate) fn indexes(&self) -> Arc<IndexKeys> {
        self.index.load_full()
    }

    /// The tenant's newest data key, for new rows. The first call for a tenant creates its first
    /// data key.
    pub(crate) async fn newest(&self, tenant: TenantId) -> Result<Arc<DataKey>, DbError> {
        match self.newest.get(&tenant) {
            Some(cached) if cached.is_younger_than(self.newest_ttl) => return Ok(cached.key),
            Some(_) => drop(self.newest.remove_if(&tenant, |cached| !cached.is_younger_than(self.newest_ttl))),
            None => {}
        }
        // Boxed, since the future is large and seldom needed.
        let read = Box::pin(self.newest.get_or_insert_async(&tenant, self.read_newest(tenant)));
        Ok(read.await?.key)
    }

    async fn read_newest(&self, tenant: TenantId) -> Result<CachedKey, DbError> {
        let read_at = Instant::now();
        let stored = if let Some(stored) = self.stored.newest(tenant).await? {
            stored
        } else {
            self.add(tenant, 1).await?;
            // Another replica may have added a different key first.
            self.stored.newest(tenant).await?.ok_or(DbError::KeyDestroyed)?
        };
        let key = self.data_key(tenant, stored.version, Some(&stored)).await?;
        Ok(CachedKey { key, read_at })
    }

    /// Lists the tenants that have data keys, a page of them from this id on.
    pub(crate) async fn tenants(&self, from: Uuid) -> Result<Vec<TenantId>, DbError> {
        self.stored.tenants(from).await
    }

    /// Reads the state of the data keys of a tenant, in order of version. Tries to unwrap each.
    pub(crate) async fn versions(&self, tenant: TenantId) -> Result<Vec<DataKeyState>, DbError> {
        let master = self.master.load_full();
        let mut states = Vec::new();
        for key in self.stored.all(tenant).await? {
            let fault = master.unwrap_data_key(tenant.uuid(), &key).await.err();
            states.push(DataKeyState { version: key.version, wrapped_by: key.wrapped_by, fault });
        }
        Ok(states)
    }

    /// Reads the versions of the data keys of a tenant.
    pub(crate) async fn data_key_versions(&self, tenant: TenantId) -> Result<Vec<i32>, DbError> {
        Ok(self.stored.all(tenant).await?.into_iter().map(|key| key.version).collect())
    }

    /// Reads the versions of the index keys that rows may be indexed with.
    pub(crate) async fn index_versions(&self) -> Result<Vec<i32>, DbError> {
        let keys = self.stored.index_keys().await?.into_iter();
        Ok(keys.filter(|key| !key.forgotten).map(|key| key.version).collect())
    }

    /// Adds the next data key of a tenant. This replica uses it for new rows at once, others within
    /// `newest_ttl`.
    pub(crate) async fn add_next(&self, tenant: TenantId) -> Result<i32, DbError> {
        let newest = self.stored.newest(tenant).await?.map_or(0, |key| key.version);
        self.add(tenant, newest.checked_add(1).ok_or(DbError::Inconsistent)?).await?;
        self.newest.remove(&tenant);
        Ok(self.newest(tenant).await?.version())
    }

    /// Adds a data key of this version, unless another replica has just added one.
    async fn add(&self, tenant: TenantId, version: i32) -> Result<(), DbError> {
        let (_, wrapped) = self.master.load_full().generate(tenant.uuid(), version).await?;
        self.stored.add(tenant, &wrapped, self.clock.now()).await
    }

    /// A data key from the cache, without waiting.
    pub(crate) fn cached(&self, tenant: TenantId, version: i32) -> Option<Arc<DataKey>> {
        self.keys.get(&(tenant, version)).filter(|cached| cached.is_younger_than(KEY_TTL)).map(|cached| cached.key)
    }

    /// A data key from the cache or the database. An error if it was dropped or destroyed.
    pub(crate) async fn fetch(&self, tenant: TenantId, version: i32) -> Result<Arc<DataKey>, DbError> {
        self.data_key(tenant, version, None).await
    }

    /// The data key of this version. `stored` is its wrapped form, if the caller has just read it.
    ///
    /// Single-flight: concurrent calls for a key that is not cached cause one read and one unwrap.
    async fn data_key(
        &self,
        tenant: TenantId,
        version: i32,
        stored: Option<&WrappedDataKey>,
    ) -> Result<Arc<DataKey>, DbError> {
        let id = (tenant, version);
        match self.keys.get(&id) {
            Some(cached) if cached.is_younger_than(KEY_TTL) => return Ok(cached.key),
            Some(_) => drop(self.keys.remove_if(&id, |cached| !cached.is_younger_than(KEY_TTL))),
            None => {}
        }
        let unwrap = Box::pin(self.keys.get_or_insert_async(&id, self.unwrap_stored(tenant, version, stored)));
        Ok(unwrap.await?.key)
    }

    async fn unwrap_stored(
        &self,
        tenant: TenantId,
        version: i32,
        stored: Option<&WrappedDataKey>,
    ) -> Result<CachedKey, DbError> {
        // Taken before the read: the key may be destroyed right after it, and a vault may be slow.
        let read_at = Instant::now();
        let stored = match stored {
            Some(stored) => stored.clone(),
            None => self.stored.get(tenant, version).await?,
        };
        let unwrapped = self.master.load_full().unwrap_data_key(tenant.uuid(), &stored).await.inspect_err(|error| {
            if matches!(error, MasterKeyError::Unavailable { .. }) {
                // The key may be valid. The vault may have a new token in its file.
                self.stored.0.reload_secrets();
            } else {
                event::data_key_invalid(&tenant.to_string(), version, error);
            }
        });
        Ok(CachedKey { key: Arc::new(unwrapped?), read_at })
    }
}

impl CachedKey {
    fn is_younger_than(&self, ttl: Duration) -> bool {
        self.read_at.elapsed() < ttl
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("master", &self.master.load()).finish_non_exhaustive()
    }
}
