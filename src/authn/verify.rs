use std::{collections::BTreeSet, str::FromStr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Validation;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{
    Refused,
    certificate::Thumbprint,
    claims::{Claims, Header, strings, words},
    keys::KeySet,
    principal::{CallerKind, Principal, is_reserved, qualified},
};
use crate::{
    authz::{matrix::Scope, policy::Role},
    domain::{Clock, TenantId, is_hidden, is_shaping},
    settings::{Issuer, Oidc},
};

/// Longest subject and client id, in bytes.
const MAX_NAME: usize = 255;

/// A token that passed every check.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) principal: Arc<Principal>,
    /// When it stops being valid: `exp` plus the leeway, seconds since the epoch.
    pub(super) valid_until: i64,
}

/// Checks tokens of one issuer for one audience.
#[derive(Debug)]
pub(super) struct Verifier {
    clock: Clock,
    leeway: i64,
    issuer: Issuer,
}

impl Verifier {
    pub(super) fn new(issuer: &Issuer, oidc: &Oidc, clock: Clock) -> Self {
        Self { clock, leeway: oidc.leeway, issuer: issuer.clone() }
    }

    /// Whether the claims name this verifier's issuer, exactly (AUTHN-04).
    pub(super) fn is_issuer_of(&self, claims: &Claims) -> bool {
        claims.text("iss") == Some(self.issuer.url.as_str())
    }

    /// Type, algorithm, signature, issuer, audience, times, then the claims that make a principal.
    pub(super) fn verify(
        &self,
        token: &str,
        header: &Header,
        claims: &Claims,
        keys: &KeySet,
    ) -> Result<Verified, Refused> {
        if !self.is_access_token_type(&header.typ) {
            return Err(Refused::TokenType);
        }
        let key = keys.get(&header.kid).ok_or(Refused::UnknownKey)?;
        // The key says which algorithms it is for; the token only picks among them (RFC 8725 section 3.1).
        if !key.allows(header.algorithm) {
            return Err(Refused::Algorithm);
        }
        let mut validation = Validation::new(header.algorithm);
        validation.set_required_spec_claims(&["iss", "aud", "exp", "sub"]);
        validation.set_audience(&[&self.issuer.audience]);
        // The times are checked below, against a clock that tests can move.
        validation.validate_exp = false;
        jsonwebtoken::decode::<IgnoredAny>(token, key.decoding(), &validation).map_err(|e| reason(e.kind()))?;
        // From here on the claims are the issuer's: they are what was signed, read more strictly than the library does.
        if !self.is_issuer_of(claims) {
            return Err(Refused::Issuer);
        }
        let (issued_at, expires_at) = self.check_times(claims)?;
        if claims.is_other_token() {
            return Err(Refused::TokenType);
        }
        let bound_to = claims.0.get("cnf").map(thumbprint).transpose()?;
        if bound_to.is_none() && self.issuer.require_bound_tokens {
            return Err(Refused::Binding);
        }
        let principal = Arc::new(Principal { bound_to, ..self.principal(claims, issued_at)? });
        Ok(Verified { principal, valid_until: expires_at.saturating_add(self.leeway) })
    }

    /// `at+jwt` may be written `application/at+jwt`, in any case (RFC 9068 section 4, RFC 7515 section 4.1.9).
    fn is_access_token_type(&self, typ: &str) -> bool {
        let name = match typ.split_at_checked("application/".len()) {
            Some((prefix, name)) if prefix.eq_ignore_ascii_case("application/") => name,
            _ => typ,
        };
        name.eq_ignore_ascii_case(&self.issuer.token_type)
    }

    /// `iat` and `exp`, if they and `nbf` are sound (AUTHN-06).
    fn check_times(&self, claims: &Claims) -> Result<(i64, i64), Refused> {
        let now = self.clock.timestamp();
        let issued_at = claims.time("iat")?.ok_or(Refused::Claims)?;
        let expires_at = claims.time("exp")?.ok_or(Refused::Claims)?;
        if expires_at.saturating_add(self.leeway) <= now {
            return Err(Refused::Expired);
        }
        let latest = now.saturating_add(self.leeway);
        if issued_at > latest || claims.time("nbf")?.is_some_and(|nbf| nbf > latest) {
            return Err(Refused::NotYetValid);
        }
        let lifetime = expires_at.saturating_sub(issued_at);
        if lifetime <= 0 || lifetime > self.issuer.max_token_lifetime {
            return Err(Refused::Lifetime);
        }
        Ok((issued_at, expires_at))
    }

    fn principal(&self, claims: &Claims, issued_at: i64) -> Result<Principal, Refused> {
        let issuer = &self.issuer;
        let subject = claims.text("sub").ok_or(Refused::Claims)?;
        let claimed = issuer.client_claim.of(&claims.0);
        let client = claimed.or_else(|| claims.0.get("azp")).and_then(|id| id.as_str()).ok_or(Refused::Claims)?;
        let acts_for_itself = self.acts_for_itself(claims, subject, client)?;
        let (kind, roles, scope_claim) = if acts_for_itself {
            (CallerKind::Service, vec![Role::Service], &issuer.service_scope_claim)
        } else {
            // A role this API does not know gives nothing, so it is skipped rather than refused.
            let named = strings(issuer.roles_claim.of(&claims.0))?.into_iter().filter_map(|name| name.parse().ok());
            let distinct: BTreeSet<Role> = named.collect();
            (CallerKind::User, distinct.into_iter().collect(), &issuer.scope_claim)
        };
        let granted = words(scope_claim.of(&claims.0))?;
        // One that could not be named in a revocation is none.
        let can_be_named = |id: &&str| (1..=MAX_NAME).contains(&id.len()) && !id.contains(char::is_control);
        let token_id = claims.0.get("jti").map(|id| id.as_str().filter(can_be_named).ok_or(Refused::Claims));
        let token_id = token_id.transpose()?;
        Ok(Principal {
            kind,
            subject: self.name(subject)?,
            client: self.name(client)?,
            tenant: self.tenant(claims)?,
            roles,
            scopes: Scope::ALL.into_iter().filter(|scope| granted.contains(&scope.as_str())).collect(),
            creator: None,
            token_id: token_id.map(str::to_owned),
            bound_to: None,
            issued_at,
        })
    }

    /// Whether the token is that of a listed program that acts for itself (true) or of a user
    /// (false). Where the issuer's users have a mark, a token that does not prove its kind is
    /// refused: an unmarked program must not become a user with the program's roles.
    fn acts_for_itself(&self, claims: &Claims, subject: &str, client: &str) -> Result<bool, Refused> {
        let issuer = &self.issuer;
        let is_program = client == subject || issuer.service_marks.iter().any(|mark| mark.is_in(&claims.0));
        let is_user = issuer.user_marks.iter().any(|mark| mark.is_in(&claims.0));
        match (is_program, is_user) {
            (true, _) if !issuer.service_clients.contains(client) => Err(Refused::ServiceClient),
            (true, true) => Err(Refused::CallerKind),
            (false, false) if !issuer.user_marks.is_empty() => Err(Refused::CallerKind),
            _ => Ok(is_program),
        }
    }

    /// The tenant, if this issuer may speak for it.
    fn tenant(&self, claims: &Claims) -> Result<TenantId, Refused> {
        let tenant = self.issuer.tenant_claim.of(&claims.0).and_then(|id| id.as_str()).ok_or(Refused::Claims)?;
        let id = TenantId::from_str(tenant).map_err(|_| Refused::Claims)?;
        // In the one spelling with hyphens. Nil is nobody: what operators did to all is under it in the audit trail.
        if !id.to_string().eq_ignore_ascii_case(tenant) || id.uuid().is_nil() {
            return Err(Refused::Claims);
        }
        match &self.issuer.tenants {
            Some(own) if !own.contains(&id) => Err(Refused::Tenant),
            _ => Ok(id),
        }
    }

    /// The subject or client of a token as this service records it, in at most 255 bytes.
    fn name(&self, name: &str) -> Result<String, Refused> {
        let plain = !name.trim().is_empty() && !name.chars().any(is_hidden_in_names);
        if !plain || is_reserved(name) {
            return Err(Refused::Claims);
        }
        let name = qualified(self.issuer.name.as_deref(), name);
        if name.len() > MAX_NAME { Err(Refused::Claims) } else { Ok(name) }
    }
}

/// In a log, names would look like others. They are no prose, so what shapes others hides something too.
fn is_hidden_in_names(c: char) -> bool {
    is_hidden(c) || is_shaping(c)
}

/// The certificate that a token is bound to (RFC 8705 section 3.1). What is bound to anything else as well, such as a key
/// by RFC 9449, is not taken: nothing here asks for its proof.
fn thumbprint(cnf: &Value) -> Result<Thumbprint, Refused> {
    let members = cnf.as_object().filter(|members| members.len() == 1);
    let text = members.and_then(|members| members.get("x5t#S256")?.as_str()).ok_or(Refused::Binding)?;
    let digest = URL_SAFE_NO_PAD.decode(text).map_err(|_| Refused::Binding)?;
    digest.try_into().map_err(|_| Refused::Binding)
}

fn reason(kind: &jsonwebtoken::errors::ErrorKind) -> Refused {
    use jsonwebtoken::errors::ErrorKind;
    match kind {
        ErrorKind::InvalidSignature => Refused::Signature,
        ErrorKind::InvalidAudience => Refused::Audience,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::Json(_) => Refused::Claims,
        _ => Refused::Malformed,
    }
}
