//! The issuer's public keys (RFC 7517), each bound to the algorithms it may be used with.

use std::collections::{HashMap, HashSet};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::{Deserialize, de::IgnoredAny};
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
pub(super) enum KeySetError {
    /// Not a JWK set.
    #[error("not a JSON Web Key Set")]
    Malformed,
    /// Two keys with one id: which one signed could not be told.
    #[error("two keys have the same id")]
    DuplicateKeyId,
    /// A symmetric or private key, which has no place in a public document: whoever made it cannot be trusted
    /// with the rest either.
    #[error("a key that must not be public")]
    SecretKey,
    /// A key for something that RFC 7517 section 4.2 does not know.
    #[error("a key of unknown use")]
    UnknownUse,
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
    d: Option<IgnoredAny>,
    k: Option<IgnoredAny>,
    key_ops: Option<Vec<String>>,
}

impl KeySet {
    /// Reads a JWK set. Keys without an id, for encryption, too short, or of other kinds are left out; a set with
    /// a key that should not be in any is refused as a whole.
    pub(super) fn parse(json: &[u8], generation: u64) -> Result<Self, KeySetError> {
        let raw: RawSet = serde_json::from_slice(json).map_err(|_| KeySetError::Malformed)?;
        if raw.keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        let mut keys = HashMap::new();
        let mut ids = HashSet::new();
        for raw in raw.keys {
            raw.check()?;
            // Whatever it is for: that one id names two keys is enough.
            if raw.kid.as_ref().is_some_and(|kid| !ids.insert(kid.clone())) {
                return Err(KeySetError::DuplicateKeyId);
            }
            keys.extend(raw.usable());
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

    pub(super) fn same_document(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl RawKey {
    /// Whether it may be in a public set at all.
    fn check(&self) -> Result<(), KeySetError> {
        if self.kty == "oct" || self.d.is_some() || self.k.is_some() {
            return Err(KeySetError::SecretKey);
        }
        match self.r#use.as_deref() {
            None | Some("sig" | "enc") => Ok(()),
            Some(_) => Err(KeySetError::UnknownUse),
        }
    }

    fn usable(self) -> Option<(String, Key)> {
        let verifies = self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if self.r#use.as_deref() == Some("enc") || !verifies {
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
            // Not on the allowlist.
            _ => return None,
        };
        if let Some(alg) = &self.alg {
            algorithms.retain(|allowed| alg.parse() == Ok(*allowed));
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
        // Leading zeros, of bytes and of bits, make no key longer.
        let of = |modulus: &[u8]| {
            let n = URL_SAFE_NO_PAD.encode(modulus);
            parse(&format!(r#"{{"kty":"RSA","kid":"r","n":"{n}","e":"AQAB"}}"#)).map(|_| ())
        };
        assert_eq!(of(&[&[0; 8], [0xff; 255].as_slice()].concat()), Err(KeySetError::NoUsableKey));
        assert_eq!(of(&[&[0x7f], [0xff; 255].as_slice()].concat()), Err(KeySetError::NoUsableKey));
        assert_eq!(of(&[&[0, 0x80], [0xff; 255].as_slice()].concat()), Ok(()));
    }

    #[test]
    fn keys_for_something_else_are_left_out() {
        for key in [
            format!(r#"{{{EC},"kid":"e","use":"enc"}}"#),
            format!(r#"{{{EC},"kid":"h","alg":"HS256"}}"#),
            format!(r#"{{{EC},"kid":"d","key_ops":["deriveKey"]}}"#),
            r#"{"kty":"EC","crv":"P-384","x":"AA","y":"AA","kid":"p"}"#.to_owned(),
            r#"{"kty":"OKP","crv":"X25519","x":"AA","kid":"x"}"#.to_owned(),
            format!("{{{EC}}}"),
        ] {
            assert_eq!(parse(&key).map(|_| ()), Err(KeySetError::NoUsableKey), "{key}");
            let set = parse(&format!(r#"{key},{{{EC},"kid":"good"}}"#)).unwrap();
            assert_eq!(set.keys.len(), 1, "{key}");
        }
        let verifies = format!(r#"{{{EC},"kid":"v","use":"sig","key_ops":["sign","verify"],"alg":"ES256"}}"#);
        assert!(parse(&verifies).unwrap().contains("v"));
    }

    #[test]
    fn authn_09_a_set_with_a_key_that_must_not_be_in_it_is_refused_whole() {
        let good = format!(r#"{{{EC},"kid":"good"}}"#);
        for (key, error) in [
            (r#"{"kty":"oct","kid":"o","k":"AAAA"}"#.to_owned(), KeySetError::SecretKey),
            (format!(r#"{{{EC},"kid":"p","d":"AAAA"}}"#), KeySetError::SecretKey),
            (format!(r#"{{{EC},"kid":"k","k":"AAAA"}}"#), KeySetError::SecretKey),
            (format!(r#"{{{EC},"kid":"u","use":"tls"}}"#), KeySetError::UnknownUse),
            (good.clone(), KeySetError::DuplicateKeyId),
            (format!(r#"{{{EC},"kid":"good","use":"enc"}}"#), KeySetError::DuplicateKeyId),
            (format!(r#"{{{EC},"kid":"a","kid":"b"}}"#), KeySetError::Malformed),
        ] {
            assert_eq!(parse(&format!("{good},{key}")).map(|_| ()), Err(error), "{key}");
        }
        let many: Vec<String> = (0..65).map(|n| format!(r#"{{{EC},"kid":"{n}"}}"#)).collect();
        assert_eq!(parse(&many.join(",")).map(|_| ()), Err(KeySetError::TooMany));
        assert!(parse(&many[..64].join(",")).is_ok());
    }

    #[test]
    fn a_set_is_told_from_another_and_named_by_its_ids() {
        let set = |kid: &str| parse(&format!(r#"{{{EC},"kid":"{kid}"}}"#)).unwrap();
        assert!(set("a").same_document(&set("a")));
        assert!(!set("a").same_document(&set("b")));
        let told = format!("{:?}", set("a"));
        assert!(told.contains("[\"a\"]") && !told.contains("f83OJ3D2"), "{told}");
    }
}
