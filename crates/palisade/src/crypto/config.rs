//! Configuration of master keys (CRYPTO-04). `settings` reads it; [`MasterKeys`](super::MasterKeys)
//! is built from it at startup and again when a secret in it changes.

use std::{path::PathBuf, sync::Arc, time::Duration};

use secrecy::SecretString;
use url::Url;

use super::MasterKeyset;

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

/// A key in the Transit engine of Vault (1.13 or newer) or `OpenBao`.
#[derive(Clone, Debug)]
pub struct VaultSettings {
    /// `https://vault.example.com:8200`, or a local agent's `http://` address.
    pub url: Url,
    /// May `update` `<mount>/encrypt/<key>` and `<mount>/decrypt/<key>`.
    pub token: SecretString,
    /// Name of the key.
    pub key: String,
    /// Path at which the engine is mounted.
    pub mount: String,
    /// Vault namespace.
    pub namespace: Option<String>,
    /// PEM file of CA certificates; without one, those of the system.
    pub authorities: Option<PathBuf>,
    /// Limit for one response.
    pub timeout: Duration,
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
