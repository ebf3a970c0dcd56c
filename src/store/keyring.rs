//! Data keys, unwrapped and remembered: so many, and for so long.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    crypto::{DataKey, IndexKeys, MasterKeyError, MasterKeys, RowKey, WrappedDataKey},
    domain::{Clock, TenantId},
    settings,
    telemetry::event,
};

/// Most data keys that are remembered, and most tenants' newest ones.
const REMEMBERED: usize = 10_000;
/// How long one is remembered: so long a key that was destroyed may still be used by a replica.
const FOR: Duration = Duration::from_mins(1);
/// How long a tenant's newest data key is taken for its newest.
pub(super) const NEWEST_FOR: Duration = Duration::from_secs(5);

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
        })
    }

    /// Checks the login, that a data key of each master key opens, and that every key of blind indexes is the one it
    /// was: a service that finds out later has lost customers for as long as it lacks a key, and one that goes on
    /// without seals and indexes new ones in a way that the others do not know.
    pub(super) async fn check_fit(&self) -> Result<(), UnfitDatabase> {
        self.stored.0.check_fit().await?;
        let master = self.master.load_full();
        self.check_master(&master).await?;
        self.note_master(&master).await?;
        self.check_index(&self.index.load_full()).await
    }

    /// One of a few data keys of each master key opens: one that somebody spoiled is no reason for all others to be without
    /// service.
    async fn check_master(&self, keys: &MasterKeys) -> Result<(), UnfitDatabase> {
        let mut tried: BTreeMap<String, Result<(), MasterKeyError>> = BTreeMap::new();
        for (tenant, key) in self.stored.some_of_each_master().await? {
            if matches!(tried.get(&key.wrapped_by), Some(Ok(()))) {
                continue;
            }
            match keys.open(tenant.uuid(), &key).await {
                Ok(_) => drop(tried.insert(key.wrapped_by, Ok(()))),
                Err(error) if error.is_of_one_key() => drop(tried.entry(key.wrapped_by).or_insert(Err(error))),
                // Of no other is anything known either.
                Err(error) => return Err(error.into()),
            }
        }
        tried.into_values().collect::<Result<(), MasterKeyError>>()?;
        // And that it can wrap.
        keys.primary().await?;
        Ok(())
    }

    /// Each master key is the one that was meant by its version before; and the first one is, from now on. To be asked last,
    /// when nothing else is wrong with them.
    async fn note_master(&self, keys: &MasterKeys) -> Result<(), UnfitDatabase> {
        self.compare_master(keys).await?;
        if let Some((name, check_value)) = keys.check_value()? {
            self.stored.add_master_key(&name, &check_value).await?;
        }
        // Another replica may have been first, with another key.
        self.compare_master(keys).await
    }

    async fn compare_master(&self, keys: &MasterKeys) -> Result<(), UnfitDatabase> {
        for (name, check_value) in self.stored.master_keys().await? {
            keys.check(&name, &check_value)?;
        }
        Ok(())
    }

    /// Every data key that opened must open: nobody but the keys themselves says which key was meant by a version.
    async fn check_nothing_is_lost(&self, keys: &MasterKeys) -> Result<(), UnfitDatabase> {
        let old = self.master.load_full();
        let some = self.stored.some_of_each_master().await?;
        let masters: BTreeSet<String> = some.into_iter().map(|(_, key)| key.wrapped_by).collect();
        // A vault is the same as before.
        for master in masters.iter().filter(|master| MasterKeys::is_here(master)) {
            for (tenant, key) in self.stored.wrapped_by(master).await? {
                match keys.open(tenant.uuid(), &key).await {
                    Err(error) if old.open(tenant.uuid(), &key).await.is_ok() => return Err(error.into()),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    async fn check_index(&self, keys: &IndexKeys) -> Result<(), UnfitDatabase> {
        self.compare_index(keys).await?;
        // Only the one that new rows get: what no row has needs nobody yet.
        self.stored.add_index_key(keys.primary(), &keys.check_value()).await?;
        // Another replica may have been first, with another key.
        self.compare_index(keys).await
    }

    async fn compare_index(&self, keys: &IndexKeys) -> Result<(), UnfitDatabase> {
        for (version, check_value) in self.stored.index_keys().await? {
            keys.check(version, &check_value)?;
        }
        Ok(())
    }

    /// Goes by the master keys of these settings from now on, if they do what is asked of those at the start (SECRET-04).
    /// Which vault it is, and what wraps new data keys, is as at the start.
    pub(super) async fn renew_master(&self, new: &settings::Keys) -> Result<(), UnfitDatabase> {
        let mut made_of = self.made_of.lock().await;
        let new = made_of.with_master(new).ok_or(UnfitDatabase::OtherProvider)?;
        let keys = MasterKeys::new(&new)?;
        self.check_master(&keys).await?;
        self.check_nothing_is_lost(&keys).await?;
        self.note_master(&keys).await?;
        self.master.store(Arc::new(keys));
        *made_of = new;
        Ok(())
    }

    /// Goes by the token of these settings from now on, if the vault lets it wrap and open.
    pub(super) async fn renew_token(&self, new: &settings::Keys) -> Result<(), UnfitDatabase> {
        let mut made_of = self.made_of.lock().await;
        let new = made_of.with_token(new).ok_or(UnfitDatabase::OtherProvider)?;
        let keys = MasterKeys::new(&new)?;
        // Not each data key: one that does not open is no reason to be without a token.
        keys.try_vault().await?;
        self.master.store(Arc::new(keys));
        *made_of = new;
        Ok(())
    }

    /// The same for keys of blind indexes.
    pub(super) async fn renew_index(&self, keys: Arc<IndexKeys>) -> Result<(), UnfitDatabase> {
        self.check_index(&keys).await?;
        self.index.store(keys);
        Ok(())
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
            self.newest.retain(|_, known| known.since.elapsed() < NEWEST_FOR);
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
            Some(known) if known.since.elapsed() < NEWEST_FOR => return Ok(known.key),
            Some(_) => drop(self.newest.remove_if(&tenant, |known| known.since.elapsed() >= NEWEST_FOR)),
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
        Ok(self.stored.index_keys().await?.into_iter().map(|(version, _)| version).collect())
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

    /// Whether a data key is at hand.
    pub(super) fn remembers(&self, tenant: TenantId, version: i32) -> bool {
        self.keys.get(&(tenant, version)).is_some_and(|known| known.since.elapsed() < FOR)
    }

    /// Opens a data key, so that it is at hand.
    pub(super) async fn remember(&self, tenant: TenantId, version: i32) -> Result<(), StoreError> {
        self.data_key(tenant, version, None).await.map(drop)
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
            None => self.stored.get(tenant, version).await?.ok_or(StoreError::KeyDestroyed)?,
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

    /// The key of a row.
    pub(super) async fn row_key(
        &self,
        tenant: TenantId,
        table: &'static str,
        (row, version): (uuid::Uuid, i32),
        wrapped: Vec<u8>,
    ) -> Result<RowKey, StoreError> {
        let key = self.data_key(tenant, version, None).await?;
        Ok(key.open_row_key(table, row, wrapped).inspect_err(|_| {
            event::sealed_key_invalid(&tenant.to_string(), table, &row.to_string(), version);
        })?)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("master", &self.master.load()).finish_non_exhaustive()
    }
}
