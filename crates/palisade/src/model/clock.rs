//! The clock of the service. Tests move it; clippy forbids every other source of wall-clock time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};

/// The wall clock that every decision about time reads.
///
/// Clones share the shift. Only tests shift it.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    shift_seconds: Arc<AtomicI64>,
}

impl Clock {
    /// Creates a clock that follows the system clock.
    #[must_use]
    pub fn system() -> Self {
        Self { started: Instant::now(), shift_seconds: Arc::default() }
    }

    /// The current time in UTC, truncated to microseconds. That is the resolution of the database,
    /// so a time does not change when it is stored.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        let shift = self.shift_seconds.load(Ordering::Relaxed);
        #[expect(clippy::disallowed_methods, reason = "this is the clock")]
        let now = Utc::now();
        (now + TimeDelta::try_seconds(shift).unwrap_or_default()).trunc_subsecs(6)
    }

    /// The time since the clock was created. It is monotonic, even if the system time is set back.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        let shift = u64::try_from(self.shift_seconds.load(Ordering::Relaxed)).unwrap_or_default();
        self.started.elapsed() + Duration::from_secs(shift)
    }

    /// The current time as a JWT `NumericDate` (RFC 7519 section 2): seconds since
    /// 1970-01-01T00:00:00Z.
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
