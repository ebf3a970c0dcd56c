use std::{fmt, sync::Arc};

use uuid::Uuid;
use zeroize::Zeroizing;

use super::{DataKey, MasterKeyset, SealError, master_keyset::NAME, random, transit::Transit};
use crate::settings::{self, KeyProvider};

/// What wraps data keys (CRYPTO-04), and nothing else: a keyset, a vault, or one for what is new and the other for what is
/// still there.
#[derive(Debug)]
pub struct MasterKeys {
    first: Provider,
    other: Option<Provider>,
}

enum Provider {
    Keyset(Arc<MasterKeyset>),
    Vault(Box<Transit>),
}

/// A data key as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedDataKey {
    /// Which of the tenant's data keys.
    pub version: i32,
    /// Which master key wraps it, such as `keyset:2` or `vault:transit/orders:v3`.
    pub wrapped_by: String,
    /// What only that master key opens.
    pub wrapped: Vec<u8>,
}

/// Why a data key cannot be used. Nothing is lost by it: with the right master key it opens again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MasterKeyError {
    /// The master key is not among the configured ones.
    #[error("a data key is wrapped by master key {0}, which the settings do not have")]
    Missing(String),
    /// There is a master key of that version, and it is another one.
    #[error(
        "a data key does not open with master key {0}: it is another key under that version, or another's data key"
    )]
    Wrong(String),
    /// There was another master key under that version.
    #[error("master key {0} is another one than was there under that version")]
    Another(String),
    /// The vault decided that it does not open.
    #[error("the vault opens no data key with {name}: {reason}")]
    Refused {
        /// The master key.
        name: String,
        /// What the vault says.
        reason: String,
    },
    /// The vault opens what it wrapped in any place.
    #[error("the vault of {0} does not bind what it wraps (associated data needs Vault 1.13 or newer)")]
    Unbound(String),
    /// The vault does not do what it is asked, now.
    #[error("the vault of {name}: {reason}")]
    Unavailable {
        /// The master key.
        name: String,
        /// What it says, or why it says nothing.
        reason: String,
    },
    /// The vault cannot be asked as the settings say.
    #[error("APP_KEYS__VAULT__… cannot be used: {0}")]
    Settings(String),
    /// A key could not be made.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl MasterKeyError {
    /// Whether it is about the one data key, and another may open.
    #[must_use]
    pub fn is_of_one_key(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::Wrong(_) | Self::Refused { .. })
    }
}

impl MasterKeys {
    /// Those of the settings. A vault is not asked for anything yet.
    pub fn new(keys: &settings::Keys) -> Result<Self, MasterKeyError> {
        let keyset = keys.master.clone().map(Provider::Keyset);
        let vault = keys.vault.as_ref().map(Transit::new).transpose()?.map(|vault| Provider::Vault(Box::new(vault)));
        let (first, other) = match keys.provider {
            KeyProvider::Keyset => (keyset, vault),
            KeyProvider::Vault => (vault, keyset),
        };
        let first = first.ok_or_else(|| MasterKeyError::Settings("there is no such provider".to_owned()))?;
        Ok(Self { first, other })
    }

    /// Those of a keyset.
    #[must_use]
    pub fn from_keyset(keyset: Arc<MasterKeyset>) -> Self {
        Self { first: Provider::Keyset(keyset), other: None }
    }

    /// A new data key, and how it is stored. It was seen to open.
    pub async fn generate(&self, tenant: Uuid, version: i32) -> Result<(DataKey, WrappedDataKey), MasterKeyError> {
        let bytes = Zeroizing::new(random::<32>().map_err(|_| SealError)?);
        let wrapped = self.wrap(tenant, version, &bytes).await?;
        Ok((DataKey::new(tenant, version, &bytes)?, wrapped))
    }

    /// The data key that is stored.
    pub async fn open(&self, tenant: Uuid, stored: &WrappedDataKey) -> Result<DataKey, MasterKeyError> {
        let bytes = self.unwrap(tenant, stored).await?;
        Ok(DataKey::new(tenant, stored.version, &bytes)?)
    }

    /// The same data key under the first master key, where it was seen to open; `None` if it is under `primary`, which
    /// that is.
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

    /// What the first master key is called. A vault is tried out for it: nobody else knows its newest version.
    pub async fn primary(&self) -> Result<String, MasterKeyError> {
        match &self.first {
            Provider::Keyset(keyset) => Ok(keyset.primary()),
            Provider::Vault(vault) => try_out(vault).await,
        }
    }

    /// What tells the first master key from another under its version, and what it is called. A vault has but one.
    pub fn check_value(&self) -> Result<Option<(String, Vec<u8>)>, MasterKeyError> {
        match &self.first {
            Provider::Keyset(keyset) => Ok(Some((keyset.primary(), keyset.check_value()?))),
            Provider::Vault(_) => Ok(None),
        }
    }

    /// An error if there is a master key of this name, and it is another.
    pub fn check(&self, name: &str, check_value: &[u8]) -> Result<(), MasterKeyError> {
        let is_as_checked = |provider: &Provider| match provider {
            Provider::Keyset(keyset) => keyset.is_as_checked(name, check_value),
            Provider::Vault(_) => true,
        };
        let same = std::iter::once(&self.first).chain(&self.other).all(is_as_checked);
        if same { Ok(()) } else { Err(MasterKeyError::Another(name.to_owned())) }
    }

    /// Tries the vault out, if there is one, whether it is the first or not.
    pub async fn try_vault(&self) -> Result<(), MasterKeyError> {
        for provider in std::iter::once(&self.first).chain(&self.other) {
            if let Provider::Vault(vault) = provider {
                try_out(vault).await?;
            }
        }
        Ok(())
    }

    /// Whether a master key is asked without a vault.
    #[must_use]
    pub fn is_here(name: &str) -> bool {
        name.starts_with(NAME)
    }

    /// What does not open again would be lost: it is opened before anybody stores it.
    async fn wrap(&self, tenant: Uuid, version: i32, bytes: &[u8; 32]) -> Result<WrappedDataKey, MasterKeyError> {
        let wrapped = self.first.wrap(tenant, version, bytes).await?;
        let opened = self.unwrap(tenant, &wrapped).await?;
        if opened.as_slice() == bytes { Ok(wrapped) } else { Err(MasterKeyError::Wrong(wrapped.wrapped_by)) }
    }

    async fn unwrap(&self, tenant: Uuid, stored: &WrappedDataKey) -> Result<Zeroizing<[u8; 32]>, MasterKeyError> {
        let name = &stored.wrapped_by;
        let mut providers = std::iter::once(&self.first).chain(&self.other);
        let opened = match providers.find(|provider| provider.has(name)) {
            Some(Provider::Keyset(keyset)) => keyset.unwrap(tenant, stored)?,
            Some(Provider::Vault(vault)) => vault.unwrap(tenant, stored).await?,
            None => return Err(MasterKeyError::Missing(name.clone())),
        };
        let bytes = opened.as_slice().try_into().map_err(|_| MasterKeyError::Wrong(name.clone()))?;
        Ok(Zeroizing::new(bytes))
    }
}

/// Has a vault wrap something and gives what the key is called that does. It must open that again, and only in its place,
/// which a vault does not do that knows no associated data.
async fn try_out(vault: &Transit) -> Result<String, MasterKeyError> {
    let trial = vault.wrap(Uuid::nil(), 0, &[0; 32]).await?;
    if vault.unwrap(Uuid::nil(), &trial).await?.as_slice() != [0; 32] {
        return Err(MasterKeyError::Wrong(trial.wrapped_by));
    }
    let elsewhere = WrappedDataKey { version: 1, ..trial.clone() };
    match vault.unwrap(Uuid::nil(), &elsewhere).await {
        Err(MasterKeyError::Refused { .. }) => Ok(trial.wrapped_by),
        Err(error) => Err(error),
        Ok(_) => Err(MasterKeyError::Unbound(trial.wrapped_by)),
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

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keyset(keyset) => keyset.fmt(f),
            Self::Vault(vault) => vault.fmt(f),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;
    use crate::crypto::MasterKeyset;

    /// A part of a keyset.
    pub(in crate::crypto) fn part(version: u16, first: u8) -> String {
        format!("{version}:{}", STANDARD.encode((first..first + 32).collect::<Vec<_>>()))
    }

    fn keys(text: &str) -> MasterKeys {
        MasterKeys::from_keyset(Arc::new(MasterKeyset::from_text(text).unwrap()))
    }

    #[tokio::test]
    async fn crypto_05_a_data_key_moves_to_a_new_master_key_and_needs_the_old_no_more() {
        let tenant = Uuid::from_u128(1);
        let old = keys(&part(1, 0));
        let both = keys(&[part(2, 64), part(1, 0)].join(","));
        let new = keys(&part(2, 64));
        let (data, stored) = old.generate(tenant, 5).await.unwrap();
        let row = data.new_row_key("customers", tenant).unwrap().wrapped().to_vec();
        assert_eq!((stored.version, stored.wrapped_by.as_str()), (5, "keyset:1"));
        assert_eq!(old.rewrap(&old.primary().await.unwrap(), tenant, &stored).await, Ok(None));
        assert_eq!(
            new.rewrap(&new.primary().await.unwrap(), tenant, &stored).await,
            Err(MasterKeyError::Missing("keyset:1".to_owned()))
        );
        let moved = both.rewrap(&both.primary().await.unwrap(), tenant, &stored).await.unwrap().unwrap();
        assert_eq!((moved.version, moved.wrapped_by.as_str()), (5, "keyset:2"));
        assert!(new.open(tenant, &moved).await.unwrap().open_row_key("customers", tenant, row).is_ok());
    }

    #[tokio::test]
    async fn crypto_04_a_data_key_opens_with_its_master_key_its_tenant_and_its_version_only() {
        let tenant = Uuid::from_u128(1);
        let both = keys(&[part(2, 64), part(1, 0)].join(","));
        let (_, stored) = both.generate(tenant, 5).await.unwrap();
        assert!(both.open(tenant, &stored).await.is_ok());
        let wrong = |name: &str| MasterKeyError::Wrong(name.to_owned());
        assert_eq!(both.open(Uuid::from_u128(2), &stored).await.unwrap_err(), wrong("keyset:2"));
        let other = WrappedDataKey { version: 6, ..stored.clone() };
        assert_eq!(both.open(tenant, &other).await.unwrap_err(), wrong("keyset:2"));
        let other = WrappedDataKey { wrapped_by: "keyset:1".to_owned(), ..stored.clone() };
        assert_eq!(both.open(tenant, &other).await.unwrap_err(), wrong("keyset:1"));
        let others = keys(&part(2, 128));
        assert_eq!(others.open(tenant, &stored).await.unwrap_err(), wrong("keyset:2"));
        let none = keys(&part(3, 64));
        assert_eq!(none.open(tenant, &stored).await.unwrap_err(), MasterKeyError::Missing("keyset:2".to_owned()));
    }
}
