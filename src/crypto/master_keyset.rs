//! A keyset of master keys from the environment or a file.
//!
//! In: `APP_KEYS__MASTER`. Out: wrapped and unwrapped data keys, by AES-256-GCM with tenant, data
//! key version and master key version as associated data. [`super::MasterKeys`] calls it. A check
//! value per master key detects that a version was reused for another key.

use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    KeysetError, MasterKeyError, WrappedDataKey, keyset,
    sealing::{AeadContext, SealingKey},
};

/// Prefix of the names of these master keys. The version follows, as in `keyset:2`.
pub(super) const NAME_PREFIX: &str = "keyset:";

/// Master keys by version.
pub struct MasterKeyset {
    primary: (u16, SealingKey),
    others: Vec<(u16, SealingKey)>,
}

impl MasterKeyset {
    /// Parses `2:<key>,1:<key>`. The first key is the primary one: it wraps new data keys.
    pub fn from_text(text: &str) -> Result<Self, KeysetError> {
        let key = |(version, bytes): (u16, Zeroizing<[u8; 32]>)| {
            SealingKey::new(&bytes).map(|key| (version, key)).map_err(|_| KeysetError::Format)
        };
        let (primary, others) = keyset::parse(text)?;
        Ok(Self { primary: key(primary)?, others: others.into_iter().map(key).collect::<Result<_, _>>()? })
    }

    /// The name of the primary master key.
    pub(super) fn primary(&self) -> String {
        format!("{NAME_PREFIX}{}", self.primary.0)
    }

    /// Whether the keyset has a master key of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.key(name).is_some()
    }

    fn key(&self, name: &str) -> Option<(u16, &SealingKey)> {
        let version: u16 = name.strip_prefix(NAME_PREFIX)?.parse().ok()?;
        self.all().find(|key| key.0 == version).map(|(version, key)| (*version, key))
    }

    fn all(&self) -> impl Iterator<Item = &(u16, SealingKey)> {
        std::iter::once(&self.primary).chain(&self.others)
    }

    pub(super) fn wrap(&self, tenant: Uuid, version: i32, bytes: &[u8; 32]) -> Result<WrappedDataKey, MasterKeyError> {
        let (master, key) = &self.primary;
        let wrapped = key.seal(&data_key_context(tenant, version, *master), bytes)?;
        Ok(WrappedDataKey { version, wrapped_by: self.primary(), wrapped })
    }

    /// The check value of the primary master key: a constant, encrypted with it.
    pub(super) fn check_value(&self) -> Result<Vec<u8>, MasterKeyError> {
        let (master, key) = &self.primary;
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

impl std::fmt::Debug for MasterKeyset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.all().map(|(version, _)| version)).finish()
    }
}
