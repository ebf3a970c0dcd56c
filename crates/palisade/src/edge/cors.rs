//! Cross-origin resource sharing (CORS, Fetch standard section 3.3): pages of the origins that the
//! operator lists may call the API and read its responses. Home of AUTHZ-10.
//!
//! [`poem_adapter`](super::poem_adapter) answers preflights with [`Cors::preflight`]: after rate
//! limits and request validation, before routing and authentication. [`context`](super::context)
//! adds the headers to every response, also to problems of the layers between. A page without
//! permission can send simple requests, but it cannot read a response.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::Body;
use crate::settings::Origin;

/// Methods that preflights allow: those of operations.
const METHODS: &str = "GET, POST, PUT, PATCH, DELETE";
/// Request headers that preflights allow. API keys are for programs, so pages cannot send them.
const REQUEST_HEADERS: &str = "authorization, content-type, dpop, idempotency-key";
/// Response headers that pages may read besides the simple ones.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "RateLimit, RateLimit-Policy, Retry-After, Location, Idempotent-Replayed, X-Request-Id, DPoP-Nonce, WWW-Authenticate",
);
/// Seconds for which a browser may cache a preflight. An origin that the operator removes still
/// sends requests for that long, and cannot read their responses.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The listed origins of a listener.
#[derive(Clone, Debug)]
pub(super) struct Cors(Arc<[Origin]>);

impl Cors {
    pub(super) fn new(origins: &[Origin]) -> Self {
        Self(origins.into())
    }

    /// The origin of the page that sent the request, if it is listed. `None` also if the header is
    /// repeated.
    pub(super) fn allowed_origin(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let mut origins = request.get_all(header::ORIGIN).iter();
        let origin = origins.next().filter(|_| origins.next().is_none())?;
        self.0.iter().any(|listed| listed.header() == origin).then(|| origin.clone())
    }

    /// The response to a preflight whose origin, method and headers are all allowed. Every other
    /// request is for the router, which rejects `OPTIONS`.
    pub(super) fn preflight(&self, method: &Method, request: &HeaderMap) -> Option<Response<Body>> {
        if method != Method::OPTIONS {
            return None;
        }
        self.allowed_origin(request)?;
        let requested_method = request.get(header::ACCESS_CONTROL_REQUEST_METHOD)?.to_str().ok()?;
        if !METHODS.split(", ").any(|method| method == requested_method) {
            return None;
        }
        for line in request.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            let is_allowed = |name: &str| REQUEST_HEADERS.split(", ").any(|known| name.eq_ignore_ascii_case(known));
            if !line.to_str().ok()?.split(',').map(str::trim).all(is_allowed) {
                return None;
            }
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().extend([
            (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS)),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS)),
            (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
        ]);
        Some(response)
    }

    /// Adds the permission for this origin, if any, to a response. Caches must not give the response
    /// for one origin to another (`Vary`, RFC 9110 section 12.5.5).
    pub(super) fn add_headers(&self, allowed_origin: Option<HeaderValue>, response: &mut HeaderMap) {
        if self.0.is_empty() {
            return;
        }
        response.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = allowed_origin {
            response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        }
    }
}
