//! What HTTP leaves to the reader about the form of a request, decided here: whatever two readers could take for two
//! different things is refused (INPUT-04, INPUT-06).

use http::{HeaderValue, Version, header, request::Parts, uri::Authority};

use crate::problem::{Kind, Problem};

/// Longest path and query together, in bytes.
const MAX_TARGET: usize = 8 * 1024;
/// Most bytes of all names and values of headers.
const MAX_HEADERS: usize = 16 * 1024;
/// Headers that say one thing, so two of them would say two.
const SINGLE: [header::HeaderName; 4] =
    [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::HOST];

/// The problem of a request that does not have the form.
pub(super) fn check(parts: &Parts) -> Result<(), Problem> {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > MAX_TARGET {
        return Err(Problem::new(Kind::UriTooLong));
    }
    let bytes: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > MAX_HEADERS {
        return Err(Problem::new(Kind::HeadersTooLarge));
    }
    let mut framings = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
    if !framings.all(|framing| framing.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err(Problem::new(Kind::Malformed));
    }
    if SINGLE.iter().any(|name| parts.headers.get_all(name).iter().nth(1).is_some()) || !host_is_clear(parts) {
        return Err(Problem::new(Kind::Malformed));
    }
    // Nothing is ever unpacked, so nothing can be that is small here and large there (INPUT-05).
    let mut codings = parts.headers.get_all(header::CONTENT_ENCODING).iter();
    if !codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Problem::new(Kind::UnsupportedMediaType)
            .detail("A body is sent as it is, without a content coding.")
            .header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }
    let plain = |text| decoded(text).is_some_and(|bytes| is_text(&bytes));
    if !plain(parts.uri.path()) || !plain(parts.uri.query().unwrap_or_default()) || !path_is_plain(parts.uri.path()) {
        return Err(Problem::new(Kind::Malformed));
    }
    Ok(())
}

/// HTTP/1.1 wants a `Host` (RFC 9112 section 3.2) and HTTP/2 an authority or one (RFC 9113 section 8.3.1); where there are
/// two they name the same, and what there is names a host.
fn host_is_clear(parts: &Parts) -> bool {
    let host = parts.headers.get(header::HOST).map(|host| host.to_str().ok().and_then(place));
    let target = parts.uri.authority().map(|authority| place(authority.as_str()));
    match (target, host) {
        (Some(target), Some(host)) => target.is_some() && target == host,
        (Some(named), None) | (None, Some(named)) => named.is_some(),
        (None, None) => parts.version < Version::HTTP_11,
    }
}

/// Host and port, in the one form that is compared. Whoever names a user names no place.
fn place(text: &str) -> Option<(String, Option<u16>)> {
    let authority: Authority = text.parse().ok()?;
    let port = authority.port_u16().filter(|port| ![80, 443].contains(port));
    let sound = !text.contains('@') && !authority.host().is_empty();
    sound.then(|| (authority.host().to_ascii_lowercase(), port))
}

/// What percent-encoding stands for (RFC 3986 section 2.1); nothing if a `%` stands for nothing.
fn decoded(text: &str) -> Option<Vec<u8>> {
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

/// UTF-8 without control characters; overlong encodings are no UTF-8.
fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(char::is_control))
}

/// A path that no reader could shorten: without empty segments, but at the end, and those of dots, and without a slash
/// in disguise.
fn path_is_plain(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    if lower.contains("%2f") || lower.contains("%5c") || path.contains('\\') {
        return false;
    }
    let plain = |segment: &str| {
        let bytes = decoded(segment).unwrap_or_default();
        !bytes.is_empty() && bytes != b"." && bytes != b".."
    };
    let Some(rest) = path.strip_prefix('/') else { return path == "*" };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    rest.is_empty() && path == "/" || rest.split('/').all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_06_a_path_says_one_thing() {
        for path in ["/", "/v1/orders", "/v1/products/A%20B", "/v1/x.y/..z", "/v1/orders/", "*"] {
            assert!(path_is_plain(path), "{path}");
        }
        for path in [
            "",
            "v1",
            "//",
            "/v1//orders",
            "/v1/orders//",
            "/v1/./me",
            "/v1/..",
            "/v1/../me",
            "/%2e%2E/me",
            "/v1%2Fme",
            "/v1\\me",
            "/%5cme",
        ] {
            assert!(!path_is_plain(path), "{path}");
        }
    }

    #[test]
    fn input_06_percent_encoding_is_whole_and_utf_8() {
        let sound = |text| decoded(text).is_some_and(|bytes| is_text(&bytes));
        assert!(sound("a%20b%C3%A4") && sound(""));
        for text in ["%", "%2", "%zz", "a%00b", "%0a", "%ff", "%c0%af", "%ed%a0%80", "%c2%85"] {
            assert!(!sound(text), "{text}");
        }
    }
}
