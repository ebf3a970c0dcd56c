//! JSON Web Key Set (JWKS, RFC 7517): parsing, and the algorithms of each key (AUTHN-03, AUTHN-09).
//!
//! [`super::discovery`] parses what it fetched. [`super::verify`] looks a key up by `kid` and `alg`.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{RejectReason, claims::MAX_KEY_ID_BYTES};
use crate::{crypto::sha256, json, settings::SignatureAlgorithm};

/// Minimum size of an RSA modulus, in bits (RFC 7518 section 3.3).
const MIN_RSA_BITS: usize = 2048;
/// Maximum number of keys in a set.
const MAX_KEYS: usize = 64;
/// Algorithms of an RSA key that names none.
const RSA: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::PS256, Algorithm::RS384, Algorithm::PS384, Algorithm::RS512, Algorithm::PS512];

/// One public key for signature verification.
pub(super) struct Key {
    decoding: DecodingKey,
    algorithms: Vec<Algorithm>,
    /// The members of the JWK that determine the key (RFC 7638 section 3.2).
    members: [Option<String>; 4],
    /// The issuer whose tokens the key signs, as keys of Entra ID name it.
    pub(super) issuer: Option<String>,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (&self.algorithms, &self.members, &self.issuer) == (&other.algorithms, &other.members, &other.issuer)
    }
}

impl Key {
    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    /// The public key in the header of a proof (RFC 9449 section 4.2); `None` if it is private,
    /// symmetric, or of no use for signatures.
    pub(super) fn of_proof(jwk: &Map<String, Value>) -> Option<Self> {
        if has_secret_member(jwk) {
            return None;
        }
        let mut jwk = jwk.clone();
        // An id is required of keys in sets only.
        jwk.insert("kid".to_owned(), Value::from("proof"));
        Some(serde_json::from_value::<Jwk>(Value::Object(jwk)).ok()?.into_verification_key()?.1)
    }

    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// SHA-256 of the members that determine the key, in their order and form (RFC 7638 section 3).
    pub(super) fn thumbprint(&self) -> [u8; 32] {
        // In base64url, or the key would not have been parsed. So JSON escapes none of them.
        let [x, y, n, e] = self.members.each_ref().map(|member| member.as_deref().unwrap_or_default());
        let text = match self.algorithms.first() {
            Some(Algorithm::ES256) => format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#),
            Some(Algorithm::ES384) => format!(r#"{{"crv":"P-384","kty":"EC","x":"{x}","y":"{y}"}}"#),
            Some(Algorithm::EdDSA) => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#),
            _ => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
        };
        sha256(text.as_bytes())
    }

    /// Whether a token could be verified with either key, and they differ.
    fn conflicts_with(&self, other: &Self) -> bool {
        let share = self.algorithms.iter().any(|algorithm| other.algorithms.contains(algorithm));
        share && (&self.members, &self.issuer) != (&other.members, &other.issuer)
    }
}

/// The usable keys of one JWKS document. Two sets are equal if they have the same keys under the
/// same ids for the same algorithms: documents may differ in order and format.
#[derive(PartialEq)]
pub(super) struct KeySet {
    keys: HashMap<String, Vec<Key>>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    r#use: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    key_ops: Option<Vec<String>>,
    issuer: Option<String>,
}

impl KeySet {
    /// Parses a JWKS document.
    ///
    /// Leaves out keys that this service cannot use (RFC 7517 section 5): keys without an id, keys
    /// for another use, short keys, and keys of unknown types. Rejects the whole set if it has a key
    /// that no public set may have, or two usable keys for the same id and algorithm.
    pub(super) fn parse(document: &[u8]) -> Result<Self, &'static str> {
        let Some(Value::Object(mut set)) = json::parse(document) else { return Err("not a JSON Web Key Set") };
        let Some(Value::Array(entries)) = set.remove("keys") else { return Err("not a JSON Web Key Set") };
        if entries.len() > MAX_KEYS {
            return Err("the key set has more than 64 keys");
        }
        let mut keys: HashMap<String, Vec<Key>> = HashMap::new();
        for entry in entries {
            if entry.as_object().is_some_and(has_secret_member) {
                return Err("the key set contains a symmetric or private key; the issuer must revoke it");
            }
            let jwk = serde_json::from_value::<Jwk>(entry).ok();
            let Some((id, key)) = jwk.and_then(Jwk::into_verification_key) else { continue };
            let same_id = keys.entry(id).or_default();
            if same_id.iter().any(|other| other.conflicts_with(&key)) {
                return Err("two usable keys have the same id and algorithm");
            }
            if !same_id.contains(&key) {
                same_id.push(key);
            }
        }
        if keys.is_empty() {
            return Err("the key set has no usable key");
        }
        // Documents may list the entries of one id in any order.
        for same_id in keys.values_mut() {
            same_id.sort_by_cached_key(|key| format!("{:?}", key.algorithms));
        }
        Ok(Self { keys })
    }

    /// The key of this id for this algorithm. The key determines the algorithms, and the token only
    /// selects one (RFC 8725 section 3.1): an RSA key never verifies `ES256`.
    pub(super) fn get(&self, id: &str, algorithm: SignatureAlgorithm) -> Result<&Key, RejectReason> {
        let same_id = self.keys.get(id).ok_or(RejectReason::UnknownKey)?;
        let algorithm = jws_algorithm(algorithm.as_str());
        let key = same_id.iter().find(|key| key.algorithms.iter().any(|allowed| Some(*allowed) == algorithm));
        key.ok_or(RejectReason::Algorithm)
    }

    /// The ids of the keys, for the log.
    pub(super) fn ids(&self) -> String {
        self.keys.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn contains(&self, kid: &str) -> bool {
        self.keys.contains_key(kid)
    }
}

/// Whether a key is symmetric, or has a member that only private keys have (RFC 7518 section 6).
fn has_secret_member(jwk: &Map<String, Value>) -> bool {
    let has = |name: &&str| jwk.get(*name).is_some_and(|value| !value.is_null());
    let secret = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
    jwk.get("kty").is_some_and(|kty| kty == "oct") || secret.iter().any(has)
}

/// The algorithm of this registered name. RFC 9864 calls `EdDSA` with an Ed25519 key `Ed25519`.
pub(super) fn jws_algorithm(name: &str) -> Option<Algorithm> {
    if name == "Ed25519" { Some(Algorithm::EdDSA) } else { name.parse().ok() }
}

impl Jwk {
    /// The key and its id, if it can verify signatures with a known algorithm.
    fn into_verification_key(self) -> Option<(String, Key)> {
        let can_verify = self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let is_for_signatures = self.r#use.as_ref().is_none_or(|purpose| purpose == "sig");
        if !can_verify || !is_for_signatures || !(1..=MAX_KEY_ID_BYTES).contains(&self.kid.len()) {
            return None;
        }
        let (decoding, mut algorithms) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("EC", Some(curve @ ("P-256" | "P-384"))) => {
                let (x, y) = (self.x.as_deref()?, self.y.as_deref()?);
                let algorithm = if curve == "P-256" { Algorithm::ES256 } else { Algorithm::ES384 };
                (DecodingKey::from_ec_components(x, y).ok()?, vec![algorithm])
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
                (DecodingKey::from_rsa_components(n, e).ok()?, RSA.to_vec())
            }
            _ => return None,
        };
        if let Some(alg) = &self.alg {
            algorithms.retain(|allowed| jws_algorithm(alg) == Some(*allowed));
        }
        // The algorithms determine the key type and the curve.
        let members = [self.x, self.y, self.n, self.e];
        (!algorithms.is_empty()).then_some((self.kid, Key { decoding, algorithms, members, issuer: self.issuer }))
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

    fn rsa(kid: &str, fill: u8, more: &str) -> String {
        let n = URL_SAFE_NO_PAD.encode([fill; 256]);
        format!(r#"{{"kty":"RSA","kid":"{kid}","n":"{n}","e":"AQAB"{more}}}"#)
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
    fn authn_09_keys_for_other_purposes_are_skipped() {
        for key in [
            format!(r#"{{{EC},"kid":"good","use":"enc"}}"#),
            format!(r#"{{{EC},"kid":"t","use":"tls"}}"#),
            format!(r#"{{{EC},"kid":"h","alg":"HS256"}}"#),
            format!(r#"{{{EC},"kid":"d","key_ops":["deriveKey"]}}"#),
            format!(r#"{{{EC},"kid":"{}"}}"#, "k".repeat(257)),
            format!(r#"{{{EC},"kid":1}}"#),
            r#"{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA","kid":"p"}"#.to_owned(),
            r#"{"kty":"OKP","crv":"X25519","x":"AA","kid":"x"}"#.to_owned(),
            r#"{"kty":"AKP","alg":"ML-DSA-44","pub":"AA","kid":"x"}"#.to_owned(),
            rsa("good", 0xff, r#","alg":"RSA-OAEP","use":"enc""#),
            format!("{{{EC}}}"),
            "1".to_owned(),
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
        let [first, second] = ["RS256", "RS512"].map(|alg| rsa("r", 0xff, &format!(r#","alg":"{alg}""#)));
        assert!(parse(&format!("{first},{second}")).unwrap() == parse(&format!("{second},{first}")).unwrap());
    }

    #[test]
    fn authn_03_keys_under_one_id_are_chosen_by_algorithm() {
        let entries = ["RS256", "RS512", "RS384"].map(|alg| rsa("RId+oQm2=", 0xff, &format!(r#","alg":"{alg}""#)));
        let set = parse(&entries.join(",")).unwrap();
        for (alg, expected) in [("RS256", Ok(())), ("RS384", Ok(())), ("PS256", Err(RejectReason::Algorithm))] {
            let algorithm = SignatureAlgorithm::find(alg).unwrap();
            assert_eq!(set.get("RId+oQm2=", algorithm).map(|_| ()), expected, "{alg}");
        }
        let conflict = Err("two usable keys have the same id and algorithm");
        let other = rsa("RId+oQm2=", 0xfe, r#","alg":"RS256""#);
        assert_eq!(parse(&format!("{},{other}", entries.join(","))).map(|_| ()), conflict);
        assert_eq!(parse(&[rsa("r", 0xff, ""), rsa("r", 0xfe, "")].join(",")).map(|_| ()), conflict);
        assert!(parse(&[rsa("r", 0xff, ""), rsa("r", 0xff, "")].join(",")).is_ok());
    }

    #[test]
    fn authn_09_key_set_with_a_forbidden_key_is_rejected_as_a_whole() {
        let good = format!(r#"{{{EC},"kid":"good"}}"#);
        for (key, error) in [
            (
                format!(r#"{{{EC},"kid":"k","k":"AAAA"}}"#),
                "the key set contains a symmetric or private key; the issuer must revoke it",
            ),
            (
                r#"{"kty":"oct","kid":1}"#.to_owned(),
                "the key set contains a symmetric or private key; the issuer must revoke it",
            ),
            (format!(r#"{{{EC},"kid":"a","kid":"b"}}"#), "not a JSON Web Key Set"),
        ] {
            assert_eq!(parse(&format!("{good},{key}")).map(|_| ()), Err(error), "{key}");
        }
        let many: Vec<String> = (0..65).map(|n| format!(r#"{{{EC},"kid":"{n}"}}"#)).collect();
        assert_eq!(parse(&many.join(",")).map(|_| ()), Err("the key set has more than 64 keys"));
        assert!(parse(&many[..64].join(",")).is_ok());
    }
}
