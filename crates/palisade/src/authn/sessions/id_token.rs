//! Validation of ID tokens (OpenID Connect Core 1.0 section 3.1.3.7) and of logout tokens (OpenID
//! Connect Back-Channel Logout 1.0 section 2.6).
//!
//! In: a token and the client that it must be for. Out: the claims that sessions use. [`super::login`]
//! and [`super::logout`] call this. Algorithms and keys follow the rules of access tokens.

use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::super::{
    AuthnError, RejectReason,
    claims::{self, Claims, Header},
    identity::{issuer_session, qualified_name},
    issuers::TrustedIssuer,
    sign_in::SignIn,
    verify::strings,
};
use crate::settings::SignatureAlgorithm;

/// The event that makes a token a logout token.
const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// Longest time between the issue of a logout token and its arrival, in seconds.
const MAX_LOGOUT_AGE: i64 = 600;

/// What an ID token says about the person and the session at the issuer.
#[derive(Debug)]
pub(super) struct IdToken {
    /// The subject as this service records it.
    pub(super) subject: String,
    /// `sid` as the issuer has it, and as revocations name it.
    pub(super) issuer_session: Option<(String, String)>,
    pub(super) sign_in: SignIn,
}

/// A valid logout token.
#[derive(Debug)]
pub(super) struct LogoutToken {
    /// The session at the issuer, as revocations name it.
    pub(super) issuer_session: Option<String>,
    /// The subject as this service records it.
    pub(super) subject: Option<String>,
    /// Names the token, for the check that it is used once.
    pub(super) id: String,
    /// Time after which the token is rejected in any case.
    pub(super) accepted_until: i64,
}

/// Validates the ID token of a sign-in by this client.
pub(super) async fn verify_id_token(
    issuer: &TrustedIssuer,
    token: &str,
    (client, nonce, access_token): (&str, &str, &str),
    now: i64,
) -> Result<IdToken, AuthnError> {
    let (header, claims) = claims::parse(token, issuer.max_claim_items)?;
    if !header.typ.as_deref().is_none_or(|typ| typ.eq_ignore_ascii_case("JWT")) {
        return Err(RejectReason::TokenType("").into());
    }
    check(issuer, token, (&header, &claims), client, now).await?;
    if claims.text("nonce") != Some(nonce) {
        return Err(RejectReason::SignIn("nonce").into());
    }
    if claims.0.get("at_hash").is_some_and(|hash| *hash != left_half(header.algorithm, access_token)) {
        return Err(RejectReason::Claims("at_hash").into());
    }
    let of = &issuer.verifier.issuer;
    let subject = of.subject_claim.text(&claims.0).and_then(|subject| qualified_name(of, subject));
    let issuer_session = match claims.0.get("sid") {
        Some(sid) => {
            let revoked_as = issuer_session(of, sid)?;
            sid.as_str().map(|sid| (sid.to_owned(), revoked_as))
        }
        None => None,
    };
    let sign_in = SignIn::from_claims(&claims, &issuer.verifier.issuer, client)?;
    Ok(IdToken { subject: subject.ok_or(RejectReason::Claims("sub"))?, issuer_session, sign_in })
}

/// Validates a logout token, whose header `typ` is `token_type`; `JWT` stands for an absent one too.
pub(super) async fn verify_logout_token(
    issuer: &TrustedIssuer,
    token: &str,
    (client, token_type): (&str, &str),
    now: i64,
) -> Result<LogoutToken, AuthnError> {
    let (header, claims) = claims::parse(token, issuer.max_claim_items)?;
    if !header.typ.as_deref().unwrap_or("JWT").eq_ignore_ascii_case(token_type) {
        return Err(RejectReason::TokenType("").into());
    }
    let (issued_at, expires_at) = check(issuer, token, (&header, &claims), client, now).await?;
    if issued_at < now - MAX_LOGOUT_AGE {
        return Err(RejectReason::Expired.into());
    }
    let has_event = claims.0.get("events").is_some_and(|events| events.get(LOGOUT_EVENT).is_some_and(Value::is_object));
    if !has_event {
        return Err(RejectReason::Claims("events").into());
    }
    // An ID token must not pass for a logout token.
    if claims.0.contains_key("nonce") {
        return Err(RejectReason::Claims("nonce").into());
    }
    let id = claims.text("jti").filter(|id| (1..=255).contains(&id.len())).ok_or(RejectReason::Claims("jti"))?;
    let of = &issuer.verifier.issuer;
    let issuer_session = claims.0.get("sid").map(|sid| issuer_session(of, sid)).transpose()?;
    let to_subject = |subject: &Value| {
        let name = subject.as_str().and_then(|subject| qualified_name(of, subject));
        name.ok_or(RejectReason::Claims("sub"))
    };
    // Where sessions have their subject from: `sub` alone may name a person that they do not know.
    let subject = of.subject_claim.find(&claims.0).map(to_subject).transpose()?;
    if issuer_session.is_none() && subject.is_none() {
        return Err(RejectReason::Claims("sid").into());
    }
    let id = format!("{} {id}", of.url);
    let accepted_until = expires_at.saturating_add(issuer.verifier.leeway).min(issued_at + MAX_LOGOUT_AGE);
    Ok(LogoutToken { issuer_session, subject, id, accepted_until })
}

/// Checks what both types have in common: algorithm, signature, issuer, audience and times. Returns
/// `iat` and `exp`.
async fn check(
    issuer: &TrustedIssuer,
    token: &str,
    (header, claims): (&Header, &Claims),
    client: &str,
    now: i64,
) -> Result<(i64, i64), AuthnError> {
    if !issuer.verifier.is_issuer_of(claims) {
        return Err(RejectReason::Issuer.into());
    }
    let keys = issuer.keys_for(header).await?;
    if !issuer.verifier.issuer.algorithms.contains(&header.algorithm) {
        return Err(RejectReason::Algorithm.into());
    }
    issuer.verifier.check_signature(token, header, claims, &keys)?;
    if !strings(claims.0.get("aud")).is_some_and(|audience| audience.contains(&client)) {
        return Err(RejectReason::Audience.into());
    }
    let is_for_others = claims.0.get("aud").and_then(Value::as_array).is_some_and(|audience| audience.len() > 1);
    match claims.0.get("azp") {
        None if !is_for_others => {}
        Some(party) if *party == client => {}
        _ => return Err(RejectReason::Claims("azp").into()),
    }
    let leeway = issuer.verifier.leeway;
    let time = |name| claims.time(name, issuer.verifier.issuer.fractional_times);
    let issued_at = time("iat")?.ok_or(RejectReason::Claims("iat"))?.ceiling;
    let expires_at = time("exp")?.ok_or(RejectReason::Claims("exp"))?.floor;
    if expires_at.saturating_add(leeway) <= now {
        return Err(RejectReason::Expired.into());
    }
    if issued_at > now.saturating_add(leeway) || issued_at >= expires_at {
        return Err(RejectReason::NotYetValid.into());
    }
    Ok((issued_at, expires_at))
}

/// `at_hash`: the left half of the access token's digest (OpenID Connect Core section 3.1.3.6). The
/// digest is that of the signature; Ed25519 has SHA-512.
fn left_half(algorithm: SignatureAlgorithm, access_token: &str) -> String {
    let name = algorithm.as_str();
    let digest = match name {
        _ if name.ends_with("256") => &SHA256,
        _ if name.ends_with("384") => &SHA384,
        _ => &SHA512,
    };
    let digest = digest::digest(digest, access_token.as_bytes());
    URL_SAFE_NO_PAD.encode(digest.as_ref().split_at(digest.as_ref().len() / 2).0)
}
