//! Cache of validated access tokens, so that each token is validated once per replica (AUTHN-06).
//!
//! Entries are valid until the token expires, and only under the key set that validated the token.
//! After a key rollover, all tokens of that issuer are validated again. [`super::issuers`] owns it.

use std::{fmt, sync::Arc};

use quick_cache::sync::Cache;

use super::{principal::Principal, verify::ValidatedToken};
use crate::{crypto, domain::Clock};

/// SHA-256 of a token. The cache holds no token, so a memory dump reveals none.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub(super) fn new(token: &str) -> Self {
        Self(crypto::sha256(token.as_bytes()))
    }
}

#[derive(Clone)]
struct CachedToken {
    principal: Arc<Principal>,
    valid_until: i64,
    key_set: KeySetId,
}

/// The key set that validated a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeySetId {
    /// Index of the issuer in the settings.
    pub(super) issuer: usize,
    /// Generation of the issuer's key set.
    pub(super) generation: u64,
}

/// Validated tokens, at most `capacity` of them.
pub(super) struct TokenCache {
    tokens: Cache<TokenDigest, CachedToken>,
    clock: Clock,
}

impl TokenCache {
    pub(super) fn new(capacity: usize, clock: Clock) -> Self {
        Self { tokens: Cache::new(capacity), clock }
    }

    /// The principal of a token that has not expired, if `is_current` accepts its key set.
    pub(super) fn get(
        &self,
        digest: &TokenDigest,
        is_current: impl FnOnce(KeySetId) -> bool,
    ) -> Option<Arc<Principal>> {
        let token = self.tokens.get(digest)?;
        if token.valid_until <= self.clock.timestamp() || !is_current(token.key_set) {
            self.tokens.remove(digest);
            return None;
        }
        Some(token.principal)
    }

    pub(super) fn insert(&self, digest: TokenDigest, validated: ValidatedToken, key_set: KeySetId) -> Arc<Principal> {
        let ValidatedToken { principal, valid_until } = validated;
        self.tokens.insert(digest, CachedToken { principal: Arc::clone(&principal), valid_until, key_set });
        principal
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").field("tokens", &self.tokens.len()).finish_non_exhaustive()
    }
}
