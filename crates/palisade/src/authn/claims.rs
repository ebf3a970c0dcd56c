//! Strict parsing of a token's JOSE header and claims (AUTHN-03, AUTHN-07, AUTHN-08).
//!
//! The input is a compact JWS (RFC 7515). The output is not trustworthy until [`super::verify`] has
//! checked the signature. A value of a wrong type is an error, never a default.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::RejectReason;
use crate::json;

/// Header parameters that are rejected. They let the token supply its own key (RFC 7515 sections
/// 4.1.2 to 4.1.6), require extensions that are not implemented (4.1.11), or change the encoding of
/// the payload (RFC 7797, RFC 7516).
const FORBIDDEN_PARAMETERS: [&str; 8] = ["jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"];

/// A token's JOSE header, after the checks that need no key (RFC 8725 sections 3.1 and 3.11).
#[derive(Debug)]
pub(super) struct Header {
    pub(super) algorithm: Algorithm,
    pub(super) kid: String,
    /// Empty if it is absent.
    pub(super) typ: String,
}

/// A token's claims (RFC 7519 section 4). They are not trustworthy until the signature is verified.
#[derive(Debug)]
pub(super) struct Claims(pub(super) Map<String, Value>);

/// Parses the header and claims of a compact JWS (RFC 7515 section 7.1).
pub(super) fn parse(token: &str) -> Result<(Header, Claims), RejectReason> {
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(RejectReason::Malformed);
    };
    Ok((Header::from_members(&decode_object(header)?)?, Claims(decode_object(claims)?)))
}

fn decode_object(part: &str) -> Result<Map<String, Value>, RejectReason> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| RejectReason::Malformed)?;
    match json::parse(&bytes) {
        Some(Value::Object(members)) => Ok(members),
        _ => Err(RejectReason::Malformed),
    }
}

impl Header {
    fn from_members(members: &Map<String, Value>) -> Result<Self, RejectReason> {
        if FORBIDDEN_PARAMETERS.iter().any(|name| members.contains_key(*name)) {
            return Err(RejectReason::ForbiddenHeader);
        }
        let text = |name: &str| members.get(name).and_then(Value::as_str);
        let algorithm = parse_algorithm(text("alg").ok_or(RejectReason::Algorithm)?)?;
        let kid = parse_key_id(text("kid").ok_or(RejectReason::UnknownKey)?)?;
        // Access tokens need one; ID tokens have none as a rule.
        let typ = members.get("typ").map_or(Some(""), Value::as_str).ok_or(RejectReason::TokenType)?.to_owned();
        Ok(Self { algorithm, kid, typ })
    }
}

/// The allowlist of algorithms (AUTHN-03). `none` and symmetric algorithms are not on it.
fn parse_algorithm(alg: &str) -> Result<Algorithm, RejectReason> {
    match alg {
        "ES256" => Ok(Algorithm::ES256),
        "EdDSA" => Ok(Algorithm::EdDSA),
        "RS256" => Ok(Algorithm::RS256),
        "PS256" => Ok(Algorithm::PS256),
        _ => Err(RejectReason::Algorithm),
    }
}

/// Accepts key ids of 1 to 128 safe characters (AUTHN-08).
///
/// A key id is only compared, never used as a path or in a query. Ids that look like either are
/// rejected all the same.
fn parse_key_id(kid: &str) -> Result<String, RejectReason> {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'=' | b'+');
    if kid.is_empty() || kid.len() > 128 || !kid.bytes().all(is_allowed) {
        return Err(RejectReason::UnknownKey);
    }
    Ok(kid.to_owned())
}

impl Claims {
    /// A string claim; `None` if it is absent or of another type.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// A time claim in whole seconds (`NumericDate`, RFC 7519 section 2).
    /// `None` if it is absent, an error if it is not an integer.
    pub(super) fn time(&self, name: &'static str) -> Result<Option<i64>, RejectReason> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => value.as_i64().map(Some).ok_or(RejectReason::Claims(name)),
        }
    }

    /// Whether the claims mark the token as something other than an access token (AUTHN-07).
    ///
    /// Marks are claims that only ID tokens have (OpenID Connect Core sections 2 and 3.1.3.6) or
    /// security events (RFC 8417), and the type claims of some issuers: `typ`, `token_use`.
    pub(super) fn is_other_token(&self) -> bool {
        let has_other_type = |claim: &str, access: &str| self.0.get(claim).is_some_and(|kind| kind != access);
        ["nonce", "at_hash", "c_hash", "events"].iter().any(|claim| self.0.contains_key(*claim))
            || has_other_type("typ", "Bearer")
            || has_other_type("token_use", "access")
    }
}

/// A list of strings: an array, or one string separated by spaces as in `scope` (RFC 8693 section
/// 4.2). Empty if the claim is absent, `None` if it is of another type.
pub(super) fn string_list(value: Option<&Value>) -> Option<Vec<&str>> {
    match value {
        Some(Value::String(text)) => Some(text.split(' ').collect()),
        array => string_array(array),
    }
}

/// An array of strings. Empty if the claim is absent, `None` if it is of another type.
pub(super) fn string_array(value: Option<&Value>) -> Option<Vec<&str>> {
    match value {
        None => Some(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(Value::as_str).collect(),
        Some(_) => None,
    }
}
