//! Keys and what is done with them. All primitives are aws-lc's; nothing here invents one.
//!
//! Sealed fields have three layers of keys: [`MasterKeys`] wrap a [`DataKey`] for each tenant, that wraps a [`RowKey`] for
//! each row, and that seals fields. Each wrapping and each field is bound to its place ([`Sealed`]).

mod base62;
mod blind_index;
mod data_key;
mod digest;
mod envelope;
mod keyset;
mod mac;
mod master;
mod master_keyset;
mod sealed;
mod sealing;
mod secret_hash;
mod transit;

pub use base62::{BASE62_CHARS, base62, from_base62};
pub use blind_index::{BlindIndex, IndexKeyError, IndexKeys, Indexed};
pub use data_key::{DataKey, RowKey};
pub use digest::Digested;
pub use envelope::{Envelope, EnvelopeError, Identity, Recipient};
pub use keyset::KeysetError;
pub use mac::MacKey;
pub use master::{MasterKeyError, MasterKeys, WrappedDataKey};
pub use master_keyset::MasterKeyset;
pub use sealed::{Sealable, Sealed};
pub use sealing::SealError;
pub use secret_hash::{Pepper, SecretHashError};

use std::fmt::Write as _;

use aws_lc_rs::{
    digest::{SHA256, digest as digest_of},
    rand::{SecureRandom, SystemRandom},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 32 random bytes in base64 (`openssl rand -base64 32` makes them)")]
pub struct KeyTextError;

/// The 32 bytes of a key in base64. Refuses keys that cannot be random: fewer than 16 different bytes.
fn key_bytes(text: &str) -> Result<[u8; 32], KeyTextError> {
    let bytes = STANDARD.decode(text.trim()).map_err(|_| KeyTextError)?;
    let different = bytes.iter().collect::<std::collections::BTreeSet<_>>().len();
    if different < 16 {
        return Err(KeyTextError);
    }
    bytes.try_into().map_err(|_| KeyTextError)
}

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest_of(&SHA256, bytes).as_ref());
    out
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The operating system's generator gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system's random generator failed")]
pub struct RandomError;

/// `N` bytes from the operating system's generator.
pub fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut out = [0; N];
    SystemRandom::new().fill(&mut out).map_err(|_| RandomError)?;
    Ok(out)
}
