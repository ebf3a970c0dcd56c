//! Takes the bearer token out of a request (RFC 6750 section 2.1).

use http::{HeaderMap, header};

use super::TokenError;

/// Longest token accepted, in bytes.
const MAX_TOKEN: usize = 8 * 1024;

/// The token, `None` if the request carries no credential at all.
///
/// Only the `Authorization` header counts: not the query string, not the body (RFC 9700 section 4.3.2).
/// Two credentials in one request are refused, since two readers could each pick another.
pub(super) fn token(headers: &HeaderMap) -> Result<Option<&str>, TokenError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(TokenError::Malformed);
    }
    let value = value.to_str().map_err(|_| TokenError::Malformed)?;
    let (scheme, token) = value.split_once(' ').ok_or(TokenError::Malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(TokenError::Malformed);
    }
    if token.len() > MAX_TOKEN {
        return Err(TokenError::TooLong);
    }
    let compact = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if token.is_empty() || !token.bytes().all(compact) {
        return Err(TokenError::Malformed);
    }
    Ok(Some(token))
}
