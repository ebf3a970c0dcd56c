//! Coalesces repeated log lines, so that a flood of rejected requests does not flood the log
//! (LOG-01).
//!
//! The first occurrence of an event from one source is logged at once. Further ones within ten
//! seconds are counted and logged as one summary line with the field `repeated`. The table is
//! bounded: when it is full, further sources are counted together. So lines plus the sum of
//! `repeated` is the exact number of occurrences. [`super::event`] and other code that logs once
//! per request call this.

use std::{
    collections::HashMap,
    fmt, mem,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

/// Interval between summaries.
pub(super) const PERIOD: Duration = Duration::from_secs(10);
/// Maximum number of sources counted separately for each event and reason, about 100 bytes each.
const MAX_ORIGINS: usize = 1_024;

/// Set by `serve`. Other commands raise few events, so every occurrence is logged there.
static REPEATS: OnceLock<Repeats> = OnceLock::new();

/// Event name and reason, such as `authn_token_invalid` and `signature`. Neither is text of a
/// caller. Each has its own table, so a flood for one reason leaves room for the others.
type EventKind = (&'static str, String);

/// Occurrences of one event kind in the current period that were counted instead of logged.
#[derive(Debug, Default)]
struct Counts {
    by_source: HashMap<String, u64>,
    /// Occurrences from sources that did not fit into the table.
    others: u64,
}

#[derive(Debug, Default)]
struct Repeats(Mutex<HashMap<EventKind, Counts>>);

/// Logs a line that may occur with each request. Repetitions are coalesced, whatever their fields.
macro_rules! coalesced {
    ($level:ident, $message:literal $(, $($fields:tt)+)?) => {
        if $crate::telemetry::repeats::is_first($message, &"", "") {
            tracing::$level!($($($fields)+,)? $message);
        }
    };
}
pub(crate) use coalesced;

/// Starts coalescing in this process. The caller must call [`summarise`] every [`PERIOD`].
pub(super) fn start() {
    // A second call has no effect, as for the log itself.
    let _ = REPEATS.set(Repeats::default());
}

/// Whether to log this occurrence. If not, it has been counted for the next summary.
pub(crate) fn is_first(event: &'static str, source: &dyn fmt::Display, reason: &str) -> bool {
    let Some(repeats) = REPEATS.get() else { return true };
    repeats.is_first((event, reason.to_owned()), source.to_string())
}

/// Logs one summary line for each source that repeated an event since the last call.
pub(super) fn summarise() {
    let Some(repeats) = REPEATS.get() else { return };
    for ((event, reason), source, repeated) in repeats.take() {
        tracing::warn!(target: "security", event, source, reason, repeated, "repeated");
    }
}

impl Repeats {
    fn is_first(&self, kind: EventKind, source: String) -> bool {
        let mut table = self.lock();
        let counts = table.entry(kind).or_default();
        if let Some(repeated) = counts.by_source.get_mut(&source) {
            *repeated += 1;
            return false;
        }
        if counts.by_source.len() == MAX_ORIGINS {
            counts.others += 1;
            return false;
        }
        counts.by_source.insert(source, 0);
        true
    }

    /// Ends the period and returns its counts. Active sources stay in the table, so a lasting flood
    /// is one line per period. Quiet sources are removed; if the table was full, all sources are.
    fn take(&self) -> Vec<(EventKind, Option<String>, u64)> {
        let mut taken = Vec::new();
        self.lock().retain(|kind, counts| {
            let is_full = counts.others > 0;
            counts.by_source.retain(|source, repeated| {
                let repeated = mem::take(repeated);
                if repeated > 0 {
                    taken.push((kind.clone(), Some(source.clone()), repeated));
                }
                repeated > 0 && !is_full
            });
            if is_full {
                taken.push((kind.clone(), None, mem::take(&mut counts.others)));
            }
            !counts.by_source.is_empty()
        });
        taken
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<EventKind, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttled() -> EventKind {
        ("throttled", "address".to_owned())
    }

    #[test]
    fn log_01_repeated_events_are_counted_exactly() {
        let repeats = Repeats::default();
        let is_first = |source: &str| repeats.is_first(throttled(), source.to_owned());
        let logged = (0..5).filter(|_| is_first("192.0.2.1")).count();
        assert_eq!(logged, 1);
        assert!(is_first("192.0.2.2") && repeats.is_first(("refused", String::new()), "192.0.2.1".to_owned()));
        assert_eq!(repeats.take(), [(throttled(), Some("192.0.2.1".to_owned()), 4)]);
        // The source is still active: not logged, but part of the next summary.
        assert!(!is_first("192.0.2.1"));
        assert_eq!(repeats.take(), [(throttled(), Some("192.0.2.1".to_owned()), 1)]);
        assert_eq!(repeats.take(), []);
        assert!(is_first("192.0.2.1"));
    }

    #[test]
    fn log_01_full_source_table_counts_further_sources_together() {
        let repeats = Repeats::default();
        let is_first = |n: usize| repeats.is_first(throttled(), n.to_string());
        assert_eq!((0..2 * MAX_ORIGINS).filter(|n| is_first(*n)).count(), MAX_ORIGINS);
        assert!(repeats.is_first(("throttled", "read".to_owned()), "192.0.2.1".to_owned()));
        assert!((0..MAX_ORIGINS).all(|n| !is_first(n)));
        let taken = repeats.take();
        assert_eq!(taken.iter().map(|(_, _, repeated)| repeated).sum::<u64>(), 2 * MAX_ORIGINS as u64);
        assert_eq!(taken.iter().find(|(_, source, _)| source.is_none()).unwrap().2, MAX_ORIGINS as u64);
        // The next period starts with an empty table.
        assert!(is_first(7 * MAX_ORIGINS));
    }
}
