//! Validation of master keys and index keys, at startup and before each reload (SECRET-04,
//! CRYPTO-05).
//!
//! In: keys of the settings, and the stored data keys and check values. Out: the first reason to
//! reject the keys. A service without a key could not read some records. A service with another
//! key under a recorded version would seal and index rows that other replicas cannot use.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use uuid::Uuid;

use super::Keyring;
use crate::{
    crypto::{IndexKeyError, IndexKeys, MasterKeyError, MasterKeySettings, MasterKeys},
    db::UnfitDatabase,
    model::TenantId,
};

impl Keyring {
    /// Checks the login, unwraps a data key per master key, and compares all keys with their check
    /// values.
    pub(crate) async fn validate(&self) -> Result<(), UnfitDatabase> {
        self.stored.0.validate().await?;
        let master = self.master.load_full();
        self.check_master(&master).await?;
        self.record_master(&master).await?;
        self.check_index(&self.index.load_full()).await
    }

    /// Checks that one of up to three data keys per master key can be unwrapped, and that new ones
    /// can be wrapped. A single damaged data key must not prevent startup.
    async fn check_master(&self, keys: &MasterKeys) -> Result<(), UnfitDatabase> {
        let mut results: BTreeMap<String, Result<(), MasterKeyError>> = BTreeMap::new();
        for (tenant, key) in self.stored.sample_per_master_key().await? {
            if matches!(results.get(&key.wrapped_by), Some(Ok(()))) {
                continue;
            }
            match keys.unwrap_data_key(tenant.uuid(), &key).await {
                Ok(_) => drop(results.insert(key.wrapped_by, Ok(()))),
                Err(error) if error.concerns_one_data_key() => {
                    results.entry(key.wrapped_by).or_insert(Err(error));
                }
                // Not about this data key, such as a vault that is down. No other can be tried.
                Err(error) => return Err(error.into()),
            }
        }
        results.into_values().collect::<Result<(), MasterKeyError>>()?;
        keys.primary().await?;
        Ok(())
    }

    /// Compares master keys with the stored check values, and stores the one of the first master
    /// key if it is missing. Called last, when no other check can fail.
    async fn record_master(&self, keys: &MasterKeys) -> Result<(), UnfitDatabase> {
        self.compare_master(keys).await?;
        if let Some((name, check_value)) = keys.check_value()? {
            self.stored.add_master_key(&name, &check_value).await?;
        }
        // Another replica may have stored the check value of another key first.
        self.compare_master(keys).await
    }

    async fn compare_master(&self, keys: &MasterKeys) -> Result<(), UnfitDatabase> {
        for (name, check_value) in self.stored.master_keys().await? {
            keys.check(&name, &check_value)?;
        }
        Ok(())
    }

    /// Checks that new master keys unwrap every data key that the current ones unwrap. Only the
    /// data keys themselves show which master key a version means.
    async fn check_no_data_key_lost(&self, keys: &MasterKeys) -> Result<(), UnfitDatabase> {
        let current = self.master.load_full();
        let sample = self.stored.sample_per_master_key().await?;
        let masters: BTreeSet<String> = sample.into_iter().map(|(_, key)| key.wrapped_by).collect();
        // A vault is the same one as before.
        for master in masters.iter().filter(|master| MasterKeys::is_keyset_name(master)) {
            let mut position = (TenantId::from_uuid(Uuid::nil()), 0);
            loop {
                let page = self.stored.wrapped_by(master, position).await?;
                let Some((tenant, key)) = page.last() else { break };
                position = (*tenant, key.version);
                for (tenant, key) in page {
                    match keys.unwrap_data_key(tenant.uuid(), &key).await {
                        Err(error) if current.unwrap_data_key(tenant.uuid(), &key).await.is_ok() => {
                            return Err(error.into());
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    async fn check_index(&self, keys: &IndexKeys) -> Result<(), UnfitDatabase> {
        self.compare_index(keys).await?;
        // Only the key for new rows: a key that no row is indexed with may still change.
        self.stored.add_index_key(keys.primary(), &keys.check_value()).await?;
        // Another replica may have stored the check value of another key first.
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

    /// Takes the master keys of these settings into use, after the checks of startup (SECRET-04).
    /// The vault, and the provider that wraps new data keys, stay those of startup.
    pub(crate) async fn reload_master(&self, new: &MasterKeySettings) -> Result<(), UnfitDatabase> {
        let mut current = self.master_settings.lock().await;
        let new = current.with_keyset(new).ok_or(UnfitDatabase::OtherProvider)?;
        let keys = MasterKeys::new(&new)?;
        self.check_master(&keys).await?;
        self.check_no_data_key_lost(&keys).await?;
        self.record_master(&keys).await?;
        self.master.store(Arc::new(keys));
        *current = new;
        Ok(())
    }

    /// Takes the vault token of these settings into use, if the vault lets it wrap and unwrap.
    pub(crate) async fn reload_token(&self, new: &MasterKeySettings) -> Result<(), UnfitDatabase> {
        let mut current = self.master_settings.lock().await;
        let new = current.with_token(new).ok_or(UnfitDatabase::OtherProvider)?;
        let keys = MasterKeys::new(&new)?;
        // Unwraps no data keys: a damaged one is no reason to reject a valid token.
        keys.check_vault().await?;
        self.master.store(Arc::new(keys));
        *current = new;
        Ok(())
    }

    /// Takes new index keys into use, after the checks of startup.
    pub(crate) async fn reload_index(&self, keys: Arc<IndexKeys>) -> Result<(), UnfitDatabase> {
        self.check_index(&keys).await?;
        self.index.store(keys);
        Ok(())
    }
}
