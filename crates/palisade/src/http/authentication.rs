//! Step 1 of the request pipeline: the principal of a request, or the problem of its credential.
//!
//! Called by [`super::guard`]; [`crate::internal`] takes the problems from here.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode, header};
use poem::Request;

use super::{
    Context,
    challenge::{ChallengeError, challenge, proof_challenge},
};
use crate::{
    authn::{
        Authenticator, AuthnError, ConnectionInfo, Principal, RejectReason, RequestCredentials, SourceNetwork,
        TenantRefusal,
    },
    authz::Scope,
    model::ApiKeyId,
    problem::{Kind, Problem},
    telemetry::{event, metrics, repeats::coalesced},
};

/// Name of the limit on failed authentications, in problems and events.
const FAILED_AUTHENTICATIONS: &str = "failed_authentications";

/// Authenticates the caller. Reads the credentials only; the rest of the request stays unread.
pub(super) async fn authenticate(
    context: &Context,
    scope: Option<Scope>,
    request: &Request,
) -> Result<Arc<Principal>, Problem> {
    let authenticator = &context.authenticator;
    // The edge sets both. Without a source, failed authentications could not be counted.
    let source = *request.extensions().get::<SourceNetwork>().ok_or_else(|| Problem::new(Kind::Internal))?;
    let connection = request.extensions().get::<ConnectionInfo>().ok_or_else(|| Problem::new(Kind::Internal))?;
    let credentials =
        RequestCredentials { headers: request.headers(), method: request.method(), uri: request.uri(), connection };
    let kind = credentials.kind();
    if kind == "session" {
        check_browser_request(authenticator, request, source)?;
    }
    let authenticated = authenticator.authenticate(credentials, source).await;
    let kind =
        if authenticated.is_err() && authenticator.rejects_certificate(connection) { "certificate" } else { kind };
    record_result(kind, &authenticated);
    authenticated.map_err(|error| {
        let reason = if let AuthnError::Rejected { reason, .. } = error { Some(reason) } else { None };
        let problem = unauthenticated(error, source, &context.public_url, scope);
        match authenticator.new_proof_nonce() {
            Some(nonce) if problem.status() == StatusCode::UNAUTHORIZED => {
                challenge_proof(problem, &context.public_url, reason, &nonce)
            }
            _ => problem,
        }
    })
}

/// Adds the challenge of a service whose tokens may be bound to a key (RFC 9449 sections 7.1 and 9),
/// and a nonce for the next proofs.
fn challenge_proof(problem: Problem, public_url: &str, reason: Option<RejectReason>, nonce: &str) -> Problem {
    let error = reason.map(|reason| match reason {
        RejectReason::Proof(_) => ChallengeError::InvalidDpopProof,
        RejectReason::ProofNonce => ChallengeError::UseDpopNonce,
        _ => ChallengeError::InvalidToken,
    });
    let problem = problem.header(header::WWW_AUTHENTICATE, proof_challenge(public_url, error));
    // A nonce is base64url.
    let nonce = HeaderValue::try_from(nonce).unwrap_or(HeaderValue::from_static(""));
    problem.header(HeaderName::from_static("dpop-nonce"), nonce)
}

/// Rejects a request of another site, whose cookie the browser added (AUTHN-14).
pub(crate) fn check_browser_request(
    authenticator: &Authenticator,
    request: &Request,
    source: SourceNetwork,
) -> Result<(), Problem> {
    authenticator.check_browser_request(request.method().is_safe(), request.headers()).map_err(|reason| {
        event::malicious_csrf(reason, source.0);
        let detail = "A session cookie needs a request of the same origin and, to change something, the X-CSRF-Token.";
        Problem::new(Kind::Forbidden).detail(detail)
    })
}

/// Rejects a sign-in that a page of any site embeds, as an image or a frame (Fetch Metadata): it would
/// use up the sign-ins of the client's network. A sign-in is a navigation of the whole page.
pub(super) fn check_navigation(request: &Request, source: SourceNetwork) -> Result<(), Problem> {
    let is_absent_or = |name: &str, expected: &str| request.headers().get_all(name).iter().all(|it| it == expected);
    let is_navigation = is_absent_or("sec-fetch-mode", "navigate") && is_absent_or("sec-fetch-dest", "document");
    if !request.method().is_safe() || is_navigation {
        return Ok(());
    }
    event::malicious_csrf("embedded", source.0);
    Err(Problem::new(Kind::Forbidden).detail("A sign-in is a navigation of the whole page."))
}

/// Counts an authentication with this kind of credential in the metric `authentications`.
pub(crate) fn record_result<T>(kind: &'static str, authenticated: &Result<T, AuthnError>) {
    let result = match authenticated {
        Ok(_) => "accepted",
        Err(AuthnError::Missing) => "missing",
        Err(AuthnError::Rejected { .. }) => "rejected",
        Err(AuthnError::LockedOut { .. }) => "locked_out",
        Err(AuthnError::TenantRefused(_)) => "tenant_refused",
        Err(AuthnError::Unavailable(_)) => "unavailable",
    };
    metrics::record_authentication(kind, result);
}

/// The problem of a failed authentication. Every rejected credential gets the same 401: only the
/// log has the reason. What the client must know to be accepted is apart: two credentials get 400
/// (RFC 6750 section 3.1), a token that is too large 431. `scope` is what the operation requires.
pub(crate) fn unauthenticated(
    error: AuthnError,
    source: SourceNetwork,
    public_url: &str,
    scope: Option<Scope>,
) -> Problem {
    let challenged =
        |kind, error| Problem::new(kind).header(header::WWW_AUTHENTICATE, challenge(public_url, error, scope));
    match error {
        AuthnError::Missing => challenged(Kind::Unauthenticated, None),
        AuthnError::Rejected { reason, key, delay } => {
            record_rejection(reason, key, source);
            match reason {
                RejectReason::TwoCredentials => challenged(Kind::Malformed, Some(ChallengeError::InvalidRequest))
                    .detail("Send one credential, in one header field."),
                reason if reason.is_size() => Problem::new(Kind::HeadersTooLarge)
                    .detail("The access token is too large, or a list in it is too long."),
                // The challenge is that of [`challenge_proof`]: the token itself is valid.
                RejectReason::Proof(_) | RejectReason::ProofNonce => Problem::new(Kind::Unauthenticated),
                _ => challenged(Kind::Unauthenticated, Some(ChallengeError::InvalidToken)),
            }
            .delayed_by(delay)
        }
        AuthnError::LockedOut { seconds, rejected } => {
            if let Some((reason, key)) = rejected {
                record_rejection(reason, key, source);
            }
            event::excess_rate_limit_exceeded(source.0, FAILED_AUTHENTICATIONS);
            Problem::new(Kind::RateLimited)
                .detail("Too many failed authentications from this address.")
                .limit(FAILED_AUTHENTICATIONS)
                .header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
        }
        AuthnError::TenantRefused(refusal) => {
            event::tenant_refused(refusal.as_str());
            Problem::new(match refusal {
                TenantRefusal::Suspended => Kind::TenantSuspended,
                TenantRefusal::Unknown => Kind::TenantUnknown,
            })
        }
        AuthnError::Unavailable(dependency) => {
            coalesced!(warn, "cannot authenticate: a dependency is unavailable", dependency);
            Problem::new(Kind::Unavailable)
        }
    }
}

/// Records the security event of a rejected credential.
fn record_rejection(reason: RejectReason, key: Option<ApiKeyId>, source: SourceNetwork) {
    let key = key.map(|key| key.to_string());
    match reason {
        RejectReason::Revoked => event::authn_token_reuse(source.0, key.as_deref()),
        reason => event::authn_token_invalid(&reason.to_string(), reason.claim(), source.0, key.as_deref()),
    }
}
