//! Trusted token issuers: from an access token to its principal (AUTHN-06, AUTHN-10).
//!
//! Looks in the cache first, so that each token is validated once per replica. On a miss, finds the
//! issuer by `iss` and validates the token with the issuer's JWKS. [`ApiKeys::record_roles`] then
//! gets the roles of a user's new token, which limit the user's API keys.

use std::sync::Arc;

use quick_cache::sync::Cache;
use tokio::{sync::watch, task::JoinSet};

use super::{
    AuthnError, RejectReason, RequestCredentials,
    api_keys::ApiKeys,
    claims::{self, Claims, Header},
    credential::Token,
    discovery::JwksCache,
    dpop::Bindings,
    keys::KeySet,
    principal::Principal,
    revocation::Revocations,
    tenants::Tenants,
    verify::{ValidatedToken, Verifier},
};
use crate::{
    crypto::sha256,
    model::{Clock, Rights},
    outbound::OutboundError,
    settings::{Dpop, Settings},
    telemetry::event,
};

/// All trusted issuers and the cache of their validated tokens.
#[derive(Debug)]
pub(super) struct Issuers {
    trusted: Vec<TrustedIssuer>,
    /// Validated tokens by their SHA-256. The cache holds no token, so a memory dump reveals none.
    tokens: Cache<[u8; 32], CachedToken>,
    tenants: Arc<Tenants>,
    bindings: Bindings,
    /// Most entries of a list or an object in a token.
    max_claim_items: usize,
    clock: Clock,
}

/// An issuer with its keys and the rules for its tokens.
#[derive(Debug)]
pub(super) struct TrustedIssuer {
    pub(super) name: Option<String>,
    pub(super) jwks: Arc<JwksCache>,
    pub(super) verifier: Verifier,
    url: String,
    /// Whether its tokens create tenants.
    creates_tenants: bool,
    /// Most entries of a list or an object in a token.
    #[cfg_attr(not(feature = "sessions"), expect(dead_code, reason = "ID tokens need it"))]
    pub(super) max_claim_items: usize,
}

impl TrustedIssuer {
    /// The keys of the issuer, fetched again if they lack the key of the header.
    pub(super) async fn keys_for(&self, header: &Header) -> Result<Arc<KeySet>, AuthnError> {
        match self.jwks.current() {
            Some(keys) if keys.contains(&header.kid) => Ok(keys),
            // Key rollover (AUTHN-09), or the issuer is back. The JWKS cache limits the fetches.
            _ => self.jwks.refresh_on_demand().await.ok_or(AuthnError::Unavailable("issuer_keys")),
        }
    }
}

#[derive(Clone)]
struct CachedToken {
    principal: Arc<Principal>,
    valid_until: i64,
    /// The key set that validated the token. With another one, it is validated again.
    keys: Arc<KeySet>,
    /// The version of the tenants' names when its tenant was looked up.
    names_version: u64,
}

impl Issuers {
    pub(super) fn new(
        settings: &Settings,
        rights: Rights,
        tenants: &Arc<Tenants>,
        bindings: Bindings,
        clock: &Clock,
    ) -> Result<Self, OutboundError> {
        let oidc = &settings.oidc;
        let trusted = oidc.issuers().map(|issuer| {
            let jwks = JwksCache::new(issuer, settings, clock.clone())?;
            let verifier = Verifier::new(issuer, oidc, rights, Some(Arc::clone(tenants)), clock.clone());
            let (name, url) = (issuer.name.clone(), issuer.url.clone());
            Ok(TrustedIssuer {
                name,
                jwks,
                verifier,
                url,
                creates_tenants: issuer.create_tenants,
                max_claim_items: oidc.max_claim_items,
            })
        });
        let trusted = trusted.collect::<Result<_, OutboundError>>()?;
        let (tokens, tenants) = (Cache::new(oidc.cached_tokens), Arc::clone(tenants));
        Ok(Self { trusted, tokens, tenants, bindings, max_claim_items: oidc.max_claim_items, clock: clock.clone() })
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
        let CachedToken { principal, valid_until, keys, names_version } = self.tokens.get(digest)?;
        let mut current = self.trusted.iter().filter_map(|issuer| issuer.jwks.current());
        let is_fresh = self.clock.timestamp() < valid_until && names_version == self.tenants.names_version();
        if is_fresh && current.any(|current| Arc::ptr_eq(&current, &keys)) {
            return Some(principal);
        }
        self.tokens.remove(digest);
        None
    }

    /// Whether tokens of all issuers must be bound to a key; `None` if those of no issuer may.
    pub(super) fn requires_dpop(&self) -> Option<bool> {
        let mut modes = self.trusted.iter().map(|issuer| issuer.verifier.issuer.dpop);
        let is_used = modes.clone().any(|mode| mode != Dpop::Off);
        is_used.then(|| modes.all(|mode| mode == Dpop::Required))
    }

    /// A nonce for the next proofs of a client, if an issuer's tokens may be bound to a key.
    pub(super) fn new_nonce(&self) -> Option<String> {
        self.requires_dpop().map(|_| self.bindings.new_nonce())
    }

    /// Parses a token. Nothing of it is verified.
    pub(super) fn parse(&self, token: &str) -> Result<(Header, Claims), RejectReason> {
        claims::parse(token, self.max_claim_items)
    }

    /// The trusted issuer that the claims name.
    pub(super) fn issuer_of(&self, claims: &Claims) -> Result<&TrustedIssuer, RejectReason> {
        self.trusted.iter().find(|issuer| issuer.verifier.is_issuer_of(claims)).ok_or(RejectReason::Issuer)
    }

    /// The trusted issuer of this name; `None` is the first.
    #[cfg(feature = "sessions")]
    pub(super) fn by_name(&self, name: Option<&str>) -> Option<&TrustedIssuer> {
        self.trusted.iter().find(|issuer| issuer.name.as_deref() == name)
    }

    /// Validates a token, or finds it in the cache, and returns its principal.
    ///
    /// Checks its binding too. For a cached token the caller still has to check revocations and the
    /// tenant.
    pub(super) async fn authenticate(
        &self,
        token: Token<'_>,
        request: RequestCredentials<'_>,
        revocations: &Revocations,
        api_keys: &ApiKeys,
    ) -> Result<Arc<Principal>, AuthnError> {
        let digest = sha256(token.text.as_bytes());
        if let Some(principal) = self.find(&digest) {
            principal.name_in_log();
            self.bindings.check(principal.binding, token, request).await?;
            return Ok(principal);
        }
        let (header, claims) = self.parse(token.text)?;
        let issuer = self.issuer_of(&claims)?;
        issuer.verifier.check_header(&header)?;
        let keys = issuer.keys_for(&header).await?;
        let names_version = self.tenants.names_version();
        let ValidatedToken { principal, valid_until } = issuer.verifier.verify(token.text, &header, &claims, &keys)?;
        principal.name_in_log();
        // Before anything is stored: a revoked token, or one without its certificate or proof, must
        // change neither the cache nor the recorded roles.
        self.bindings.check(principal.binding, token, request).await?;
        self.admit(issuer, &principal, revocations, api_keys).await?;
        event::authn_login_success();
        self.tokens.insert(digest, CachedToken { principal: Arc::clone(&principal), valid_until, keys, names_version });
        Ok(principal)
    }

    /// Checks that the principal of a new token may call: neither it nor its tenant is refused. Registers
    /// a tenant that is new, if the issuer may, and records the roles of a user.
    pub(super) async fn admit(
        &self,
        issuer: &TrustedIssuer,
        principal: &Principal,
        revocations: &Revocations,
        api_keys: &ApiKeys,
    ) -> Result<(), AuthnError> {
        revocations.check(principal)?;
        if issuer.creates_tenants {
            self.tenants.admit(principal.tenant, &issuer.url).await?;
        }
        self.tenants.check(principal.tenant)?;
        api_keys.record_roles(principal).await
    }
}
