use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    KeysetError, MasterKeyError, WrappedDataKey, keyset,
    sealing::{Place, SealingKey},
};

/// How a data key is named that this keyset wraps: this, and the version.
pub(super) const NAME: &str = "keyset:";

/// Master keys by version, from the environment or a file.
pub struct MasterKeyset {
    first: (u16, SealingKey),
    others: Vec<(u16, SealingKey)>,
}

impl MasterKeyset {
    /// Reads `2:<key>,1:<key>`; the first one wraps new data keys.
    pub fn from_text(text: &str) -> Result<Self, KeysetError> {
        let key = |(version, bytes): (u16, Zeroizing<[u8; 32]>)| {
            SealingKey::new(&bytes).map(|key| (version, key)).map_err(|_| KeysetError::Form)
        };
        let (first, others) = keyset::parse(text)?;
        Ok(Self { first: key(first)?, others: others.into_iter().map(key).collect::<Result<_, _>>()? })
    }

    /// What the first master key is called.
    pub(super) fn primary(&self) -> String {
        format!("{NAME}{}", self.first.0)
    }

    /// Whether there is a master key of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.key(name).is_some()
    }

    fn key(&self, name: &str) -> Option<(u16, &SealingKey)> {
        let version: u16 = name.strip_prefix(NAME)?.parse().ok()?;
        self.all().find(|(of, _)| *of == version).map(|(of, key)| (*of, key))
    }

    fn all(&self) -> impl Iterator<Item = &(u16, SealingKey)> {
        std::iter::once(&self.first).chain(&self.others)
    }

    pub(super) fn wrap(&self, tenant: Uuid, version: i32, bytes: &[u8; 32]) -> Result<WrappedDataKey, MasterKeyError> {
        let (master, key) = &self.first;
        let wrapped = key.seal(&place(tenant, version, *master), bytes)?;
        Ok(WrappedDataKey { version, wrapped_by: self.primary(), wrapped })
    }

    /// What the first master key makes of a text that is always the same.
    pub(super) fn check_value(&self) -> Result<Vec<u8>, MasterKeyError> {
        let (master, key) = &self.first;
        Ok(key.seal(&place_of_check(*master), CHECKED)?)
    }

    /// Whether what is stored is what a master key of this name makes; also if there is none.
    pub(super) fn is_as_checked(&self, name: &str, check_value: &[u8]) -> bool {
        self.key(name).is_none_or(|(master, key)| {
            key.open(&place_of_check(master), check_value).is_ok_and(|opened| opened.as_slice() == CHECKED)
        })
    }

    pub(super) fn unwrap(&self, tenant: Uuid, stored: &WrappedDataKey) -> Result<Zeroizing<Vec<u8>>, MasterKeyError> {
        let name = &stored.wrapped_by;
        let (master, key) = self.key(name).ok_or_else(|| MasterKeyError::Missing(name.clone()))?;
        let wrong = || MasterKeyError::Wrong(name.clone());
        key.open(&place(tenant, stored.version, master), &stored.wrapped).map_err(|_| wrong())
    }
}

/// Secret to nobody.
const CHECKED: &[u8] = b"whether it is the key that was meant";

fn place_of_check(master: u16) -> Place {
    Place {
        tenant: Uuid::nil(),
        table: "master_keys",
        column: "check_value",
        row: Uuid::from_u128(master.into()),
        version: 0,
    }
}

/// A data key has no row of its own: its master key's version stands there.
pub(super) fn place(tenant: Uuid, version: i32, master: u16) -> Place {
    Place { tenant, table: "data_keys", column: "wrapped", row: Uuid::from_u128(master.into()), version }
}

impl std::fmt::Debug for MasterKeyset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.all().map(|(version, _)| version)).finish()
    }
}
