//! What is no longer accepted although it has not ended, known here without asking anybody (AUTHN-11).

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::{AuthnError, Principal, Refused};
use crate::{
    domain::{ApiKeyId, Clock, Revocation, RevocationKind},
    settings::{self, WhenLost},
    store::{Credentials, RevocationFeed, StoreError},
};

/// How often replicas look, whether they were told of anything or not: a notice can be lost.
const LOOK: Duration = Duration::from_secs(1);
/// The same after a look that failed, or a connection that was lost.
const RETRY: Duration = Duration::from_millis(100);

/// How long it is known that a key changed, in seconds: longer than any key is remembered.
const KEPT_CHANGE: i64 = 3_600;

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
    /// Whether the last look failed, so that it is told once.
    failing: AtomicBool,
}

/// Where a replica stands in the revocations. What is read from the database afterwards is as new at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Counts how often they were read from the beginning.
    epoch: u64,
    position: i64,
}

#[derive(Clone, Debug, Default)]
struct Known {
    standing: Standing,
    revoked: HashMap<RevocationKind, HashMap<String, Entry>>,
    /// API keys that changed, with the position at which they did.
    changed_keys: HashMap<ApiKeyId, Entry>,
    /// The same of those who made keys, by subject.
    changed_makers: HashMap<String, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// In seconds since the epoch, as the next.
    issued_before: i64,
    expires_at: i64,
    position: i64,
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
            failing: AtomicBool::new(false),
        })
    }

    /// Follows the database for as long as it runs.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut owed = true;
        loop {
            let feed = self.store.listen().await;
            // After listening began, so that nothing falls between the two. From the beginning, since it may be
            // another database by now: the copy that took over, or a backup that lacks what was read before. What is
            // remembered of keys is forgotten for that, once: while nothing can be listened to, keys would be hashed
            // for each call.
            let anew = feed.is_ok() || owed;
            let looked = self.look_from(|standing| standing.before_the_first(anew)).await;
            owed = feed.is_ok() || looked.is_err();
            match (feed, looked) {
                (Ok(mut feed), Ok(())) => self.follow_feed(&mut feed).await,
                // As often as if there were nobody to be told by.
                (Err(_), Ok(())) => tokio::time::sleep(LOOK).await,
                (_, Err(_)) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Until the connection is lost, or looking fails.
    async fn follow_feed(&self, feed: &mut RevocationFeed) {
        loop {
            if let Ok(Err(_)) = tokio::time::timeout(LOOK, feed.changed()).await {
                return;
            }
            if self.look().await.is_err() {
                return;
            }
        }
    }

    /// Learns what was revoked since it last looked.
    pub(super) async fn look(&self) -> Result<(), StoreError> {
        self.look_from(|standing| standing).await
    }

    async fn look_from(&self, from: impl FnOnce(Standing) -> Standing) -> Result<(), StoreError> {
        let _alone = self.looking.lock().await;
        let began = self.started.elapsed();
        let known = self.known.load_full();
        let from = from(known.standing);
        let new = self.store.revocations_after(from.position).await.inspect_err(|error| self.report(error))?;
        let now = self.clock.timestamp();
        if from != known.standing || !new.is_empty() || known.has_ended(now) {
            self.known.store(Arc::new(known.after(from, new, now)));
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
        // Who never knew any cannot go on with what is known.
        at == 0 || (age > self.settings.max_feed_age && self.settings.when_lost == WhenLost::Refuse)
    }

    /// Refuses a principal whose credential was revoked. Asked for every request, so it looks up and nothing else.
    pub(super) fn check(&self, principal: &Principal) -> Result<(), AuthnError> {
        if self.is_lost() {
            return Err(AuthnError::Unavailable("revocations"));
        }
        if self.names(principal) { Err(Refused::Revoked.into()) } else { Ok(()) }
    }

    /// Whether a principal's credential was revoked, as far as is known.
    pub(super) fn names(&self, principal: &Principal) -> bool {
        self.known.load().revokes(principal)
    }

    /// Whether it was revoked by its subject. Who watches the service and handles incidents is not shut out with everything.
    pub(super) fn names_subject(&self, principal: &Principal) -> bool {
        self.known.load().revokes_before(RevocationKind::Subject, &principal.subject, principal.issued_at)
    }

    /// Up to where revocations are known.
    pub(super) fn standing(&self) -> Standing {
        self.known.load().standing
    }

    /// Whether an API key, or what its maker may do, changed since then, or may have.
    pub(super) fn key_changed_since(&self, then: Standing, key: ApiKeyId, maker: &str) -> bool {
        let known = self.known.load();
        let later = |entry: Option<&Entry>| entry.is_some_and(|entry| entry.position > then.position);
        then.epoch != known.standing.epoch
            || later(known.changed_keys.get(&key))
            || later(known.changed_makers.get(maker))
    }
}

impl Standing {
    /// Before the first revocation there is; in a new epoch, if it may be another database's.
    fn before_the_first(self, anew: bool) -> Self {
        Self { epoch: self.epoch + u64::from(anew), position: 0 }
    }
}

impl Known {
    fn revokes(&self, principal: &Principal) -> bool {
        let before = |kind, value: &str| self.revokes_before(kind, value, principal.issued_at);
        let named = |id: &String| self.entry(RevocationKind::Token, id).is_some();
        !self.revoked.is_empty()
            && (principal.token_id.as_ref().is_some_and(named)
                || before(RevocationKind::Everything, "")
                || before(RevocationKind::Subject, &principal.subject)
                // An API key has a subject of its own, so it goes on.
                || before(RevocationKind::Sessions, &principal.subject)
                || principal.creator.as_ref().is_some_and(|creator| before(RevocationKind::Subject, creator))
                || before(RevocationKind::Client, &principal.client)
                || before(RevocationKind::Tenant, &principal.tenant.to_string()))
    }

    fn entry(&self, kind: RevocationKind, value: &str) -> Option<&Entry> {
        self.revoked.get(&kind).and_then(|entries| entries.get(value))
    }

    fn revokes_before(&self, kind: RevocationKind, value: &str, issued_at: i64) -> bool {
        self.entry(kind, value).is_some_and(|entry| issued_at <= entry.issued_before)
    }

    /// What is known after more was read. What was known before stays, whatever was read: a database that
    /// forgot a revocation is no reason to.
    fn after(&self, from: Standing, new: Vec<Revocation>, now: i64) -> Self {
        let mut next = self.clone();
        next.standing = from;
        // The last one has ended, or positions began anew: either way they cannot be compared with what they were.
        let newest = new.iter().map(|revocation| revocation.position).fold(from.position, i64::max);
        let fell = from.epoch == self.standing.epoch && newest < self.standing.position;
        next.standing.epoch += u64::from(fell);
        if next.standing.epoch != self.standing.epoch {
            // Their positions mean nothing any more, and nothing is remembered of a key from before.
            next.changed_keys.clear();
            next.changed_makers.clear();
        }
        next.changed_keys.retain(|_, entry| entry.expires_at >= now);
        next.changed_makers.retain(|_, entry| entry.expires_at >= now);
        for entries in next.revoked.values_mut() {
            entries.retain(|_, entry| entry.expires_at >= now);
        }
        for revocation in new {
            next.add(revocation, now);
        }
        next
    }

    fn add(&mut self, revocation: Revocation, now: i64) {
        let Revocation { position, kind, value, issued_before, expires_at } = revocation;
        self.standing.position = self.standing.position.max(position);
        let new = Entry { issued_before: issued_before.timestamp(), expires_at: expires_at.timestamp(), position };
        // By the clock that also says how long a key is remembered.
        let change = Entry { expires_at: now + KEPT_CHANGE, ..new };
        let (entry, new) = match (kind, value.parse()) {
            (RevocationKind::Key, Ok(key)) => (self.changed_keys.entry(key).or_insert(change), change),
            // Nobody has a key of such a name.
            (RevocationKind::Key, Err(_)) => return,
            (RevocationKind::Maker, _) => (self.changed_makers.entry(value).or_insert(change), change),
            _ => (self.revoked.entry(kind).or_default().entry(value).or_insert(new), new),
        };
        entry.issued_before = entry.issued_before.max(new.issued_before);
        entry.expires_at = entry.expires_at.max(new.expires_at);
        entry.position = entry.position.max(new.position);
    }

    fn has_ended(&self, now: i64) -> bool {
        let revoked = self.revoked.values().flat_map(HashMap::values);
        revoked
            .chain(self.changed_keys.values())
            .chain(self.changed_makers.values())
            .any(|entry| entry.expires_at < now)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn change(key: ApiKeyId, position: i64) -> Revocation {
        let (kind, value) = (RevocationKind::Key, key.to_string());
        Revocation { position, kind, value, issued_before: DateTime::UNIX_EPOCH, expires_at: DateTime::UNIX_EPOCH }
    }

    /// What is remembered of a key is compared with positions; by those of before it would be out of date for an hour, or
    /// a change would be missed.
    #[test]
    fn authn_12_positions_that_fall_are_no_longer_compared_with_those_before() {
        let keys = [(); 3].map(|()| ApiKeyId::generate());
        let at = |epoch, position| Standing { epoch, position };
        let known = Known::default().after(at(7, 0), vec![change(keys[0], 4), change(keys[1], 9)], 0);
        assert_eq!(known.standing, at(7, 9));
        // The same, or more, from anywhere: nothing fell.
        for (from, new) in [(0, vec![change(keys[1], 9)]), (9, vec![]), (9, vec![change(keys[2], 10)])] {
            let next = known.after(at(7, from), new, 0);
            assert_eq!(next.standing.epoch, 7);
            assert!(next.changed_keys.contains_key(&keys[0]));
        }
        let fallen = known.after(at(7, 0), vec![change(keys[0], 4)], 0);
        assert_eq!(fallen.standing, at(8, 4));
        assert_eq!(fallen.changed_keys.into_keys().collect::<Vec<_>>(), [keys[0]]);
        let gone = known.after(at(7, 0), vec![], 0);
        assert_eq!(gone.standing, at(8, 0));
        assert!(gone.changed_keys.is_empty());
    }
}
