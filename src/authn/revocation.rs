//! What is no longer accepted although it has not ended, known here without asking anybody (AUTHN-11).

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::{AuthnError, Principal, Refused};
use crate::{
    domain::Clock,
    settings::{self, WhenLost},
    store::{Credentials, Revocation, RevocationFeed, StoreError},
};

/// How often replicas look, whether they were told of anything or not: a notice can be lost.
const LOOK: Duration = Duration::from_secs(1);
/// The same after a look that failed, or a connection that was lost.
const RETRY: Duration = Duration::from_millis(100);

/// The revocations that count, kept up to date.
#[derive(Debug)]
pub(super) struct Revocations {
    store: Credentials,
    clock: Clock,
    settings: settings::Revocation,
    known: ArcSwap<Known>,
    /// Makes looking single-flight.
    looking: Mutex<()>,
    started: Instant,
    /// When the last look began that succeeded, in milliseconds after the start; 0 if none did.
    up_to_date_at: AtomicU64,
}

/// By kind: what is named, and before when its credentials were issued, in seconds since the epoch.
#[derive(Clone, Debug, Default)]
struct Known {
    position: i64,
    everything: Option<i64>,
    tokens: HashMap<String, Entry>,
    subjects: HashMap<String, Entry>,
    clients: HashMap<String, Entry>,
    tenants: HashMap<String, Entry>,
    /// API keys that changed, with the position at which they did.
    keys: HashMap<String, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    issued_before: i64,
    position: i64,
    expires_at: i64,
}

impl Revocations {
    pub(super) fn new(store: Credentials, settings: settings::Revocation, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            store,
            clock,
            settings,
            known: ArcSwap::default(),
            looking: Mutex::new(()),
            started: Instant::now(),
            up_to_date_at: AtomicU64::new(0),
        })
    }

    /// Follows the database for as long as it runs.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut feed: Option<RevocationFeed> = None;
        let mut lost = false;
        loop {
            if feed.is_none() {
                feed = self.store.listen().await.ok();
            }
            // After listening began, so that nothing falls between the two.
            let looked = self.look().await;
            let pause = if looked.is_ok() { LOOK } else { RETRY };
            match looked {
                Ok(()) if lost => tracing::warn!("revocations are known again"),
                Err(error) if !lost => {
                    tracing::error!(%error, cause = ?std::error::Error::source(&error), "revocations cannot be read");
                }
                _ => {}
            }
            lost = pause == RETRY;
            let told = async {
                match &mut feed {
                    Some(feed) => feed.changed().await,
                    None => std::future::pending().await,
                }
            };
            if let Ok(Err(_)) = tokio::time::timeout(pause, told).await {
                feed = None;
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Brings what is known up to date.
    pub(super) async fn look(&self) -> Result<(), StoreError> {
        let _alone = self.looking.lock().await;
        let began = self.started.elapsed();
        let known = self.known.load_full();
        let new = self.store.revocations_after(known.position).await?;
        let now = self.clock.timestamp();
        if !new.is_empty() || known.has_ended(now) {
            let mut next = Known::clone(&known);
            next.forget_ended(now);
            for revocation in new {
                next.add(revocation);
            }
            self.known.store(Arc::new(next));
        }
        let at = u64::try_from(began.as_millis()).unwrap_or(u64::MAX).max(1);
        self.up_to_date_at.fetch_max(at, Ordering::Release);
        Ok(())
    }

    /// Whether revocations may have been missed and that is reason to refuse.
    pub(super) fn is_lost(&self) -> bool {
        let at = self.up_to_date_at.load(Ordering::Acquire);
        let age = self.started.elapsed().saturating_sub(Duration::from_millis(at));
        // Who never knew any cannot go on with what is known.
        at == 0 || (age > self.settings.max_feed_age && self.settings.when_lost == WhenLost::Refuse)
    }

    /// Refuses a principal whose credential was revoked. Asked for every request, so it looks up and nothing else.
    pub(super) fn check(&self, principal: &Principal) -> Result<(), AuthnError> {
        if self.is_lost() {
            return Err(AuthnError::Unavailable("revocations"));
        }
        if self.known.load().revokes(principal) { Err(Refused::Revoked.into()) } else { Ok(()) }
    }

    /// Up to where revocations are known. What is read from the database after this was asked is as new at least.
    pub(super) fn position(&self) -> i64 {
        self.known.load().position
    }

    /// Whether an API key changed after a position.
    pub(super) fn key_changed_since(&self, position: i64, key: &str) -> bool {
        self.known.load().keys.get(key).is_some_and(|entry| entry.position > position)
    }
}

impl Known {
    fn revokes(&self, principal: &Principal) -> bool {
        let before = |entry: Option<&Entry>| entry.is_some_and(|entry| principal.issued_at <= entry.issued_before);
        self.everything.is_some_and(|before| principal.issued_at <= before)
            || principal.token_id.as_ref().is_some_and(|id| self.tokens.contains_key(id))
            || before(self.subjects.get(&principal.subject))
            || principal.creator.as_ref().is_some_and(|creator| before(self.subjects.get(creator)))
            || before(self.clients.get(&principal.client))
            || (!self.tenants.is_empty() && before(self.tenants.get(&principal.tenant.to_string())))
    }

    fn add(&mut self, revocation: Revocation) {
        let Revocation { position, kind, value, issued_before, expires_at } = revocation;
        self.position = self.position.max(position);
        let issued_before = issued_before.timestamp();
        let of_kind = match kind.as_str() {
            "token" => &mut self.tokens,
            "subject" => &mut self.subjects,
            "client" => &mut self.clients,
            "tenant" => &mut self.tenants,
            "key" => &mut self.keys,
            // `everything`; and what a newer version may call otherwise is refused by being taken for it.
            _ => {
                self.everything = self.everything.max(Some(issued_before));
                return;
            }
        };
        let new = Entry { issued_before, position, expires_at: expires_at.timestamp() };
        let entry = of_kind.entry(value).or_insert(new);
        entry.issued_before = entry.issued_before.max(new.issued_before);
        entry.position = entry.position.max(new.position);
        entry.expires_at = entry.expires_at.max(new.expires_at);
    }

    fn maps(&mut self) -> [&mut HashMap<String, Entry>; 5] {
        [&mut self.tokens, &mut self.subjects, &mut self.clients, &mut self.tenants, &mut self.keys]
    }

    fn has_ended(&self, now: i64) -> bool {
        let maps = [&self.tokens, &self.subjects, &self.clients, &self.tenants, &self.keys];
        maps.iter().any(|map| map.values().any(|entry| entry.expires_at < now))
    }

    fn forget_ended(&mut self, now: i64) {
        for map in self.maps() {
            map.retain(|_, entry| entry.expires_at >= now);
        }
    }
}
