//! The challenge of a response to a missing, invalid or insufficient credential (RFC 6750 section 3,
//! RFC 9470 section 3, RFC 9449 section 7.1).
//!
//! [`super::authentication`] and [`super::guard`] put it in `WWW-Authenticate`. It names the
//! document about this API (RFC 9728 section 5.1), from which a client learns the issuer.

use http::HeaderValue;

use crate::{authn::PROOF_ALGORITHMS, authz::Scope, package};

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
    /// The sign-in of the person is too old or too weak (RFC 9470 section 3).
    InsufficientUserAuthentication,
    /// The proof is absent or invalid, or was used before (RFC 9449 section 7.1).
    InvalidDpopProof,
    /// The proof needs a current nonce (RFC 9449 section 9).
    UseDpopNonce,
}

impl ChallengeError {
    fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
            Self::InsufficientUserAuthentication => "insufficient_user_authentication",
            Self::InvalidDpopProof => "invalid_dpop_proof",
            Self::UseDpopNonce => "use_dpop_nonce",
        }
    }
}

/// What a client must do to be accepted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Demand<'d> {
    /// The scope that the operation requires.
    pub(crate) scope: Option<Scope>,
    /// The largest age of the sign-in, in seconds.
    pub(crate) max_age: Option<u32>,
    /// The values of `acr` that are strong enough.
    pub(crate) acr_values: Option<&'d [String]>,
}

impl From<Option<Scope>> for Demand<'_> {
    fn from(scope: Option<Scope>) -> Self {
        Self { scope, ..Self::default() }
    }
}

/// The value of `WWW-Authenticate` for bearer tokens. Without an error, the request had no credential.
pub(crate) fn challenge<'d>(
    public_url: &str,
    error: Option<ChallengeError>,
    demand: impl Into<Demand<'d>>,
) -> HeaderValue {
    let Demand { scope, max_age, acr_values } = demand.into();
    let max_age = max_age.map(|max_age| max_age.to_string());
    let acr_values = acr_values.map(|values| values.join(" ").replace(['"', '\\'], ""));
    let demanded =
        [("scope", scope.map(Scope::as_str)), ("max_age", max_age.as_deref()), ("acr_values", acr_values.as_deref())];
    render("Bearer", public_url, error, &demanded)
}

/// The value for tokens that are bound to a key.
pub(crate) fn proof_challenge(public_url: &str, error: Option<ChallengeError>) -> HeaderValue {
    render("DPoP", public_url, error, &[("algs", Some(PROOF_ALGORITHMS))])
}

fn render(
    scheme: &'static str,
    public_url: &str,
    error: Option<ChallengeError>,
    more: &[(&str, Option<&str>)],
) -> HeaderValue {
    let metadata = format!("{}{RESOURCE_METADATA}", public_url.trim_end_matches('/'));
    let first = [("realm", Some(package::name())), ("error", error.map(ChallengeError::as_str))];
    let last = [("resource_metadata", Some(&*metadata))];
    let parameters = first.iter().chain(more).chain(&last);
    let parameters = parameters.filter_map(|(name, value)| Some(format!("{name}=\"{}\"", (*value)?)));
    let parameters = parameters.collect::<Vec<_>>().join(", ");
    // None of the values can have a character that a header may not have.
    let value = HeaderValue::try_from(format!("{scheme} {parameters}"));
    value.unwrap_or(HeaderValue::from_static(scheme))
}
