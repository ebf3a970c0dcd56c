//! The two JSON parts of a token, read strictly: a wrong type is an error, never a default.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::TokenError;

/// The header of a token, after the checks that need no key (RFC 8725 sections 3.1 and 3.11).
#[derive(Debug)]
pub(super) struct Header {
    pub(super) algorithm: Algorithm,
    pub(super) kid: String,
    pub(super) typ: String,
}

/// As it stands in the token. Naming the dangerous parameters makes them errors below; serde makes duplicates errors.
#[derive(Deserialize)]
struct RawHeader {
    alg: String,
    kid: String,
    typ: String,
    jku: Option<IgnoredAny>,
    jwk: Option<IgnoredAny>,
    x5u: Option<IgnoredAny>,
    x5c: Option<IgnoredAny>,
    crit: Option<IgnoredAny>,
}

impl Header {
    /// Reads the first part of a compact token (RFC 7515 section 7.1).
    pub(super) fn parse(token: &str) -> Result<Self, TokenError> {
        let mut parts = token.split('.');
        let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(TokenError::Malformed);
        };
        let json = URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenError::Malformed)?;
        let raw: RawHeader = serde_json::from_slice(&json).map_err(|_| TokenError::Malformed)?;
        // Keys come from the issuer alone, never from the token; an extension that must be understood is not.
        if raw.jku.is_some() || raw.jwk.is_some() || raw.x5u.is_some() || raw.x5c.is_some() || raw.crit.is_some() {
            return Err(TokenError::ForbiddenHeader);
        }
        Ok(Self { algorithm: allowed(&raw.alg)?, kid: kid(raw.kid)?, typ: raw.typ })
    }
}

/// The allowlist (control AUTHN-03). `none` and the symmetric algorithms are not on it.
fn allowed(alg: &str) -> Result<Algorithm, TokenError> {
    match alg {
        "ES256" => Ok(Algorithm::ES256),
        "EdDSA" => Ok(Algorithm::EdDSA),
        "RS256" => Ok(Algorithm::RS256),
        "PS256" => Ok(Algorithm::PS256),
        _ => Err(TokenError::Algorithm),
    }
}

/// A key id is only ever compared, but nothing that looks like a path or a query gets even that far (AUTHN-08).
fn kid(kid: String) -> Result<String, TokenError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'=' | b'+');
    if kid.is_empty() || kid.len() > 128 || !kid.bytes().all(plain) {
        return Err(TokenError::UnknownKey);
    }
    Ok(kid)
}

/// The claims of an access token (RFC 9068 section 2.2). Times are integers; anything else is an error.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) sub: String,
    pub(super) exp: i64,
    pub(super) iat: i64,
    #[serde(default)]
    pub(super) nbf: Option<i64>,
    #[serde(default)]
    pub(super) client_id: Option<String>,
    #[serde(default)]
    pub(super) azp: Option<String>,
    #[serde(default)]
    pub(super) scope: Option<String>,
    #[serde(flatten)]
    pub(super) other: BTreeMap<String, Value>,
}

impl Claims {
    /// Whether a claim is there that only an ID token has (OpenID Connect Core sections 2 and 3.1.3.6).
    pub(super) fn is_id_token(&self) -> bool {
        self.other.contains_key("nonce") || self.other.contains_key("at_hash")
    }

    /// The strings of an array claim; empty if it is absent, an error if it is anything else.
    pub(super) fn strings(&self, name: &str) -> Result<BTreeSet<&str>, TokenError> {
        match self.other.get(name) {
            None => Ok(BTreeSet::new()),
            Some(Value::Array(items)) => items.iter().map(|v| v.as_str().ok_or(TokenError::Claims)).collect(),
            Some(_) => Err(TokenError::Claims),
        }
    }
}
