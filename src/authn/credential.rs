//! Takes the one credential out of a request (RFC 6750 section 2.1).

use http::{HeaderMap, HeaderValue, header};

use super::Refused;

/// Longest token accepted, in bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// Cookies that could carry a credential.
const COOKIES: [&str; 2] = ["__Host-session", "access_token"];

/// Header of an API key.
pub(super) const API_KEY: &str = "x-api-key";

/// What a request carries.
#[derive(Clone, Copy)]
pub(super) enum Credential<'h> {
    /// An access token.
    Token(&'h str),
    /// The text of an API key.
    ApiKey(&'h str),
}

/// The credential, `None` if the request carries none at all.
///
/// Only the headers count: a token in the query string is in every log on the way already
/// (RFC 9700 section 4.3.2). Two credentials in one request are refused, since two readers could each pick another.
pub(super) fn of<'h>(headers: &'h HeaderMap, query: &str) -> Result<Option<Credential<'h>>, Refused> {
    if url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "access_token") {
        return Err(Refused::InQuery);
    }
    let (tokens, keys) = (headers.get_all(header::AUTHORIZATION), headers.get_all(API_KEY));
    if tokens.iter().chain(keys.iter()).count() > 1 {
        return Err(Refused::TwoCredentials);
    }
    let found = match (tokens.iter().next(), keys.iter().next()) {
        (Some(value), _) => Credential::Token(token(value)?),
        (None, Some(value)) => Credential::ApiKey(value.to_str().map_err(|_| Refused::ApiKeyFormat)?),
        (None, None) => return Ok(None),
    };
    if has_cookie(headers) {
        return Err(Refused::TwoCredentials);
    }
    Ok(Some(found))
}

/// The token of an `Authorization` header.
fn token(value: &HeaderValue) -> Result<&str, Refused> {
    let value = value.to_str().map_err(|_| Refused::Malformed)?;
    let (scheme, token) = value.split_once(' ').ok_or(Refused::Malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refused::Malformed);
    }
    if token.len() > MAX_TOKEN {
        return Err(Refused::TooLong);
    }
    Ok(token)
}

fn has_cookie(headers: &HeaderMap) -> bool {
    let names = |value: &HeaderValue| {
        let pairs = value.as_bytes().split(|byte| *byte == b';');
        let name = |pair: &[u8]| pair.split(|byte| *byte == b'=').next().map(<[u8]>::trim_ascii).map(<[u8]>::to_vec);
        pairs.filter_map(name).collect::<Vec<_>>()
    };
    let mut found = headers.get_all(header::COOKIE).iter().flat_map(names);
    found.any(|name| COOKIES.iter().any(|cookie| name.eq_ignore_ascii_case(cookie.as_bytes())))
}
