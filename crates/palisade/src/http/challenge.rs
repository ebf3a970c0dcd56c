//! The challenge of a response to a missing, invalid or insufficient credential (RFC 6750 section 3).
//!
//! [`super::authentication`] and [`super::guard`] put it in `WWW-Authenticate`. It names the
//! document about this API (RFC 9728 section 5.1), from which a client learns the issuer.

use http::HeaderValue;

use crate::{authz::Scope, package};

/// Path of the document about this API (RFC 9728 section 3).
pub(crate) const RESOURCE_METADATA: &str = "/.well-known/oauth-protected-resource";

/// An error code of RFC 6750 section 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChallengeError {
    /// The request is ambiguous, such as one with two credentials.
    InvalidRequest,
    /// The credential is not valid.
    InvalidToken,
    /// The credential lacks the scope.
    InsufficientScope,
}

/// The value of `WWW-Authenticate`. Without an error, the request had no credential.
pub(crate) fn challenge(public_url: &str, error: Option<ChallengeError>, scope: Option<Scope>) -> HeaderValue {
    let error = error.map(|error| match error {
        ChallengeError::InvalidRequest => "invalid_request",
        ChallengeError::InvalidToken => "invalid_token",
        ChallengeError::InsufficientScope => "insufficient_scope",
    });
    let metadata = format!("{}{RESOURCE_METADATA}", public_url.trim_end_matches('/'));
    let parameters = [
        ("realm", Some(package::name())),
        ("error", error),
        ("scope", scope.map(Scope::as_str)),
        ("resource_metadata", Some(&metadata)),
    ];
    let parameters = parameters.into_iter().filter_map(|(name, value)| Some(format!("{name}=\"{}\"", value?)));
    let value = format!("Bearer {}", parameters.collect::<Vec<_>>().join(", "));
    // None of the values can have a character that a header may not have.
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("Bearer"))
}
