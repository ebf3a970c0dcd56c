//! Failure limiter: delays failed authentications, then locks their source out (AUTHN-17).
//!
//! Failures count per source, and per source and API key, so that guessing at one key is detected
//! sooner. A source counts in its wider networks too, whose limits are multiples of its own
//! ([`ClientNetwork`]). A lock-out affects one network only; others can still use the API key.
//! It blocks only what costs: valid tokens and previously verified API keys still work. Tokens and
//! API keys count separately, so failed tokens do not lock API keys out.
//! [`super::Authenticator`] records every failure here.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quick_cache::sync::Cache;

use super::SourceNetwork;
use crate::{
    model::{ApiKeyId, ClientNetwork, Clock},
    settings::FailureLimit,
    telemetry::event,
};

/// Maximum number of counters. Beyond it, some are evicted.
const MAX_COUNTERS: usize = 100_000;
/// Length of the counting window, in seconds. It starts with the first failure.
const WINDOW: i64 = 60;
/// Time after the end of a lock-out until the next one has its initial length again, in seconds.
const LOCKOUT_RESET: i64 = 3_600;
/// How often the length of a lock-out can double.
const MAX_DOUBLINGS: u32 = 4;
/// Delay of the first failure that is not free. It doubles with each failure, up to `MAX_DELAY`.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(1);

/// What a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Counter {
    /// Failed tokens from a network.
    Tokens(ClientNetwork),
    /// Failed API keys from a network.
    ApiKeys(ClientNetwork),
    /// Failures with one API key from a network.
    ApiKeyFromSource(ClientNetwork, ApiKeyId),
    /// Failures with one API key from all sources. It only raises an event: a lock-out would let
    /// attackers block the key's holder.
    ApiKey(ApiKeyId),
}

#[derive(Debug, Default)]
struct Failures {
    window_start: i64,
    count: u32,
    locked_until: i64,
    lockouts: u32,
}

/// The consequence of a failure. The greater of two is the stricter one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FailureOutcome {
    /// The rejection is sent after this delay.
    Delayed(Duration),
    /// The source is locked out for this many seconds.
    LockedOut(i64),
}

/// Counts failed authentications.
#[derive(Debug)]
pub(super) struct FailureLimiter {
    counters: Cache<Counter, Arc<Mutex<Failures>>>,
    settings: FailureLimit,
    clock: Clock,
}

impl FailureLimiter {
    pub(super) fn new(settings: FailureLimit, clock: Clock) -> Self {
        Self { counters: Cache::new(MAX_COUNTERS), settings, clock }
    }

    /// Checks that a source may have an API key verified.
    ///
    /// # Errors
    /// The seconds until the lock-out of the source ends.
    pub(super) fn check_lockout(&self, source: SourceNetwork, key: ApiKeyId) -> Result<(), i64> {
        let now = self.clock.timestamp();
        let locked_until = |counter| self.counters.get(&counter).map_or(0, |failures| lock(&failures).locked_until);
        let counters = |(network, _)| [Counter::ApiKeys(network), Counter::ApiKeyFromSource(network, key)];
        let ends = networks(source).flat_map(counters).map(locked_until);
        let remaining = ends.max().unwrap_or_default().saturating_sub(now);
        if remaining > 0 { Err(remaining) } else { Ok(()) }
    }

    /// Checks that a source may sign in: each attempt costs a call of the issuer.
    ///
    /// # Errors
    /// The seconds until the lock-out of the source ends.
    #[cfg(feature = "sessions")]
    pub(super) fn check_sign_in_lockout(&self, source: SourceNetwork) -> Result<(), i64> {
        let locked_until = |(network, _)| {
            self.counters.get(&Counter::Tokens(network)).map_or(0, |failures| lock(&failures).locked_until)
        };
        let remaining =
            networks(source).map(locked_until).max().unwrap_or_default().saturating_sub(self.clock.timestamp());
        if remaining > 0 { Err(remaining) } else { Ok(()) }
    }

    /// Records a failure without an API key id: a token, or a malformed API key. Such failures cost
    /// little, so they never lock API keys out.
    pub(super) fn record_token_failure(&self, source: SourceNetwork) -> FailureOutcome {
        self.record_in_networks(Counter::Tokens, source, None, self.settings.max_failures)
    }

    /// Records a failure with an API key. The stricter of its two counters decides the outcome.
    pub(super) fn record_api_key_failure(&self, source: SourceNetwork, key: ApiKeyId) -> FailureOutcome {
        let limit = self.settings.max_failures;
        let key_limit = limit.min(self.settings.free_failures.saturating_add(1));
        self.report_attacked_key(key);
        let by_source = self.record_in_networks(Counter::ApiKeys, source, None, limit);
        let for_key = |network| Counter::ApiKeyFromSource(network, key);
        let by_key = self.record_in_networks(for_key, source, Some(key), key_limit);
        by_source.max(by_key)
    }

    fn failures(&self, counter: Counter) -> Arc<Mutex<Failures>> {
        let Ok(failures) =
            self.counters.get_or_insert_with(&counter, || Ok::<_, std::convert::Infallible>(Arc::default()));
        failures
    }

    /// Raises an event, at most once per window, when many failures with one API key come from any
    /// number of sources.
    fn report_attacked_key(&self, key: ApiKeyId) {
        let failures = self.failures(Counter::ApiKey(key));
        let mut failures = lock(&failures);
        failures.add(self.clock.timestamp());
        if failures.count == self.settings.max_failures {
            event::authn_login_fail_max(&key.to_string(), failures.count);
        }
    }

    /// Counts a failure in the source's networks, narrowest first, up to one that is locked out: a
    /// blocked source does not use up the limit of its neighbours.
    fn record_in_networks(
        &self,
        counter: impl Fn(ClientNetwork) -> Counter,
        source: SourceNetwork,
        key: Option<ApiKeyId>,
        limit: u32,
    ) -> FailureOutcome {
        let mut strictest = FailureOutcome::Delayed(Duration::ZERO);
        for (network, factor) in networks(source) {
            strictest = strictest.max(self.record(counter(network), (network, factor), key, limit));
            if matches!(strictest, FailureOutcome::LockedOut(_)) {
                break;
            }
        }
        strictest
    }

    /// Counts a failure in a network that has this multiple of the limit. `key` is for the event of
    /// a lock-out.
    fn record(
        &self,
        counter: Counter,
        (network, factor): (ClientNetwork, u32),
        key: Option<ApiKeyId>,
        limit: u32,
    ) -> FailureOutcome {
        let limit = limit.saturating_mul(factor);
        let free = self.settings.free_failures.saturating_mul(factor);
        let now = self.clock.timestamp();
        let failures = self.failures(counter);
        let mut failures = lock(&failures);
        failures.add(now);
        if failures.locked_until > now {
            return FailureOutcome::LockedOut(failures.locked_until - now);
        }
        if failures.count < limit {
            return FailureOutcome::Delayed(delay(failures.count.saturating_sub(free)));
        }
        let seconds = self.settings.lockout_seconds << failures.lockouts.min(MAX_DOUBLINGS);
        failures.locked_until = now + seconds;
        failures.lockouts += 1;
        failures.count = 0;
        event::authn_login_lock(network, key.map(|key| key.to_string()).as_deref(), limit, seconds);
        FailureOutcome::LockedOut(seconds)
    }
}

impl Failures {
    /// Adds a failure. Starts a new window if the last one has ended, and resets the number of
    /// lock-outs after a quiet hour.
    fn add(&mut self, now: i64) {
        if now - self.window_start >= WINDOW {
            self.window_start = now;
            self.count = 0;
        }
        if now - self.locked_until >= LOCKOUT_RESET {
            self.lockouts = 0;
        }
        self.count = self.count.saturating_add(1);
    }
}

fn networks(source: SourceNetwork) -> impl Iterator<Item = (ClientNetwork, u32)> {
    ClientNetwork::narrowest(source.0).levels()
}

/// The delay of the `nth` failure after the free ones.
fn delay(nth: u32) -> Duration {
    match nth.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => MAX_DELAY.min(FIRST_DELAY.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))),
    }
}

fn lock(failures: &Mutex<Failures>) -> std::sync::MutexGuard<'_, Failures> {
    failures.lock().unwrap_or_else(PoisonError::into_inner)
}
