//! What issuers and tokens are like, in words for operators.
//!
//! The command `doctor` calls [`check_issuers`], and `token explain` calls [`explain`]. Nothing here
//! is logged: a token that an operator examines may still be valid.

use super::{
    RejectReason, claims,
    discovery::JwksCache,
    dpop::Binding,
    principal::Principal,
    verify::{ValidatedToken, Verifier},
};
use crate::{
    model::{Clock, Rights, Scope},
    settings::{Issuer, Settings},
    telemetry::with_causes,
};

/// The URL of each issuer, with the ids of its keys or why they could not be fetched.
pub(crate) async fn check_issuers(settings: &Settings, clock: &Clock) -> Vec<(String, Result<String, String>)> {
    let mut found = Vec::new();
    for issuer in settings.oidc.issuers() {
        found.push((issuer.url.clone(), fetch_keys(issuer, settings, clock).await.map(|keys| keys.ids())));
    }
    found
}

async fn fetch_keys(
    issuer: &Issuer,
    settings: &Settings,
    clock: &Clock,
) -> Result<std::sync::Arc<super::keys::KeySet>, String> {
    let jwks = JwksCache::new(issuer, settings, clock.clone()).map_err(|error| error.to_string())?;
    jwks.fetch_keys().await.map_err(|error| with_causes(&error))?;
    jwks.current().ok_or_else(|| "the keys are not in use".to_owned())
}

/// Says line by line what the service would do with a token. The result is whether it accepts it.
pub(crate) async fn explain(
    settings: &Settings,
    rights: Rights,
    clock: &Clock,
    token: &str,
    mut report: impl FnMut(String),
) -> bool {
    let outcome = examine(settings, rights, clock, token, &mut report).await;
    match &outcome {
        Ok(validated) => describe(&validated.principal, &mut report),
        Err((reason, issuer)) => {
            report(format!("rejected: {reason}"));
            report(format!("  rule: {}", rule(*reason)));
            if let Some(claim) = reason.claim() {
                report(format!("  claim: {}", issuer.as_ref().map_or_else(|| claim.to_owned(), |i| place(claim, i))));
            }
        }
    }
    outcome.is_ok()
}

async fn examine(
    settings: &Settings,
    rights: Rights,
    clock: &Clock,
    token: &str,
    report: &mut impl FnMut(String),
) -> Result<ValidatedToken, (RejectReason, Option<Issuer>)> {
    let oidc = &settings.oidc;
    if token.len() > oidc.max_token_bytes {
        return Err((RejectReason::TooLong, None));
    }
    let (header, claims) = claims::parse(token, oidc.max_claim_items).map_err(|reason| (reason, None))?;
    let typ = header.typ.as_deref().unwrap_or("none");
    report(format!("header: type {typ}, algorithm {}, key {}", header.algorithm.as_str(), header.kid));
    let verifiers = oidc.issuers().map(|issuer| Verifier::new(issuer, oidc, rights, None, clock.clone()));
    let verifier = verifiers.into_iter().find(|verifier| verifier.is_issuer_of(&claims));
    let Some(verifier) = verifier else {
        report(format!("issuer: {}", claims.text("iss").unwrap_or("none")));
        return Err((RejectReason::Issuer, None));
    };
    let issuer = &verifier.issuer;
    report(format!("issuer: {}, settings {}…", issuer.url, issuer.variable("")));
    let of_issuer = |reason| (reason, Some(issuer.clone()));
    verifier.check_header(&header).map_err(of_issuer)?;
    match fetch_keys(issuer, settings, clock).await {
        Ok(keys) => {
            verifier.check_signature(token, &header, &claims, &keys).map_err(of_issuer)?;
            report("signature: verified".to_owned());
        }
        Err(error) => report(format!("signature: NOT CHECKED, since there are no keys: {error}")),
    }
    verifier.check_claims(&header, &claims).map_err(of_issuer)
}

fn describe(principal: &Principal, report: &mut impl FnMut(String)) {
    let names = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    report("accepted; revocations are not checked here".to_owned());
    report(format!("  kind: {}", principal.kind().as_str()));
    report(format!("  subject: {}", principal.subject()));
    report(format!("  client: {}", principal.client()));
    report(format!("  tenant: {}", principal.tenant()));
    report(format!("  roles: {}", names(principal.roles().iter().map(|role| role.as_str()).collect())));
    report(format!("  scopes: {}", names(principal.scopes().map(Scope::as_str).collect())));
    let needed = principal.binding.map(|binding| match binding {
        Binding::Certificate(_) => "the client certificate of the token",
        Binding::Key(_) => "a DPoP proof with the key of the token",
    });
    if let Some(needed) = needed {
        report(format!("  bound: a request needs {needed}"));
    }
}

/// The claim that an issuer's settings read, with the setting that names it.
fn place(claim: &str, issuer: &Issuer) -> String {
    let (path, setting) = match claim {
        "sub" => (&issuer.subject_claim, "subject_claim"),
        "aud" => (&issuer.audience_claim, "audience_claim"),
        "client" => (&issuer.client_claim, "client_claim"),
        "tenant" => (&issuer.tenant_claim, "tenant_claim"),
        "roles" => (&issuer.roles_claim, "roles_claim"),
        "scope" => (&issuer.scope_claim, "scope_claim"),
        other => return other.to_owned(),
    };
    format!("`{path}`, which {} names", issuer.variable(setting))
}

/// What a token must fulfil, and what an operator can do.
fn rule(reason: RejectReason) -> &'static str {
    match reason {
        RejectReason::Malformed => "a token is three parts in base64url, each object with distinct names",
        RejectReason::TooLong => "a token has at most …MAX_TOKEN_BYTES",
        RejectReason::TooBroad => "lists and objects in a token have at most …MAX_CLAIM_ITEMS",
        RejectReason::Algorithm => "the algorithm must be one of …ALGORITHMS, and one of the key",
        RejectReason::ForbiddenHeader => "a header must not bring a key, or require an extension",
        RejectReason::TokenType("") => "the header `typ` must be one of …TOKEN_TYPE",
        RejectReason::TokenType(_) => {
            "the claim shows an ID token or another kind; …ACCESS_TOKEN_CLAIMS can prove an access token"
        }
        RejectReason::UnknownKey => "`kid` must name a usable key of the issuer's current key set",
        RejectReason::Signature => {
            "the signature must verify with the issuer's key: the token was changed, or is forged"
        }
        RejectReason::Issuer => "`iss` must equal the URL of an issuer, to the last slash: compare APP_OIDC__ISSUER",
        RejectReason::Audience => "the audience must be one of …AUDIENCE: ask for a token for this API",
        RejectReason::Expired => "`exp` must be in the future",
        RejectReason::NotYetValid => "`iat` and `nbf` must be in the past: compare the clocks",
        RejectReason::Lifetime => "`exp` is after `iat`, by at most …MAX_TOKEN_LIFETIME_SECONDS",
        RejectReason::Claims(_) => "the claim is absent, of another type, or has a value that is not allowed",
        RejectReason::Binding => {
            "`cnf` must be the thumbprint of a client certificate, or with …DPOP of a key; …REQUIRE_BOUND_TOKENS or …DPOP requires it"
        }
        RejectReason::Tenant => "the tenant must be one that …TENANTS or …TENANT_MAP lists for this issuer",
        RejectReason::Client => "the client must be one of …CLIENTS",
        RejectReason::ServiceClient => "the token is a program's, and …SERVICE_CLIENTS does not list its client",
        RejectReason::CallerKind => "…SERVICE_CLAIMS and …USER_CLAIMS: the token has claims of both, or of neither",
        _ => "see the page on issuers",
    }
}
