//! A text that is rendered once and shared by all responses: [`super::meta`] serves the document and
//! its page so.
//!
//! It is compressed once. Clients may cache it for five minutes and then revalidate it by `ETag` (RFC
//! 9110 section 13.1.2). So a small request seldom costs a large response (RATE-09).

use std::{io::Write as _, marker::PhantomData};

use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::body::Bytes;
use poem::IntoResponse;
use poem_openapi::{
    ApiResponse,
    payload::Payload,
    registry::{MetaResponses, Registry},
};

use crate::crypto;

/// Time for which clients may use a response without revalidation.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// A text that all responses share: it is in memory once, even if many clients read it slowly.
pub(super) struct CachedText {
    plain: Encoded,
    gzip: Encoded,
    /// `Content-Security-Policy` of the page; the document has none.
    policy: Option<HeaderValue>,
}

struct Encoded {
    bytes: Bytes,
    /// Digest of the encoded bytes: it must differ between encodings (RFC 9110 section 8.8.3.3).
    etag: HeaderValue,
}

impl CachedText {
    pub(super) fn new(text: &str, policy: Option<&str>) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        // Writing to a Vec cannot fail.
        let gzip = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).unwrap_or_default();
        Self {
            plain: Encoded::new(text.to_owned().into()),
            gzip: Encoded::new(gzip.into()),
            policy: policy.and_then(|policy| HeaderValue::from_str(policy).ok()),
        }
    }

    /// Responds in an encoding that the client accepts, or with 304 if its copy is current.
    pub(super) fn respond<P>(&self, headers: &HeaderMap) -> RenderedResponse<P> {
        let use_gzip = accepts_gzip(headers);
        let encoded = if use_gzip { &self.gzip } else { &self.plain };
        let is_current = matches_etag(headers, &encoded.etag);
        let mut response = poem::Response::builder()
            .header(header::CACHE_CONTROL, CACHE)
            .header(header::ETAG, &encoded.etag)
            .header(header::VARY, header::ACCEPT_ENCODING.as_str());
        if let Some(policy) = &self.policy {
            response = response.header(header::CONTENT_SECURITY_POLICY, policy);
        }
        let response = if is_current {
            response.status(StatusCode::NOT_MODIFIED).finish()
        } else if use_gzip {
            response.header(header::CONTENT_ENCODING, "gzip").body(encoded.bytes.clone())
        } else {
            response.body(encoded.bytes.clone())
        };
        RenderedResponse { response, payload: PhantomData }
    }
}

impl Encoded {
    fn new(bytes: Bytes) -> Self {
        let digest = crypto::hex(&crypto::sha256(&bytes));
        // Hexadecimal digits in quotes are always a valid header value.
        let etag = HeaderValue::try_from(format!("\"{digest:.32}\"")).unwrap_or(HeaderValue::from_static("\"\""));
        Self { bytes, etag }
    }
}

/// Whether `Accept-Encoding` names gzip with a weight above 0 (RFC 9110 section 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        is_gzip && weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0))
    })
}

/// Whether `If-None-Match` contains this tag, by weak comparison (RFC 9110 section 13.1.2).
fn matches_etag(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let lines = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

/// A complete response, documented as one with the payload `P`.
pub(super) struct RenderedResponse<P> {
    response: poem::Response,
    payload: PhantomData<fn() -> P>,
}

impl<P: Payload> IntoResponse for RenderedResponse<P> {
    fn into_response(mut self) -> poem::Response {
        if self.response.status() == StatusCode::OK {
            self.response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(P::CONTENT_TYPE));
        }
        self.response
    }
}

impl<P: ApiResponse> ApiResponse for RenderedResponse<P> {
    fn meta() -> MetaResponses {
        P::meta()
    }

    fn register(registry: &mut Registry) {
        P::register(registry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_03_gzip_is_sent_only_to_clients_that_accept_it() {
        let accepts = |value: &'static str| {
            accepts_gzip(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, value.parse().unwrap())]))
        };
        assert!(["gzip", "br, GZIP;q=0.5", "deflate,gzip"].into_iter().all(accepts));
        assert!(!["", "identity", "gzip;q=0", "br", "xgzip", "gzip;q=x"].into_iter().any(accepts));
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
