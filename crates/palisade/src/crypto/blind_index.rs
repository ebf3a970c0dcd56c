//! Blind indexes: exact search on sealed fields by a keyed hash (CRYPTO-06).
//!
//! An index is a truncated HMAC-SHA-256 of tenant, column and value. Equal values of a column have
//! equal indexes within a tenant, and nowhere else. A reader of the database sees which rows share a
//! value, and learns no value without the key; docs/keys.md lists what remains visible. Search,
//! creation, change and key rotation in [`crate::store`] use it, and store the version of the index
//! key beside the key of the row.

use std::convert::Infallible;

use uuid::Uuid;
use zeroize::Zeroizing;

use super::{InvalidKeyText, MacKey, RowKey, SealError, Sealable, Sealed, keyset::Keyset};

/// Bytes of the HMAC that are kept. Two of 2^32 values of a tenant collide with probability 2^-65.
const TRUNCATED_LEN: usize = 16;

/// A sealed field that can be searched by its whole value.
pub trait Indexed: Sealable {
    /// Characters that do not count: values that differ in these only are equal.
    const IGNORED: &'static [char] = &[];
}

/// The text that is hashed: the plain text without the ignored characters.
pub(crate) fn normalize(plain: &str, ignored: &[char]) -> Zeroizing<String> {
    // The capacity is that of the text, so that it does not grow and leave a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(plain.len()));
    text.extend(plain.chars().filter(|c| !ignored.contains(c)));
    text
}

/// The index keys by version. They are used for blind indexes only.
#[derive(Debug)]
pub struct IndexKeys(Keyset<MacKey>);

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

/// An entry of a blind index, as the column stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlindIndex(Vec<u8>);

impl IndexKeys {
    internal! {
        /// Parses `2:<key>,1:<key>`. The first key is the primary one: it indexes new values. All keys
        /// are used to search.
        pub fn from_text(text: &str) -> Result<Self, InvalidKeyText> {
            Keyset::parse(text, |bytes| Ok::<_, Infallible>(MacKey::new(bytes))).map(Self)
        }
    }

    /// Computes the index of a value with the primary key.
    #[must_use]
    pub fn index<T: Indexed>(&self, tenant: Uuid, value: &T) -> BlindIndex {
        index(&self.0.primary.1, tenant, value)
    }

    /// Computes the index of a column's plain text with the primary key.
    pub(crate) fn index_text(&self, tenant: Uuid, column: (&str, &str), plain: &str, ignored: &[char]) -> BlindIndex {
        index_text(&self.0.primary.1, tenant, column, &normalize(plain, ignored))
    }

    /// Computes the index of a sealed value. The plain text does not leave this function.
    ///
    /// # Errors
    /// The value does not open.
    pub fn index_sealed<T: Indexed>(
        &self,
        tenant: Uuid,
        value: &Sealed<T>,
        key: &RowKey,
    ) -> Result<BlindIndex, SealError> {
        value.read(key, |plain| index_plain::<T>(&self.0.primary.1, tenant, plain))
    }

    /// Computes the index of a value with each key. A stored value has one of them.
    #[must_use]
    pub fn candidates<T: Indexed>(&self, tenant: Uuid, value: &T) -> Vec<Vec<u8>> {
        self.0.all().map(|(_, key)| index(key, tenant, value).0).collect()
    }

    /// The version of the primary key.
    #[must_use]
    pub fn primary(&self) -> u16 {
        self.0.primary.0
    }

    /// The check value of the primary key. It identifies the key without revealing it.
    pub(crate) fn check_value(&self) -> Vec<u8> {
        check_value(&self.0.primary.1)
    }

    /// Checks that the key of this version is configured and has this check value.
    pub(crate) fn check(&self, version: i32, expected: &[u8]) -> Result<(), IndexKeyError> {
        let mut keys = self.0.all();
        let (_, key) = keys.find(|key| i32::from(key.0) == version).ok_or(IndexKeyError::Missing(version))?;
        if check_value(key) == expected { Ok(()) } else { Err(IndexKeyError::Mismatch(version)) }
    }
}

impl BlindIndex {
    /// Wraps the bytes of the column.
    #[must_use]
    pub fn from_stored(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes for the column.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

fn check_value(key: &MacKey) -> Vec<u8> {
    key.tag("check of an index key", b"").into_iter().take(TRUNCATED_LEN).collect()
}

fn index<T: Indexed>(key: &MacKey, tenant: Uuid, value: &T) -> BlindIndex {
    index_plain::<T>(key, tenant, value.__text())
}

fn index_plain<T: Indexed>(key: &MacKey, tenant: Uuid, plain: &str) -> BlindIndex {
    index_text(key, tenant, (T::TABLE, T::COLUMN), &normalize(plain, T::IGNORED))
}

fn index_text(key: &MacKey, tenant: Uuid, (table, column): (&str, &str), normalized: &str) -> BlindIndex {
    let context = format!("index {table}.{column}");
    let message = Zeroizing::new([tenant.as_bytes(), normalized.as_bytes()].concat());
    BlindIndex(key.tag(&context, &message).into_iter().take(TRUNCATED_LEN).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{crypto::master::tests::part, model::PersonalData};

    #[test]
    fn crypto_06_index_depends_on_key_tenant_column_and_value() {
        let tenant = Uuid::from_u128(1);
        let keys = IndexKeys::from_text(&[part(2, 64), part(1, 0)].join(",")).unwrap();
        let mail = |text: &str| Mail(text.to_owned());
        let number = |text: &str| Number(text.to_owned());
        let index = keys.index(tenant, &mail("someone@example.com"));
        assert_eq!(index, keys.index(tenant, &mail("someone@example.com")));
        assert_ne!(index, keys.index(Uuid::from_u128(2), &mail("someone@example.com")));
        assert_ne!(index, keys.index(tenant, &mail("someone@example.co")));
        assert_eq!(keys.index(tenant, &number("DE-1-23")), keys.index(tenant, &number("DE123")));
        assert_eq!(index.bytes().len(), TRUNCATED_LEN);
        // Each key makes another index. The first candidate is the one that new rows get.
        let candidates = keys.candidates(tenant, &mail("someone@example.com"));
        assert_eq!(candidates[0], index.bytes());
        assert_ne!(candidates[0], candidates[1]);
        // The same text in another column has another index.
        assert_ne!(keys.index(tenant, &number("AB-1")), keys.index(tenant, &OtherColumn("AB-1".to_owned())));
    }

    /// Defines a type of the table `persons`, indexed without the ignored characters.
    macro_rules! indexed {
        ($($name:ident in $column:literal without $ignored:expr;)+) => {$(
            struct $name(String);

            impl PersonalData for $name {
                fn __text(&self) -> &str {
                    &self.0
                }

                fn __from_stored(text: String) -> Self {
                    Self(text)
                }
            }

            impl Sealable for $name {
                const TABLE: &'static str = "persons";
                const COLUMN: &'static str = $column;
            }

            impl Indexed for $name {
                const IGNORED: &'static [char] = $ignored;
            }
        )+};
    }

    indexed! {
        Mail in "mail" without &[];
        Number in "number" without &['-'];
        OtherColumn in "mail" without &['-'];
    }
}
