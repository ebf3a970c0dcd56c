//! API key authentication: hash check, caches, and the limit by the creator's roles (AUTHN-12).
//!
//! [`super::Authenticator`] passes the value of an `X-API-Key` field and gets a principal.
//! [`format`](mod@format) parses the key, and [`hashing`] queues the check of its secret for the
//! threads of [`hash_pool`]. Two caches keep the cost low: one of complete results, one of verified
//! secrets. A key change ([`changes`]) makes a result stale; its database row is then read again,
//! but its secret is not hashed again. [`issue`] makes new keys, [`uses`] records when keys are
//! used. Without the feature `api_keys`, `without_api_keys.rs` stands in for this module.

mod changes;
mod format;
mod hash_pool;
mod hashing;
mod issue;
mod uses;

use std::{sync::Arc, time::Duration};

use chrono::DateTime;
use format::ApiKeyText;
use hashing::{HashQueue, QueueShare};
use http::{HeaderMap, HeaderValue};
use quick_cache::sync::Cache;
use tokio::{sync::Semaphore, task::JoinSet};
use uses::KeyUses;

use super::{
    AuthnError, CallerKind, Principal, RejectReason, SetupError, SourceNetwork, failure_limiter::FailureLimiter,
    principal::API_KEY_SUBJECT, revocation::Revocations, sign_in::SignIn,
};
use crate::{
    crypto::MacKey,
    db::{Credentials, api_keys::StoredApiKey},
    model::{ApiKeyId, Clock, Rights, TenantId},
    settings,
    telemetry::{causes, event, repeats::coalesced},
};

pub(super) use changes::KeyChanges;

/// Maximum number of entries in each cache.
const MAX_CACHED_KEYS: usize = 10_000;
/// Maximum time that a request waits for a concurrent check of the same API key, or for its turn to
/// read the row of an unverified one.
const MAX_WAIT: Duration = Duration::from_secs(3);

/// Whether this build has API keys.
pub(crate) const ENABLED: bool = true;

/// The header field of an API key.
const HEADER: &str = "x-api-key";

/// The value of the field [`HEADER`]. Nothing of it is verified.
pub(super) type Presented<'h> = &'h HeaderValue;

/// The API keys of a request. More than one is an error.
pub(super) fn presented(headers: &HeaderMap) -> impl Iterator<Item = Presented<'_>> {
    headers.get_all(HEADER).iter()
}

/// The subject of the API key with this id: a UUID, or the `<id>` part of the key's text.
///
/// # Errors
/// What is expected, for an operator.
pub(crate) fn subject_of_id(id: &str) -> Result<String, &'static str> {
    let id = format::parse_id(id);
    id.map(subject).ok_or("an API key is identified by its id, or by the part of its text between the two `_`")
}

/// Authenticates API keys.
pub(super) struct ApiKeys {
    store: Credentials,
    rights: Rights,
    hash_queue: HashQueue,
    /// Half of the connections: look-ups of keys that were never verified get no more, so that
    /// guesses do not delay new tokens and known keys.
    unverified_lookups: Semaphore,
    clock: Clock,
    max_lifetime: Duration,
    /// How long a verified secret is not hashed again, in seconds.
    cache_seconds: i64,
    /// Results, by a MAC of the key's text under a random key of this process. The entries alone do
    /// not let an attacker test guessed keys.
    results: Cache<[u8; 32], CachedResult>,
    /// Verified secrets, by the same MAC.
    verified: Cache<[u8; 32], VerifiedSecret>,
    digest_key: MacKey,
    uses: KeyUses,
}

#[derive(Clone)]
struct CachedResult {
    principal: Arc<Principal>,
    valid_until: i64,
    /// The tenant's count of key changes before the row was read.
    key_changes: u64,
}

/// The hash that a secret was verified against. While it is valid, the row can be read again
/// without another hash.
#[derive(Clone)]
struct VerifiedSecret {
    secret_hash: String,
    valid_until: i64,
}

impl ApiKeys {
    pub(super) fn new(
        settings: &settings::ApiKeys,
        rights: Rights,
        store: Credentials,
        connections: u32,
        clock: Clock,
    ) -> Result<Self, SetupError> {
        let settings::ApiKeys { max_lifetime, remembered, concurrent_hashes, pepper } = settings;
        Ok(Self {
            store,
            rights,
            hash_queue: HashQueue::new(pepper.clone(), *concurrent_hashes)?,
            unverified_lookups: Semaphore::new((connections / 2).max(1) as usize),
            clock,
            max_lifetime: *max_lifetime,
            cache_seconds: i64::try_from(remembered.as_secs()).unwrap_or(i64::MAX),
            results: Cache::new(MAX_CACHED_KEYS),
            verified: Cache::new(MAX_CACHED_KEYS),
            digest_key: MacKey::generate()?,
            uses: KeyUses::default(),
        })
    }

    /// Starts the task that writes last-use times.
    pub(super) fn start_background_tasks(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        let keys = Arc::clone(self);
        tasks.spawn(async move { keys.uses.write_periodically(&keys.store).await });
    }

    /// Writes pending last-use times.
    pub(super) async fn flush_uses(&self) {
        self.uses.write(&self.store).await;
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

    /// Tenant and subject of a key that verified when it was last checked, however long ago.
    pub(super) fn lookup_verified(&self, presented: Presented<'_>) -> Option<(TenantId, String)> {
        let text = presented.to_str().ok()?;
        let key = format::parse(text).ok()?;
        self.verified.get(&self.digest(text))?;
        Some((key.tenant, subject(key.id)))
    }

    fn digest(&self, text: &str) -> [u8; 32] {
        self.digest_key.tag("api key", text.as_bytes())
    }

    fn is_fresh(&self, result: &CachedResult, revocations: &Revocations) -> bool {
        let key_changes = revocations.key_changes.count(result.principal.tenant);
        self.clock.timestamp() < result.valid_until && result.key_changes == key_changes
    }

    /// Authenticates an API key. Rejects it if it, or the credential that created it, is revoked.
    pub(super) async fn authenticate(
        &self,
        presented: Presented<'_>,
        source: SourceNetwork,
        revocations: &Revocations,
        failure_limiter: &FailureLimiter,
    ) -> Result<Arc<Principal>, AuthnError> {
        let text = presented.to_str().map_err(|_| RejectReason::ApiKeyFormat)?;
        let key = format::parse(text)?;
        let digest = self.digest(text);
        let outcome = self.cached_or_checked(&key, digest, source, revocations, failure_limiter).await;
        let outcome = outcome.and_then(|principal| {
            principal.name_in_log();
            let with_key_id = |error| match error {
                // The security event names the API key.
                AuthnError::Rejected { reason, .. } => AuthnError::rejected(reason, Some(key.id)),
                error => error,
            };
            revocations.check(&principal).map_err(with_key_id).map(|()| principal)
        });
        match &outcome {
            Ok(_) => self.uses.mark(key.tenant, key.id, self.clock.now()),
            Err(AuthnError::Rejected { .. }) => drop(self.verified.remove(&digest)),
            Err(_) => {}
        }
        outcome
    }

    async fn cached_or_checked(
        &self,
        key: &ApiKeyText<'_>,
        digest: [u8; 32],
        source: SourceNetwork,
        revocations: &Revocations,
        failure_limiter: &FailureLimiter,
    ) -> Result<Arc<Principal>, AuthnError> {
        // Single-flight: of concurrent requests with one key, one checks it and the others wait.
        // One timeout covers the whole wait. Without it, they would query a database that is down
        // one after another.
        let lookup = async || loop {
            match self.results.get_value_or_guard_async(&digest).await {
                Ok(result) if self.is_fresh(&result, revocations) => break Ok(result.principal),
                Ok(_) => drop(self.results.remove(&digest)),
                Err(guard) => break Err(guard),
            }
        };
        let guard = match tokio::time::timeout(MAX_WAIT, lookup()).await {
            Ok(Ok(principal)) => return Ok(principal),
            Ok(Err(guard)) => guard,
            Err(_) => return Err(AuthnError::Unavailable("busy")),
        };
        // A key that was verified before is not a guess, so the source's lock-out does not apply.
        let verified = self.verified.get(&digest);
        let queue_share = match &verified {
            Some(_) => QueueShare::Verified(key.tenant),
            None => QueueShare::unverified(source),
        };
        let admit = || match failure_limiter.check_lockout(source, key.id) {
            Err(seconds) if verified.is_none() => Err(AuthnError::LockedOut { seconds, rejected: None }),
            _ => Ok(()),
        };
        admit()?;
        // Read before the row, so that a change during the read makes the result stale.
        let key_changes = revocations.key_changes.count(key.tenant);
        let is_first_use = verified.is_none();
        let (principal, verified) = self.check(key, verified.as_ref(), queue_share, revocations, admit).await?;
        if is_first_use {
            principal.name_in_log();
            event::authn_login_success();
        }
        let valid_until = verified.valid_until;
        self.verified.insert(digest, verified);
        // Fails if the placeholder was replaced meanwhile; then the next request checks again.
        let _ = guard.insert(CachedResult { principal: Arc::clone(&principal), valid_until, key_changes });
        Ok(principal)
    }

    /// Checks a key against its database row. The hash comes last, because only it is expensive.
    async fn check(
        &self,
        key: &ApiKeyText<'_>,
        verified: Option<&VerifiedSecret>,
        queue_share: QueueShare,
        revocations: &Revocations,
        admit: impl FnOnce() -> Result<(), AuthnError>,
    ) -> Result<(Arc<Principal>, VerifiedSecret), AuthnError> {
        let slot = match verified {
            Some(_) => None,
            None => Some(tokio::time::timeout(MAX_WAIT, self.unverified_lookups.acquire()).await),
        };
        if let Some(Err(_)) = slot {
            return Err(AuthnError::Unavailable("busy"));
        }
        let stored = self.store.api_key(key.tenant, key.id).await;
        drop(slot);
        let stored = stored.map_err(|error| {
            coalesced!(warn, "could not look up an API key", %error, cause = causes(&error));
            AuthnError::Unavailable("store")
        })?;
        let rejected = |reason| AuthnError::rejected(reason, Some(key.id));
        let stored = stored.ok_or(rejected(RejectReason::ApiKeyUnknown))?;
        if stored.key.revoked_at.is_some() {
            return Err(rejected(RejectReason::Revoked));
        }
        if !stored.key.is_live(self.clock.now()) {
            return Err(rejected(RejectReason::Expired));
        }
        let secret_hash = stored.secret_hash.clone();
        let expires_at = stored.key.expires_at.timestamp();
        let principal = principal(stored, &self.rights);
        if revocations.is_revoked(&principal) {
            return Err(rejected(RejectReason::Revoked));
        }
        let now = self.clock.timestamp();
        let valid_until = match verified {
            Some(secret) if now < secret.valid_until && secret.secret_hash == secret_hash => secret.valid_until,
            _ if self.hash_queue.verify(key.secret, secret_hash.clone(), queue_share, admit).await? => {
                self.clock.timestamp().saturating_add(self.cache_seconds)
            }
            _ => return Err(rejected(RejectReason::ApiKeySecret)),
        };
        let valid_until = valid_until.min(expires_at);
        Ok((Arc::new(principal), VerifiedSecret { secret_hash, valid_until }))
    }
}

fn subject(key: ApiKeyId) -> String {
    format!("{API_KEY_SUBJECT}{key}")
}

/// The principal of an API key. It may do what its scopes *and* its creator's roles allow.
fn principal(stored: StoredApiKey, rights: &Rights) -> Principal {
    let StoredApiKey { key, creator_roles, authorized_by, .. } = stored;
    let subject = subject(key.id);
    Principal {
        kind: CallerKind::ApiKey,
        client: subject.clone(),
        subject,
        tenant: key.tenant,
        // Names of roles and scopes that no longer exist grant nothing.
        roles: rights.find_roles(&creator_roles),
        scopes: rights.find_scopes(&key.scopes),
        creator: Some(key.created_by),
        token_id: authorized_by,
        session: None,
        issuer_session: None,
        binding: None,
        sign_in: SignIn::default(),
        issued_at: key.authorized_at.timestamp(),
    }
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKeys").field("results", &self.results.len()).finish_non_exhaustive()
    }
}
