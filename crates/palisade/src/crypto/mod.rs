//! Keys and cryptography. All primitives come from aws-lc, argon2 and age; none is defined here.
//!
//! Sealed fields use envelope encryption with three layers of keys: [`MasterKeys`] wrap a
//! [`DataKey`] per tenant, a data key wraps a [`RowKey`] per row, and a row key encrypts fields
//! ([`Sealed`]). Each ciphertext is bound to its tenant, table, column, row and key version. Blind
//! indexes ([`IndexKeys`]), MACs, secret hashes and age files have keys of their own.

#[cfg(any(feature = "backup", feature = "exports"))]
mod age_file;
mod base62;
mod blind_index;
mod config;
mod data_key;
mod keyset;
mod mac;
mod master;
mod master_keyset;
mod sealed;
mod sealing;
#[cfg_attr(not(feature = "api_keys"), path = "without_api_keys.rs")]
mod secret_hash;
mod sha256_writer;
#[cfg(feature = "sessions")]
mod token_key;
#[cfg_attr(not(feature = "vault"), path = "without_vault.rs")]
mod transit;

pub use blind_index::{BlindIndex, IndexKeys, Indexed};
pub use data_key::{DataKey, RowKey};
#[cfg(feature = "exports")]
pub(crate) use sealed::open_column;
pub(crate) use sealed::reseal;
pub use sealed::{Sealable, Sealed};
pub use sealing::SealError;

pub use crate::model::PersonalDataAccess;

#[cfg(any(feature = "backup", feature = "exports"))]
internal! { pub use age_file::{AgeEncryptor, AgeError, Identities, Recipient}; }
internal! { pub use base62::{BASE62_CHARS, base62, from_base62}; }
internal! { pub use blind_index::IndexKeyError; }
internal! { pub use config::{KeyProvider, MasterKeySettings, VaultSettings}; }
internal! { pub use mac::MacKey; }
#[cfg(feature = "sessions")]
pub(crate) use token_key::TokenKey;
internal! { pub use master::{MasterKeyError, MasterKeys, WrappedDataKey}; }
internal! { pub use master_keyset::MasterKeyset; }
internal! { pub use secret_hash::{Pepper, SecretHashError}; }
internal! { pub use sha256_writer::Sha256Writer; }

use std::fmt::Write as _;

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

/// The text is not a valid key or keyset. Says what is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidKeyText(&'static str);

const NOT_RANDOM: InvalidKeyText =
    InvalidKeyText("expected 32 random bytes in base64; create them with `openssl rand -base64 32`");

/// Parses a key of 32 bytes in base64. Rejects keys with fewer than 16 different bytes: they are
/// not random. Every copy that is made here is wiped.
fn key_bytes(text: &str) -> Result<Zeroizing<[u8; 32]>, InvalidKeyText> {
    // The decoder writes groups of three bytes, so it needs room for one more byte.
    let mut decoded = Zeroizing::new([0; 33]);
    let length = STANDARD.decode_slice(text.trim(), decoded.as_mut_slice()).map_err(|_| NOT_RANDOM)?;
    let bytes: &[u8; 32] = decoded.get(..length).and_then(|bytes| bytes.try_into().ok()).ok_or(NOT_RANDOM)?;
    let different = bytes.iter().collect::<std::collections::BTreeSet<_>>().len();
    if different < 16 {
        return Err(NOT_RANDOM);
    }
    Ok(Zeroizing::new(*bytes))
}

/// Computes the SHA-256 digest of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// Encodes bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Decodes hexadecimal digits, two for each byte.
#[cfg(feature = "exports")]
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2));
    digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

/// The random generator of the operating system failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system's random generator failed")]
pub struct RandomError;

/// Reads `N` bytes from the random generator of the operating system.
pub fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut out = [0; N];
    rand::fill(&mut out).map_err(|_| RandomError)?;
    Ok(out)
}
