//! Master keys: they wrap the data keys of tenants, and nothing else (CRYPTO-04).
//!
//! This is envelope encryption: the database holds wrapped data keys only, the master keys stay in
//! a keyset (environment or file) or in a vault. With both providers, one wraps new data keys and
//! the other unwraps existing ones, so that keys can be moved between them. `db::keyring` unwraps
//! data keys at run time; the operator command `keys rewrap` moves them to the primary master key.

use std::sync::Arc;

use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    DataKey, KeyProvider, MasterKeySettings, MasterKeyset, SealError, master_keyset::NAME_PREFIX, random,
    transit::Transit,
};

/// The configured master keys: a keyset, a vault, or both.
#[derive(Debug)]
pub struct MasterKeys {
    /// Wraps new data keys.
    primary: Provider,
    other: Option<Provider>,
}

#[derive(Debug)]
enum Provider {
    Keyset(Arc<MasterKeyset>),
    Vault(Box<Transit>),
}

/// A wrapped data key, as `data_keys` stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedDataKey {
    /// The version of the data key, unique in its tenant.
    pub version: i32,
    /// The name of the master key that wraps it, such as `keyset:2` or `vault:transit/orders:v3`.
    pub wrapped_by: String,
    /// The ciphertext. Only that master key decrypts it.
    pub wrapped: Vec<u8>,
}

/// Why a data key cannot be wrapped or unwrapped. No data is lost: the right master key can unwrap
/// it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MasterKeyError {
    /// The master key is not configured.
    #[error("a data key is wrapped by master key {0}, which the settings do not have; configure it")]
    Missing(String),
    /// The master key of that name does not decrypt the data key.
    #[error(
        "a data key cannot be unwrapped with master key {0}: another key has that version, or the row of data_keys \
         was changed; configure the right key, or restore the row"
    )]
    CannotUnwrap(String),
    /// The check value of the master key differs from the recorded one.
    #[error(
        "master key {0} does not match the key previously registered under that version; configure that key, or give \
         the new key a new version"
    )]
    VersionReused(String),
    /// The vault answered that the ciphertext does not decrypt (status 400).
    #[error(
        "the vault cannot decrypt a data key with {name}: {reason}; check min_decryption_version, or restore the row \
         of data_keys"
    )]
    Refused {
        /// The name of the master key.
        name: String,
        /// The response of the vault.
        reason: String,
    },
    /// The vault decrypts a ciphertext with the associated data of another one.
    #[error("the vault of {0} ignores associated data; use Vault 1.13 or newer, or OpenBao")]
    AssociatedDataIgnored(String),
    /// The vault is down, refuses the token, or answers with an error.
    #[error("the vault of {name} is unavailable: {reason}; check the vault and its token")]
    Unavailable {
        /// The name of the master key.
        name: String,
        /// The response of the vault, or why there is none.
        reason: String,
    },
    /// The settings of the vault are invalid.
    #[error("APP_KEYS__VAULT__… cannot be used: {0}")]
    Settings(String),
    /// Key generation or local encryption failed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl MasterKeyError {
    /// Whether the error concerns one data key only, so that others may still be unwrapped.
    #[must_use]
    pub fn concerns_one_data_key(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::CannotUnwrap(_) | Self::Refused { .. })
    }
}

impl MasterKeys {
    /// Builds the providers of the settings. Sends no request to a vault.
    pub fn new(settings: &MasterKeySettings) -> Result<Self, MasterKeyError> {
        let keyset = settings.keyset.clone().map(Provider::Keyset);
        let vault =
            settings.vault.as_ref().map(Transit::new).transpose()?.map(|vault| Provider::Vault(Box::new(vault)));
        let (primary, other) = match settings.provider {
            KeyProvider::Keyset => (keyset, vault),
            KeyProvider::Vault => (vault, keyset),
        };
        let missing = || MasterKeyError::Settings("APP_KEYS__PROVIDER names a provider without settings".to_owned());
        Ok(Self { primary: primary.ok_or_else(missing)?, other })
    }

    /// Builds the master keys from a keyset alone.
    #[must_use]
    pub fn from_keyset(keyset: Arc<MasterKeyset>) -> Self {
        Self { primary: Provider::Keyset(keyset), other: None }
    }

    /// Generates a data key and wraps it with the primary master key.
    pub async fn generate(&self, tenant: Uuid, version: i32) -> Result<(DataKey, WrappedDataKey), MasterKeyError> {
        let bytes = Zeroizing::new(random::<32>().map_err(|_| SealError)?);
        let wrapped = self.wrap(tenant, version, &bytes).await?;
        Ok((DataKey::new(tenant, version, &bytes)?, wrapped))
    }

    /// Unwraps a stored data key.
    pub async fn unwrap_data_key(&self, tenant: Uuid, stored: &WrappedDataKey) -> Result<DataKey, MasterKeyError> {
        let bytes = self.unwrap(tenant, stored).await?;
        Ok(DataKey::new(tenant, stored.version, &bytes)?)
    }

    /// Wraps a stored data key with the primary master key. `None` if it is already wrapped by it;
    /// `primary` is that key's name.
    pub async fn rewrap(
        &self,
        primary: &str,
        tenant: Uuid,
        stored: &WrappedDataKey,
    ) -> Result<Option<WrappedDataKey>, MasterKeyError> {
        if stored.wrapped_by == primary {
            return Ok(None);
        }
        let bytes = self.unwrap(tenant, stored).await?;
        self.wrap(tenant, stored.version, &bytes).await.map(Some)
    }

    /// The name of the primary master key. Checks a vault for it: only the vault knows its newest
    /// key version.
    pub async fn primary(&self) -> Result<String, MasterKeyError> {
        match &self.primary {
            Provider::Keyset(keyset) => Ok(keyset.primary()),
            Provider::Vault(vault) => check_vault(vault).await,
        }
    }

    /// The name and the check value of the primary master key. `None` for a vault, which never
    /// gives one version to two keys.
    pub fn check_value(&self) -> Result<Option<(String, Vec<u8>)>, MasterKeyError> {
        match &self.primary {
            Provider::Keyset(keyset) => Ok(Some((keyset.primary(), keyset.check_value()?))),
            Provider::Vault(_) => Ok(None),
        }
    }

    /// Checks that the master key of this name, if it is configured, has this check value.
    pub fn check(&self, name: &str, check_value: &[u8]) -> Result<(), MasterKeyError> {
        let matches = |provider: &Provider| match provider {
            Provider::Keyset(keyset) => keyset.matches_check_value(name, check_value),
            Provider::Vault(_) => true,
        };
        if self.providers().all(matches) { Ok(()) } else { Err(MasterKeyError::VersionReused(name.to_owned())) }
    }

    /// Checks the vault, if one is configured, whether it is the primary provider or not.
    pub async fn check_vault(&self) -> Result<(), MasterKeyError> {
        for provider in self.providers() {
            if let Provider::Vault(vault) = provider {
                check_vault(vault).await?;
            }
        }
        Ok(())
    }

    /// Whether this is the name of a master key of a keyset, which unwraps data keys without a
    /// request.
    #[must_use]
    pub fn is_keyset_name(name: &str) -> bool {
        name.starts_with(NAME_PREFIX)
    }

    fn providers(&self) -> impl Iterator<Item = &Provider> {
        std::iter::once(&self.primary).chain(&self.other)
    }

    /// Wraps key material and unwraps it again: a ciphertext that cannot be unwrapped must not be
    /// stored.
    async fn wrap(&self, tenant: Uuid, version: i32, bytes: &[u8; 32]) -> Result<WrappedDataKey, MasterKeyError> {
        let wrapped = self.primary.wrap(tenant, version, bytes).await?;
        let unwrapped = self.unwrap(tenant, &wrapped).await?;
        if unwrapped.as_slice() == bytes { Ok(wrapped) } else { Err(MasterKeyError::CannotUnwrap(wrapped.wrapped_by)) }
    }

    async fn unwrap(&self, tenant: Uuid, stored: &WrappedDataKey) -> Result<Zeroizing<[u8; 32]>, MasterKeyError> {
        let name = &stored.wrapped_by;
        let unwrapped = match self.providers().find(|provider| provider.has(name)) {
            Some(Provider::Keyset(keyset)) => keyset.unwrap(tenant, stored)?,
            Some(Provider::Vault(vault)) => vault.unwrap(tenant, stored).await?,
            None => return Err(MasterKeyError::Missing(name.clone())),
        };
        let bytes: &[u8; 32] =
            unwrapped.as_slice().try_into().map_err(|_| MasterKeyError::CannotUnwrap(name.clone()))?;
        Ok(Zeroizing::new(*bytes))
    }
}

/// Checks that a vault wraps, unwraps and authenticates associated data: versions before 1.13
/// ignore it. Returns the name of the key version that wraps.
async fn check_vault(vault: &Transit) -> Result<String, MasterKeyError> {
    let trial = vault.wrap(Uuid::nil(), 0, &[0; 32]).await?;
    if vault.unwrap(Uuid::nil(), &trial).await?.as_slice() != [0; 32] {
        return Err(MasterKeyError::CannotUnwrap(trial.wrapped_by));
    }
    let other_version = WrappedDataKey { version: 1, ..trial.clone() };
    match vault.unwrap(Uuid::nil(), &other_version).await {
        Err(MasterKeyError::Refused { .. }) => Ok(trial.wrapped_by),
        Err(error) => Err(error),
        Ok(_) => Err(MasterKeyError::AssociatedDataIgnored(trial.wrapped_by)),
    }
}

impl Provider {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::Keyset(keyset) => keyset.has(name),
            Self::Vault(vault) => vault.has(name),
        }
    }

    async fn wrap(&self, tenant: Uuid, version: i32, bytes: &[u8; 32]) -> Result<WrappedDataKey, MasterKeyError> {
        match self {
            Self::Keyset(keyset) => keyset.wrap(tenant, version, bytes),
            Self::Vault(vault) => vault.wrap(tenant, version, bytes).await,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;
    use crate::crypto::MasterKeyset;

    /// One `version:key` part of a keyset.
    pub(in crate::crypto) fn part(version: u16, first: u8) -> String {
        format!("{version}:{}", STANDARD.encode((first..first + 32).collect::<Vec<_>>()))
    }

    fn keys(text: &str) -> MasterKeys {
        MasterKeys::from_keyset(Arc::new(MasterKeyset::from_text(text).unwrap()))
    }

    #[tokio::test]
    async fn crypto_04_data_key_is_bound_to_master_key_tenant_and_version() {
        let tenant = Uuid::from_u128(1);
        let both = keys(&[part(2, 64), part(1, 0)].join(","));
        let (_, stored) = both.generate(tenant, 5).await.unwrap();
        assert!(both.unwrap_data_key(tenant, &stored).await.is_ok());
        let cannot_unwrap = |name: &str| MasterKeyError::CannotUnwrap(name.to_owned());
        assert_eq!(both.unwrap_data_key(Uuid::from_u128(2), &stored).await.unwrap_err(), cannot_unwrap("keyset:2"));
        let other = WrappedDataKey { version: 6, ..stored.clone() };
        assert_eq!(both.unwrap_data_key(tenant, &other).await.unwrap_err(), cannot_unwrap("keyset:2"));
        let other = WrappedDataKey { wrapped_by: "keyset:1".to_owned(), ..stored.clone() };
        assert_eq!(both.unwrap_data_key(tenant, &other).await.unwrap_err(), cannot_unwrap("keyset:1"));
        let different = keys(&part(2, 128));
        assert_eq!(different.unwrap_data_key(tenant, &stored).await.unwrap_err(), cannot_unwrap("keyset:2"));
        let without = keys(&part(3, 64));
        assert_eq!(
            without.unwrap_data_key(tenant, &stored).await.unwrap_err(),
            MasterKeyError::Missing("keyset:2".to_owned())
        );
    }
}
