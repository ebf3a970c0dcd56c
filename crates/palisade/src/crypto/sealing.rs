//! Authenticated encryption of fields and keys: AES-256-GCM with associated data (CRYPTO-03).
//!
//! In: plain text and the [`AeadContext`] that it belongs to. Out: one byte of format, 12 bytes of
//! nonce, the ciphertext and 16 bytes of tag. A ciphertext that was changed, or moved to another
//! tenant, table, column, row or key version, does not decrypt. Every layer of keys uses it.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use uuid::Uuid;
use zeroize::Zeroizing;

/// Version of the stored format, its first byte. There is only this one.
const FORMAT: u8 = 1;
/// Bytes of a GCM tag.
const TAG_LEN: usize = 16;

/// Encryption failed, or a ciphertext does not decrypt: wrong key, wrong context, or changed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sealed data cannot be encrypted or decrypted; see the event `sealed_data_invalid`")]
pub struct SealError;

/// The associated data of a ciphertext: the only place in the database where it decrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AeadContext {
    /// The tenant that owns the row.
    pub(super) tenant: Uuid,
    /// The table.
    pub(super) table: &'static str,
    /// The column.
    pub(super) column: &'static str,
    /// The row.
    pub(super) row: Uuid,
    /// The version of the tenant's data key.
    pub(super) version: i32,
}

impl AeadContext {
    /// Encodes the context unambiguously: every field but the last has a fixed length or a length
    /// prefix.
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

/// A key for AES-256-GCM (NIST SP 800-38D) with random nonces.
///
/// One key may encrypt 2^32 messages (section 8.3). A row key encrypts a few dozen, a data key or
/// master key one per key that it wraps. aws-lc wipes the key when it is dropped.
pub(super) struct SealingKey(RandomizedNonceKey);

/// `RandomizedNonceKey` has none.
impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey(…)")
    }
}

impl SealingKey {
    pub(super) fn new(bytes: &[u8; 32]) -> Result<Self, SealError> {
        RandomizedNonceKey::new(&AES_256_GCM, bytes).map(Self).map_err(|_| SealError)
    }

    pub(super) fn seal(&self, context: &AeadContext, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let header_len = 1 + NONCE_LEN;
        // One allocation, encrypted in place: no copy of the plain text stays in memory.
        let mut sealed = Vec::with_capacity(header_len + plain.len() + TAG_LEN);
        sealed.push(FORMAT);
        sealed.resize(header_len, 0);
        sealed.extend_from_slice(plain);
        let (header, text) = sealed.split_at_mut(header_len);
        let aad = Aad::from(context.associated_data());
        let (nonce, tag) = self.0.seal_in_place_separate_tag(aad, text).map_err(|_| SealError)?;
        header.get_mut(1..).ok_or(SealError)?.copy_from_slice(nonce.as_ref());
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    pub(super) fn open(&self, context: &AeadContext, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (format, rest) = sealed.split_first().ok_or(SealError)?;
        let (nonce, ciphertext) = rest.split_at_checked(NONCE_LEN).ok_or(SealError)?;
        if *format != FORMAT {
            return Err(SealError);
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError)?;
        let mut opened = Zeroizing::new(ciphertext.to_vec());
        let aad = Aad::from(context.associated_data());
        let plain_len = self.0.open_in_place(nonce, aad, &mut opened).map_err(|_| SealError)?.len();
        opened.truncate(plain_len);
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: AeadContext = AeadContext {
        tenant: Uuid::from_u128(1),
        table: "customers",
        column: "email",
        row: Uuid::from_u128(2),
        version: 3,
    };

    fn key(byte: u8) -> SealingKey {
        SealingKey::new(&[byte; 32]).unwrap()
    }

    #[test]
    fn crypto_03_ciphertext_decrypts_in_its_own_context_only() {
        let sealed = key(1).seal(&CONTEXT, b"someone@example.com").unwrap();
        assert_eq!(key(1).open(&CONTEXT, &sealed).unwrap().as_slice(), b"someone@example.com");
        let other_contexts = [
            AeadContext { tenant: Uuid::from_u128(2), ..CONTEXT },
            AeadContext { table: "orders", ..CONTEXT },
            AeadContext { column: "phone", ..CONTEXT },
            // The same bytes, split between table and column at another position.
            AeadContext { table: "customer", column: "semail", ..CONTEXT },
            AeadContext { row: Uuid::from_u128(3), ..CONTEXT },
            AeadContext { tenant: CONTEXT.row, row: CONTEXT.tenant, ..CONTEXT },
            AeadContext { version: 4, ..CONTEXT },
        ];
        for context in other_contexts {
            assert_eq!(key(1).open(&context, &sealed), Err(SealError), "{context:?}");
        }
        assert_eq!(key(2).open(&CONTEXT, &sealed), Err(SealError));
    }

    #[test]
    fn crypto_03_ciphertext_with_a_changed_bit_is_rejected() {
        let sealed = key(1).seal(&CONTEXT, b"x").unwrap();
        assert_eq!(sealed.len(), 1 + 12 + 1 + 16);
        for at in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert_eq!(key(1).open(&CONTEXT, &changed), Err(SealError), "bit {at}");
        }
        for length in 0..sealed.len() {
            assert_eq!(key(1).open(&CONTEXT, &sealed[..length]), Err(SealError), "{length} bytes");
        }
    }

    #[test]
    fn crypto_02_equal_texts_have_different_ciphertexts() {
        let seal = || key(1).seal(&CONTEXT, b"the same").unwrap();
        let sealed: std::collections::BTreeSet<_> = (0..100).map(|_| seal()).collect();
        assert_eq!(sealed.len(), 100);
    }
}
