//! Rejects requests that two HTTP implementations could read differently (INPUT-06).
//!
//! Such requests enable request smuggling and bypasses of path-based rules in proxies. Also bounds
//! the request target and the headers (INPUT-04) and rejects compressed bodies (INPUT-05).
//! [`super::poem_adapter`] calls [`check`] before routing.

use http::{HeaderMap, HeaderValue, Version, header, request::Parts, uri::Authority};

use crate::problem::{Kind, Problem};

/// Longest request target (path and query), in bytes.
const MAX_TARGET: usize = 8 * 1024;
/// Most bytes of all names and values of headers.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Most headers.
const MAX_HEADERS: usize = 64;
/// Singleton fields (RFC 9110 section 5.5): two of them could contradict each other.
const SINGLETON_FIELDS: [header::HeaderName; 2] = [header::CONTENT_TYPE, header::HOST];

/// Rejects a request that is ambiguous or too large.
pub(super) fn check(parts: &Parts) -> Result<(), Problem> {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > MAX_TARGET {
        return Err(Problem::new(Kind::UriTooLong));
    }
    let bytes: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > MAX_HEADER_BYTES || parts.headers.len() > MAX_HEADERS {
        return Err(Problem::new(Kind::HeadersTooLarge));
    }
    if has_ambiguous_length(&parts.headers) {
        return Err(Problem::new(Kind::Malformed).detail("The length of the body is ambiguous."));
    }
    let is_repeated = |name| parts.headers.get_all(name).iter().nth(1).is_some();
    if SINGLETON_FIELDS.iter().any(is_repeated) || !has_one_authority(parts) {
        return Err(Problem::new(Kind::Malformed));
    }
    // Bodies are never decompressed, so a decompression bomb has no effect (INPUT-05).
    let mut content_codings = parts.headers.get_all(header::CONTENT_ENCODING).iter();
    if !content_codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Problem::new(Kind::UnsupportedMediaType)
            .detail("Content codings are not supported; send the body uncompressed.")
            .header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }
    let is_valid = |text| percent_decode(text).is_some_and(|bytes| is_text(&bytes));
    let query = parts.uri.query().unwrap_or_default();
    if !is_valid(parts.uri.path()) || !is_valid(query) || !is_normalized(parts.uri.path()) {
        return Err(Problem::new(Kind::Malformed));
    }
    Ok(())
}

/// Whether the length of the body is stated twice, or by a transfer coding other than `chunked`
/// (RFC 9112 section 6.3). hyper has already rejected contradictory lengths, and dropped
/// `Content-Length` if there is a `Transfer-Encoding`.
///
/// [`super::context`] closes the connection after the response, whichever layer gives it.
pub(super) fn has_ambiguous_length(headers: &HeaderMap) -> bool {
    let lines = |name| headers.get_all(name).iter();
    let mut codings = lines(header::TRANSFER_ENCODING);
    let is_chunked = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    !is_chunked || codings.next().is_some() || lines(header::CONTENT_LENGTH).count() > 1
}

/// Whether the request names exactly one authority.
///
/// HTTP/1.1 requires `Host` (RFC 9112 section 3.2), HTTP/2 `:authority` or `Host` (RFC 9113 section
/// 8.3.1). With both, or with an absolute-form target, they must name the same authority.
fn has_one_authority(parts: &Parts) -> bool {
    let host = parts.headers.get(header::HOST).map(|host| host.to_str().ok().and_then(normalize_authority));
    let target = parts.uri.authority().map(|authority| normalize_authority(authority.as_str()));
    match (target, host) {
        (Some(target), Some(host)) => target.is_some() && target == host,
        (Some(named), None) | (None, Some(named)) => named.is_some(),
        (None, None) => parts.version < Version::HTTP_11,
    }
}

/// Host in lower case, and the port unless it is 80 or 443. `None` if the host is empty or there is
/// a userinfo part, which could pass for the host.
fn normalize_authority(text: &str) -> Option<(String, Option<u16>)> {
    let authority: Authority = text.parse().ok()?;
    let port = authority.port_u16().filter(|port| ![80, 443].contains(port));
    let is_valid = !text.contains('@') && !authority.host().is_empty();
    is_valid.then(|| (authority.host().to_ascii_lowercase(), port))
}

/// The percent-decoded bytes (RFC 3986 section 2.1). `None` if a `%` is not followed by two digits.
fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            u8::try_from(digit()? * 16 + digit()?).ok()?
        } else {
            byte
        });
    }
    Some(out)
}

/// Whether this is UTF-8 without control characters. Overlong encodings are not UTF-8.
fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(char::is_control))
}

/// Whether path normalization (RFC 3986 section 6.2.2) would leave the path as it is: no empty
/// segments except at the end, no dot segments, no backslash, no percent-encoded slash.
fn is_normalized(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    if lower.contains("%2f") || lower.contains("%5c") || path.contains('\\') {
        return false;
    }
    let is_plain = |segment: &str| {
        let bytes = percent_decode(segment).unwrap_or_default();
        !bytes.is_empty() && bytes != b"." && bytes != b".."
    };
    let Some(rest) = path.strip_prefix('/') else { return path == "*" };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    rest.is_empty() && path == "/" || rest.split('/').all(is_plain)
}
