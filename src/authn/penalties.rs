//! Slows failed authentications down, and then shuts their source out for a while (AUTHN-17).
//!
//! Failures count by source, and by source and API key: guessing at one key is noticed sooner. What is shut out is the
//! source and nobody else, so no one is locked out by failures from another address. And what is shut out
//! is what costs: a token that verifies, or a key that was checked a moment ago, is let in all the same.

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

/// Most offenders remembered; those that were quiet longest are forgotten first.
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
    Source(Source),
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

    /// Whether a source may try something that costs; if not, for how many seconds it is shut out yet.
    pub(super) fn admit(&self, source: Source, key: Option<ApiKeyId>) -> Result<(), i64> {
        let now = self.clock.timestamp();
        let until = |offender| self.records.get(&offender).map_or(0, |record| lock(&record).shut_out_until);
        let guesser = key.map_or(0, |key| until(Offender::Guesser(source, key)));
        let left = until(Offender::Source(source)).max(guesser).saturating_sub(now);
        if left > 0 { Err(left) } else { Ok(()) }
    }

    /// Counts a failure.
    pub(super) fn failed(&self, source: Source, key: Option<ApiKeyId>) -> Verdict {
        let (free, limit) = (self.settings.free_failures, self.settings.failures);
        let by_source = self.count(Offender::Source(source), free, limit);
        let Some(key) = key else { return by_source };
        self.count(Offender::Target(key), free, limit);
        let by_key = self.count(Offender::Guesser(source, key), free, limit.min(free.saturating_add(1)));
        match (by_source, by_key) {
            (Verdict::Delay(one), Verdict::Delay(other)) => Verdict::Delay(one.max(other)),
            (Verdict::ShutOut(one), Verdict::ShutOut(other)) => Verdict::ShutOut(one.max(other)),
            (shut_out @ Verdict::ShutOut(_), _) | (_, shut_out) => shut_out,
        }
    }

    /// Whoever gets a key right is not guessing at it. What else the source did still counts.
    pub(super) fn succeeded(&self, source: Source, key: ApiKeyId) {
        self.records.remove(&Offender::Guesser(source, key));
    }

    fn count(&self, offender: Offender, free: u32, limit: u32) -> Verdict {
        let now = self.clock.timestamp();
        let made = self.records.get_or_insert_with(&offender, || Ok::<_, std::convert::Infallible>(Arc::default()));
        let Ok(record) = made;
        let mut record = lock(&record);
        if now - record.since >= WINDOW {
            (record.since, record.failures) = (now, 0);
        }
        if record.times > 0 && now - record.shut_out_until >= FORGIVEN {
            record.times = 0;
        }
        record.failures = record.failures.saturating_add(1);
        if record.failures >= limit {
            let first_time = record.shut_out_until <= now;
            if let Offender::Target(key) = offender {
                if record.failures == limit {
                    event::authn_login_fail_max(&key.to_string(), record.failures);
                }
            } else if first_time {
                let seconds = self.settings.seconds << record.times.min(MAX_DOUBLINGS);
                record.shut_out_until = now + seconds;
                record.times += 1;
                event::authn_login_lock(offender.source(), offender.key().as_deref(), record.failures, seconds);
            }
            return Verdict::ShutOut((record.shut_out_until - now).max(1));
        }
        Verdict::Delay(delay(record.failures.saturating_sub(free)))
    }
}

impl Offender {
    fn source(self) -> Option<std::net::IpAddr> {
        match self {
            Self::Source(source) | Self::Guesser(source, _) => Some(source.0),
            Self::Target(_) => None,
        }
    }

    fn key(self) -> Option<String> {
        match self {
            Self::Source(_) => None,
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
