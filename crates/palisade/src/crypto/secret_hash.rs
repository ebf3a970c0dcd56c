//! Hashes of API key secrets: argon2id with a salt and a pepper (AUTHN-12).
//!
//! In: the secret of an API key. Out: a hash in PHC string format for the database. The pepper is a
//! key that no database holds, so a dump alone allows no guessing. [`crate::authn`] calls it on the
//! threads of its hash pool, because one hash takes about 20 ms of processor time.

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version,
    password_hash::{Error, phc::PasswordHash},
};
use secrecy::{ExposeSecret, SecretSlice};
use thiserror::Error as ThisError;

use super::{InvalidKeyText, key_bytes, random};

/// Memory of one hash, in KiB. OWASP Password Storage Cheat Sheet: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// The key of argon2id hashes (RFC 9106 section 3.1: secret value K). No database holds it.
#[derive(Clone, Debug)]
pub struct Pepper(std::sync::Arc<SecretSlice<u8>>);

/// Hashing failed, or a stored hash is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[error("a secret cannot be hashed, or a stored hash is malformed")]
pub struct SecretHashError;

impl Pepper {
    /// Parses 32 random bytes in base64.
    pub fn from_base64(text: &str) -> Result<Self, InvalidKeyText> {
        Ok(Self(std::sync::Arc::new(key_bytes(text)?.to_vec().into())))
    }

    /// Hashes a secret with a new random salt. Returns a PHC string.
    ///
    /// Blocks the thread for about 20 ms; do not call it on a thread of the async runtime.
    pub fn hash(&self, secret: &str) -> Result<String, SecretHashError> {
        let salt: [u8; 16] = random().map_err(|_| SecretHashError)?;
        let hash: PasswordHash =
            self.argon2()?.hash_password_with_salt(secret.as_bytes(), &salt).map_err(|_| SecretHashError)?;
        Ok(hash.to_string())
    }

    /// Whether the hash was made from this secret. Takes as long as [`hash`](Self::hash).
    pub fn verify(&self, secret: &str, hash: &str) -> Result<bool, SecretHashError> {
        match self.argon2()?.verify_password(secret.as_bytes(), hash) {
            Ok(()) => Ok(true),
            Err(Error::PasswordInvalid) => Ok(false),
            Err(_) => Err(SecretHashError),
        }
    }

    fn argon2(&self) -> Result<Argon2<'_>, SecretHashError> {
        let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| SecretHashError)?;
        Argon2::new_with_secret(self.0.expose_secret(), Algorithm::Argon2id, Version::V0x13, params)
            .map_err(|_| SecretHashError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authn_12_hash_is_argon2id_with_salt_and_pepper() {
        let pepper = Pepper::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let other = Pepper::from_base64("Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=").unwrap();
        let hash = pepper.hash("secret").unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, pepper.hash("secret").unwrap());
        assert_eq!(pepper.verify("secret", &hash), Ok(true));
        assert_eq!(pepper.verify("Secret", &hash), Ok(false));
        assert_eq!(other.verify("secret", &hash), Ok(false));
        assert_eq!(pepper.verify("secret", "secret"), Err(SecretHashError));
    }
}
