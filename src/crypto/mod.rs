//! Keys and what is done with them. All primitives are aws-lc's; nothing here invents one.

mod mac;

pub use mac::{MacKey, MacKeyError};

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
