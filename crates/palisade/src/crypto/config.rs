//! Configuration of master keys (CRYPTO-04). `settings` reads it; [`MasterKeys`](super::MasterKeys)
//! is built from it at startup and again when a secret in it changes.

use std::sync::Arc;

use super::MasterKeyset;
use crate::settings::VaultSettings;

/// The providers of master keys: a keyset, a vault, or both.
#[derive(Clone, Debug)]
pub struct MasterKeySettings {
    /// The keyset, from the environment or a file.
    pub keyset: Option<Arc<MasterKeyset>>,
    /// The vault, which never hands out its keys.
    pub vault: Option<VaultSettings>,
    /// The provider that wraps new data keys; the other one only unwraps existing ones.
    pub provider: KeyProvider,
}

/// A provider of master keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyProvider {
    /// The first key of the keyset.
    Keyset,
    /// The newest version of the vault's key.
    Vault,
}

impl MasterKeySettings {
    /// These settings with the keyset of `newer`; `None` unless both have a keyset.
    pub(crate) fn with_keyset(&self, newer: &Self) -> Option<Self> {
        self.keyset.as_ref()?;
        Some(Self { keyset: Some(Arc::clone(newer.keyset.as_ref()?)), ..self.clone() })
    }

    /// These settings with the vault token of `newer`; `None` unless both have a vault.
    pub(crate) fn with_token(&self, newer: &Self) -> Option<Self> {
        let token = newer.vault.as_ref()?.token.clone();
        Some(Self { vault: Some(VaultSettings { token, ..self.vault.clone()? }), ..self.clone() })
    }
}
