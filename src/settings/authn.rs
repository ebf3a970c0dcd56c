use std::{thread::available_parallelism, time::Duration};

use super::Reader;

/// API keys (AUTHN-12).
#[derive(Clone, Copy, Debug)]
pub struct ApiKeys {
    /// `APP_API_KEYS__MAX_LIFETIME_DAYS`, default 90, 1 to 365: a key ends after this at the latest.
    pub max_lifetime: Duration,
    /// `APP_API_KEYS__REMEMBERED_SECONDS`, default 60, at most 300: how long a key that was checked is not hashed again.
    pub remembered: Duration,
    /// `APP_API_KEYS__CONCURRENT_HASHES`, default half the processors, at least one: each is a thread, which takes
    /// 19 MiB and, for some 20 ms, a processor that nobody else wants.
    pub concurrent_hashes: usize,
}

/// Revoked credentials (AUTHN-11).
#[derive(Clone, Copy, Debug)]
pub struct Revocation {
    /// `APP_REVOCATION__MAX_FEED_AGE_SECONDS`, default 30, 2 to 3600: how old what is known of revocations may be.
    pub max_feed_age: Duration,
    /// `APP_REVOCATION__WHEN_LOST`: `refuse` (default) or `serve`, once it is older.
    pub when_lost: WhenLost,
}

/// What is done when revocations may have been missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenLost {
    /// Calls with a credential are answered with 503.
    #[default]
    Refuse,
    /// Goes on with what is known: a credential that was revoked since is accepted.
    Serve,
}

impl std::str::FromStr for WhenLost {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "refuse" => Ok(Self::Refuse),
            "serve" => Ok(Self::Serve),
            _ => Err("expected `refuse` or `serve`"),
        }
    }
}

/// Failed authentications (AUTHN-17).
#[derive(Clone, Copy, Debug)]
pub struct Penalty {
    /// `APP_PENALTY__FREE_FAILURES`, default 5: so many within a minute cost nothing; each further one is answered
    /// more slowly, up to a second.
    pub free_failures: u32,
    /// `APP_PENALTY__FAILURES`, default 20, in production at most 1000: after so many within a minute the source is
    /// shut out for a while; from guessing at one API key sooner, after the first failure that is not free.
    pub failures: u32,
    /// `APP_PENALTY__SECONDS`, default 60, 1 to 3600: how long, the first time. It doubles each time, up to 16 times
    /// as long.
    pub seconds: i64,
}

impl ApiKeys {
    pub(super) fn read(r: &mut Reader) -> Self {
        let half = available_parallelism().map_or(1, |processors| (processors.get() / 2).max(1));
        Self {
            max_lifetime: Duration::from_hours(24 * r.within("api_keys.max_lifetime_days", 90, 1..=365)),
            remembered: Duration::from_secs(r.within("api_keys.remembered_seconds", 60, 0..=300)),
            concurrent_hashes: r.within("api_keys.concurrent_hashes", half, 1..=64),
        }
    }
}

impl Revocation {
    pub(super) fn read(r: &mut Reader) -> Self {
        Self {
            max_feed_age: Duration::from_secs(r.within("revocation.max_feed_age_seconds", 30, 2..=3_600)),
            when_lost: r.or("revocation.when_lost", WhenLost::default()),
        }
    }
}

impl Penalty {
    pub(super) fn read(r: &mut Reader) -> Self {
        Self {
            free_failures: r.within("penalty.free_failures", 5, 0..=1_000_000),
            failures: r.within("penalty.failures", 20, 1..=1_000_000),
            seconds: r.within("penalty.seconds", 60, 1..=3_600),
        }
    }
}
