//! Data keys, unwrapped and remembered: so many, and for so long.

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

use super::{Retired, StoreError, UnfitDatabase, data_keys::DataKeys, login::Login};
use crate::{
    crypto::{DataKey, IndexKeys, MasterKeyError, MasterKeys, RowKey, SealError, WrappedDataKey},
    domain::{Clock, TenantId},
    settings,
    telemetry::event,
};

/// Most data keys that are remembered, and most tenants' newest ones.
const REMEMBERED: usize = 10_000;
/// How long one is remembered: so long a key that was destroyed may still be used by a replica.
const FOR: Duration = Duration::from_mins(1);

/// What opens the keys of rows.
pub(super) struct Keyring {
    stored: DataKeys,
    master: ArcSwap<MasterKeys>,
    /// What those were made of; held while others are tried.
    made_of: Mutex<settings::Keys>,
    index: ArcSwap<IndexKeys>,
    clock: Clock,
    keys: Cache<(TenantId, i32), Remembered>,
    newest: Cache<TenantId, Remembered>,
    /// How long a tenant's newest data key is taken for its newest.
    pub(super) refresh: Duration,
}

/// A data key as it stands.
#[derive(Clone, Debug)]
pub struct DataKeyState {
    /// Its version.
    pub version: i32,
    /// Which master key wraps it, such as `keyset:2`.
    pub wrapped_by: String,
    /// Why it does not open; `None` if it does.
    pub fault: Option<MasterKeyError>,
}

#[derive(Clone)]
struct Remembered {
    key: Arc<DataKey>,
    since: Instant,
}

impl Keyring {
    pub(super) fn new(login: Login, keys: &settings::Keys, clock: Clock) -> Result<Self, UnfitDatabase> {
        Ok(Self {
            stored: DataKeys(login),
            master: ArcSwap::from_pointee(MasterKeys::new(keys)?),
            made_of: Mutex::new(keys.clone()),
            index: ArcSwap::new(Arc::clone(&keys.index)),
            clock,
            keys: Cache::new(REMEMBERED),
            newest: Cache::new(REMEMBERED),
            refresh: keys.refresh,
        })
    }

    pub(super) async fn renew_login(&self, url: &SecretString) -> Result<Retired, UnfitDatabase> {
        self.stored.0.renew(url).await
    }

    /// Forgets, once a second, what was remembered for too long: else it stays in memory until it is asked for again.
    pub(super) async fn forget(&self) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tick.tick().await;
            self.keys.retain(|_, known| known.since.elapsed() < FOR);
            self.newest.retain(|_, known| known.since.elapsed() < self.refresh);
        }
    }

    /// Says how many connections there are.
    pub(super) fn measure(&self) {
        self.stored.0.measure();
    }

    pub(super) async fn close(&self) {
        self.stored.0.close().await;
    }

    /// Keys of blind indexes.
    pub(super) fn indexes(&self) -> Arc<IndexKeys> {
        self.index.load_full()
    }

    /// The tenant's data key for new rows; its first one is made by who asks first.
    pub(super) async fn newest(&self, tenant: TenantId) -> Result<Arc<DataKey>, StoreError> {
        match self.newest.get(&tenant) {
            Some(known) if known.since.elapsed() < self.refresh => return Ok(known.key),
            Some(_) => drop(self.newest.remove_if(&tenant, |known| known.since.elapsed() >= self.refresh)),
            None => {}
        }
        // In a box: it is large, and seldom needed.
        let read = Box::pin(self.newest.get_or_insert_async(&tenant, self.read_newest(tenant)));
        Ok(read.await?.key)
    }

    async fn read_newest(&self, tenant: TenantId) -> Result<Remembered, StoreError> {
        let since = Instant::now();
        let stored = if let Some(stored) = self.stored.newest(tenant).await? {
            stored
        } else {
            self.add(tenant, 1).await?;
            // It may be another replica's.
            self.stored.newest(tenant).await?.ok_or(StoreError::KeyDestroyed)?
        };
        let key = self.data_key(tenant, stored.version, Some(&stored)).await?;
        Ok(Remembered { key, since })
    }

    /// Tenants that have data keys.
    pub(super) async fn tenants(&self) -> Result<Vec<TenantId>, StoreError> {
        self.stored.tenants().await
    }

    /// The data keys of a tenant, by version, each with the master key that wraps it, or why it does not open.
    pub(super) async fn versions(&self, tenant: TenantId) -> Result<Vec<DataKeyState>, StoreError> {
        let (master, mut states) = (self.master.load_full(), Vec::new());
        for key in self.stored.all(tenant).await? {
            let fault = master.open(tenant.uuid(), &key).await.err();
            states.push(DataKeyState { version: key.version, wrapped_by: key.wrapped_by, fault });
        }
        Ok(states)
    }

    /// Versions of the keys of blind indexes that rows may have.
    pub(super) async fn index_versions(&self) -> Result<Vec<i32>, StoreError> {
        let keys = self.stored.index_keys().await?.into_iter();
        Ok(keys.filter(|key| !key.forgotten).map(|key| key.version).collect())
    }

    /// Makes the data key after the newest, from now on the newest here.
    pub(super) async fn add_next(&self, tenant: TenantId) -> Result<i32, StoreError> {
        let newest = self.stored.newest(tenant).await?.map_or(0, |key| key.version);
        self.add(tenant, newest.checked_add(1).ok_or(StoreError::Inconsistent)?).await?;
        self.newest.remove(&tenant);
        Ok(self.newest(tenant).await?.version())
    }

    /// Makes a data key of this version, unless somebody else just did.
    async fn add(&self, tenant: TenantId, version: i32) -> Result<(), StoreError> {
        let (_, wrapped) = self.master.load_full().generate(tenant.uuid(), version).await?;
        self.stored.add(tenant, &wrapped, self.clock.now()).await
    }

    /// A data key that is at hand, for who must not wait.
    pub(super) fn at_hand(&self, tenant: TenantId, version: i32) -> Option<Arc<DataKey>> {
        self.keys.get(&(tenant, version)).filter(|known| known.since.elapsed() < FOR).map(|known| known.key)
    }

    /// A data key, wherever it is; an error if it was dropped, or destroyed.
    pub(super) async fn fetch(&self, tenant: TenantId, version: i32) -> Result<Arc<DataKey>, StoreError> {
        self.data_key(tenant, version, None).await
    }

    /// The data key of this version; `stored` if it was just read. However many ask for one that is not remembered, it is
    /// read and opened once.
    async fn data_key(
        &self,
        tenant: TenantId,
        version: i32,
        stored: Option<&WrappedDataKey>,
    ) -> Result<Arc<DataKey>, StoreError> {
        let place = (tenant, version);
        match self.keys.get(&place) {
            Some(known) if known.since.elapsed() < FOR => return Ok(known.key),
            Some(_) => drop(self.keys.remove_if(&place, |known| known.since.elapsed() >= FOR)),
            None => {}
        }
        let open = Box::pin(self.keys.get_or_insert_async(&place, self.open_stored(tenant, version, stored)));
        Ok(open.await?.key)
    }

    async fn open_stored(
        &self,
        tenant: TenantId,
        version: i32,
        stored: Option<&WrappedDataKey>,
    ) -> Result<Remembered, StoreError> {
        // Before it is read: it may be destroyed right after, and a vault takes its time.
        let since = Instant::now();
        let stored = match stored {
            Some(stored) => stored.clone(),
            None => self.stored.get(tenant, version).await?,
        };
        let opened = self.master.load_full().open(tenant.uuid(), &stored).await.inspect_err(|error| {
            if matches!(error, MasterKeyError::Unavailable { .. }) {
                // Of what is only out of reach nothing is known. There may be a new token.
                self.stored.0.look_now();
            } else {
                event::data_key_invalid(&tenant.to_string(), version, error);
            }
        });
        Ok(Remembered { key: Arc::new(opened?), since })
    }
}

/// The key of a row, by its data key.
pub(super) fn open_row_key(
    key: &DataKey,
    tenant: TenantId,
    (table, row): (&'static str, uuid::Uuid),
    wrapped: Vec<u8>,
) -> Result<RowKey, SealError> {
    key.open_row_key(table, row, wrapped).inspect_err(|_| {
        event::sealed_key_invalid(&tenant.to_string(), table, &row.to_string(), key.version());
    })
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("master", &self.master.load()).finish_non_exhaustive()
    }
}
