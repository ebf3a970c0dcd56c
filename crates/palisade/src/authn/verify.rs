//! Token validation: signature, issuer, audience, times and token type (AUTHN-02, AUTHN-04,
//! AUTHN-05, AUTHN-06, AUTHN-07).
//!
//! [`super::issuers`] calls [`Verifier::verify`] with a parsed token and the issuer's current JWKS.
//! [`super::identity`] then makes the principal. The rules follow RFC 8725 and RFC 9068 section 4;
//! bindings follow RFC 8705 and RFC 9449. Each rule that an issuer's settings relax is one function.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::Value;

use super::{
    RejectReason,
    claims::{Claims, Header},
    dpop::Binding,
    identity,
    keys::{Key, KeySet, jws_algorithm},
    principal::Principal,
    tenants::Tenants,
};
use crate::{
    model::{Clock, Rights, TenantId},
    settings::{ACCESS_TOKEN_TYPE, Dpop, Issuer, NO_TYPE, Oidc, Template},
};

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
    pub(super) issuer: Issuer,
    /// Tenants that other issuers list. An issuer without a list speaks for none of them.
    tenants_of_others: BTreeSet<TenantId>,
    rights: Rights,
    /// Knows the external ids of tenants.
    registered: Option<Arc<Tenants>>,
}

impl Verifier {
    pub(super) fn new(
        issuer: &Issuer,
        oidc: &Oidc,
        rights: Rights,
        registered: Option<Arc<Tenants>>,
        clock: Clock,
    ) -> Self {
        let others = oidc.issuers().filter(|other| other.url != issuer.url);
        let tenants_of_others = others.filter_map(|other| other.tenants.clone()).flatten().collect();
        Self { clock, leeway: oidc.leeway, issuer: issuer.clone(), tenants_of_others, rights, registered }
    }

    /// Whether `iss` equals the configured issuer, byte for byte (AUTHN-04). A part in braces must
    /// be the token's value of the tenant claim.
    pub(super) fn is_issuer_of(&self, claims: &Claims) -> bool {
        let Some(iss) = claims.text("iss") else { return false };
        match &self.issuer.template {
            None => iss == self.issuer.url,
            Some(template) => {
                let named = template.extract(iss);
                named.is_some() && named == self.issuer.tenant_claim.text(&claims.0)
            }
        }
    }

    /// Validates the header, the signature and the claims.
    pub(super) fn verify(
        &self,
        token: &str,
        header: &Header,
        claims: &Claims,
        keys: &KeySet,
    ) -> Result<ValidatedToken, RejectReason> {
        self.check_header(header)?;
        self.check_signature(token, header, claims, keys)?;
        // The signature covers the parsed claims, so they can be trusted from here on.
        self.check_claims(header, claims)
    }

    /// Checks type and algorithm, which need no key.
    pub(super) fn check_header(&self, header: &Header) -> Result<(), RejectReason> {
        if !self.is_access_token_type(header.typ.as_deref()) {
            return Err(RejectReason::TokenType(""));
        }
        if self.issuer.algorithms.contains(&header.algorithm) { Ok(()) } else { Err(RejectReason::Algorithm) }
    }

    /// Checks the signature with the issuer's key (AUTHN-02, AUTHN-03).
    pub(super) fn check_signature(
        &self,
        token: &str,
        header: &Header,
        claims: &Claims,
        keys: &KeySet,
    ) -> Result<(), RejectReason> {
        let key = keys.get(&header.kid, header.algorithm)?;
        let algorithm = jws_algorithm(header.algorithm.as_str()).ok_or(RejectReason::Algorithm)?;
        let (message, signature) = token.rsplit_once('.').ok_or(RejectReason::Malformed)?;
        match jsonwebtoken::crypto::verify(signature, message.as_bytes(), key.decoding(), algorithm) {
            Ok(true) if self.is_key_of_issuer(key, claims) => Ok(()),
            Ok(true) => Err(RejectReason::UnknownKey),
            Ok(false) => Err(RejectReason::Signature),
            Err(_) => Err(RejectReason::Malformed),
        }
    }

    /// Whether the key signs for the token's issuer. A set for many directories may have keys of
    /// single ones, which name their issuer.
    fn is_key_of_issuer(&self, key: &Key, claims: &Claims) -> bool {
        let (Some(own), Some(named)) = (&self.issuer.template, &key.issuer) else { return true };
        match Template::parse(named) {
            Ok(Some(template)) => template.is_like(own),
            _ => claims.text("iss") == Some(named),
        }
    }

    /// Checks the claims, whose signature is verified.
    pub(super) fn check_claims(&self, header: &Header, claims: &Claims) -> Result<ValidatedToken, RejectReason> {
        if !self.is_issuer_of(claims) {
            return Err(RejectReason::Issuer);
        }
        self.check_audience(claims)?;
        let (issued_at, expires_at) = self.check_times(claims)?;
        self.check_kind(header, claims)?;
        let binding = claims.0.get("cnf").map(Binding::parse).transpose()?;
        self.check_binding(binding)?;
        let principal = identity::principal(
            &self.issuer,
            &self.rights,
            (self.registered.as_deref(), &self.tenants_of_others),
            claims,
        )?;
        let principal = Arc::new(Principal { binding, issued_at, ..principal });
        Ok(ValidatedToken { principal, valid_until: expires_at.saturating_add(self.leeway) })
    }

    /// Checks that the settings accept tokens with this binding (AUTHN-18, AUTHN-19). The request
    /// must prove it: [`super::dpop`].
    fn check_binding(&self, binding: Option<Binding>) -> Result<(), RejectReason> {
        let has_key = matches!(binding, Some(Binding::Key(_)));
        let is_accepted = match self.issuer.dpop {
            Dpop::Off => !has_key,
            Dpop::Optional => true,
            Dpop::Required => has_key,
        };
        let is_missing = binding.is_none() && self.issuer.require_bound_tokens;
        if is_accepted && !is_missing { Ok(()) } else { Err(RejectReason::Binding) }
    }

    /// Whether `typ` is one of the issuer's access token types, normally `at+jwt` (RFC 9068 section
    /// 4). The prefix `application/` is optional, and letter case is ignored (RFC 7515 section
    /// 4.1.9).
    fn is_access_token_type(&self, typ: Option<&str>) -> bool {
        let mut types = self.issuer.token_types.iter();
        match typ {
            None => types.any(|accepted| accepted == NO_TYPE),
            Some(typ) => {
                let name = type_name(typ);
                types.any(|accepted| accepted != NO_TYPE && name.eq_ignore_ascii_case(accepted))
            }
        }
    }

    /// Rejects ID tokens and others that are not for APIs (AUTHN-07).
    ///
    /// A header type that only access tokens have proves the kind, and so do the claims that the
    /// settings name. Without proof, `nonce` and an audience that is the client are marks of an ID
    /// token (OpenID Connect Core section 2).
    fn check_kind(&self, header: &Header, claims: &Claims) -> Result<(), RejectReason> {
        if let Some(mark) = claims.mark_of_other_token() {
            return Err(RejectReason::TokenType(mark));
        }
        let proofs = &self.issuer.access_token_claims;
        let is_proven = proofs.iter().any(|proof| proof.is_in(&claims.0));
        if is_proven {
            return Ok(());
        }
        if !proofs.is_empty() {
            return Err(RejectReason::TokenType("access_token_claims"));
        }
        if claims.0.contains_key("nonce") {
            return Err(RejectReason::TokenType("nonce"));
        }
        let has_access_token_type =
            header.typ.as_deref().is_some_and(|typ| type_name(typ).eq_ignore_ascii_case(ACCESS_TOKEN_TYPE));
        let is_for_client = || {
            let client = identity::client(&self.issuer, claims).ok();
            let audience = strings(claims.0.get("aud")).unwrap_or_default();
            !audience.is_empty() && audience.iter().all(|name| Some(*name) == client)
        };
        if !has_access_token_type && is_for_client() { Err(RejectReason::TokenType("aud")) } else { Ok(()) }
    }

    /// Checks that the token is for this API (AUTHN-05).
    fn check_audience(&self, claims: &Claims) -> Result<(), RejectReason> {
        let value = self.issuer.audience_claim.find(&claims.0);
        let named = strings(value).ok_or(RejectReason::Claims("aud"))?;
        let is_ours = named.iter().any(|name| self.issuer.audience.iter().any(|ours| ours == name));
        if is_ours { Ok(()) } else { Err(RejectReason::Audience) }
    }

    /// Checks `iat`, `exp` and `nbf`, and returns `iat` and `exp` (AUTHN-06). Fractions are rounded
    /// so that they shorten the validity.
    fn check_times(&self, claims: &Claims) -> Result<(i64, i64), RejectReason> {
        let now = self.clock.timestamp();
        let time = |name| claims.time(name, self.issuer.fractional_times);
        let issued_at = time("iat")?.ok_or(RejectReason::Claims("iat"))?;
        let expires_at = time("exp")?.filter(|exp| exp.floor >= 0).ok_or(RejectReason::Claims("exp"))?;
        if expires_at.floor.saturating_add(self.leeway) <= now {
            return Err(RejectReason::Expired);
        }
        let latest = now.saturating_add(self.leeway);
        if issued_at.ceiling > latest || time("nbf")?.is_some_and(|nbf| nbf.ceiling > latest) {
            return Err(RejectReason::NotYetValid);
        }
        if expires_at.floor <= issued_at.floor {
            return Err(RejectReason::Lifetime);
        }
        let lifetime = expires_at.ceiling.saturating_sub(issued_at.floor);
        if lifetime > self.issuer.max_token_lifetime {
            return Err(RejectReason::Lifetime);
        }
        Ok((issued_at.floor, expires_at.floor))
    }
}

/// A header type without the prefix `application/`.
fn type_name(typ: &str) -> &str {
    match typ.split_at_checked("application/".len()) {
        Some((prefix, name)) if prefix.eq_ignore_ascii_case("application/") => name,
        _ => typ,
    }
}

/// One text, or an array of texts; `None` if it is absent or of another type.
pub(super) fn strings(value: Option<&Value>) -> Option<Vec<&str>> {
    match value? {
        Value::String(text) => Some(vec![text]),
        Value::Array(items) => items.iter().map(Value::as_str).collect(),
        _ => None,
    }
}
