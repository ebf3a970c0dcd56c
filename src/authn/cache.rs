//! Remembers tokens that were verified, so that each is verified once and not at every call.

use std::{fmt, sync::Arc};

use quick_cache::sync::Cache;

use super::{principal::Principal, verify::Verified};
use crate::{crypto, domain::Clock};

/// SHA-256 of a token. The cache holds no token, so a memory dump gives none away.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenId([u8; 32]);

impl TokenId {
    pub(super) fn of(token: &str) -> Self {
        Self(crypto::sha256(token.as_bytes()))
    }
}

#[derive(Clone)]
struct Entry {
    principal: Arc<Principal>,
    valid_until: i64,
    key_set: KeySetId,
}

/// Under which keys a token was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeySetId {
    /// Which issuer's, by its place in the settings.
    pub(super) issuer: usize,
    /// Which of its sets.
    pub(super) generation: u64,
}

/// Bounded. An entry counts until its token ends, and only under the key set it was verified
/// with: when the issuer changes a key, everything of it is verified again.
pub(super) struct TokenCache {
    entries: Cache<TokenId, Entry>,
    clock: Clock,
}

impl TokenCache {
    pub(super) fn new(capacity: usize, clock: Clock) -> Self {
        Self { entries: Cache::new(capacity), clock }
    }

    /// The principal of a token, if it is known and `is_current` says so of the key set it was verified with.
    pub(super) fn get(&self, id: &TokenId, is_current: impl FnOnce(KeySetId) -> bool) -> Option<Arc<Principal>> {
        let entry = self.entries.get(id)?;
        if entry.valid_until <= self.clock.timestamp() || !is_current(entry.key_set) {
            self.entries.remove(id);
            return None;
        }
        Some(entry.principal)
    }

    pub(super) fn insert(&self, id: TokenId, verified: Verified, key_set: KeySetId) -> Arc<Principal> {
        let Verified { principal, valid_until } = verified;
        self.entries.insert(id, Entry { principal: Arc::clone(&principal), valid_until, key_set });
        principal
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}
