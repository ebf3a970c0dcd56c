//! Errors that callers see, as RFC 9457 problem details (INPUT-08).
//!
//! Any layer rejects a request with a [`Problem`]. The outermost layer of [`crate::edge`] renders
//! it as the response body and adds the trace id. That layer also replaces error responses that are
//! not problems, such as those of a framework, by a problem of the same status. So no response
//! reveals SQL, type names or versions.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::combinators::BoxBody;
use hyper::body::Bytes;
use serde::Serialize;
use thiserror::Error;

/// Declares each kind with its status, stable code and title.
macro_rules! kinds {
    ($($(#[$doc:meta])+ $kind:ident = $status:ident, $code:literal, $title:literal;)+) => {
        /// The kind of an error, in the caller's terms.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])+ $kind,)+
        }

        impl Kind {
            const ALL: &[Self] = &[$(Self::$kind),+];

            const fn parts(self) -> (StatusCode, &'static str, &'static str) {
                match self {
                    $(Self::$kind => (StatusCode::$status, $code, $title),)+
                }
            }
        }
    };
}

kinds! {
    /// The request is not well-formed HTTP or JSON.
    Malformed = BAD_REQUEST, "malformed_request", "The request is malformed";
    /// A well-formed request with a value that the schema does not allow; `errors` says where.
    InvalidInput = BAD_REQUEST, "invalid_input", "The input is invalid";
    /// The credential is missing or invalid. The response does not say which.
    Unauthenticated = UNAUTHORIZED, "unauthenticated", "Authentication is required";
    /// The sign-in is too old, or too weak, for a sensitive operation (RFC 9470 section 3).
    SignInRequired = UNAUTHORIZED, "insufficient_user_authentication", "A recent or stronger sign-in is required";
    /// The caller's role does not allow the operation.
    Forbidden = FORBIDDEN, "forbidden", "Access denied";
    /// The credential lacks the scope of the operation (RFC 6750 section 3.1).
    InsufficientScope = FORBIDDEN, "insufficient_scope", "The scope is insufficient";
    /// An operator suspended the tenant of the caller.
    TenantSuspended = FORBIDDEN, "tenant_suspended", "The tenant is suspended";
    /// The tenant of the caller is not registered, or was deleted.
    TenantUnknown = FORBIDDEN, "tenant_unknown", "The tenant is unknown";
    /// No such route, or no such object *for this caller*: deliberately indistinguishable.
    NotFound = NOT_FOUND, "not_found", "Not found";
    /// The path exists, but not with this method.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed";
    /// The caller does not accept the media type of the response.
    NotAcceptable = NOT_ACCEPTABLE, "not_acceptable", "No acceptable media type";
    /// The request body arrived too slowly.
    RequestTimeout = REQUEST_TIMEOUT, "request_timeout", "The body arrived too slowly";
    /// The object's state does not allow the change.
    Conflict = CONFLICT, "conflict", "The object's state does not allow this";
    /// Another request with the same idempotency key is in progress; retry later.
    InFlight = CONFLICT, "request_in_flight", "The idempotency key is in use";
    /// The body exceeds the size limit.
    PayloadTooLarge = PAYLOAD_TOO_LARGE, "payload_too_large", "The body is too large";
    /// The path and query exceed the size limit.
    UriTooLong = URI_TOO_LONG, "uri_too_long", "The request target is too long";
    /// The body is not uncompressed JSON in UTF-8.
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Unsupported media type";
    /// A well-formed request that violates a business rule.
    Unprocessable = UNPROCESSABLE_ENTITY, "unprocessable", "A business rule forbids this";
    /// The idempotency key was used for a different request.
    KeyReused = UNPROCESSABLE_ENTITY, "idempotency_key_reused", "The idempotency key was reused";
    /// Too many requests; `Retry-After` says when to retry.
    RateLimited = TOO_MANY_REQUESTS, "rate_limited", "Too many requests";
    /// The headers exceed the size limit.
    HeadersTooLarge = REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "The headers are too large";
    /// A bug or failure in the service. The log has details under the trace id.
    Internal = INTERNAL_SERVER_ERROR, "internal", "Internal error";
    /// A dependency is down, or the service is overloaded. The operation failed closed.
    Unavailable = SERVICE_UNAVAILABLE, "unavailable", "Temporarily unavailable";
}

impl Kind {
    /// The first kind with this status, for error responses that are not problems.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let other = if status.is_client_error() { Self::Malformed } else { Self::Internal };
        Self::ALL.iter().copied().find(|kind| kind.parts().0 == status).unwrap_or(other)
    }
}

/// Most input errors that a problem lists.
pub(crate) const MAX_FIELD_ERRORS: usize = 20;

/// One error in the input: its location and kind, never the value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the body, empty or starting with `/`; or the name of a
    /// parameter.
    pub pointer: String,
    /// Stable code, such as `required`, `unknown_field`, `too_long`.
    pub code: &'static str,
}

/// An error response: its kind, and details for the caller.
#[derive(Clone, Debug, Error)]
#[error("{}", self.code())]
pub struct Problem {
    kind: Kind,
    detail: Option<&'static str>,
    /// The name of the exceeded limit.
    pub(crate) limit: Option<&'static str>,
    /// The time for which the edge holds the response back.
    pub(crate) delay: Duration,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem of this kind.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self { kind, detail: None, limit: None, delay: Duration::ZERO, errors: Vec::new(), headers: Vec::new() }
    }

    /// Adds an explanation for the developer of the client. `'static`, so it cannot quote the
    /// request.
    #[must_use]
    pub const fn detail(mut self, detail: &'static str) -> Self {
        self.detail = Some(detail);
        self
    }

    /// Names the exceeded limit.
    #[must_use]
    pub(crate) const fn limit(mut self, limit: &'static str) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Makes the edge hold the response back for this time.
    #[must_use]
    pub(crate) const fn delayed_by(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sets the errors in the input, at most [`MAX_FIELD_ERRORS`].
    #[must_use]
    pub fn errors(mut self, mut errors: Vec<FieldError>) -> Self {
        errors.truncate(MAX_FIELD_ERRORS);
        self.errors = errors;
        self
    }

    /// Adds one error in the input.
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

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.kind.parts().0
    }

    /// The stable code, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.kind.parts().1
    }

    /// The response with status and headers. The edge renders the problem from its extensions.
    pub(crate) fn into_response<B: Default>(self) -> http::Response<B> {
        let mut response = http::Response::new(B::default());
        *response.status_mut() = self.status();
        for (name, value) in &self.headers {
            response.headers_mut().append(name, value.clone());
        }
        response.extensions_mut().insert(self);
        response
    }

    /// The same as a poem response.
    pub(crate) fn into_poem(self) -> poem::Response {
        self.into_response::<BoxBody<Bytes, std::io::Error>>().into()
    }

    /// The body (RFC 9457 section 3). The edge provides `instance`, the path, and the trace id.
    ///
    /// Without `instance` where its echo would make the response larger than the request.
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
