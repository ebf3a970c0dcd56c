//! What HTTP leaves to the reader about the form of a request, decided here: whatever two readers could take for two
//! different things is refused (INPUT-04, INPUT-06).

use http::{HeaderMap, HeaderValue, Uri, Version, header, request::Parts};

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
    if SINGLE.iter().any(|name| parts.headers.get_all(name).iter().nth(1).is_some()) || !host_is_clear(parts) {
        return Err(Problem::new(Kind::Malformed));
    }
    // Nothing is ever unpacked, so nothing can be that is small here and large there (INPUT-05).
    if parts.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
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

/// HTTP/1.1 wants one `Host` (RFC 9112 section 3.2), and a target that names a host names the same.
fn host_is_clear(parts: &Parts) -> bool {
    if parts.version >= Version::HTTP_2 {
        return parts.uri.authority().is_some() || parts.headers.contains_key(header::HOST);
    }
    match (host(&parts.headers), &parts.uri) {
        (Some(host), uri) => same_host(uri, host),
        (None, _) => false,
    }
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST)?.to_str().ok().filter(|host| !host.is_empty())
}

fn same_host(uri: &Uri, host: &str) -> bool {
    uri.authority().is_none_or(|authority| authority.as_str().eq_ignore_ascii_case(host))
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
