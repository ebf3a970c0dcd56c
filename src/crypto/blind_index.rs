use uuid::Uuid;
use zeroize::Zeroizing;

use super::{KeysetError, MacKey, RowKey, SealError, Sealable, Sealed, keyset};

/// Bytes of the HMAC that are kept: of 2^32 values of a tenant, two collide with a chance of 2^-65.
const KEPT: usize = 16;

/// A sealed field that can be found by its whole value.
pub trait Indexed: Sealable {
    /// The text that is the same for values which mean the same.
    fn normal(&self) -> Zeroizing<String>;
}

/// Keys of blind indexes by version, used for nothing else (CRYPTO-06).
///
/// An index is equal for equal values of a column in a tenant, and only there. Whoever reads the database sees which rows
/// have the same value and how often, and learns no value without the key; docs/keys.md says more.
#[derive(Debug)]
pub struct IndexKeys {
    first: (u16, MacKey),
    others: Vec<(u16, MacKey)>,
}

/// Why the service must not serve with these keys of blind indexes: what is there would not be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexKeyError {
    /// There is no key of a version that rows may have.
    #[error(
        "rows may be indexed with index key {0}, which keys.index does not have; `keys reseal` and \
         `keys forget-index {0}`, with the key, make that untrue"
    )]
    Missing(i32),
    /// New rows would get one that was forgotten, which the database refuses.
    #[error(
        "index key {0} is the first of keys.index, and was forgotten: its version is used up, take the next number"
    )]
    Forgotten(u16),
    /// There is one, and it is another one.
    #[error("keys.index has another key under version {0} than the one that rows are indexed with")]
    Wrong(i32),
}

/// What stands for a value in an index: the key's version, and a part of the HMAC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlindIndex(Vec<u8>);

impl IndexKeys {
    /// Reads `2:<key>,1:<key>`; new indexes are made with the first, and found with all.
    pub fn from_text(text: &str) -> Result<Self, KeysetError> {
        let key = |(version, bytes): (u16, Zeroizing<[u8; 32]>)| (version, MacKey::new(&bytes));
        let (first, others) = keyset::parse(text)?;
        Ok(Self { first: key(first), others: others.into_iter().map(key).collect() })
    }

    /// The index of a value, with the first key.
    #[must_use]
    pub fn index<T: Indexed>(&self, tenant: Uuid, value: &T) -> BlindIndex {
        index(self.first.0, &self.first.1, tenant, value)
    }

    /// The same of a value that is sealed. Nobody sees it.
    pub(crate) fn index_sealed<T: Indexed>(
        &self,
        tenant: Uuid,
        value: &Sealed<T>,
        key: &RowKey,
    ) -> Result<BlindIndex, SealError> {
        Ok(self.index(tenant, &value.opened(key)?))
    }

    /// The index of a value with each key: under one of them it is stored.
    pub(crate) fn candidates<T: Indexed>(&self, tenant: Uuid, value: &T) -> Vec<Vec<u8>> {
        self.all().map(|(version, key)| index(*version, key, tenant, value).0).collect()
    }

    fn all(&self) -> impl Iterator<Item = &(u16, MacKey)> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The version of the first key.
    #[must_use]
    pub fn primary(&self) -> u16 {
        self.first.0
    }

    /// What tells the first key from others.
    pub(crate) fn check_value(&self) -> Vec<u8> {
        check_value(&self.first.1)
    }

    /// Whether the key of this version is there, and is the one whose check value this is.
    pub(crate) fn check(&self, version: i32, expected: &[u8]) -> Result<(), IndexKeyError> {
        let (_, key) = self.all().find(|(of, _)| i32::from(*of) == version).ok_or(IndexKeyError::Missing(version))?;
        if check_value(key) == expected { Ok(()) } else { Err(IndexKeyError::Wrong(version)) }
    }
}

impl BlindIndex {
    /// What the column holds.
    pub(crate) fn from_stored(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// What is before and what is after everything that the key of a version makes.
    pub(crate) fn range(version: i32) -> Option<(Vec<u8>, Vec<u8>)> {
        let version = u16::try_from(version).ok()?;
        // After the last version there is none.
        let end = version.checked_add(1).map_or_else(|| vec![0xff; 19], |next| next.to_be_bytes().to_vec());
        Some((version.to_be_bytes().to_vec(), end))
    }

    /// For the column.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

fn check_value(key: &MacKey) -> Vec<u8> {
    key.tag("check of an index key", b"").into_iter().take(KEPT).collect()
}

fn index<T: Indexed>(version: u16, key: &MacKey, tenant: Uuid, value: &T) -> BlindIndex {
    let context = format!("index {}.{}", T::TABLE, T::COLUMN);
    let message = Zeroizing::new([tenant.as_bytes(), value.normal().as_bytes()].concat());
    let mac = key.tag(&context, &message);
    BlindIndex(version.to_be_bytes().into_iter().chain(mac.into_iter().take(KEPT)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::master::tests::part,
        domain::{Email, TaxId},
    };

    #[test]
    fn crypto_06_an_index_is_of_a_value_in_a_column_of_a_tenant() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let keys = IndexKeys::from_text(&[part(2, 64), part(1, 0)].join(",")).unwrap();
        let email = |text: &str| text.parse::<Email>().unwrap();
        let tax_id = |text: &str| text.parse::<TaxId>().unwrap();
        let someone = keys.index(one, &email("Someone@example.com"));
        assert_eq!(someone, keys.index(one, &email("someone@EXAMPLE.com")));
        assert_ne!(someone, keys.index(two, &email("someone@example.com")));
        assert_ne!(someone, keys.index(one, &email("someone@example.co")));
        assert_eq!(keys.index(one, &tax_id("de-12 3".replace(' ', "").as_str())), keys.index(one, &tax_id("DE123")));
        assert_eq!(someone.bytes().len(), 18);
        assert_eq!(someone.bytes()[..2], [0, 2]);
        // With each key it is another; the first is the one new rows get.
        let candidates = keys.candidates(one, &email("someone@example.com"));
        assert_eq!(candidates[0], someone.bytes());
        assert_eq!(candidates[1][..2], [0, 1]);
        assert_ne!(candidates[0][2..], candidates[1][2..]);
        // The same text in another column is another thing.
        let number = tax_id("AB-1");
        assert_ne!(keys.index(one, &number), keys.index(one, &Else(number)));
        let (begin, end) = BlindIndex::range(2).unwrap();
        assert!(begin.as_slice() < someone.bytes() && someone.bytes() < end.as_slice() && end == [0, 3]);
        assert!(vec![0xff; 18] < BlindIndex::range(0xffff).unwrap().1 && BlindIndex::range(0x1_0000).is_none());
    }

    /// A tax identifier in another column.
    struct Else(TaxId);

    impl Sealable for Else {
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

    impl Indexed for Else {
        fn normal(&self) -> Zeroizing<String> {
            self.0.normal()
        }
    }

    #[test]
    fn crypto_06_a_key_that_rows_have_must_be_there_and_be_the_same() {
        let keys = IndexKeys::from_text(&[part(2, 64), part(1, 0)].join(",")).unwrap();
        let old = IndexKeys::from_text(&part(1, 0)).unwrap();
        assert_eq!(keys.check(2, &keys.check_value()), Ok(()));
        assert_eq!(keys.check(1, &old.check_value()), Ok(()));
        assert_eq!(old.check(2, &keys.check_value()), Err(IndexKeyError::Missing(2)));
        assert_eq!(keys.check(1, &keys.check_value()), Err(IndexKeyError::Wrong(1)));
    }
}
