use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use uuid::Uuid;
use zeroize::Zeroizing;

/// The only stored form there is: this byte, the nonce, the ciphertext, the tag.
const FORMAT: u8 = 1;
/// Bytes of a GCM tag.
const TAG: usize = 16;

/// Nothing could be sealed, or what is stored does not open: with another key, in another place, or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sealed data cannot be made or opened")]
pub struct SealError;

/// Where something sealed belongs. It opens nowhere else (CRYPTO-03).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Whose it is.
    pub(super) tenant: Uuid,
    /// In which table.
    pub(super) table: &'static str,
    /// In which column.
    pub(super) column: &'static str,
    /// In which row.
    pub(super) row: Uuid,
    /// Under which data key of the tenant.
    pub(super) version: i32,
}

impl Place {
    /// What the tag covers beside the ciphertext. Everything but the last has a length of its own, so no two places
    /// give the same bytes.
    pub(super) fn associated_data(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        bytes.push(FORMAT);
        bytes.extend_from_slice(self.tenant.as_bytes());
        bytes.extend_from_slice(self.row.as_bytes());
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes.extend_from_slice(&(self.table.len() as u64).to_be_bytes());
        bytes.extend_from_slice(self.table.as_bytes());
        bytes.extend_from_slice(self.column.as_bytes());
        bytes
    }
}

/// A key for AES-256-GCM (NIST SP 800-38D) with random nonces, of which one key may see 2^32: customers' keys see a few
/// dozen, data and master keys one for each key they wrap. aws-lc wipes it when it is dropped.
pub(super) struct SealingKey(RandomizedNonceKey);

impl SealingKey {
    pub(super) fn new(bytes: &[u8; 32]) -> Result<Self, SealError> {
        RandomizedNonceKey::new(&AES_256_GCM, bytes).map(Self).map_err(|_| SealError)
    }

    pub(super) fn seal(&self, place: &Place, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let head = 1 + NONCE_LEN;
        // One allocation, sealed where it lies: no copy of the plain text stays behind.
        let mut sealed = Vec::with_capacity(head + plain.len() + TAG);
        sealed.push(FORMAT);
        sealed.resize(head, 0);
        sealed.extend_from_slice(plain);
        let (before, text) = sealed.split_at_mut(head);
        let aad = Aad::from(place.associated_data());
        let (nonce, tag) = self.0.seal_in_place_separate_tag(aad, text).map_err(|_| SealError)?;
        before.get_mut(1..).ok_or(SealError)?.copy_from_slice(nonce.as_ref());
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    pub(super) fn open(&self, place: &Place, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (format, rest) = sealed.split_first().ok_or(SealError)?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(SealError)?;
        if *format != FORMAT {
            return Err(SealError);
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError)?;
        let mut opened = Zeroizing::new(text.to_vec());
        let aad = Aad::from(place.associated_data());
        let plain = self.0.open_in_place(nonce, aad, &mut opened).map_err(|_| SealError)?.len();
        opened.truncate(plain);
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place =
        Place { tenant: Uuid::from_u128(1), table: "customers", column: "email", row: Uuid::from_u128(2), version: 3 };

    fn key(byte: u8) -> SealingKey {
        SealingKey::new(&[byte; 32]).unwrap()
    }

    #[test]
    fn crypto_03_what_is_sealed_opens_in_its_place_only() {
        let sealed = key(1).seal(&PLACE, b"someone@example.com").unwrap();
        assert_eq!(key(1).open(&PLACE, &sealed).unwrap().as_slice(), b"someone@example.com");
        let elsewhere = [
            Place { tenant: Uuid::from_u128(2), ..PLACE },
            Place { table: "orders", ..PLACE },
            Place { column: "phone", ..PLACE },
            // The same letters, cut elsewhere.
            Place { table: "customer", column: "semail", ..PLACE },
            Place { row: Uuid::from_u128(3), ..PLACE },
            Place { tenant: PLACE.row, row: PLACE.tenant, ..PLACE },
            Place { version: 4, ..PLACE },
        ];
        for place in elsewhere {
            assert_eq!(key(1).open(&place, &sealed), Err(SealError), "{place:?}");
        }
        assert_eq!(key(2).open(&PLACE, &sealed), Err(SealError));
    }

    #[test]
    fn crypto_03_no_bit_of_what_is_sealed_can_change() {
        let sealed = key(1).seal(&PLACE, b"x").unwrap();
        assert_eq!(sealed.len(), 1 + 12 + 1 + 16);
        for at in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert_eq!(key(1).open(&PLACE, &changed), Err(SealError), "bit {at}");
        }
        for length in 0..sealed.len() {
            assert_eq!(key(1).open(&PLACE, &sealed[..length]), Err(SealError), "{length} bytes");
        }
    }

    #[test]
    fn crypto_02_the_same_text_is_never_sealed_to_the_same_bytes() {
        let seal = || key(1).seal(&PLACE, b"the same").unwrap();
        let sealed: std::collections::BTreeSet<_> = (0..100).map(|_| seal()).collect();
        assert_eq!(sealed.len(), 100);
    }
}
