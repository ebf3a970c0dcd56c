//! Keys of sealed fields (CRYPTO-04, CRYPTO-06). docs/keys.md says how to create, rotate and keep
//! them.

use std::{sync::Arc, time::Duration};

use super::{Reader, table::KeyRows};
use crate::crypto::{IndexKeys, KeyProvider, MasterKeySettings, VaultSettings};

/// Keys of sealed fields and of their blind indexes.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Master keys: a keyset, a vault, or both.
    pub master: MasterKeySettings,
    /// Keys of blind indexes.
    pub index: Arc<IndexKeys>,
    /// Records of personal data that a person may see in plain text without an event: the burst,
    /// and the rate per minute.
    pub alert_reads_per_minute: u32,
    /// Cache time of a tenant's newest data key.
    pub refresh: Duration,
}

impl Keys {
    /// `None` if a key is missing or invalid; the reader then has the fault.
    pub(super) fn read(r: &mut Reader) -> Option<Self> {
        let (vault_key, master_key) = (VaultSettings::url.name(), KeyRows::master.name());
        let vault = r.read_section(&VaultSettings::SECTION, &VaultSettings::url, VaultSettings::read_rows);
        let has_vault = r.has(&vault_key);
        let rows = KeyRows::read_rows(r, None);
        let provider = rows.as_ref().and_then(|rows| rows.provider);
        if !r.has(&master_key) && (!has_vault || provider == Some(KeyProvider::Keyset)) {
            r.fault(&master_key, "is required");
        }
        if !has_vault && provider == Some(KeyProvider::Vault) {
            r.fault(&KeyRows::provider.name(), format!("is `vault`, so {vault_key} is required"));
        }
        if r.has(&master_key) && has_vault && !r.has(&KeyRows::provider.name()) {
            let message = format!("is required, since there are both {master_key} and {vault_key}");
            r.fault(&KeyRows::provider.name(), message);
        }
        let KeyRows { master, index, alert_reads_per_minute, refresh, .. } = rows?;
        let only = if master.is_some() { KeyProvider::Keyset } else { KeyProvider::Vault };
        let provider = provider.unwrap_or(only);
        Some(Self {
            master: MasterKeySettings { keyset: master, vault, provider },
            index,
            alert_reads_per_minute,
            refresh,
        })
    }
}
