//! API keys: checked against their hash, remembered for a while, and bounded by their creator's rights (AUTHN-12).

use std::{
    collections::HashMap,
    fmt, mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use quick_cache::sync::Cache;
use secrecy::SecretString;

use super::{
    AuthnError, CallerKind, Principal, Refused, SetupError, Source,
    hashing::{Asker, Hashing},
    key_text::{self, KeyText},
    penalties::Penalties,
    principal::API_KEY_SUBJECT,
    revocation::Revocations,
};
use crate::{
    crypto::MacKey,
    domain::{ApiKeyId, Clock, TenantId},
    settings,
    store::{Credentials, StoredApiKey},
    telemetry::repeats::coalesced,
};

/// Most keys remembered.
const MAX_REMEMBERED: usize = 10_000;
/// Longest wait for the answer to another call with the same key, which is checked at the time.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is noted when keys were used last.
const NOTE_USES: Duration = Duration::from_secs(30);

/// Knows API keys.
pub(super) struct ApiKeys {
    store: Credentials,
    hashing: Hashing,
    clock: Clock,
    remembered_for: i64,
    /// By a digest that only this process can make: whoever reads its memory cannot try texts out against it.
    remembered: Cache<[u8; 32], Remembered>,
    /// Keys that were right when they were shown last, by the same digest.
    proven: Cache<[u8; 32], Proof>,
    digest_key: MacKey,
    uses: Mutex<HashMap<(TenantId, ApiKeyId), DateTime<Utc>>>,
}

#[derive(Clone)]
struct Remembered {
    principal: Arc<Principal>,
    valid_until: i64,
    /// The count of key changes of the tenant before the row was read.
    key_changes: u64,
}

/// A hash that a key was checked against. The row can be read again without hashing again.
#[derive(Clone)]
struct Proof {
    secret_hash: String,
    valid_until: i64,
}

impl ApiKeys {
    pub(super) fn new(settings: &settings::Settings, store: Credentials, clock: Clock) -> Result<Self, SetupError> {
        Ok(Self {
            store,
            hashing: Hashing::new(settings.secrets.pepper.clone(), settings.api_keys.concurrent_hashes)?,
            clock,
            remembered_for: i64::try_from(settings.api_keys.remembered.as_secs()).unwrap_or(i64::MAX),
            remembered: Cache::new(MAX_REMEMBERED),
            proven: Cache::new(MAX_REMEMBERED),
            digest_key: MacKey::generate()?,
            uses: Mutex::default(),
        })
    }

    /// The text of a new key, which nobody will see again, and the hash to store.
    pub(super) async fn issue(&self, tenant: TenantId, id: ApiKeyId) -> Result<(SecretString, String), AuthnError> {
        let (text, secret) = key_text::issue(tenant, id).map_err(|_| AuthnError::Unavailable("random"))?;
        Ok((text, self.hashing.hash(&secret, tenant).await?))
    }

    /// Whose a key is that was right when it was used last, although it may have to be checked again.
    pub(super) fn proven(&self, text: &str) -> Option<(TenantId, String)> {
        let key = key_text::parse(text).ok()?;
        self.proven.get(&self.digest(text))?;
        Some((key.tenant, subject(key.id)))
    }

    fn digest(&self, text: &str) -> [u8; 32] {
        self.digest_key.tag("api key", text.as_bytes())
    }

    fn counts(&self, known: &Remembered, revocations: &Revocations) -> bool {
        let key_changes = revocations.key_changes(known.principal.tenant);
        self.clock.timestamp() < known.valid_until && known.key_changes == key_changes
    }

    /// The principal behind a key, if it was not revoked, nor whatever it was made by.
    pub(super) async fn principal_of(
        &self,
        text: &str,
        source: Source,
        revocations: &Revocations,
        penalties: &Penalties,
    ) -> Result<Arc<Principal>, AuthnError> {
        let key = key_text::parse(text)?;
        let digest = self.digest(text);
        let outcome = self.known_or_checked(&key, digest, source, revocations, penalties).await;
        let outcome = outcome.and_then(|principal| {
            let revoked = |error| match error {
                // An event names the key.
                AuthnError::Refused { reason, .. } => AuthnError::refused(reason, Some(key.id)),
                error => error,
            };
            revocations.check(&principal).map_err(revoked).map(|()| principal)
        });
        match &outcome {
            Ok(_) => self.note_use(key.tenant, key.id),
            Err(AuthnError::Refused { .. }) => drop(self.proven.remove(&digest)),
            Err(_) => {}
        }
        outcome
    }

    async fn known_or_checked(
        &self,
        key: &KeyText<'_>,
        digest: [u8; 32],
        source: Source,
        revocations: &Revocations,
        penalties: &Penalties,
    ) -> Result<Arc<Principal>, AuthnError> {
        let counts = |known: &Remembered| self.counts(known, revocations);
        // Of many calls at once with one key, one is checked and the others wait for it; but not one after the other for
        // a database that is away.
        let ask = async || loop {
            match self.remembered.get_value_or_guard_async(&digest).await {
                Ok(known) if counts(&known) => break Ok(known.principal),
                Ok(_) => drop(self.remembered.remove(&digest)),
                Err(place) => break Err(place),
            }
        };
        let place = match tokio::time::timeout(PATIENCE, ask()).await {
            Ok(Ok(principal)) => return Ok(principal),
            Ok(Err(place)) => place,
            Err(_) => return Err(AuthnError::Unavailable("busy")),
        };
        // What was right before is no guess, whoever else guesses from the same address.
        let proof = self.proven.get(&digest);
        let asker = if proof.is_some() { Asker::Proven(key.tenant) } else { Asker::Anybody(source) };
        let admit = || match penalties.admit(source, key.id) {
            Err(seconds) if proof.is_none() => Err(AuthnError::Penalised { seconds, refused: None }),
            _ => Ok(()),
        };
        admit()?;
        // Before the row is read, so that a change during the reading makes the entry stale.
        let key_changes = revocations.key_changes(key.tenant);
        let (principal, proof) = self.check(key, proof.as_ref(), asker, revocations, admit).await?;
        let valid_until = proof.valid_until;
        self.proven.insert(digest, proof);
        let remembered = Remembered { principal: Arc::clone(&principal), valid_until, key_changes };
        // Its place may be gone, if another took it for itself; then it is checked again next time.
        let _ = place.insert(remembered);
        Ok(principal)
    }

    /// The principal of a key, and the proof that its secret is right. What costs nothing comes
    /// first.
    async fn check(
        &self,
        key: &KeyText<'_>,
        proof: Option<&Proof>,
        asker: Asker,
        revocations: &Revocations,
        admit: impl FnOnce() -> Result<(), AuthnError>,
    ) -> Result<(Arc<Principal>, Proof), AuthnError> {
        let stored = self.store.api_key(key.tenant, key.id).await.map_err(|error| {
            coalesced!(warn, "could not look up an API key", %error, cause = ?std::error::Error::source(&error));
            AuthnError::Unavailable("store")
        })?;
        let refused = |reason| AuthnError::refused(reason, Some(key.id));
        let stored = stored.ok_or(refused(Refused::ApiKeyUnknown))?;
        if stored.key.revoked_at.is_some() {
            return Err(refused(Refused::Revoked));
        }
        if !stored.key.is_live(self.clock.now()) {
            return Err(refused(Refused::Expired));
        }
        let (secret_hash, expires_at) = (stored.secret_hash.clone(), stored.key.expires_at.timestamp());
        let principal = principal(stored);
        if revocations.names(&principal) {
            return Err(refused(Refused::Revoked));
        }
        let now = self.clock.timestamp();
        let valid_until = match proof {
            Some(proof) if now < proof.valid_until && proof.secret_hash == secret_hash => proof.valid_until,
            _ if self.hashing.verify(key.secret, secret_hash.clone(), asker, admit).await? => {
                self.clock.timestamp().saturating_add(self.remembered_for)
            }
            _ => return Err(refused(Refused::ApiKeySecret)),
        };
        let valid_until = valid_until.min(expires_at);
        Ok((Arc::new(principal), Proof { secret_hash, valid_until }))
    }

    fn note_use(&self, tenant: TenantId, id: ApiKeyId) {
        let at = self.clock.now();
        self.uses.lock().unwrap_or_else(PoisonError::into_inner).insert((tenant, id), at);
    }

    /// Notes now and then when keys were used last, for as long as it runs.
    pub(super) async fn note_uses(self: Arc<Self>) {
        loop {
            tokio::time::sleep(NOTE_USES).await;
            self.flush_uses().await;
        }
    }

    /// Notes it at once. What cannot be noted is forgotten: it is no more than a hint at keys that nobody needs.
    pub(super) async fn flush_uses(&self) {
        let uses = mem::take(&mut *self.uses.lock().unwrap_or_else(PoisonError::into_inner));
        let mut of_tenant: HashMap<TenantId, Vec<(ApiKeyId, DateTime<Utc>)>> = HashMap::new();
        for ((tenant, id), at) in uses {
            of_tenant.entry(tenant).or_default().push((id, at));
        }
        for (tenant, uses) in of_tenant {
            if let Err(error) = self.store.note_uses(tenant, &uses).await {
                tracing::warn!(%error, "not noted when API keys were used last");
            }
        }
    }
}

fn subject(key: ApiKeyId) -> String {
    format!("{API_KEY_SUBJECT}{key}")
}

/// A key is its creator's: what it may do is what its scopes *and* the creator's roles allow.
fn principal(stored: StoredApiKey) -> Principal {
    let StoredApiKey { key, creator_roles, authorized_by, .. } = stored;
    let subject = subject(key.id);
    Principal {
        kind: CallerKind::ApiKey,
        client: subject.clone(),
        subject,
        tenant: key.tenant,
        // What is no role or scope any more gives nothing.
        roles: creator_roles.iter().filter_map(|name| name.parse().ok()).collect(),
        scopes: key.scopes.iter().filter_map(|name| name.parse().ok()).collect(),
        creator: Some(key.created_by),
        token_id: authorized_by,
        bound_to: None,
        issued_at: key.authorized_at.timestamp(),
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeys").field("remembered", &self.remembered.len()).finish_non_exhaustive()
    }
}
