//! Blind indexes: exact search on sealed fields by a keyed hash (CRYPTO-06).
//!
//! An index is the version of the index key and a truncated HMAC-SHA-256 of tenant, column and
//! value. Equal values of a column have equal indexes within a tenant, and nowhere else. A reader
//! of the database sees which rows share a value, and learns no value without the key; docs/keys.md
//! lists what remains visible. Search, creation, change and key rotation in [`crate::store`] use
//! it.

use uuid::Uuid;
use zeroize::Zeroizing;

use super::{KeysetError, MacKey, RowKey, SealError, Sealable, Sealed, keyset};

/// Bytes of the HMAC that are kept. Two of 2^32 values of a tenant collide with probability 2^-65.
const TRUNCATED_LEN: usize = 16;

/// A sealed field that can be searched by its whole value.
pub trait Indexed: Sealable {
    /// The text that is hashed. It is the same for values that count as equal.
    fn normalized(&self) -> Zeroizing<String>;
}

/// The index keys by version. They are used for blind indexes only.
#[derive(Debug)]
pub struct IndexKeys {
    primary: (u16, MacKey),
    others: Vec<(u16, MacKey)>,
}

/// Why the service must not serve with these index keys: searches would miss rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexKeyError {
    /// No key has a version that rows may be indexed with.
    #[error(
        "index key {0} is missing, and rows may be indexed with it; add it to APP_KEYS__INDEX until `keys reseal` \
         and `keys forget-index {0}` have retired it"
    )]
    Missing(i32),
    /// New rows would get a key that was forgotten. The database rejects them.
    #[error("index key {0} was forgotten, and is the first of APP_KEYS__INDEX; put a key with a new version first")]
    Forgotten(u16),
    /// The check value of the key differs from the recorded one.
    #[error(
        "index key {0} is not the key that rows are indexed with under that version; configure that key, or another \
         version for the new one"
    )]
    Mismatch(i32),
}

/// An entry of a blind index, as the column stores it: two bytes of key version, then the HMAC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlindIndex(Vec<u8>);

impl IndexKeys {
    /// Parses `2:<key>,1:<key>`. The first key is the primary one: it indexes new values. All keys
    /// are used to search.
    pub fn from_text(text: &str) -> Result<Self, KeysetError> {
        let key = |(version, bytes): (u16, Zeroizing<[u8; 32]>)| (version, MacKey::new(&bytes));
        let (primary, others) = keyset::parse(text)?;
        Ok(Self { primary: key(primary), others: others.into_iter().map(key).collect() })
    }

    /// Computes the index of a value with the primary key.
    #[must_use]
    pub fn index<T: Indexed>(&self, tenant: Uuid, value: &T) -> BlindIndex {
        index(self.primary.0, &self.primary.1, tenant, value)
    }

    /// Computes the index of a sealed value. The plain text does not leave this function.
    pub(crate) fn index_sealed<T: Indexed>(
        &self,
        tenant: Uuid,
        value: &Sealed<T>,
        key: &RowKey,
    ) -> Result<BlindIndex, SealError> {
        Ok(self.index(tenant, &value.decrypt(key)?))
    }

    /// Computes the index of a value with each key. A stored value has one of them.
    pub(crate) fn candidates<T: Indexed>(&self, tenant: Uuid, value: &T) -> Vec<Vec<u8>> {
        self.all().map(|(version, key)| index(*version, key, tenant, value).0).collect()
    }

    fn all(&self) -> impl Iterator<Item = &(u16, MacKey)> {
        std::iter::once(&self.primary).chain(&self.others)
    }

    /// The version of the primary key.
    #[must_use]
    pub fn primary(&self) -> u16 {
        self.primary.0
    }

    /// The check value of the primary key. It identifies the key without revealing it.
    pub(crate) fn check_value(&self) -> Vec<u8> {
        check_value(&self.primary.1)
    }

    /// Checks that the key of this version is configured and has this check value.
    pub(crate) fn check(&self, version: i32, expected: &[u8]) -> Result<(), IndexKeyError> {
        let mut keys = self.all();
        let (_, key) = keys.find(|key| i32::from(key.0) == version).ok_or(IndexKeyError::Missing(version))?;
        if check_value(key) == expected { Ok(()) } else { Err(IndexKeyError::Mismatch(version)) }
    }
}

impl BlindIndex {
    /// Wraps the bytes of the column.
    pub(crate) fn from_stored(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The range of all indexes under a key version: inclusive start, exclusive end.
    pub(crate) fn range(version: i32) -> Option<(Vec<u8>, Vec<u8>)> {
        let version = u16::try_from(version).ok()?;
        // The highest version has no next one: 19 bytes are longer than any index.
        let end = version.checked_add(1).map_or_else(|| vec![0xff; 19], |next| next.to_be_bytes().to_vec());
        Some((version.to_be_bytes().to_vec(), end))
    }

    /// The bytes for the column.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

fn check_value(key: &MacKey) -> Vec<u8> {
    key.tag("check of an index key", b"").into_iter().take(TRUNCATED_LEN).collect()
}

fn index<T: Indexed>(version: u16, key: &MacKey, tenant: Uuid, value: &T) -> BlindIndex {
    let context = format!("index {}.{}", T::TABLE, T::COLUMN);
    let message = Zeroizing::new([tenant.as_bytes(), value.normalized().as_bytes()].concat());
    let mac = key.tag(&context, &message);
    BlindIndex(version.to_be_bytes().into_iter().chain(mac.into_iter().take(TRUNCATED_LEN)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::master::tests::part,
        domain::{Email, TaxId},
    };

    #[test]
    fn crypto_06_index_depends_on_key_tenant_column_and_value() {
        let tenant = Uuid::from_u128(1);
        let keys = IndexKeys::from_text(&[part(2, 64), part(1, 0)].join(",")).unwrap();
        let email = |text: &str| text.parse::<Email>().unwrap();
        let tax_id = |text: &str| text.parse::<TaxId>().unwrap();
        let index = keys.index(tenant, &email("Someone@example.com"));
        assert_eq!(index, keys.index(tenant, &email("someone@EXAMPLE.com")));
        assert_ne!(index, keys.index(Uuid::from_u128(2), &email("someone@example.com")));
        assert_ne!(index, keys.index(tenant, &email("someone@example.co")));
        assert_eq!(keys.index(tenant, &tax_id("de-123")), keys.index(tenant, &tax_id("DE123")));
        assert_eq!(index.bytes().len(), 18);
        assert_eq!(index.bytes()[..2], [0, 2]);
        // Each key makes another index. The first candidate is the one that new rows get.
        let candidates = keys.candidates(tenant, &email("someone@example.com"));
        assert_eq!(candidates[0], index.bytes());
        assert_eq!(candidates[1][..2], [0, 1]);
        assert_ne!(candidates[0][2..], candidates[1][2..]);
        // The same text in another column has another index.
        let number = tax_id("AB-1");
        assert_ne!(keys.index(tenant, &number), keys.index(tenant, &OtherColumn(number)));
        let (begin, end) = BlindIndex::range(2).unwrap();
        assert!(begin.as_slice() < index.bytes() && index.bytes() < end.as_slice() && end == [0, 3]);
        assert!(vec![0xff; 18] < BlindIndex::range(0xffff).unwrap().1 && BlindIndex::range(0x1_0000).is_none());
    }

    /// A tax identifier in the column of e-mail addresses.
    struct OtherColumn(TaxId);

    impl Sealable for OtherColumn {
        const TABLE: &'static str = "customers";
        const COLUMN: &'static str = "email";

        fn plain(&self) -> &str {
            self.0.plain()
        }

        fn from_sealed(text: String) -> Self {
            Self(TaxId::from_sealed(text))
        }

        fn masked(&self) -> String {
            self.0.masked()
        }
    }

    impl Indexed for OtherColumn {
        fn normalized(&self) -> Zeroizing<String> {
            self.0.normalized()
        }
    }

    #[test]
    fn crypto_06_missing_or_different_index_key_is_rejected() {
        let keys = IndexKeys::from_text(&[part(2, 64), part(1, 0)].join(",")).unwrap();
        let old = IndexKeys::from_text(&part(1, 0)).unwrap();
        assert_eq!(keys.check(2, &keys.check_value()), Ok(()));
        assert_eq!(keys.check(1, &old.check_value()), Ok(()));
        assert_eq!(old.check(2, &keys.check_value()), Err(IndexKeyError::Missing(2)));
        assert_eq!(keys.check(1, &keys.check_value()), Err(IndexKeyError::Mismatch(1)));
    }
}
