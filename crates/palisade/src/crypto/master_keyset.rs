//! A keyset of master keys from the environment or a file.
//!
//! In: `APP_KEYS__MASTER`. Out: wrapped and unwrapped data keys, by AES-256-GCM with tenant, data
//! key version and master key version as associated data. [`super::MasterKeys`] calls it. A check
//! value per master key detects that a version was reused for another key.

use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    InvalidKeyText, MasterKeyError, WrappedDataKey,
    keyset::Keyset,
    sealing::{AeadContext, SealingKey},
};

/// Prefix of the names of these master keys. The version follows, as in `keyset:2`.
pub(super) const NAME_PREFIX: &str = "keyset:";

/// Master keys by version.
#[derive(Debug)]
pub struct MasterKeyset(Keyset<SealingKey>);

impl MasterKeyset {
    /// Parses `2:<key>,1:<key>`. The first key is the primary one: it wraps new data keys.
    pub fn from_text(text: &str) -> Result<Self, InvalidKeyText> {
        Keyset::parse(text, SealingKey::new).map(Self)
    }

    /// The name of the primary master key.
    pub(super) fn primary(&self) -> String {
        format!("{NAME_PREFIX}{}", self.0.primary.0)
    }

    /// Whether the keyset has a master key of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.key(name).is_some()
    }

    fn key(&self, name: &str) -> Option<(u16, &SealingKey)> {
        let version: u16 = name.strip_prefix(NAME_PREFIX)?.parse().ok()?;
        self.0.all().find(|key| key.0 == version).map(|(version, key)| (*version, key))
    }

    pub(super) fn wrap(&self, tenant: Uuid, version: i32, bytes: &[u8; 32]) -> Result<WrappedDataKey, MasterKeyError> {
        let (master, key) = &self.0.primary;
        let wrapped = key.seal(&data_key_context(tenant, version, *master), bytes)?;
        Ok(WrappedDataKey { version, wrapped_by: self.primary(), wrapped })
    }

    /// The check value of the primary master key: a constant, encrypted with it.
    pub(super) fn check_value(&self) -> Result<Vec<u8>, MasterKeyError> {
        let (master, key) = &self.0.primary;
        Ok(key.seal(&check_value_context(*master), CHECK_PLAINTEXT)?)
    }

    /// Whether the master key of this name decrypts its stored check value. Also true if the keyset
    /// has no such key.
    pub(super) fn matches_check_value(&self, name: &str, check_value: &[u8]) -> bool {
        self.key(name).is_none_or(|(master, key)| {
            let opened = key.open(&check_value_context(master), check_value);
            opened.is_ok_and(|opened| opened.as_slice() == CHECK_PLAINTEXT)
        })
    }

    pub(super) fn unwrap(&self, tenant: Uuid, stored: &WrappedDataKey) -> Result<Zeroizing<Vec<u8>>, MasterKeyError> {
        let name = &stored.wrapped_by;
        let (master, key) = self.key(name).ok_or_else(|| MasterKeyError::Missing(name.clone()))?;
        let context = data_key_context(tenant, stored.version, master);
        key.open(&context, &stored.wrapped).map_err(|_| MasterKeyError::CannotUnwrap(name.clone()))
    }
}

/// The constant in check values. It is public; stored check values contain it, so it never changes.
const CHECK_PLAINTEXT: &[u8] = b"whether it is the key that was meant";

fn check_value_context(master: u16) -> AeadContext {
    AeadContext {
        tenant: Uuid::nil(),
        table: "master_keys",
        column: "check_value",
        row: Uuid::from_u128(master.into()),
        version: 0,
    }
}

/// The associated data of a wrapped data key. The version of the master key takes the place of a
/// row id.
pub(super) fn data_key_context(tenant: Uuid, version: i32, master: u16) -> AeadContext {
    AeadContext { tenant, table: "data_keys", column: "wrapped", row: Uuid::from_u128(master.into()), version }
}
