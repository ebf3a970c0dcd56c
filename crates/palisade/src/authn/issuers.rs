//! Trusted token issuers: from an access token to its principal (AUTHN-06, AUTHN-10).
//!
//! Looks in the cache first, so that each token is validated once per replica. On a miss, finds the
//! issuer by `iss` and validates the token with the issuer's JWKS. [`ApiKeys::record_roles`] then
//! gets the roles of a user's new token, which limit the user's API keys.

use std::sync::Arc;

use quick_cache::sync::Cache;
use tokio::{sync::watch, task::JoinSet};

use super::{
    AuthnError, ConnectionInfo, RejectReason,
    api_keys::ApiKeys,
    claims,
    discovery::JwksCache,
    keys::KeySet,
    principal::Principal,
    revocation::Revocations,
    verify::{ValidatedToken, Verifier},
};
use crate::{
    crypto::sha256,
    model::{Clock, Rights},
    outbound::OutboundError,
    settings::Settings,
    telemetry::event,
};

/// All trusted issuers and the cache of their validated tokens.
#[derive(Debug)]
pub(super) struct Issuers {
    trusted: Vec<TrustedIssuer>,
    /// Validated tokens by their SHA-256. The cache holds no token, so a memory dump reveals none.
    tokens: Cache<[u8; 32], CachedToken>,
    /// Most entries of a list or an object in a token.
    max_claim_items: usize,
    clock: Clock,
}

#[derive(Debug)]
struct TrustedIssuer {
    jwks: Arc<JwksCache>,
    verifier: Verifier,
}

#[derive(Clone)]
struct CachedToken {
    principal: Arc<Principal>,
    valid_until: i64,
    /// The key set that validated the token. With another one, it is validated again.
    keys: Arc<KeySet>,
}

impl Issuers {
    pub(super) fn new(settings: &Settings, rights: Rights, clock: &Clock) -> Result<Self, OutboundError> {
        let oidc = &settings.oidc;
        let trusted = oidc.issuers().map(|issuer| {
            let jwks = JwksCache::new(issuer, settings, clock.clone())?;
            Ok(TrustedIssuer { jwks, verifier: Verifier::new(issuer, oidc, rights, clock.clone()) })
        });
        let trusted = trusted.collect::<Result<_, OutboundError>>()?;
        let tokens = Cache::new(oidc.cached_tokens);
        Ok(Self { trusted, tokens, max_claim_items: oidc.max_claim_items, clock: clock.clone() })
    }

    /// Starts one task per issuer that refreshes its JWKS periodically and at SIGHUP.
    pub(super) fn start_key_refresh(&self, tasks: &mut JoinSet<()>, hangups: &watch::Receiver<()>) {
        for issuer in &self.trusted {
            tasks.spawn(Arc::clone(&issuer.jwks).refresh_periodically(hangups.clone()));
        }
    }

    /// Whether the JWKS of at least one issuer is usable. Without one, no token is accepted.
    pub(super) fn is_ready(&self) -> bool {
        self.trusted.iter().any(|issuer| issuer.jwks.current().is_some())
    }

    /// The principal of a cached token that is still valid.
    pub(super) fn cached(&self, token: &str) -> Option<Arc<Principal>> {
        self.find(&sha256(token.as_bytes()))
    }

    fn find(&self, digest: &[u8; 32]) -> Option<Arc<Principal>> {
        let CachedToken { principal, valid_until, keys } = self.tokens.get(digest)?;
        let mut current = self.trusted.iter().filter_map(|issuer| issuer.jwks.current());
        if self.clock.timestamp() < valid_until && current.any(|current| Arc::ptr_eq(&current, &keys)) {
            return Some(principal);
        }
        self.tokens.remove(digest);
        None
    }

    /// Validates a token, or finds it in the cache, and returns its principal.
    ///
    /// For a cached token the caller still has to check the certificate binding and revocations.
    pub(super) async fn authenticate(
        &self,
        token: &str,
        connection: &ConnectionInfo,
        revocations: &Revocations,
        api_keys: &ApiKeys,
    ) -> Result<Arc<Principal>, AuthnError> {
        let digest = sha256(token.as_bytes());
        if let Some(principal) = self.find(&digest) {
            principal.name_in_log();
            return Ok(principal);
        }
        let (header, claims) = claims::parse(token, self.max_claim_items)?;
        let issuer = self.trusted.iter().find(|issuer| issuer.verifier.is_issuer_of(&claims));
        let issuer = issuer.ok_or(RejectReason::Issuer)?;
        issuer.verifier.check_header(&header)?;
        let keys = match issuer.jwks.current() {
            Some(keys) if keys.contains(&header.kid) => keys,
            // Key rollover (AUTHN-09), or the issuer is back. The JWKS cache limits the fetches.
            _ => issuer.jwks.refresh_on_demand().await.ok_or(AuthnError::Unavailable("issuer_keys"))?,
        };
        let ValidatedToken { principal, valid_until } = issuer.verifier.verify(token, &header, &claims, &keys)?;
        principal.name_in_log();
        // Before anything is stored: a revoked token, or one without its certificate, must change
        // neither the cache nor the recorded roles.
        connection.check_binding(principal.bound_certificate.as_ref(), self.clock.timestamp())?;
        revocations.check(&principal)?;
        api_keys.record_roles(&principal).await?;
        event::authn_login_success();
        self.tokens.insert(digest, CachedToken { principal: Arc::clone(&principal), valid_until, keys });
        Ok(principal)
    }
}
