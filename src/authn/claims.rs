//! The two JSON parts of a token, read strictly: a wrong type is an error, never a default.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::Refused;
use crate::json;

/// Parameters that bring a key along (RFC 7515 sections 4.1.2 to 4.1.6), must be understood and are not (4.1.11), or
/// say that the claims are written in another way (RFC 7797, RFC 7516).
const FORBIDDEN: [&str; 8] = ["jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"];

/// The header of a token, after the checks that need no key (RFC 8725 sections 3.1 and 3.11).
#[derive(Debug)]
pub(super) struct Header {
    pub(super) algorithm: Algorithm,
    pub(super) kid: String,
    pub(super) typ: String,
}

/// The claims of a token (RFC 7519 section 4). Nothing vouches for them until the signature is checked.
#[derive(Debug)]
pub(super) struct Claims(pub(super) Map<String, Value>);

/// Header and claims of a compact token (RFC 7515 section 7.1).
pub(super) fn parse(token: &str) -> Result<(Header, Claims), Refused> {
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(Refused::Malformed);
    };
    Ok((Header::read(&object(header)?)?, Claims(object(claims)?)))
}

fn object(part: &str) -> Result<Map<String, Value>, Refused> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused::Malformed)?;
    match json::parse(&bytes) {
        Some(Value::Object(members)) => Ok(members),
        _ => Err(Refused::Malformed),
    }
}

impl Header {
    fn read(members: &Map<String, Value>) -> Result<Self, Refused> {
        if FORBIDDEN.iter().any(|name| members.contains_key(*name)) {
            return Err(Refused::ForbiddenHeader);
        }
        let text = |name: &str| members.get(name).and_then(Value::as_str);
        let algorithm = allowed(text("alg").ok_or(Refused::Algorithm)?)?;
        let kid = kid(text("kid").ok_or(Refused::UnknownKey)?)?;
        let typ = text("typ").ok_or(Refused::TokenType)?.to_owned();
        Ok(Self { algorithm, kid, typ })
    }
}

/// The allowlist (control AUTHN-03). `none` and the symmetric algorithms are not on it.
fn allowed(alg: &str) -> Result<Algorithm, Refused> {
    match alg {
        "ES256" => Ok(Algorithm::ES256),
        "EdDSA" => Ok(Algorithm::EdDSA),
        "RS256" => Ok(Algorithm::RS256),
        "PS256" => Ok(Algorithm::PS256),
        _ => Err(Refused::Algorithm),
    }
}

/// A key id is only ever compared, but nothing that looks like a path or a query gets even that far (AUTHN-08).
fn kid(kid: &str) -> Result<String, Refused> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'=' | b'+');
    if kid.is_empty() || kid.len() > 128 || !kid.bytes().all(plain) {
        return Err(Refused::UnknownKey);
    }
    Ok(kid.to_owned())
}

impl Claims {
    /// A string claim.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// A time (RFC 7519 section 2, `NumericDate`) in whole seconds; `None` if it is absent, an error if it is
    /// anything else.
    pub(super) fn time(&self, name: &str) -> Result<Option<i64>, Refused> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => value.as_i64().map(Some).ok_or(Refused::Claims),
        }
    }

    /// Whether it says itself that it is something else than an access token: by claims that only an ID token has
    /// (OpenID Connect Core sections 2 and 3.1.3.6) or a security event (RFC 8417), or in the words of issuers that name the kind in the claims.
    pub(super) fn is_other_token(&self) -> bool {
        let named = |claim: &str, access: &str| self.0.get(claim).is_some_and(|kind| kind != access);
        ["nonce", "at_hash", "c_hash", "events"].iter().any(|claim| self.0.contains_key(*claim))
            || named("typ", "Bearer")
            || named("token_use", "access")
    }
}

/// A list of words, as an array or separated by spaces; empty if it is absent, an error if it is anything else.
pub(super) fn words(value: Option<&Value>) -> Result<Vec<&str>, Refused> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(text.split(' ').collect()),
        array => strings(array),
    }
}

/// The strings of an array; empty if it is absent, an error if it is anything else.
pub(super) fn strings(value: Option<&Value>) -> Result<Vec<&str>, Refused> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(|item| item.as_str().ok_or(Refused::Claims)).collect(),
        Some(_) => Err(Refused::Claims),
    }
}
