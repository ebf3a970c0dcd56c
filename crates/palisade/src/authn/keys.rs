//! JSON Web Key Set (JWKS, RFC 7517): parsing, and the algorithms of each key (AUTHN-03, AUTHN-09).
//!
//! [`super::discovery`] parses what it fetched. [`super::verify`] looks a key up by its `kid`.

use std::collections::{HashMap, HashSet};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::{Deserialize, de::IgnoredAny};

/// Minimum size of an RSA modulus, in bits (RFC 7518 section 3.3).
const MIN_RSA_BITS: usize = 2048;
/// Maximum number of keys in a set.
const MAX_KEYS: usize = 64;

/// One public key for signature verification.
pub(super) struct Key {
    decoding: DecodingKey,
    algorithms: Vec<Algorithm>,
    /// The members of the JWK that determine the key (RFC 7638 section 3.2).
    members: [Option<String>; 4],
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (&self.algorithms, &self.members) == (&other.algorithms, &other.members)
    }
}

impl Key {
    /// Whether the key's type fits the algorithm: an RSA key never verifies `ES256`, an EC key
    /// never `HS256`.
    pub(super) fn allows(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }
}

/// The usable keys of one JWKS document. Two sets are equal if they have the same keys under the
/// same ids for the same algorithms: documents may differ in order and format.
#[derive(PartialEq)]
pub(super) struct KeySet {
    keys: HashMap<String, Key>,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
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
    /// Parses a JWKS document.
    ///
    /// Skips keys without an id, encryption keys, short keys and keys of unsupported types. Rejects
    /// the whole set if it has a key that no public set may have. The error is the reason.
    pub(super) fn parse(json: &[u8]) -> Result<Self, &'static str> {
        let set: JwkSet = serde_json::from_slice(json).map_err(|_| "not a JSON Web Key Set")?;
        if set.keys.len() > MAX_KEYS {
            return Err("the key set has more than 64 keys");
        }
        let mut keys = HashMap::new();
        let mut ids = HashSet::new();
        for jwk in set.keys {
            jwk.check_public()?;
            // The signing key would be ambiguous. Unusable keys count too.
            if jwk.kid.as_ref().is_some_and(|kid| !ids.insert(kid.clone())) {
                return Err("two keys have the same id");
            }
            keys.extend(jwk.into_verification_key());
        }
        if keys.is_empty() {
            return Err("the key set has no usable key");
        }
        Ok(Self { keys })
    }

    pub(super) fn get(&self, kid: &str) -> Option<&Key> {
        self.keys.get(kid)
    }

    /// The ids of the keys, for the log.
    pub(super) fn ids(&self) -> String {
        self.keys.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn contains(&self, kid: &str) -> bool {
        self.keys.contains_key(kid)
    }
}

impl Jwk {
    /// Rejects keys that a public set must not contain.
    fn check_public(&self) -> Result<(), &'static str> {
        if self.kty == "oct" || self.d.is_some() || self.k.is_some() {
            return Err("the key set contains a symmetric or private key; the issuer must revoke it");
        }
        match self.r#use.as_deref() {
            // RFC 7517 section 4.2
            None | Some("sig" | "enc") => Ok(()),
            Some(_) => Err("a key has an unknown `use`"),
        }
    }

    /// The key and its id, if it can verify signatures with an allowed algorithm.
    fn into_verification_key(self) -> Option<(String, Key)> {
        let can_verify = self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if self.r#use.as_deref() == Some("enc") || !can_verify {
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
                if bit_length(&modulus) < MIN_RSA_BITS {
                    return None;
                }
                (DecodingKey::from_rsa_components(n, e).ok()?, vec![Algorithm::RS256, Algorithm::PS256])
            }
            // Not on the allowlist of algorithms.
            _ => return None,
        };
        if let Some(alg) = &self.alg {
            algorithms.retain(|allowed| alg.parse() == Ok(*allowed));
        }
        // The algorithms determine the key type and the curve.
        let members = [self.x, self.y, self.n, self.e];
        (!algorithms.is_empty()).then_some((self.kid?, Key { decoding, algorithms, members }))
    }
}

/// Length of a big-endian number in bits, without leading zeros.
fn bit_length(number: &[u8]) -> usize {
    let significant = number.iter().skip_while(|byte| **byte == 0);
    let bytes = significant.clone().count();
    let leading = significant.clone().next().map_or(0, |first| first.leading_zeros() as usize);
    bytes * 8 - leading
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeySet").field("ids", &self.ids()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EC: &str = r#""kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;

    const UNUSABLE: &str = "the key set has no usable key";

    fn parse(keys: &str) -> Result<KeySet, &'static str> {
        KeySet::parse(format!(r#"{{"keys":[{keys}]}}"#).as_bytes())
    }

    #[test]
    fn authn_03_short_rsa_key_is_skipped() {
        let parse_rsa = |modulus: &[u8]| {
            let n = URL_SAFE_NO_PAD.encode(modulus);
            parse(&format!(r#"{{"kty":"RSA","kid":"r","n":"{n}","e":"AQAB"}}"#)).map(|_| ())
        };
        assert_eq!(parse_rsa(&[0xff; 256]), Ok(()));
        assert_eq!(parse_rsa(&[0xff; 255]), Err(UNUSABLE));
        // Leading zero bytes and zero bits do not count.
        assert_eq!(parse_rsa(&[&[0; 8], [0xff; 255].as_slice()].concat()), Err(UNUSABLE));
        assert_eq!(parse_rsa(&[&[0x7f], [0xff; 255].as_slice()].concat()), Err(UNUSABLE));
        assert_eq!(parse_rsa(&[&[0, 0x80], [0xff; 255].as_slice()].concat()), Ok(()));
    }

    #[test]
    fn keys_for_other_purposes_are_skipped() {
        for key in [
            format!(r#"{{{EC},"kid":"e","use":"enc"}}"#),
            format!(r#"{{{EC},"kid":"h","alg":"HS256"}}"#),
            format!(r#"{{{EC},"kid":"d","key_ops":["deriveKey"]}}"#),
            r#"{"kty":"EC","crv":"P-384","x":"AA","y":"AA","kid":"p"}"#.to_owned(),
            r#"{"kty":"OKP","crv":"X25519","x":"AA","kid":"x"}"#.to_owned(),
            format!("{{{EC}}}"),
        ] {
            assert_eq!(parse(&key).map(|_| ()), Err(UNUSABLE), "{key}");
            let set = parse(&format!(r#"{key},{{{EC},"kid":"good"}}"#)).unwrap();
            assert_eq!(set.keys.len(), 1, "{key}");
        }
        let signing_key = format!(r#"{{{EC},"kid":"v","use":"sig","key_ops":["sign","verify"],"alg":"ES256"}}"#);
        assert!(parse(&signing_key).unwrap().contains("v"));
    }

    #[test]
    fn authn_09_key_sets_are_compared_by_their_keys() {
        let [a, b] = ["a", "b"].map(|kid| format!(r#"{{{EC},"kid":"{kid}"}}"#));
        let set = parse(&format!("{a},{b}")).unwrap();
        assert!(set == parse(&format!(r#"{b}, {{"use":"sig",{EC},"kid":"a","x5c":[]}}"#)).unwrap());
        let other_key = format!(r#"{{{EC},"kid":"a"}}"#).replace("f83O", "f83P");
        for changed in [a.clone(), format!(r#"{a},{{{EC},"kid":"c"}}"#), format!("{other_key},{b}")] {
            assert!(set != parse(&changed).unwrap(), "{changed}");
        }
    }

    #[test]
    fn authn_09_key_set_with_a_forbidden_key_is_rejected_as_a_whole() {
        let good = format!(r#"{{{EC},"kid":"good"}}"#);
        for (key, error) in [
            (
                format!(r#"{{{EC},"kid":"k","k":"AAAA"}}"#),
                "the key set contains a symmetric or private key; the issuer must revoke it",
            ),
            (format!(r#"{{{EC},"kid":"good","use":"enc"}}"#), "two keys have the same id"),
            (format!(r#"{{{EC},"kid":"a","kid":"b"}}"#), "not a JSON Web Key Set"),
        ] {
            assert_eq!(parse(&format!("{good},{key}")).map(|_| ()), Err(error), "{key}");
        }
        let many: Vec<String> = (0..65).map(|n| format!(r#"{{{EC},"kid":"{n}"}}"#)).collect();
        assert_eq!(parse(&many.join(",")).map(|_| ()), Err("the key set has more than 64 keys"));
        assert!(parse(&many[..64].join(",")).is_ok());
    }
}
