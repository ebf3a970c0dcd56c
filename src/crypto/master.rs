use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    DataKey, KeysetError, SealError, keyset, random,
    sealing::{Place, SealingKey},
};

/// How a data key is named that this keyset wraps: this, and the version.
const NAME: &str = "keyset:";

/// Master keys by version, from the environment or a file (CRYPTO-04). They wrap data keys and nothing else.
pub struct MasterKeys {
    first: (u16, SealingKey),
    others: Vec<(u16, SealingKey)>,
}

/// A data key as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedDataKey {
    /// Which of the tenant's data keys.
    pub version: i32,
    /// Which master key wraps it, such as `keyset:2`.
    pub wrapped_by: String,
    /// What only that master key opens.
    pub wrapped: Vec<u8>,
}

/// Why a data key cannot be used. Nothing is lost by it: with the right master key it opens again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MasterKeyError {
    /// The master key is not among the configured ones.
    #[error("a data key is wrapped by master key {0}, which keys.master does not have")]
    Missing(String),
    /// There is a master key of that version, and it is another one.
    #[error("a data key does not open with master key {0}: keys.master has another key under that version")]
    Wrong(String),
    /// A key could not be made.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl MasterKeys {
    /// Reads `2:<key>,1:<key>`; the first one wraps new data keys.
    pub fn from_text(text: &str) -> Result<Self, KeysetError> {
        let key = |(version, bytes): (u16, Zeroizing<[u8; 32]>)| {
            SealingKey::new(&bytes).map(|key| (version, key)).map_err(|_| KeysetError::Form)
        };
        let (first, others) = keyset::parse(text)?;
        Ok(Self { first: key(first)?, others: others.into_iter().map(key).collect::<Result<_, _>>()? })
    }

    /// A new data key, and how it is stored.
    pub fn generate(&self, tenant: Uuid, version: i32) -> Result<(DataKey, WrappedDataKey), MasterKeyError> {
        let bytes = Zeroizing::new(random::<32>().map_err(|_| SealError)?);
        let wrapped = self.wrap(tenant, version, &bytes)?;
        Ok((DataKey::new(tenant, version, &bytes)?, wrapped))
    }

    /// The data key that is stored.
    pub fn open(&self, tenant: Uuid, stored: &WrappedDataKey) -> Result<DataKey, MasterKeyError> {
        let bytes = self.unwrap(tenant, stored)?;
        Ok(DataKey::new(tenant, stored.version, &bytes)?)
    }

    /// The same data key under the first master key; `None` if it is already.
    pub fn rewrap(&self, tenant: Uuid, stored: &WrappedDataKey) -> Result<Option<WrappedDataKey>, MasterKeyError> {
        if stored.wrapped_by == self.primary() {
            return Ok(None);
        }
        let bytes = self.unwrap(tenant, stored)?;
        self.wrap(tenant, stored.version, &bytes).map(Some)
    }

    /// What the first master key is called.
    #[must_use]
    pub fn primary(&self) -> String {
        format!("{NAME}{}", self.first.0)
    }

    /// Whether there is a master key of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.key(name).is_some()
    }

    fn key(&self, name: &str) -> Option<(u16, &SealingKey)> {
        let version: u16 = name.strip_prefix(NAME)?.parse().ok()?;
        self.all().find(|(of, _)| *of == version).map(|(of, key)| (*of, key))
    }

    fn all(&self) -> impl Iterator<Item = &(u16, SealingKey)> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn wrap(&self, tenant: Uuid, version: i32, bytes: &[u8; 32]) -> Result<WrappedDataKey, MasterKeyError> {
        let (master, key) = &self.first;
        let wrapped = key.seal(&place(tenant, version, *master), bytes)?;
        Ok(WrappedDataKey { version, wrapped_by: self.primary(), wrapped })
    }

    fn unwrap(&self, tenant: Uuid, stored: &WrappedDataKey) -> Result<Zeroizing<[u8; 32]>, MasterKeyError> {
        let name = &stored.wrapped_by;
        let (master, key) = self.key(name).ok_or_else(|| MasterKeyError::Missing(name.clone()))?;
        let wrong = || MasterKeyError::Wrong(name.clone());
        let opened = key.open(&place(tenant, stored.version, master), &stored.wrapped).map_err(|_| wrong())?;
        Ok(Zeroizing::new(opened.as_slice().try_into().map_err(|_| wrong())?))
    }
}

/// A data key has no row of its own: its master key's version stands there.
fn place(tenant: Uuid, version: i32, master: u16) -> Place {
    Place { tenant, table: "data_keys", column: "wrapped", row: Uuid::from_u128(master.into()), version }
}

impl std::fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.all().map(|(version, _)| version)).finish()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    /// A part of a keyset.
    pub(in crate::crypto) fn part(version: u16, first: u8) -> String {
        format!("{version}:{}", STANDARD.encode((first..first + 32).collect::<Vec<_>>()))
    }

    #[test]
    fn crypto_05_a_data_key_moves_to_a_new_master_key_and_needs_the_old_no_more() {
        let tenant = Uuid::from_u128(1);
        let old = MasterKeys::from_text(&part(1, 0)).unwrap();
        let both = MasterKeys::from_text(&[part(2, 64), part(1, 0)].join(",")).unwrap();
        let new = MasterKeys::from_text(&part(2, 64)).unwrap();
        let (data, stored) = old.generate(tenant, 5).unwrap();
        let row = data.new_row_key("customers", tenant).unwrap().wrapped().to_vec();
        assert_eq!((stored.version, stored.wrapped_by.as_str()), (5, "keyset:1"));
        assert_eq!(old.rewrap(tenant, &stored), Ok(None));
        assert_eq!(new.rewrap(tenant, &stored), Err(MasterKeyError::Missing("keyset:1".to_owned())));
        let moved = both.rewrap(tenant, &stored).unwrap().unwrap();
        assert_eq!((moved.version, moved.wrapped_by.as_str()), (5, "keyset:2"));
        assert!(new.open(tenant, &moved).unwrap().open_row_key("customers", tenant, row).is_ok());
    }

    #[test]
    fn crypto_04_a_data_key_opens_with_its_master_key_its_tenant_and_its_version_only() {
        let tenant = Uuid::from_u128(1);
        let keys = MasterKeys::from_text(&[part(2, 64), part(1, 0)].join(",")).unwrap();
        let (_, stored) = keys.generate(tenant, 5).unwrap();
        assert!(keys.open(tenant, &stored).is_ok());
        let wrong = |name: &str| MasterKeyError::Wrong(name.to_owned());
        assert_eq!(keys.open(Uuid::from_u128(2), &stored).unwrap_err(), wrong("keyset:2"));
        let other = WrappedDataKey { version: 6, ..stored.clone() };
        assert_eq!(keys.open(tenant, &other).unwrap_err(), wrong("keyset:2"));
        let other = WrappedDataKey { wrapped_by: "keyset:1".to_owned(), ..stored.clone() };
        assert_eq!(keys.open(tenant, &other).unwrap_err(), wrong("keyset:1"));
        let others = MasterKeys::from_text(&part(2, 128)).unwrap();
        assert_eq!(others.open(tenant, &stored).unwrap_err(), wrong("keyset:2"));
        let none = MasterKeys::from_text(&part(3, 64)).unwrap();
        assert_eq!(none.open(tenant, &stored).unwrap_err(), MasterKeyError::Missing("keyset:2".to_owned()));
    }
}
