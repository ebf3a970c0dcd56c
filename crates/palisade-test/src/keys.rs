//! Signing keys of test issuers ([`TestKey`]), in each accepted algorithm.
//!
//! A key publishes its public half as a JWK and signs any header and claims, valid or not, as a
//! compact JWS (RFC 7515).

use aws_lc_rs::{
    encoding::AsDer as _,
    rand::SystemRandom,
    rsa::{self, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
        RsaEncoding,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// A key pair with its key id and algorithm.
pub struct TestKey {
    /// Key id, the `kid` of tokens and key sets.
    pub id: String,
    /// Signature algorithm (RFC 7518).
    pub alg: &'static str,
    pair: Pair,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(Box<rsa::KeyPair>, &'static dyn RsaEncoding),
}

impl TestKey {
    /// An ECDSA key on the curve P-256.
    pub fn es256(id: &str) -> Self {
        let pair = Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());
        Self { id: id.to_owned(), alg: "ES256", pair }
    }

    /// An ECDSA key on the curve P-384.
    pub fn es384(id: &str) -> Self {
        let pair = Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap());
        Self { id: id.to_owned(), alg: "ES384", pair }
    }

    /// An Ed25519 key.
    pub fn eddsa(id: &str) -> Self {
        Self { id: id.to_owned(), alg: "EdDSA", pair: Pair::Ed(Ed25519KeyPair::generate().unwrap()) }
    }

    /// An RSA key that signs with PKCS #1 v1.5.
    pub fn rs256(id: &str) -> Self {
        let pair = Pair::Rsa(Box::new(rsa::KeyPair::generate(KeySize::Rsa2048).unwrap()), &RSA_PKCS1_SHA256);
        Self { id: id.to_owned(), alg: "RS256", pair }
    }

    /// An RSA key that signs with PSS.
    pub fn ps256(id: &str) -> Self {
        let pair = Pair::Rsa(Box::new(rsa::KeyPair::generate(KeySize::Rsa2048).unwrap()), &RSA_PSS_SHA256);
        Self { id: id.to_owned(), alg: "PS256", pair }
    }

    /// An RSA key that signs with one of the longer hashes.
    pub fn rsa(id: &str, alg: &'static str) -> Self {
        let encoding: &'static dyn RsaEncoding = match alg {
            "RS384" => &RSA_PKCS1_SHA384,
            "RS512" => &RSA_PKCS1_SHA512,
            "PS384" => &RSA_PSS_SHA384,
            _ => &RSA_PSS_SHA512,
        };
        let pair = Pair::Rsa(Box::new(rsa::KeyPair::generate(KeySize::Rsa2048).unwrap()), encoding);
        Self { id: id.to_owned(), alg, pair }
    }

    /// The public key as a JWK (RFC 7517).
    pub fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.pair {
            Pair::Ec(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = point[1..].split_at(point.len() / 2);
                let crv = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "crv": crv, "x": text(x), "y": text(y) })
            }
            Pair::Ed(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref()) }),
            Pair::Rsa(pair, _) => {
                let key = pair.public_key();
                let n = key.modulus();
                let e = key.exponent();
                json!({
                    "kty": "RSA",
                    "n": text(n.big_endian_without_leading_zero()), "e": text(e.big_endian_without_leading_zero()),
                })
            }
        };
        for (name, value) in [("kid", self.id.as_str()), ("use", "sig"), ("alg", self.alg)] {
            jwk[name] = json!(value);
        }
        jwk
    }

    /// The public key in DER, the bytes that an attacker would use as an HMAC secret.
    pub fn public_der(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Ec(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Pair::Rsa(pair, _) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
        }
    }

    /// A compact JWS over exactly these bytes of header and claims.
    pub fn sign_text(&self, header: &str, claims: &str) -> String {
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.sign(input.as_bytes());
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn sign(&self, input: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ec(pair) => pair.sign(&random, input).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(input).as_ref().to_vec(),
            Pair::Rsa(pair, padding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*padding, &random, input, &mut signature).unwrap();
                signature
            }
        }
    }
}
