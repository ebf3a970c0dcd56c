use std::{str::FromStr, sync::Arc};

use jsonwebtoken::Validation;
use thiserror::Error;

use super::{
    claims::{Claims, Header},
    keys::KeySet,
    principal::{CallerKind, Principal},
};
use crate::{
    authz::{matrix::Scope, policy::Role},
    domain::{Clock, TenantId},
    settings::Oidc,
};

/// Why a token is refused. For events and logs; the caller sees one opaque 401 for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Not one compact JWS with the members it must have.
    #[error("malformed")]
    Malformed,
    /// Longer than 8 KiB.
    #[error("too_long")]
    TooLong,
    /// An algorithm that is not allowed, or not the one of the key (AUTHN-03).
    #[error("algorithm")]
    Algorithm,
    /// A header parameter that could bring a key along or must be understood and is not (AUTHN-08).
    #[error("forbidden_header")]
    ForbiddenHeader,
    /// Not an access token (AUTHN-07).
    #[error("token_type")]
    TokenType,
    /// The issuer has no such key.
    #[error("unknown_key")]
    UnknownKey,
    /// The signature is not the issuer's (AUTHN-02).
    #[error("signature")]
    Signature,
    /// Another issuer (AUTHN-04).
    #[error("issuer")]
    Issuer,
    /// For another API (AUTHN-05).
    #[error("audience")]
    Audience,
    /// Past its end (AUTHN-06).
    #[error("expired")]
    Expired,
    /// Not valid yet, or made in the future (AUTHN-06).
    #[error("not_yet_valid")]
    NotYetValid,
    /// Valid for longer than the cap (AUTHN-06).
    #[error("lifetime")]
    Lifetime,
    /// A claim is absent or of the wrong type.
    #[error("claims")]
    Claims,
}

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
    issuer: String,
    audience: String,
    token_type: String,
    max_lifetime: i64,
    leeway: i64,
    tenant_claim: String,
    roles_claim: String,
}

impl Verifier {
    pub(super) fn new(oidc: &Oidc, clock: Clock) -> Self {
        Self {
            clock,
            issuer: oidc.issuer.clone(),
            audience: oidc.audience.clone(),
            token_type: oidc.token_type.clone(),
            max_lifetime: oidc.max_token_lifetime,
            leeway: oidc.leeway,
            tenant_claim: oidc.tenant_claim.clone(),
            roles_claim: oidc.roles_claim.clone(),
        }
    }

    /// Type, algorithm, signature, issuer, audience, times, then the claims that make a principal.
    pub(super) fn verify(&self, token: &str, header: &Header, keys: &KeySet) -> Result<Verified, TokenError> {
        if !self.is_access_token_type(&header.typ) {
            return Err(TokenError::TokenType);
        }
        let key = keys.get(&header.kid).ok_or(TokenError::UnknownKey)?;
        // The key says which algorithms it is for; the token only picks among them (RFC 8725 section 3.1).
        if !key.allows(header.algorithm) {
            return Err(TokenError::Algorithm);
        }
        let mut validation = Validation::new(header.algorithm);
        validation.set_required_spec_claims(&["iss", "aud", "exp", "sub"]);
        validation.set_audience(&[&self.audience]);
        // The times are checked below, against a clock that tests can move.
        validation.validate_exp = false;
        let claims =
            jsonwebtoken::decode::<Claims>(token, key.decoding(), &validation).map_err(|e| reason(e.kind()))?.claims;
        // By hand: the library would accept an array of issuers that holds ours.
        if claims.iss != self.issuer {
            return Err(TokenError::Issuer);
        }
        self.check_times(&claims)?;
        if claims.is_id_token() {
            return Err(TokenError::TokenType);
        }
        let valid_until = claims.exp.saturating_add(self.leeway);
        Ok(Verified { principal: Arc::new(self.principal(claims)?), valid_until })
    }

    /// `at+jwt` may be written `application/at+jwt`, in any case (RFC 9068 section 4, RFC 7515 section 4.1.9).
    fn is_access_token_type(&self, typ: &str) -> bool {
        let name = match typ.split_at_checked("application/".len()) {
            Some((prefix, name)) if prefix.eq_ignore_ascii_case("application/") => name,
            _ => typ,
        };
        name.eq_ignore_ascii_case(&self.token_type)
    }

    fn check_times(&self, claims: &Claims) -> Result<(), TokenError> {
        let now = self.clock.timestamp();
        if claims.exp.saturating_add(self.leeway) <= now {
            return Err(TokenError::Expired);
        }
        let latest = now.saturating_add(self.leeway);
        if claims.iat > latest || claims.nbf.is_some_and(|nbf| nbf > latest) {
            return Err(TokenError::NotYetValid);
        }
        let lifetime = claims.exp.saturating_sub(claims.iat);
        if lifetime <= 0 || lifetime > self.max_lifetime {
            return Err(TokenError::Lifetime);
        }
        Ok(())
    }

    fn principal(&self, claims: Claims) -> Result<Principal, TokenError> {
        if claims.sub.is_empty() || claims.sub.len() > 255 || claims.sub.chars().any(char::is_control) {
            return Err(TokenError::Claims);
        }
        let tenant = claims.other.get(&self.tenant_claim).and_then(|v| v.as_str()).ok_or(TokenError::Claims)?;
        let tenant = TenantId::from_str(tenant).map_err(|_| TokenError::Claims)?;
        let client = claims.client_id.as_deref().or(claims.azp.as_deref()).ok_or(TokenError::Claims)?.to_owned();
        if client.is_empty() || client.len() > 255 || client.chars().any(char::is_control) {
            return Err(TokenError::Claims);
        }
        let granted: Vec<&str> = claims.scope.as_deref().unwrap_or_default().split(' ').collect();
        let scopes = Scope::ALL.into_iter().filter(|scope| granted.contains(&scope.as_str())).collect();
        // A client that acts for itself has its own id as subject (RFC 9068 section 2.2).
        // Only `client_id` says so: `azp` is in tokens of people too.
        let (kind, roles) = if claims.client_id.as_deref() == Some(claims.sub.as_str()) {
            (CallerKind::Service, vec![Role::Service])
        } else {
            // A role this API does not know gives nothing, so it is skipped rather than refused.
            let roles = claims.strings(&self.roles_claim)?.into_iter().filter_map(|name| name.parse().ok());
            (CallerKind::User, roles.collect())
        };
        Ok(Principal { kind, subject: claims.sub, client, tenant, roles, scopes })
    }
}

fn reason(kind: &jsonwebtoken::errors::ErrorKind) -> TokenError {
    use jsonwebtoken::errors::ErrorKind;
    match kind {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => TokenError::Algorithm,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::Json(_) => TokenError::Claims,
        _ => TokenError::Malformed,
    }
}
