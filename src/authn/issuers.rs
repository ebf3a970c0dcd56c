//! Trusted token issuers: from an access token to its principal (AUTHN-10, AUTHN-12).
//!
//! Looks in the token cache first. On a miss, finds the issuer by `iss` and validates the token
//! with the issuer's JWKS. A user's new token also updates the recorded roles, which limit the
//! user's API keys.

use std::sync::Arc;

use chrono::DateTime;
use tokio::task::JoinSet;

use super::{
    AuthnError, ConnectionInfo, RejectReason,
    cache::{KeySetId, TokenCache, TokenDigest},
    claims,
    discovery::JwksCache,
    principal::{CallerKind, Principal},
    revocation::Revocations,
    verify::Verifier,
};
use crate::{
    db::Credentials,
    domain::Clock,
    settings::{Oidc, Profile},
    telemetry::repeats::coalesced,
};

/// The JWKS of the token's issuer is missing or too old. Answered with 503.
const NO_KEYS: AuthnError = AuthnError::Unavailable("issuer_keys");

/// All trusted issuers and the cache of their validated tokens.
#[derive(Debug)]
pub(super) struct Issuers {
    trusted: Vec<TrustedIssuer>,
    cache: TokenCache,
    store: Credentials,
    clock: Clock,
}

#[derive(Debug)]
struct TrustedIssuer {
    jwks: Arc<JwksCache>,
    verifier: Verifier,
}

impl Issuers {
    pub(super) fn new(
        oidc: &Oidc,
        profile: Profile,
        store: Credentials,
        clock: &Clock,
    ) -> Result<Self, reqwest::Error> {
        let trusted = oidc.issuers().map(|issuer| {
            let jwks = JwksCache::new(issuer, oidc, profile, clock.clone())?;
            Ok(TrustedIssuer { jwks, verifier: Verifier::new(issuer, oidc, clock.clone()) })
        });
        let trusted = trusted.collect::<Result<_, reqwest::Error>>()?;
        Ok(Self { trusted, cache: TokenCache::new(oidc.cached_tokens, clock.clone()), store, clock: clock.clone() })
    }

    /// Starts one task per issuer that refreshes its JWKS periodically.
    pub(super) fn start_key_refresh(&self, tasks: &mut JoinSet<()>) {
        for issuer in &self.trusted {
            tasks.spawn(Arc::clone(&issuer.jwks).refresh_periodically());
        }
    }

    /// Whether the JWKS of at least one issuer is usable. Without one, no token is accepted.
    pub(super) fn is_ready(&self) -> bool {
        self.trusted.iter().any(|issuer| issuer.jwks.current().is_some())
    }

    /// The principal of a cached token that is still valid.
    pub(super) fn cached(&self, token: &str) -> Option<Arc<Principal>> {
        self.cache.get(&TokenDigest::new(token), |key_set| self.is_current(key_set))
    }

    /// Validates a token, or finds it in the cache, and returns its principal.
    ///
    /// For a cached token the caller still has to check the certificate binding and revocations.
    pub(super) async fn authenticate(
        &self,
        token: &str,
        connection: &ConnectionInfo,
        revocations: &Revocations,
    ) -> Result<Arc<Principal>, AuthnError> {
        let digest = TokenDigest::new(token);
        if let Some(principal) = self.cache.get(&digest, |key_set| self.is_current(key_set)) {
            return Ok(principal);
        }
        let (header, claims) = claims::parse(token)?;
        let mut candidates = self.trusted.iter().enumerate();
        let (index, issuer) =
            candidates.find(|(_, issuer)| issuer.verifier.is_issuer_of(&claims)).ok_or(RejectReason::Issuer)?;
        let keys = match issuer.jwks.current() {
            Some(keys) if keys.contains(&header.kid) => keys,
            // Key rollover (AUTHN-09), or the issuer is back. The JWKS cache limits the fetches.
            _ => issuer.jwks.refresh_on_demand().await.ok_or(NO_KEYS)?,
        };
        let validated = issuer.verifier.verify(token, &header, &claims, &keys)?;
        // Before anything is stored: a revoked token, or one without its certificate, must change
        // neither the cache nor the recorded roles.
        connection.check_binding(validated.principal.bound_certificate.as_ref(), self.clock.timestamp())?;
        revocations.check(&validated.principal)?;
        self.record_roles(&validated.principal).await?;
        Ok(self.cache.insert(digest, validated, KeySetId { issuer: index, generation: keys.generation() }))
    }

    /// Records a user's roles in the database, where they limit the user's API keys (AUTHN-12).
    ///
    /// If they cannot be recorded, the token is not accepted. Otherwise a removed role would stay
    /// usable through the user's API keys.
    pub(super) async fn record_roles(&self, principal: &Principal) -> Result<(), AuthnError> {
        if principal.kind() != CallerKind::User {
            return Ok(());
        }
        let roles: Vec<String> = principal.roles().iter().map(|role| role.as_str().to_owned()).collect();
        let issued_at = DateTime::from_timestamp(principal.issued_at, 0).unwrap_or(DateTime::UNIX_EPOCH);
        let recorded = self.store.record_roles(principal.tenant(), principal.subject(), &roles, issued_at).await;
        recorded.map_err(|error| {
            coalesced!(warn, "could not record the subject's roles", %error);
            AuthnError::Unavailable("store")
        })
    }

    fn is_current(&self, key_set: KeySetId) -> bool {
        let keys = self.trusted.get(key_set.issuer).and_then(|issuer| issuer.jwks.current());
        keys.is_some_and(|keys| keys.generation() == key_set.generation)
    }
}
