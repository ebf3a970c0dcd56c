use std::sync::Arc;

use chrono::DateTime;
use tokio::task::JoinSet;

use super::{
    AuthnError, Peer, Refused,
    cache::{KeySetId, TokenCache, TokenId},
    claims,
    discovery::KeyService,
    principal::{CallerKind, Principal},
    revocation::Revocations,
    verify::Verifier,
};
use crate::{
    domain::Clock,
    settings::{Oidc, Profile},
    store::Credentials,
    telemetry::repeats::coalesced,
};

const NO_KEYS: AuthnError = AuthnError::Unavailable("issuer_keys");

/// The issuers whose tokens are accepted, with their keys and what was verified with them.
#[derive(Debug)]
pub(super) struct Issuers {
    trusted: Vec<Trusted>,
    cache: TokenCache,
    store: Credentials,
    clock: Clock,
}

#[derive(Debug)]
struct Trusted {
    keys: Arc<KeyService>,
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
            let keys = KeyService::new(issuer, oidc, profile, clock.clone())?;
            Ok(Trusted { keys, verifier: Verifier::new(issuer, oidc, clock.clone()) })
        });
        let trusted = trusted.collect::<Result<_, reqwest::Error>>()?;
        Ok(Self { trusted, cache: TokenCache::new(oidc.cached_tokens, clock.clone()), store, clock: clock.clone() })
    }

    /// Keeps the keys fresh for as long as the tasks run.
    pub(super) fn keep_fresh(&self, tasks: &mut JoinSet<()>) {
        for issuer in &self.trusted {
            tasks.spawn(Arc::clone(&issuer.keys).keep_fresh());
        }
    }

    /// Whether the keys of any issuer are known; else nobody with a token could be let in.
    pub(super) fn is_ready(&self) -> bool {
        self.trusted.iter().any(|issuer| issuer.keys.current().is_some())
    }

    /// The principal of a token that was verified lately.
    pub(super) fn remembered(&self, token: &str) -> Option<Arc<Principal>> {
        self.cache.get(&TokenId::of(token), |key_set| self.is_current(key_set))
    }

    /// The principal behind a token: remembered, or verified against a key of the issuer it names.
    pub(super) async fn principal_of(
        &self,
        token: &str,
        peer: &Peer,
        revocations: &Revocations,
    ) -> Result<Arc<Principal>, AuthnError> {
        let id = TokenId::of(token);
        if let Some(principal) = self.cache.get(&id, |key_set| self.is_current(key_set)) {
            return Ok(principal);
        }
        let (header, claims) = claims::parse(token)?;
        let place = self.trusted.iter().position(|issuer| issuer.verifier.is_issuer_of(&claims));
        let (place, issuer) = place.and_then(|place| Some((place, self.trusted.get(place)?))).ok_or(Refused::Issuer)?;
        let keys = match issuer.keys.current() {
            Some(keys) if keys.contains(&header.kid) => keys,
            // The issuer may have rotated (AUTHN-09), or be back; the service bounds how often this asks.
            _ => issuer.keys.refresh_on_demand().await.ok_or(NO_KEYS)?,
        };
        let verified = issuer.verifier.verify(token, &header, &claims, &keys)?;
        // A revoked token, or one in other hands, changes nothing, neither what is remembered nor what keys may do.
        peer.may_show(verified.principal.bound_to.as_ref(), self.clock.timestamp())?;
        revocations.check(&verified.principal)?;
        self.note_roles(&verified.principal).await?;
        Ok(self.cache.insert(id, verified, KeySetId { issuer: place, generation: keys.generation() }))
    }

    /// A new token says what a person may do now, which bounds the API keys they made. While that cannot be noted, it is not
    /// accepted: who lost a role would go on by their keys.
    pub(super) async fn note_roles(&self, principal: &Principal) -> Result<(), AuthnError> {
        if principal.kind() != CallerKind::User {
            return Ok(());
        }
        let roles: Vec<String> = principal.roles().iter().map(|role| role.as_str().to_owned()).collect();
        let issued_at = DateTime::from_timestamp(principal.issued_at, 0).unwrap_or(DateTime::UNIX_EPOCH);
        let noted = self.store.note_roles(principal.tenant(), principal.subject(), &roles, issued_at).await;
        noted.map_err(|error| {
            coalesced!(warn, "could not record the subject's roles", %error);
            AuthnError::Unavailable("store")
        })
    }

    fn is_current(&self, key_set: KeySetId) -> bool {
        let keys = self.trusted.get(key_set.issuer).and_then(|issuer| issuer.keys.current());
        keys.is_some_and(|keys| keys.generation() == key_set.generation)
    }
}
