//! Keys and what is done with them. All primitives are aws-lc's; nothing here invents one.

mod mac;

pub use mac::{MacKey, MacKeyError};

use std::fmt::Write as _;

use aws_lc_rs::{
    digest,
    rand::{SecureRandom, SystemRandom},
};

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
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
