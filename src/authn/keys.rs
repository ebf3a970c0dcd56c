//! The issuer's public keys (RFC 7517), each bound to the algorithms it may be used with.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use thiserror::Error;

/// Smallest RSA modulus accepted, in bits (RFC 7518 section 3.3).
const MIN_RSA_BITS: usize = 2048;
/// Most keys in a set.
const MAX_KEYS: usize = 64;

/// One public key.
pub(super) struct Key {
    decoding: DecodingKey,
    algorithms: Vec<Algorithm>,
}

impl Key {
    /// Whether the key's own type is for this algorithm: an RSA key never verifies `ES256`, nor an EC key `HS256`.
    pub(super) fn allows(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }
}

/// The keys of an issuer at one time.
pub(super) struct KeySet {
    keys: HashMap<String, Key>,
    /// Digest of the document, to notice a change.
    digest: [u8; 32],
    generation: u64,
}

/// Why a key set cannot be used. The old one stays in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeySetError {
    /// Not a JWK set.
    #[error("not a JSON Web Key Set")]
    Malformed,
    /// Two keys with one id: which one signed could not be told.
    #[error("two keys have the same id")]
    DuplicateKeyId,
    /// No key this API could use.
    #[error("no usable key")]
    NoUsableKey,
    /// More than 64 keys.
    #[error("too many keys")]
    TooMany,
}

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<RawKey>,
}

#[derive(Deserialize)]
struct RawKey {
    kty: String,
    kid: Option<String>,
    r#use: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl KeySet {
    /// Reads a JWK set. Keys without an id, for encryption, or of other kinds are left out.
    pub(super) fn parse(json: &[u8], generation: u64) -> Result<Self, KeySetError> {
        let raw: RawSet = serde_json::from_slice(json).map_err(|_| KeySetError::Malformed)?;
        if raw.keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        let mut keys = HashMap::new();
        for raw in raw.keys {
            let Some((kid, key)) = raw.usable() else { continue };
            if keys.insert(kid, key).is_some() {
                return Err(KeySetError::DuplicateKeyId);
            }
        }
        if keys.is_empty() {
            return Err(KeySetError::NoUsableKey);
        }
        Ok(Self { keys, digest: crate::crypto::sha256(json), generation })
    }

    pub(super) fn get(&self, kid: &str) -> Option<&Key> {
        self.keys.get(kid)
    }

    pub(super) fn contains(&self, kid: &str) -> bool {
        self.keys.contains_key(kid)
    }

    /// Changes whenever the issuer's keys do.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn same_keys(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl RawKey {
    fn usable(self) -> Option<(String, Key)> {
        if self.r#use.as_deref().is_some_and(|r#use| r#use != "sig") {
            return None;
        }
        let (decoding, mut algorithms) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("EC", Some("P-256")) => {
                let (x, y) = (self.x.as_deref()?, self.y.as_deref()?);
                (DecodingKey::from_ec_components(x, y).ok()?, vec![Algorithm::ES256])
            }
            ("OKP", Some("Ed25519")) => {
                (DecodingKey::from_ed_components(self.x.as_deref()?).ok()?, vec![Algorithm::EdDSA])
            }
            ("RSA", _) => {
                let (n, e) = (self.n.as_deref()?, self.e.as_deref()?);
                let modulus = URL_SAFE_NO_PAD.decode(n).ok()?;
                if bits(&modulus) < MIN_RSA_BITS {
                    return None;
                }
                (DecodingKey::from_rsa_components(n, e).ok()?, vec![Algorithm::RS256, Algorithm::PS256])
            }
            // Symmetric keys (`oct`) have no place in a public document; other curves are not on the allowlist.
            _ => return None,
        };
        if let Some(alg) = &self.alg {
            algorithms.retain(|allowed| format!("{allowed:?}") == *alg);
        }
        (!algorithms.is_empty()).then_some((self.kid?, Key { decoding, algorithms }))
    }
}

/// Bits of a big-endian number, without its leading zeros.
fn bits(number: &[u8]) -> usize {
    let significant = number.iter().skip_while(|byte| **byte == 0);
    let bytes = significant.clone().count();
    let leading = significant.clone().next().map_or(0, |first| first.leading_zeros() as usize);
    bytes * 8 - leading
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<_> = self.keys.keys().collect();
        f.debug_struct("KeySet").field("ids", &ids).field("generation", &self.generation).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EC: &str = r#""kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;

    fn parse(keys: &str) -> Result<KeySet, KeySetError> {
        KeySet::parse(format!(r#"{{"keys":[{keys}]}}"#).as_bytes(), 0)
    }

    #[test]
    fn authn_03_a_key_is_bound_to_the_algorithm_of_its_type() {
        let set = parse(&format!(r#"{{{EC},"kid":"a"}}"#)).unwrap();
        assert!(set.get("a").unwrap().allows(Algorithm::ES256));
        for other in [Algorithm::RS256, Algorithm::PS256, Algorithm::EdDSA, Algorithm::HS256] {
            assert!(!set.get("a").unwrap().allows(other), "{other:?}");
        }
    }

    #[test]
    fn authn_03_a_short_rsa_key_is_left_out() {
        let rsa = |bytes: usize| {
            let n = URL_SAFE_NO_PAD.encode(vec![0xff; bytes]);
            parse(&format!(r#"{{"kty":"RSA","kid":"r","n":"{n}","e":"AQAB"}}"#)).map(|_| ())
        };
        assert_eq!(rsa(256), Ok(()));
        assert_eq!(rsa(255), Err(KeySetError::NoUsableKey));
    }

    #[test]
    fn symmetric_encryption_and_nameless_keys_are_left_out() {
        for key in [
            r#"{"kty":"oct","kid":"o","k":"AAAA"}"#.to_owned(),
            format!(r#"{{{EC},"kid":"e","use":"enc"}}"#),
            format!(r#"{{{EC},"kid":"h","alg":"HS256"}}"#),
            format!("{{{EC}}}"),
        ] {
            assert_eq!(parse(&key).map(|_| ()), Err(KeySetError::NoUsableKey), "{key}");
        }
    }

    #[test]
    fn a_set_that_names_a_key_twice_is_refused_whole() {
        let key = format!(r#"{{{EC},"kid":"a"}}"#);
        assert_eq!(parse(&format!("{key},{key}")).map(|_| ()), Err(KeySetError::DuplicateKeyId));
    }
}
