//! Revoked credentials and changes of API keys, kept up to date in memory (AUTHN-11, AUTHN-12).
//!
//! One connection listens for notifications and reads new revocations every second, so a connection
//! that went silent shows. Authentication asks here for every request, and waits for no message.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::{AuthnError, Principal, Refused};
use crate::{
    domain::{Clock, Revocation, RevocationKind, TenantId},
    settings::{self, WhenLost},
    store::{Credentials, Notice, RevocationFeed, StoreError},
};

/// How often revocations are read, notified or not: a notification can be lost.
const LOOK: Duration = Duration::from_secs(1);
/// The same after a failure, or after the connection was lost.
const RETRY: Duration = Duration::from_millis(100);
/// Counters of key changes. Tenants that share one read a key once more than they need.
const COUNTERS: usize = 1_024;

/// The revocations in force, and how often API keys changed.
#[derive(Debug)]
pub(super) struct Revocations {
    store: Credentials,
    clock: Clock,
    settings: settings::Revocation,
    revoked: ArcSwap<Revoked>,
    /// By tenant. Cached keys are stale if it moved since their rows were read.
    key_changes: Box<[AtomicU64]>,
    started: Instant,
    /// When the last look began that succeeded, in milliseconds after the start; 0 if none did.
    up_to_date_at: AtomicU64,
    /// Whether the last look failed, so that it is logged once.
    failing: AtomicBool,
}

#[derive(Clone, Debug, Default)]
struct Revoked(HashMap<RevocationKind, HashMap<String, Cutoff>>);

/// Both in seconds since the epoch.
#[derive(Clone, Copy, Debug)]
struct Cutoff {
    issued_before: i64,
    expires_at: i64,
}

impl Revocations {
    pub(super) fn new(store: Credentials, settings: settings::Revocation, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            store,
            clock,
            settings,
            revoked: ArcSwap::default(),
            key_changes: (0..COUNTERS).map(|_| AtomicU64::default()).collect(),
            started: Instant::now(),
            up_to_date_at: AtomicU64::new(0),
            failing: AtomicBool::new(false),
        })
    }

    /// Follows the database for as long as it runs.
    pub(super) async fn follow(self: Arc<Self>) {
        loop {
            // Listens first and reads everything then, so that nothing is missed in between. It may
            // be another database than before: a copy that took over, or a restored backup.
            let mut feed = self.store.listen().await.ok();
            if self.look(feed.as_mut()).await.is_ok() {
                // Changes of keys may have been missed; without a feed, they are missed each time.
                self.all_keys_changed();
                match &mut feed {
                    Some(feed) => self.follow_feed(feed).await,
                    None => tokio::time::sleep(LOOK).await,
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Until the connection is lost or silent.
    async fn follow_feed(&self, feed: &mut RevocationFeed) {
        let mut look_at = Instant::now() + LOOK;
        loop {
            match tokio::time::timeout_at(look_at, feed.next()).await {
                Ok(Ok(Notice::KeysChanged(tenant))) => {
                    self.keys_changed(tenant);
                    // However many of them come, the next look is in time.
                    if Instant::now() < look_at {
                        continue;
                    }
                }
                Ok(Err(_)) => return,
                Ok(Ok(Notice::Revoked)) | Err(_) => {}
            }
            if self.look(Some(&mut *feed)).await.is_err() {
                return;
            }
            look_at = Instant::now() + LOOK;
        }
    }

    /// Reads what was revoked: by the feed, if there is one, only what is new to it.
    pub(super) async fn look(&self, feed: Option<&mut RevocationFeed>) -> Result<(), StoreError> {
        let began = self.started.elapsed();
        let new = match feed {
            Some(feed) => feed.new_revocations().await,
            None => self.store.revocations().await,
        };
        let new = new.inspect_err(|error| self.report(error))?;
        let now = self.clock.timestamp();
        if !new.is_empty() || self.revoked.load().has_ended(now) {
            self.revoked.rcu(|revoked| revoked.with(&new, now));
        }
        let at = u64::try_from(began.as_millis()).unwrap_or(u64::MAX).max(1);
        self.up_to_date_at.fetch_max(at, Ordering::Release);
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::warn!("revocations can be read again");
        }
        Ok(())
    }

    fn report(&self, error: &StoreError) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, cause = ?std::error::Error::source(error), "revocations cannot be read");
        }
    }

    /// Whether revocations may have been missed and that is reason to refuse.
    pub(super) fn is_lost(&self) -> bool {
        let at = self.up_to_date_at.load(Ordering::Acquire);
        let age = self.started.elapsed().saturating_sub(Duration::from_millis(at));
        // A replica that never read any refuses, whatever the setting.
        at == 0 || (age > self.settings.max_feed_age && self.settings.when_lost == WhenLost::Refuse)
    }

    /// Refuses a principal whose credential was revoked.
    pub(super) fn check(&self, principal: &Principal) -> Result<(), AuthnError> {
        if self.is_lost() {
            return Err(AuthnError::Unavailable("revocations"));
        }
        if self.names(principal) { Err(Refused::Revoked.into()) } else { Ok(()) }
    }

    /// Whether a principal's credential was revoked, as far as is known.
    pub(super) fn names(&self, principal: &Principal) -> bool {
        self.revoked.load().names(principal)
    }

    /// Whether it was revoked by its subject: `revoke everything` must not lock out services that
    /// handle incidents.
    pub(super) fn names_subject(&self, principal: &Principal) -> bool {
        self.revoked.load().is_before(RevocationKind::Subject, &principal.subject, principal.issued_at)
    }

    /// How often keys of a tenant changed, to compare with later.
    pub(super) fn key_changes(&self, tenant: TenantId) -> u64 {
        self.key_changes_of(tenant).map_or(0, |changes| changes.load(Ordering::Acquire))
    }

    /// Makes cached keys of a tenant stale.
    pub(super) fn keys_changed(&self, tenant: TenantId) {
        if let Some(changes) = self.key_changes_of(tenant) {
            changes.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn all_keys_changed(&self) {
        for changes in &self.key_changes {
            changes.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn key_changes_of(&self, tenant: TenantId) -> Option<&AtomicU64> {
        // The end of a UUID is random, also where its beginning is a time.
        let [.., high, low] = *tenant.uuid().as_bytes();
        self.key_changes.get(usize::from(u16::from_be_bytes([high, low])) % COUNTERS)
    }
}

impl Revoked {
    fn names(&self, principal: &Principal) -> bool {
        let before = |kind, value: &str| self.is_before(kind, value, principal.issued_at);
        let named = |id: &String| self.cutoff(RevocationKind::Token, id).is_some();
        !self.0.is_empty()
            && (principal.token_id.as_ref().is_some_and(named)
                || before(RevocationKind::Everything, "")
                || before(RevocationKind::Subject, &principal.subject)
                // An API key has a subject of its own, so it goes on.
                || before(RevocationKind::Sessions, &principal.subject)
                || principal.creator.as_ref().is_some_and(|creator| before(RevocationKind::Subject, creator))
                || before(RevocationKind::Client, &principal.client)
                || before(RevocationKind::Tenant, &principal.tenant.to_string()))
    }

    fn cutoff(&self, kind: RevocationKind, value: &str) -> Option<&Cutoff> {
        self.0.get(&kind).and_then(|cutoffs| cutoffs.get(value))
    }

    fn is_before(&self, kind: RevocationKind, value: &str, issued_at: i64) -> bool {
        self.cutoff(kind, value).is_some_and(|cutoff| issued_at <= cutoff.issued_before)
    }

    /// With these as well, and without what has ended. A revocation stays that the database forgot.
    fn with(&self, new: &[Revocation], now: i64) -> Self {
        let mut next = self.clone();
        for cutoffs in next.0.values_mut() {
            cutoffs.retain(|_, cutoff| cutoff.expires_at >= now);
        }
        for Revocation { kind, value, issued_before, expires_at } in new {
            let (issued_before, expires_at) = (issued_before.timestamp(), expires_at.timestamp());
            let cutoffs = next.0.entry(*kind).or_default();
            let cutoff = cutoffs.entry(value.clone()).or_insert(Cutoff { issued_before, expires_at });
            cutoff.issued_before = cutoff.issued_before.max(issued_before);
            cutoff.expires_at = cutoff.expires_at.max(expires_at);
        }
        next
    }

    fn has_ended(&self, now: i64) -> bool {
        self.0.values().flat_map(HashMap::values).any(|cutoff| cutoff.expires_at < now)
    }
}
