//! Signing key of the development issuer: creates JWTs (RFC 7515) and the published JWK.
//! Tests also sign malformed tokens with it.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::random_text;
use crate::dev::DevError;

/// An ES256 key pair (RFC 7518 section 3.4) and its key id.
#[derive(Debug)]
pub struct SigningKey {
    id: String,
    pair: EcdsaKeyPair,
}

impl SigningKey {
    /// Generates a key pair and a random key id.
    pub fn generate() -> Result<Self, DevError> {
        let pair =
            EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| "cannot generate a signing key")?;
        Ok(Self { id: random_text()?.chars().take(16).collect(), pair })
    }

    /// The key id (`kid`).
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The public key as a JWK (RFC 7517).
    #[must_use]
    pub fn jwk(&self) -> Value {
        // Uncompressed point (SEC 1 section 2.3.3): 0x04, x, y.
        let point = self.pair.public_key().as_ref();
        let coordinate = |from: usize| URL_SAFE_NO_PAD.encode(point.get(from..from + 32).unwrap_or_default());
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": coordinate(1), "y": coordinate(33),
        })
    }

    /// Signs claims as an access token (RFC 9068 section 2.1).
    #[must_use]
    pub fn access_token(&self, claims: &Value) -> String {
        self.sign(&json!({ "alg": "ES256", "typ": "at+jwt", "kid": self.id }), claims)
    }

    /// Signs any header and claims as a compact JWS (RFC 7515 section 3.1).
    #[must_use]
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(header), part(claims));
        let signature = self.pair.sign(&SystemRandom::new(), input.as_bytes());
        // If signing fails, the signature is empty, and every verifier rejects the token.
        let signature = signature.map(|s| URL_SAFE_NO_PAD.encode(s)).unwrap_or_default();
        format!("{input}.{signature}")
    }
}
