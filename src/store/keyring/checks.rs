//! What keys must be like to be gone by: at the start, and whenever there are others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::Keyring;
use crate::{
    crypto::{IndexKeyError, IndexKeys, MasterKeyError, MasterKeys},
    settings,
    store::UnfitDatabase,
};

impl Keyring {
    /// Checks the login, that a data key of each master key opens, and that every key of blind indexes is the one it
    /// was: a service that finds out later has lost customers for as long as it lacks a key, and one that goes on
    /// without seals and indexes new ones in a way that the others do not know.
    pub(in crate::store) async fn check_fit(&self) -> Result<(), UnfitDatabase> {
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
        for key in self.stored.index_keys().await? {
            if !key.forgotten {
                keys.check(key.version, &key.check_value)?;
            } else if i32::from(keys.primary()) == key.version {
                return Err(IndexKeyError::Forgotten(keys.primary()).into());
            }
        }
        Ok(())
    }

    /// Goes by the master keys of these settings from now on, if they do what is asked of those at the start (SECRET-04).
    /// Which vault it is, and what wraps new data keys, is as at the start.
    pub(in crate::store) async fn renew_master(&self, new: &settings::Keys) -> Result<(), UnfitDatabase> {
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
    pub(in crate::store) async fn renew_token(&self, new: &settings::Keys) -> Result<(), UnfitDatabase> {
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
    pub(in crate::store) async fn renew_index(&self, keys: Arc<IndexKeys>) -> Result<(), UnfitDatabase> {
        self.check_index(&keys).await?;
        self.index.store(keys);
        Ok(())
    }
}
