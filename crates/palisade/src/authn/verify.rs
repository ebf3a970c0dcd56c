//! Token validation: signature, issuer, audience, times, token type and claims → [`Principal`].
//!
//! Controls: AUTHN-02, AUTHN-04, AUTHN-05, AUTHN-06, AUTHN-07. [`super::issuers`] calls
//! [`Verifier::verify`] with a parsed token and the issuer's current JWKS. The rules follow
//! RFC 8725 and RFC 9068 section 4; certificate binding follows RFC 8705.

use std::{collections::BTreeSet, str::FromStr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Validation;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{
    RejectReason,
    certificate::Thumbprint,
    claims::{Claims, Header, string_array, string_list},
    keys::KeySet,
    principal::{CallerKind, Principal, is_reserved, qualify},
    sessions,
    sign_in::SignIn,
    tenants::Tenants,
};
use crate::{
    model::{Clock, Rights, Role, TenantId, is_control_or_invisible, is_joiner_or_selector},
    settings::{Issuer, Oidc},
};

/// Maximum length of subjects, client ids and token ids, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// Claims without which a token is rejected before any other check of its claims.
const REQUIRED_CLAIMS: [&str; 4] = ["iss", "aud", "exp", "sub"];

/// The result of a successful token validation.
#[derive(Debug)]
pub(super) struct ValidatedToken {
    pub(super) principal: Arc<Principal>,
    /// End of validity: `exp` plus the leeway, in seconds since the epoch.
    pub(super) valid_until: i64,
}

/// Validates the tokens of one issuer for this API's audience.
#[derive(Debug)]
pub(super) struct Verifier {
    clock: Clock,
    pub(super) leeway: i64,
    issuer: Issuer,
    /// Tenants that other issuers list. An issuer without a list speaks for none of them.
    tenants_of_others: BTreeSet<TenantId>,
    rights: Rights,
    registered: Arc<Tenants>,
}

impl Verifier {
    pub(super) fn new(issuer: &Issuer, oidc: &Oidc, rights: Rights, registered: Arc<Tenants>, clock: Clock) -> Self {
        let others = oidc.issuers().filter(|other| other.url != issuer.url);
        let tenants_of_others = others.filter_map(|other| other.tenants.clone()).flatten().collect();
        Self { clock, leeway: oidc.leeway, issuer: issuer.clone(), tenants_of_others, rights, registered }
    }

    /// The issuer exactly as tokens name it.
    #[cfg(feature = "sessions")]
    pub(super) fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Whether `iss` equals the configured issuer, byte for byte (AUTHN-04).
    pub(super) fn is_issuer_of(&self, claims: &Claims) -> bool {
        claims.text("iss") == Some(self.issuer.url.as_str())
    }

    /// Validates type, algorithm, signature, audience, issuer and times, then the caller's claims.
    pub(super) fn verify(
        &self,
        token: &str,
        header: &Header,
        claims: &Claims,
        keys: &KeySet,
    ) -> Result<ValidatedToken, RejectReason> {
        if !self.is_access_token_type(&header.typ) {
            return Err(RejectReason::TokenType);
        }
        Self::check_signed(token, header, keys, &self.issuer.audience, &REQUIRED_CLAIMS)?;
        // The signature covers the parsed claims, so they can be trusted from here on.
        if !self.is_issuer_of(claims) {
            return Err(RejectReason::Issuer);
        }
        let (issued_at, expires_at) = self.check_times(claims)?;
        if claims.is_other_token() {
            return Err(RejectReason::TokenType);
        }
        let bound_certificate = claims.0.get("cnf").map(parse_confirmation).transpose()?;
        if bound_certificate.is_none() && self.issuer.require_bound_tokens {
            return Err(RejectReason::Binding);
        }
        let principal = Arc::new(Principal { bound_certificate, ..self.principal(claims, issued_at)? });
        Ok(ValidatedToken { principal, valid_until: expires_at.saturating_add(self.leeway) })
    }

    /// Checks algorithm, signature, audience and the presence of claims. The issuer's tokens of other
    /// types have another audience.
    pub(super) fn check_signed(
        token: &str,
        header: &Header,
        keys: &KeySet,
        audience: &str,
        required: &[&str],
    ) -> Result<(), RejectReason> {
        let key = keys.get(&header.kid).ok_or(RejectReason::UnknownKey)?;
        // The key determines the algorithms; the token only selects one (RFC 8725 section 3.1).
        if !key.allows(header.algorithm) {
            return Err(RejectReason::Algorithm);
        }
        let mut validation = Validation::new(header.algorithm);
        validation.set_required_spec_claims(required);
        validation.set_audience(&[audience]);
        // `check_times` checks the times below, against the clock that tests can set.
        validation.validate_exp = false;
        jsonwebtoken::decode::<IgnoredAny>(token, key.decoding(), &validation).map_err(|e| reject_reason(e.kind()))?;
        Ok(())
    }

    /// Whether `typ` is the issuer's access token type, normally `at+jwt` (RFC 9068 section 4).
    /// The prefix `application/` is optional, and letter case is ignored (RFC 7515 section 4.1.9).
    fn is_access_token_type(&self, typ: &str) -> bool {
        let name = match typ.split_at_checked("application/".len()) {
            Some((prefix, name)) if prefix.eq_ignore_ascii_case("application/") => name,
            _ => typ,
        };
        name.eq_ignore_ascii_case(&self.issuer.token_type)
    }

    /// Checks `iat`, `exp` and `nbf`, and returns `iat` and `exp` (AUTHN-06).
    fn check_times(&self, claims: &Claims) -> Result<(i64, i64), RejectReason> {
        let now = self.clock.timestamp();
        let issued_at = claims.time("iat")?.ok_or(RejectReason::Claims("iat"))?;
        let expires_at = claims.time("exp")?.ok_or(RejectReason::Claims("exp"))?;
        if expires_at.saturating_add(self.leeway) <= now {
            return Err(RejectReason::Expired);
        }
        let latest = now.saturating_add(self.leeway);
        if issued_at > latest || claims.time("nbf")?.is_some_and(|nbf| nbf > latest) {
            return Err(RejectReason::NotYetValid);
        }
        let lifetime = expires_at.saturating_sub(issued_at);
        if lifetime <= 0 || lifetime > self.issuer.max_token_lifetime {
            return Err(RejectReason::Lifetime);
        }
        Ok((issued_at, expires_at))
    }

    /// Makes the principal from the claims, without its certificate binding.
    fn principal(&self, claims: &Claims, issued_at: i64) -> Result<Principal, RejectReason> {
        let issuer = &self.issuer;
        let subject = claims.text("sub").ok_or(RejectReason::Claims("sub"))?;
        let client = issuer.client_claim.find(&claims.0).or_else(|| claims.0.get("azp"));
        let client = client.and_then(|id| id.as_str()).ok_or(RejectReason::Claims("client"))?;
        let (kind, roles, scope_claim) = if self.is_service(claims, subject, client)? {
            (CallerKind::Service, vec![Role::SERVICE], &issuer.service_scope_claim)
        } else {
            // A role that this API does not define grants nothing, so it is skipped, not rejected.
            let names = string_array(issuer.roles_claim.find(&claims.0)).ok_or(RejectReason::Claims("roles"))?;
            (CallerKind::User, self.rights.find_roles(&names), &issuer.scope_claim)
        };
        let recorded_client = self.qualified_name(client).ok_or(RejectReason::Claims("client"))?;
        let scopes = string_list(scope_claim.find(&claims.0)).ok_or(RejectReason::Claims("scope"))?;
        // A `jti` that a revocation could not name is rejected.
        let is_revocable = |id: &&str| (1..=MAX_NAME_BYTES).contains(&id.len()) && !id.contains(char::is_control);
        let token_id =
            claims.0.get("jti").map(|id| id.as_str().filter(is_revocable).ok_or(RejectReason::Claims("jti")));
        let token_id = token_id.transpose()?;
        Ok(Principal {
            kind,
            subject: self.qualified_name(subject).ok_or(RejectReason::Claims("sub"))?,
            sign_in: SignIn::from_claims(claims, issuer, &recorded_client)?,
            client: recorded_client,
            tenant: self.tenant(claims)?,
            roles,
            scopes: self.rights.find_scopes(&scopes),
            creator: None,
            token_id: token_id.map(str::to_owned),
            session: None,
            issuer_session: claims
                .0
                .get("sid")
                .filter(|_| sessions::ENABLED)
                .map(|sid| self.issuer_session(sid))
                .transpose()?,
            bound_certificate: None,
            issued_at,
        })
    }

    /// Whether the token is a service's (client credentials) or a user's (AUTHN-07).
    ///
    /// A service must be listed in the settings. If the issuer has user marks, a token with marks
    /// of both kinds or of neither is rejected: a service must not pass for a user and get its
    /// roles from the token.
    fn is_service(&self, claims: &Claims, subject: &str, client: &str) -> Result<bool, RejectReason> {
        let issuer = &self.issuer;
        let is_service = client == subject || issuer.service_claims.iter().any(|mark| mark.is_in(&claims.0));
        let is_user = issuer.user_claims.iter().any(|mark| mark.is_in(&claims.0));
        match (is_service, is_user) {
            (true, _) if !issuer.service_clients.contains(client) => Err(RejectReason::ServiceClient),
            (true, true) => Err(RejectReason::CallerKind),
            (false, false) if !issuer.user_claims.is_empty() => Err(RejectReason::CallerKind),
            _ => Ok(is_service),
        }
    }

    /// The tenant, if the settings let this issuer authenticate its callers (AUTHN-04).
    fn tenant(&self, claims: &Claims) -> Result<TenantId, RejectReason> {
        let invalid = RejectReason::Claims("tenant");
        let tenant = self.issuer.tenant_claim.find(&claims.0).and_then(|id| id.as_str()).ok_or(invalid)?;
        let registered = self.registered.find(&self.issuer.url, tenant);
        let id = registered.map_or_else(|| TenantId::from_str(tenant), Ok).map_err(|_| invalid)?;
        // Only the hyphenated form, and not nil: the audit trail records operator acts on all
        // tenants under the nil UUID.
        if registered.is_none() && !id.to_string().eq_ignore_ascii_case(tenant) || id.uuid().is_nil() {
            return Err(invalid);
        }
        let is_own = match &self.issuer.tenants {
            Some(own) => own.contains(&id),
            None => !self.tenants_of_others.contains(&id),
        };
        if is_own { Ok(id) } else { Err(RejectReason::Tenant) }
    }

    /// A session at the issuer (`sid`) as revocations name it. No token id begins with the prefix, unless the
    /// issuer wants that.
    pub(super) fn issuer_session(&self, sid: &Value) -> Result<String, RejectReason> {
        let name = sid.as_str().and_then(|sid| self.qualified_name(sid)).map(|name| format!("sid:{name}"));
        name.filter(|name| name.len() <= MAX_NAME_BYTES).ok_or(RejectReason::Claims("sid"))
    }

    /// A subject or client as this service records it, at most 255 bytes long.
    pub(super) fn qualified_name(&self, name: &str) -> Option<String> {
        if name.trim().is_empty() || name.chars().any(is_invisible) || is_reserved(name) {
            return None;
        }
        let name = qualify(self.issuer.name.as_deref(), name);
        (name.len() <= MAX_NAME_BYTES).then_some(name)
    }
}

/// Whether a character could make one name look like another in a log. Names are no prose, so
/// characters that only shape their neighbours are not allowed either.
fn is_invisible(c: char) -> bool {
    is_control_or_invisible(c) || is_joiner_or_selector(c)
}

/// Parses `cnf`: the thumbprint of the bound certificate (RFC 8705 section 3.1).
///
/// Rejects every other or additional binding, such as a `DPoP` key (RFC 9449), because this
/// service does not check its proof.
fn parse_confirmation(cnf: &Value) -> Result<Thumbprint, RejectReason> {
    let members = cnf.as_object().filter(|members| members.len() == 1);
    let text = members.and_then(|members| members.get("x5t#S256")?.as_str()).ok_or(RejectReason::Binding)?;
    let digest = URL_SAFE_NO_PAD.decode(text).map_err(|_| RejectReason::Binding)?;
    digest.try_into().map_err(|_| RejectReason::Binding)
}

fn reject_reason(kind: &jsonwebtoken::errors::ErrorKind) -> RejectReason {
    use jsonwebtoken::errors::ErrorKind;
    match kind {
        ErrorKind::InvalidSignature => RejectReason::Signature,
        ErrorKind::InvalidAudience => RejectReason::Audience,
        ErrorKind::MissingRequiredClaim(name) => {
            RejectReason::Claims(REQUIRED_CLAIMS.into_iter().find(|claim| claim == name).unwrap_or_default())
        }
        ErrorKind::Json(_) => RejectReason::Claims(""),
        _ => RejectReason::Malformed,
    }
}
