use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};

/// The wall clock every decision about time reads, so that a test can move it.
///
/// Clones share the shift. Production code never shifts it.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    shift_seconds: Arc<AtomicI64>,
}

impl Clock {
    /// A clock that follows the system's.
    #[must_use]
    pub fn system() -> Self {
        Self { started: Instant::now(), shift_seconds: Arc::default() }
    }

    /// Now, in UTC, in whole microseconds: the resolution of the database, so that a time
    /// is the same before it was stored and after.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        let shift = self.shift_seconds.load(Ordering::Relaxed);
        #[expect(clippy::disallowed_methods, reason = "this is the clock")]
        let now = Utc::now();
        (now + TimeDelta::try_seconds(shift).unwrap_or_default()).trunc_subsecs(6)
    }

    /// The time since the clock was made. It never goes back, whatever happens to the system's time.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        let shift = u64::try_from(self.shift_seconds.load(Ordering::Relaxed)).unwrap_or_default();
        self.started.elapsed() + Duration::from_secs(shift)
    }

    /// Now, as a JWT `NumericDate` (RFC 7519 section 2): seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn timestamp(&self) -> i64 {
        self.now().timestamp()
    }

    /// Moves this clock and all its clones forward.
    #[cfg(feature = "dev")]
    pub fn advance(&self, by: Duration) {
        let seconds = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
        self.shift_seconds.fetch_add(seconds, Ordering::Relaxed);
    }
}
