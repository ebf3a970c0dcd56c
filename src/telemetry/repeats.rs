//! Coalesces repeated log lines, so that a flood of refusals is no flood of log lines (LOG-01).
//!
//! The first occurrence of an event from one origin is logged at once. Further ones within ten
//! seconds are counted, and one line says how many there were. The table is bounded; what finds it
//! full is counted without an origin. So the sum over the log stays exact: lines, plus `repeated`
//! of the summaries. Called by [`super::event`] and by whatever logs once per request.

use std::{
    collections::HashMap,
    fmt, mem,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

/// How often repetitions are summarised.
pub(super) const PERIOD: Duration = Duration::from_secs(10);
/// Most origins told apart, for each event. An entry takes about 150 bytes.
const MAX_ORIGINS: usize = 1_024;

/// Set by `serve`. Without it, each occurrence is logged: a command raises few events.
static REPEATS: OnceLock<Repeats> = OnceLock::new();

/// Where an event comes from, and what kind of it: `203.0.113.9` and `signature`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Origin {
    source: String,
    reason: String,
}

/// Occurrences of one event in the current period that have no line of their own.
#[derive(Debug, Default)]
struct Counts {
    by_origin: HashMap<Origin, u64>,
    /// Of origins that the table has no room for.
    others: u64,
}

#[derive(Debug, Default)]
struct Repeats(Mutex<HashMap<&'static str, Counts>>);

/// Logs a line that may come with each request: repetitions share a line, whatever their fields.
macro_rules! coalesced {
    ($level:ident, $message:literal $(, $($fields:tt)+)?) => {
        if $crate::telemetry::repeats::is_first($message, &"", "") {
            tracing::$level!($($($fields)+,)? $message);
        }
    };
}
pub(crate) use coalesced;

/// Starts to coalesce in this process, which has to call [`summarise`] every [`PERIOD`].
pub(super) fn begin() {
    // A second call changes nothing, as with the log itself.
    let _ = REPEATS.set(Repeats::default());
}

/// Whether this occurrence gets a line of its own. Otherwise it has been counted.
pub(crate) fn is_first(event: &'static str, source: &dyn fmt::Display, reason: &str) -> bool {
    let Some(repeats) = REPEATS.get() else { return true };
    repeats.is_first(event, Origin { source: source.to_string(), reason: reason.to_owned() })
}

/// Logs what was counted since the last call.
pub(super) fn summarise() {
    let Some(repeats) = REPEATS.get() else { return };
    for (event, origin, repeated) in repeats.take() {
        let (source, reason) = origin.map(|origin| (origin.source, origin.reason)).unzip();
        tracing::warn!(target: "security", event, source, reason, repeated, "repeated");
    }
}

impl Repeats {
    fn is_first(&self, event: &'static str, origin: Origin) -> bool {
        let mut table = self.lock();
        let counts = table.entry(event).or_default();
        if let Some(repeated) = counts.by_origin.get_mut(&origin) {
            *repeated += 1;
            return false;
        }
        if counts.by_origin.len() == MAX_ORIGINS {
            counts.others += 1;
            return false;
        }
        counts.by_origin.insert(origin, 0);
        true
    }

    /// Ends the period. An origin that went on stays in the table, so that a lasting flood is one
    /// line a period; one that was quiet makes room.
    fn take(&self) -> Vec<(&'static str, Option<Origin>, u64)> {
        let mut taken = Vec::new();
        self.lock().retain(|event, counts| {
            counts.by_origin.retain(|origin, repeated| {
                let repeated = mem::take(repeated);
                if repeated > 0 {
                    taken.push((*event, Some(origin.clone()), repeated));
                }
                repeated > 0
            });
            let others = mem::take(&mut counts.others);
            if others > 0 {
                taken.push((*event, None, others));
            }
            !counts.by_origin.is_empty()
        });
        taken
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<&'static str, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(source: &str) -> Origin {
        Origin { source: source.to_owned(), reason: "address".to_owned() }
    }

    #[test]
    fn log_01_repeated_events_are_counted_exactly() {
        let repeats = Repeats::default();
        let logged = (0..5).filter(|_| repeats.is_first("throttled", origin("192.0.2.1"))).count();
        assert_eq!(logged, 1);
        assert!(repeats.is_first("throttled", origin("192.0.2.2")) && repeats.is_first("refused", origin("192.0.2.1")));
        assert_eq!(repeats.take(), [("throttled", Some(origin("192.0.2.1")), 4)]);
        // Still going on: no line of its own, and in the next summary.
        assert!(!repeats.is_first("throttled", origin("192.0.2.1")));
        assert_eq!(repeats.take(), [("throttled", Some(origin("192.0.2.1")), 1)]);
        assert_eq!(repeats.take(), []);
        assert!(repeats.is_first("throttled", origin("192.0.2.1")));
    }

    #[test]
    fn log_01_a_full_table_of_origins_counts_without_them() {
        let repeats = Repeats::default();
        let logged = (0..2 * MAX_ORIGINS).filter(|n| repeats.is_first("throttled", origin(&n.to_string()))).count();
        assert_eq!(logged, MAX_ORIGINS);
        assert!(repeats.is_first("refused", origin("192.0.2.1")), "another event has room of its own");
        assert_eq!(repeats.take(), [("throttled", None, MAX_ORIGINS as u64)]);
    }
}
