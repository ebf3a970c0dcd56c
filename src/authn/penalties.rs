//! Slows failed authentications down, and then shuts their source out for a while (AUTHN-17).
//!
//! Failures count by source, and by source and API key: guessing at one key is noticed sooner. What is shut out is the
//! source and nobody else, so no one is locked out by failures from another address. And what is shut out
//! is what costs: a token that verifies, or an API key that was right before, is let in all the same. Tokens and API keys
//! count apart, so that garbage of the one kind does not keep out the other.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quick_cache::sync::Cache;

use super::Source;
use crate::{
    domain::{ApiKeyId, Clock},
    settings::Penalty,
    telemetry::event,
};

/// Most offenders remembered; over it some are forgotten.
const MAX_OFFENDERS: usize = 100_000;
/// Failures count together within this many seconds.
const WINDOW: i64 = 60;
/// A source that was quiet for this many seconds after its last penalty begins anew.
const FORGIVEN: i64 = 3_600;
/// A penalty doubles so many times.
const MAX_DOUBLINGS: u32 = 4;
/// Delay of the first failure that is not free; it doubles up to the last.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LAST_DELAY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Offender {
    /// Whoever shows tokens from here.
    Tokens(Source),
    /// Whoever shows API keys from here.
    Keys(Source),
    /// Of one API key, at a source.
    Guesser(Source, ApiKeyId),
    /// All failures with one API key. It is only told of: shutting it out would lock out whoever holds the key.
    Target(ApiKeyId),
}

#[derive(Debug, Default)]
struct Record {
    since: i64,
    failures: u32,
    shut_out_until: i64,
    times: u32,
}

/// What a failure brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The refusal is to be given after this long.
    Delay(Duration),
    /// The source is shut out for so many seconds.
    ShutOut(i64),
}

/// Who failed lately.
#[derive(Debug)]
pub(super) struct Penalties {
    records: Cache<Offender, Arc<Mutex<Record>>>,
    settings: Penalty,
    clock: Clock,
}

impl Penalties {
    pub(super) fn new(settings: Penalty, clock: Clock) -> Self {
        Self { records: Cache::new(MAX_OFFENDERS), settings, clock }
    }

    /// Whether a source may have an API key checked; if not, for how many seconds it is shut out yet.
    pub(super) fn admit(&self, source: Source, key: ApiKeyId) -> Result<(), i64> {
        let now = self.clock.timestamp();
        let until = |offender| self.records.get(&offender).map_or(0, |record| lock(&record).shut_out_until);
        let left = until(Offender::Keys(source)).max(until(Offender::Guesser(source, key))).saturating_sub(now);
        if left > 0 { Err(left) } else { Ok(()) }
    }

    /// Counts a failure without an API key of any id: a token, or what is no key. It costs next to nothing, so it
    /// shuts nobody out who has a key.
    pub(super) fn token_failed(&self, source: Source) -> Verdict {
        self.count(Offender::Tokens(source), self.settings.failures)
    }

    /// Counts a failure with an API key.
    pub(super) fn key_failed(&self, source: Source, key: ApiKeyId) -> Verdict {
        let (free, limit) = (self.settings.free_failures, self.settings.failures);
        self.tell_of_target(key);
        let by_source = self.count(Offender::Keys(source), limit);
        let by_key = self.count(Offender::Guesser(source, key), limit.min(free.saturating_add(1)));
        match (by_source, by_key) {
            (Verdict::Delay(one), Verdict::Delay(other)) => Verdict::Delay(one.max(other)),
            (Verdict::ShutOut(one), Verdict::ShutOut(other)) => Verdict::ShutOut(one.max(other)),
            (shut_out @ Verdict::ShutOut(_), _) | (_, shut_out) => shut_out,
        }
    }

    fn record(&self, offender: Offender) -> Arc<Mutex<Record>> {
        let Ok(record) =
            self.records.get_or_insert_with(&offender, || Ok::<_, std::convert::Infallible>(Arc::default()));
        record
    }

    /// Tells once a minute of a key at which many fail, from wherever.
    fn tell_of_target(&self, key: ApiKeyId) {
        let record = self.record(Offender::Target(key));
        let mut record = lock(&record);
        record.add(self.clock.timestamp());
        if record.failures == self.settings.failures {
            event::authn_login_fail_max(&key.to_string(), record.failures);
        }
    }

    fn count(&self, offender: Offender, limit: u32) -> Verdict {
        let now = self.clock.timestamp();
        let record = self.record(offender);
        let mut record = lock(&record);
        record.add(now);
        if record.shut_out_until > now {
            return Verdict::ShutOut(record.shut_out_until - now);
        }
        if record.failures < limit {
            return Verdict::Delay(delay(record.failures.saturating_sub(self.settings.free_failures)));
        }
        let seconds = self.settings.seconds << record.times.min(MAX_DOUBLINGS);
        record.shut_out_until = now + seconds;
        record.times += 1;
        record.failures = 0;
        event::authn_login_lock(offender.source(), offender.key().as_deref(), limit, seconds);
        Verdict::ShutOut(seconds)
    }
}

impl Record {
    /// One more failure. Those of the minute before are forgotten, and after a quiet hour so are penalties.
    fn add(&mut self, now: i64) {
        if now - self.since >= WINDOW {
            (self.since, self.failures) = (now, 0);
        }
        if now - self.shut_out_until >= FORGIVEN {
            self.times = 0;
        }
        self.failures = self.failures.saturating_add(1);
    }
}

impl Offender {
    fn source(self) -> Option<std::net::IpAddr> {
        match self {
            Self::Tokens(source) | Self::Keys(source) | Self::Guesser(source, _) => Some(source.0),
            Self::Target(_) => None,
        }
    }

    fn key(self) -> Option<String> {
        match self {
            Self::Tokens(_) | Self::Keys(_) => None,
            Self::Guesser(_, key) | Self::Target(key) => Some(key.to_string()),
        }
    }
}

/// Of the failure that is the nth after the free ones.
fn delay(nth: u32) -> Duration {
    match nth.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => LAST_DELAY.min(FIRST_DELAY.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))),
    }
}

fn lock(record: &Mutex<Record>) -> std::sync::MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}
