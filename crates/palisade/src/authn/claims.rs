//! Strict parsing of a token's JOSE header and claims (AUTHN-03, AUTHN-08).
//!
//! The input is a compact JWS (RFC 7515). The output is not trustworthy until [`super::verify`] has
//! checked the signature. A value of a wrong type is an error, never a default.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::RejectReason;
use crate::{json, settings::SignatureAlgorithm};

/// Header parameters that are rejected. They let the token supply its own key (RFC 7515 sections
/// 4.1.2 to 4.1.6), require extensions that are not implemented (4.1.11), or change the encoding of
/// the payload (RFC 7797, RFC 7516).
pub(super) const FORBIDDEN_PARAMETERS: [&str; 8] = ["jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"];

/// Longest key id, in bytes.
pub(super) const MAX_KEY_ID_BYTES: usize = 256;

/// A token's JOSE header, after the checks that need no key (RFC 8725 sections 3.1 and 3.11).
#[derive(Debug)]
pub(super) struct Header {
    pub(super) algorithm: SignatureAlgorithm,
    pub(super) kid: String,
    /// `None` if the header has none; the issuer's settings decide.
    pub(super) typ: Option<String>,
}

/// A token's claims (RFC 7519 section 4). They are not trustworthy until the signature is verified.
#[derive(Debug)]
pub(super) struct Claims(pub(super) Map<String, Value>);

/// A time claim in whole seconds, rounded down and up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) floor: i64,
    pub(super) ceiling: i64,
}

/// Parses the header and claims of a compact JWS (RFC 7515 section 7.1), whose objects and lists
/// may have this many entries.
pub(super) fn parse(token: &str, max_items: usize) -> Result<(Header, Claims), RejectReason> {
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(RejectReason::Malformed);
    };
    let header = Header::from_members(&decode_object(header, max_items)?)?;
    Ok((header, Claims(decode_object(claims, max_items)?)))
}

pub(super) fn decode_object(part: &str, max_items: usize) -> Result<Map<String, Value>, RejectReason> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| RejectReason::Malformed)?;
    match json::parse_within(&bytes, max_items) {
        Ok(Value::Object(members)) => Ok(members),
        Err(json::Fault::TooBroad) => Err(RejectReason::TooBroad),
        _ => Err(RejectReason::Malformed),
    }
}

impl Header {
    fn from_members(members: &Map<String, Value>) -> Result<Self, RejectReason> {
        if FORBIDDEN_PARAMETERS.iter().any(|name| members.contains_key(*name)) {
            return Err(RejectReason::ForbiddenHeader);
        }
        let text = |name: &str| members.get(name).and_then(Value::as_str);
        // Not on this list are `none` and symmetric algorithms.
        let algorithm = text("alg").and_then(SignatureAlgorithm::find).ok_or(RejectReason::Algorithm)?;
        let kid = text("kid").filter(|kid| is_key_id(kid)).ok_or(RejectReason::UnknownKey)?.to_owned();
        let typ = members.get("typ").map(|typ| typ.as_str().ok_or(RejectReason::TokenType("")));
        Ok(Self { algorithm, kid, typ: typ.transpose()?.map(str::to_owned) })
    }
}

/// A key id is any text that the issuer's set has (RFC 7515 section 4.1.4), and is only compared: it
/// is never a path or part of a query (AUTHN-08). The bounds keep such ids from causing a fetch.
fn is_key_id(kid: &str) -> bool {
    (1..=MAX_KEY_ID_BYTES).contains(&kid.len()) && !kid.contains(char::is_control)
}

impl Claims {
    /// A string claim; `None` if it is absent or of another type.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// A time claim (`NumericDate`, RFC 7519 section 2). `None` if it is absent, an error if it is
    /// not a number of seconds.
    pub(super) fn time(&self, name: &'static str, allow_fraction: bool) -> Result<Option<Time>, RejectReason> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let whole = value.as_i64().map(|seconds| Time { floor: seconds, ceiling: seconds });
        let time = whole.or_else(|| fraction(value).filter(|_| allow_fraction));
        time.map(Some).ok_or(RejectReason::Claims(name))
    }

    /// The claim that marks the token as something other than an access token, whatever the issuer
    /// (AUTHN-07).
    ///
    /// Such claims are those that only ID tokens have (OpenID Connect Core section 3.1.3.6) or
    /// security events (RFC 8417), and the type claims of some issuers: `typ`, `token_use`.
    pub(super) fn mark_of_other_token(&self) -> Option<&'static str> {
        let has_other_type = |claim: &str, access: &str| self.0.get(claim).is_some_and(|kind| kind != access);
        let hash = ["at_hash", "c_hash", "events"].into_iter().find(|claim| self.0.contains_key(*claim));
        let typ = Some("typ").filter(|_| has_other_type("typ", "Bearer"));
        hash.or(typ).or_else(|| Some("token_use").filter(|_| has_other_type("token_use", "access")))
    }
}

/// A number with a fraction. Its shortest decimal text is exact enough, and has an exponent only far
/// beyond any date.
fn fraction(value: &Value) -> Option<Time> {
    let text = value.as_f64().filter(|seconds| *seconds >= 0.0)?.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, "0"));
    let floor: i64 = whole.parse().ok()?;
    let is_whole = fraction.bytes().all(|digit| digit == b'0');
    Some(Time { floor, ceiling: if is_whole { floor } else { floor.checked_add(1)? } })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn authn_06_fractions_of_a_second_are_kept_apart() {
        let time = |value: Value| Claims(Map::from_iter([("exp".to_owned(), value)])).time("exp", true);
        let expected = |floor, ceiling| Ok(Some(Time { floor, ceiling }));
        assert_eq!(time(json!(1_700_000_000)), expected(1_700_000_000, 1_700_000_000));
        assert_eq!(time(json!(1_700_000_000.25)), expected(1_700_000_000, 1_700_000_001));
        assert_eq!(time(json!(1_700_000_000.0)), expected(1_700_000_000, 1_700_000_000));
        for wrong in [json!("1700000000"), json!(-0.5), json!(1e300), json!(u64::MAX), json!(null), json!([1])] {
            assert_eq!(time(wrong.clone()), Err(RejectReason::Claims("exp")), "{wrong}");
        }
    }
}
