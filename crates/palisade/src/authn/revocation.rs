//! In-memory revocation list (AUTHN-11).
//!
//! One database connection listens for notifications, and polls for new revocations every second:
//! a notification can be lost, and polling detects a dead connection. Authentication checks every
//! principal here, without a database query. If the list is older than
//! `APP_REVOCATION__MAX_FEED_AGE_SECONDS`, authentication fails closed (unless set to `serve`).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::{AuthnError, Principal, RejectReason, Tenants, api_keys::KeyChanges};
use crate::{
    db::{Credentials, DbError, Notification, RevocationFeed},
    model::{Clock, Revocation, RevocationKind},
    settings::{self, OnStaleFeed},
    telemetry::causes,
};

/// Interval between reads of new revocations, even without a notification.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Delay before a retry after a failed read or a lost connection.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// The revocation list of this replica, and the counts of API key changes.
#[derive(Debug)]
pub(super) struct Revocations {
    store: Credentials,
    clock: Clock,
    settings: settings::Revocation,
    list: ArcSwap<RevocationList>,
    /// The registry of tenants, which the same connection reads.
    tenants: Arc<Tenants>,
    /// Changes of API keys, of which the same connection is notified.
    pub(super) key_changes: KeyChanges,
    /// Start of the last successful load.
    loaded_at: Mutex<Option<Instant>>,
    /// Whether the last load failed, so that an outage is logged once.
    failing: AtomicBool,
}

#[derive(Clone, Debug, Default)]
struct RevocationList(HashMap<RevocationKind, HashMap<String, Cutoff>>);

/// A revocation of all credentials issued up to a time. Times are in seconds since the epoch.
#[derive(Clone, Copy, Debug)]
struct Cutoff {
    issued_before: i64,
    /// The revocation may be dropped after this time: the credentials have expired by then.
    expires_at: i64,
}

impl Revocations {
    pub(super) fn new(
        store: Credentials,
        tenants: Arc<Tenants>,
        settings: settings::Revocation,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            clock,
            settings,
            list: ArcSwap::default(),
            tenants,
            key_changes: KeyChanges::new(),
            loaded_at: Mutex::default(),
            failing: AtomicBool::new(false),
        })
    }

    /// Keeps the list current, forever: listens and polls, and reconnects after failures.
    pub(super) async fn follow(self: Arc<Self>) {
        loop {
            // Listens before it loads all revocations, so that none is missed in between. After a
            // failover or a restore, this may be a different database.
            let mut feed = self.store.listen().await.ok();
            if self.load(feed.as_mut()).await.is_ok() {
                // Key changes may have been missed; without a feed, every one is.
                self.key_changes.invalidate_all();
                match &mut feed {
                    Some(feed) => self.follow_feed(feed).await,
                    None => tokio::time::sleep(POLL_INTERVAL).await,
                }
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// Processes notifications and polls, until the connection is lost or stops responding.
    async fn follow_feed(&self, feed: &mut RevocationFeed) {
        let mut poll_at = Instant::now() + POLL_INTERVAL;
        loop {
            match tokio::time::timeout_at(poll_at, feed.next()).await {
                Ok(Ok(Notification::KeysChanged(tenant))) => {
                    self.key_changes.invalidate(tenant);
                    // A flood of these notifications must not delay the next poll.
                    if Instant::now() < poll_at {
                        continue;
                    }
                }
                Ok(Err(_)) => return,
                Ok(Ok(Notification::Revoked)) | Err(_) => {}
            }
            if self.load(Some(&mut *feed)).await.is_err() {
                return;
            }
            poll_at = Instant::now() + POLL_INTERVAL;
        }
    }

    /// Loads revocations and tenants: all of them, or with a feed those that are new to the feed.
    pub(super) async fn load(&self, feed: Option<&mut RevocationFeed>) -> Result<(), DbError> {
        let began = Instant::now();
        let read = async {
            Ok(match feed {
                Some(feed) => (feed.new_revocations().await?, feed.changed_tenants().await?),
                None => (self.store.revocations().await?, self.store.tenants().await?),
            })
        };
        let (new, tenants) = read.await.inspect_err(|error| self.report(error))?;
        self.tenants.update(tenants);
        let now = self.clock.timestamp();
        if !new.is_empty() || self.list.load().has_expired(now) {
            self.list.rcu(|list| list.updated(&new, now));
        }
        let mut loaded_at = self.loaded_at();
        *loaded_at = (*loaded_at).max(Some(began));
        drop(loaded_at);
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::warn!("revocation list is up to date again");
        }
        Ok(())
    }

    fn report(&self, error: &DbError) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, cause = causes(error), "could not load revocations; check the database connection");
        }
    }

    /// Whether the list is so old that credentials must be rejected.
    pub(super) fn is_stale(&self) -> bool {
        // Before the first load the replica rejects all credentials, whatever the setting.
        let Some(loaded_at) = *self.loaded_at() else { return true };
        loaded_at.elapsed() > self.settings.max_feed_age && self.settings.on_stale_feed == OnStaleFeed::Refuse
    }

    fn loaded_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.loaded_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rejects a principal with a revoked credential, and every principal while the list is stale.
    pub(super) fn check(&self, principal: &Principal) -> Result<(), AuthnError> {
        if self.is_stale() {
            return Err(AuthnError::Unavailable("revocations"));
        }
        if self.is_revoked(principal) { Err(RejectReason::Revoked.into()) } else { Ok(()) }
    }

    /// Whether the list revokes a principal's credential. Does not check the age of the list.
    pub(super) fn is_revoked(&self, principal: &Principal) -> bool {
        self.list.load().is_revoked(principal)
    }

    /// Whether the list revokes the principal's subject. Other kinds do not count: `revoke
    /// everything` must not lock out services that handle incidents.
    pub(super) fn is_subject_revoked(&self, principal: &Principal) -> bool {
        self.list.load().has_cutoff(RevocationKind::Subject, &principal.subject, principal.issued_at)
    }
}

impl RevocationList {
    fn is_revoked(&self, principal: &Principal) -> bool {
        let is_cut_off = |kind, value: &str| self.has_cutoff(kind, value, principal.issued_at);
        let is_listed = |id: &String| self.cutoff(RevocationKind::Token, id).is_some();
        !self.0.is_empty()
            && (principal.token_id.as_ref().is_some_and(is_listed)
                || principal.issuer_session.as_ref().is_some_and(is_listed)
                || is_cut_off(RevocationKind::Everything, "")
                || is_cut_off(RevocationKind::Subject, &principal.subject)
                // The subject of an API key is its own id, so ending a user's sessions spares keys.
                || is_cut_off(RevocationKind::Sessions, &principal.subject)
                || principal.creator.as_ref().is_some_and(|creator| is_cut_off(RevocationKind::Subject, creator))
                || is_cut_off(RevocationKind::Client, &principal.client)
                || is_cut_off(RevocationKind::Tenant, &principal.tenant.to_string()))
    }

    fn cutoff(&self, kind: RevocationKind, value: &str) -> Option<&Cutoff> {
        self.0.get(&kind).and_then(|cutoffs| cutoffs.get(value))
    }

    fn has_cutoff(&self, kind: RevocationKind, value: &str, issued_at: i64) -> bool {
        self.cutoff(kind, value).is_some_and(|cutoff| issued_at <= cutoff.issued_before)
    }

    /// The list with `new` added and expired revocations removed.
    ///
    /// A revocation that is no longer in the database stays until it expires: a database that took
    /// over after a failover may have lost it.
    fn updated(&self, new: &[Revocation], now: i64) -> Self {
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

    fn has_expired(&self, now: i64) -> bool {
        self.0.values().flat_map(HashMap::values).any(|cutoff| cutoff.expires_at < now)
    }
}
