use std::borrow::Cow;

use uuid::Uuid;
use zeroize::Zeroizing;

use super::{KeysetError, MacKey, RowKey, SealError, Sealable, Sealed, keyset};

/// Bytes of the HMAC that are kept. Two values of a tenant collide once in 2^64.
const KEPT: usize = 16;

/// A sealed field that can be found by its whole value.
pub trait Indexed: Sealable {
    /// The text that is the same for values which mean the same.
    fn normal(&self) -> Cow<'_, str>;
}

/// Keys of blind indexes by version, used for nothing else (CRYPTO-06).
///
/// An index is equal for equal values of a column in a tenant, and only there. Whoever reads the database sees which rows
/// have the same value and how often, and learns no value without the key; docs/keys.md says more.
#[derive(Debug)]
pub struct IndexKeys(Vec<(u16, MacKey)>);

/// What stands for a value in an index: the key's version, and a part of the HMAC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlindIndex(Vec<u8>);

impl IndexKeys {
    /// Reads `2:<key>,1:<key>`; new indexes are made with the first, and found with all.
    pub fn from_text(text: &str) -> Result<Self, KeysetError> {
        let key = |(version, bytes): (u16, Zeroizing<[u8; 32]>)| (version, MacKey::new(&bytes));
        Ok(Self(keyset::parse(text)?.into_iter().map(key).collect()))
    }

    /// The index of a value, with the first key.
    #[must_use]
    pub fn index<T: Indexed>(&self, tenant: Uuid, value: &T) -> BlindIndex {
        self.0.first().map_or_else(|| BlindIndex(Vec::new()), |(version, key)| index(*version, key, tenant, value))
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
        self.0.iter().map(|(version, key)| index(*version, key, tenant, value).0).collect()
    }

    /// What indexes of the first key begin with.
    pub(crate) fn primary(&self) -> [u8; 2] {
        self.0.first().map_or([0; 2], |(version, _)| version.to_be_bytes())
    }
}

impl BlindIndex {
    /// What the column holds.
    pub(crate) fn from_stored(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Which key made it, and a text that is after all that this key makes and before all that later ones make.
    pub(crate) fn key_and_end(&self) -> (i32, Vec<u8>) {
        let version = self.0.iter().take(2).fold(0, |version, byte| version << 8 | i32::from(*byte));
        // After the last version there is none.
        let end = u16::try_from(version + 1).map_or_else(|_| vec![0xff; 19], |next| next.to_be_bytes().to_vec());
        (version, end)
    }

    /// For the column.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
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
        let (version, end) = someone.key_and_end();
        assert!(version == 2 && someone.bytes() < end.as_slice() && end == [0, 3]);
        let last = BlindIndex([vec![0xff; 18]].concat());
        assert!(last.key_and_end().0 == 0xffff && last.bytes() < last.key_and_end().1.as_slice());
    }
}
