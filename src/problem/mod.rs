//! Every error a caller sees, as an RFC 9457 problem (control INPUT-08).
//!
//! A layer that refuses a request answers with a [`Problem`]; the outermost layer of
//! [`crate::edge`] turns it into a body and adds the trace id. An error response that is
//! *not* a problem (a framework's own, say) is replaced there by a plain one of the same
//! status, so that nothing of the inside leaves: no SQL, no type names, no versions.

mod framework;

pub(crate) use framework::from_framework;

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body_util::combinators::BoxBody;
use hyper::body::Bytes;
use serde::Serialize;

/// What went wrong, in the caller's terms. Each variant's comment gives its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 400. The request is not well-formed HTTP or JSON.
    Malformed,
    /// 400. Well-formed, but a value is not what the schema allows; `errors` says where.
    InvalidInput,
    /// 401. No credential, or not a valid one. Never says which.
    Unauthenticated,
    /// 403. The credential lacks the operation's scope (RFC 6750 section 3.1).
    InsufficientScope,
    /// 403. The caller's role does not allow the operation.
    Forbidden,
    /// 404. No such route, or no such object *for this caller*: the two look alike on purpose.
    NotFound,
    /// 405. The path exists, the method does not.
    MethodNotAllowed,
    /// 406. The caller does not accept what the operation answers with.
    NotAcceptable,
    /// 408. The request's body came too slowly.
    RequestTimeout,
    /// 409. The object's state does not allow the change.
    Conflict,
    /// 409. Another request with the same idempotency key is being served; repeat it later.
    InFlight,
    /// 413. The body is longer than allowed.
    PayloadTooLarge,
    /// 414. The path and query are longer than allowed.
    UriTooLong,
    /// 415. The body is not `application/json` in UTF-8, as it is.
    UnsupportedMediaType,
    /// 422. A well-formed request that the business rules refuse.
    Unprocessable,
    /// 422. The idempotency key was used for a request that asked something else.
    KeyReused,
    /// 429. Too many requests; `Retry-After` says when to come back.
    RateLimited,
    /// 431. The headers are longer than allowed.
    HeadersTooLarge,
    /// 500. A fault of ours. The trace id finds it in the logs.
    Internal,
    /// 503. Something this operation needs is down or too slow; it failed closed.
    Unavailable,
}

impl Kind {
    /// Status, stable code, and title of the kind.
    const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Malformed => (StatusCode::BAD_REQUEST, "malformed_request", "The request is malformed"),
            Self::InvalidInput => (StatusCode::BAD_REQUEST, "invalid_input", "The input is invalid"),
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated", "Authentication is required"),
            Self::InsufficientScope => (StatusCode::FORBIDDEN, "insufficient_scope", "A scope is missing"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "Not allowed"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "Not found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed"),
            Self::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "not_acceptable", "The answer would not be accepted"),
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "request_timeout", "The request came too slowly"),
            Self::Conflict => (StatusCode::CONFLICT, "conflict", "The object's state does not allow this"),
            Self::InFlight => (StatusCode::CONFLICT, "request_in_flight", "A request with this key is in flight"),
            Self::PayloadTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", "The body is too large"),
            Self::UriTooLong => (StatusCode::URI_TOO_LONG, "uri_too_long", "The target is too long"),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Only application/json is accepted")
            }
            Self::Unprocessable => (StatusCode::UNPROCESSABLE_ENTITY, "unprocessable", "The request cannot be done"),
            Self::KeyReused => {
                (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", "The key was used for another request")
            }
            Self::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Too many requests"),
            Self::HeadersTooLarge => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "The headers are too large")
            }
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Temporarily unavailable"),
        }
    }

    /// The kind that stands for a bare status, for responses no layer of ours made.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthenticated,
            StatusCode::FORBIDDEN => Self::Forbidden,
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::NOT_ACCEPTABLE => Self::NotAcceptable,
            StatusCode::REQUEST_TIMEOUT => Self::RequestTimeout,
            StatusCode::CONFLICT => Self::Conflict,
            StatusCode::PAYLOAD_TOO_LARGE => Self::PayloadTooLarge,
            StatusCode::URI_TOO_LONG => Self::UriTooLong,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Self::HeadersTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            StatusCode::UNPROCESSABLE_ENTITY => Self::Unprocessable,
            StatusCode::TOO_MANY_REQUESTS => Self::RateLimited,
            StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            other if other.is_client_error() => Self::Malformed,
            _ => Self::Internal,
        }
    }
}

/// Most faults told of one request.
pub(crate) const MAX_FAULTS: usize = 20;

/// One fault of the input: where it is and what kind, never the value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the body, which is empty or starts with `/`; or the name of a parameter.
    pub pointer: String,
    /// Stable code, such as `required`, `unknown_field`, `too_long`.
    pub code: &'static str,
}

/// An error on its way to the caller.
#[derive(Clone, Debug)]
pub struct Problem {
    kind: Kind,
    detail: Option<&'static str>,
    limit: Option<&'static str>,
    delay: Duration,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem of this kind.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self { kind, detail: None, limit: None, delay: Duration::ZERO, errors: Vec::new(), headers: Vec::new() }
    }

    /// Adds a sentence for the developer at the other end. `'static`, so that it can hold nothing of the request.
    #[must_use]
    pub const fn detail(mut self, detail: &'static str) -> Self {
        self.detail = Some(detail);
        self
    }

    /// Names the limit that was hit.
    #[must_use]
    pub(crate) const fn limit(mut self, limit: &'static str) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The limit that was hit.
    pub(crate) const fn limit_name(&self) -> Option<&'static str> {
        self.limit
    }

    /// Asks the edge to give the answer after this long.
    #[must_use]
    pub(crate) const fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// How long the answer is to be held back.
    pub(crate) const fn delay(&self) -> Duration {
        self.delay
    }

    /// Adds the faults of the input, as many as are told.
    #[must_use]
    pub fn errors(mut self, mut errors: Vec<FieldError>) -> Self {
        errors.truncate(MAX_FAULTS);
        self.errors = errors;
        self
    }

    /// Adds one fault of the input.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>, code: &'static str) -> Self {
        self.errors.push(FieldError { pointer: pointer.into(), code });
        self
    }

    /// Adds a response header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// What went wrong.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.kind.parts().0
    }

    /// The stable code that programs match on.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.kind.parts().1
    }

    /// The response: media type and headers now, the problem itself as an extension that the edge renders.
    pub(crate) fn into_response<B: Default>(self) -> http::Response<B> {
        let mut response = http::Response::new(B::default());
        *response.status_mut() = self.status();
        for (name, value) in &self.headers {
            response.headers_mut().append(name, value.clone());
        }
        response.extensions_mut().insert(self);
        response
    }

    /// The same as poem's own type.
    pub(crate) fn into_poem(self) -> poem::Response {
        self.into_response::<BoxBody<Bytes, std::io::Error>>().into()
    }

    /// The body (RFC 9457 section 3), with the two members that only the edge knows. `instance` is left
    /// out where echoing the path would let callers make the service send more than they do.
    pub(crate) fn body(&self, instance: Option<&str>, trace_id: &str) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Body<'a> {
            r#type: String,
            title: &'a str,
            status: u16,
            #[serde(skip_serializing_if = "Option::is_none")]
            detail: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            instance: Option<&'a str>,
            code: &'a str,
            trace_id: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            limit: Option<&'a str>,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [FieldError],
        }
        let (status, code, title) = self.kind.parts();
        let body = Body {
            r#type: format!("urn:problem-type:{code}"),
            title,
            status: status.as_u16(),
            detail: self.detail,
            instance,
            code,
            trace_id,
            limit: self.limit,
            errors: &self.errors,
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

impl std::error::Error for Problem {}

impl poem::error::ResponseError for Problem {
    fn status(&self) -> StatusCode {
        Self::status(self)
    }

    fn as_response(&self) -> poem::Response {
        self.clone().into_poem()
    }
}

/// The media type of a problem (RFC 9457 section 3).
pub(crate) const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// `WWW-Authenticate` for a call without a usable credential (RFC 6750 section 3).
pub(crate) fn challenge(value: &'static str) -> (HeaderName, HeaderValue) {
    (header::WWW_AUTHENTICATE, HeaderValue::from_static(value))
}
