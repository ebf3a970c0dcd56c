//! Who is calling: credential → [`Principal`].
//!
//! The only credential so far is a bearer access token in the form of RFC 9068, of the one
//! issuer that the settings name. The way of a token:
//! [`bearer`] takes it out of the request, [`cache`] knows it or [`verify`] checks it
//! against a key from [`keys`], which [`discovery`] found and keeps fresh.

mod bearer;
mod cache;
mod claims;
mod discovery;
mod keys;
mod principal;
mod verify;

use std::sync::Arc;

use http::HeaderMap;
use thiserror::Error;

pub use discovery::{DiscoveryError, KeyService};
pub use principal::{CallerKind, Principal};
pub use verify::TokenError;

use crate::{domain::Clock, settings::Oidc};
use cache::TokenCache;
use verify::Verifier;

/// Why a call could not be authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AuthnError {
    /// No credential was presented.
    #[error("no credential")]
    Missing,
    /// What was presented is not one acceptable credential. The reason is for logs, never for the caller.
    #[error("credential refused: {0}")]
    Refused(#[from] TokenError),
    /// The issuer's keys are not known, so nothing can be verified: fail closed.
    #[error("no keys to verify with")]
    NoKeys,
}

/// Verifies credentials. One per server.
#[derive(Debug)]
pub struct Authenticator {
    keys: Arc<KeyService>,
    verifier: Verifier,
    cache: TokenCache,
}

impl Authenticator {
    /// An authenticator for tokens of the configured issuer, with the keys that `keys` keeps.
    #[must_use]
    pub fn new(oidc: &Oidc, keys: Arc<KeyService>, clock: Clock) -> Self {
        Self { keys, verifier: Verifier::new(oidc, clock.clone()), cache: TokenCache::new(oidc.cached_tokens, clock) }
    }

    /// The principal behind a request's credential.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Principal>, AuthnError> {
        let token = bearer::token(headers)?.ok_or(AuthnError::Missing)?;
        let keys = self.keys.current().ok_or(AuthnError::NoKeys)?;
        let id = cache::TokenId::of(token);
        if let Some(principal) = self.cache.get(&id, keys.generation()) {
            return Ok(principal);
        }
        let header = claims::Header::parse(token)?;
        let keys = if keys.contains(&header.kid) {
            keys
        } else {
            // The issuer may have rotated (AUTHN-09); the service bounds how often this asks.
            self.keys.refresh_for_unknown_key().await.ok_or(AuthnError::NoKeys)?
        };
        let verified = self.verifier.verify(token, &header, &keys)?;
        Ok(self.cache.insert(id, verified, keys.generation()))
    }
}
