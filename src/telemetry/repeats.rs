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
/// Most sources told apart, for each event and reason. An entry takes about 100 bytes.
const MAX_ORIGINS: usize = 1_024;

/// Set by `serve`. Without it, each occurrence is logged: a command raises few events.
static REPEATS: OnceLock<Repeats> = OnceLock::new();

/// An event and its reason: `authn_token_invalid` and `signature`. Neither is a caller's text. A flood
/// for one reason takes no room from others.
type Kind = (&'static str, String);

/// Occurrences of one kind in the current period that have no line of their own.
#[derive(Debug, Default)]
struct Counts {
    by_source: HashMap<String, u64>,
    /// Of sources that the table has no room for.
    others: u64,
}

#[derive(Debug, Default)]
struct Repeats(Mutex<HashMap<Kind, Counts>>);

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
    repeats.is_first((event, reason.to_owned()), source.to_string())
}

/// Logs what was counted since the last call.
pub(super) fn summarise() {
    let Some(repeats) = REPEATS.get() else { return };
    for ((event, reason), source, repeated) in repeats.take() {
        tracing::warn!(target: "security", event, source, reason, repeated, "repeated");
    }
}

impl Repeats {
    fn is_first(&self, kind: Kind, source: String) -> bool {
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

    /// Ends the period. A source that went on stays in the table, so that a lasting flood is one line a
    /// period; one that was quiet makes room, and so do all if there was not room for each.
    fn take(&self) -> Vec<(Kind, Option<String>, u64)> {
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

    fn lock(&self) -> MutexGuard<'_, HashMap<Kind, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttled() -> Kind {
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
        // Still going on: no line of its own, and in the next summary.
        assert!(!is_first("192.0.2.1"));
        assert_eq!(repeats.take(), [(throttled(), Some("192.0.2.1".to_owned()), 1)]);
        assert_eq!(repeats.take(), []);
        assert!(is_first("192.0.2.1"));
    }

    #[test]
    fn log_01_a_full_table_of_sources_counts_without_them_and_hides_no_other_reason() {
        let repeats = Repeats::default();
        let is_first = |n: usize| repeats.is_first(throttled(), n.to_string());
        assert_eq!((0..2 * MAX_ORIGINS).filter(|n| is_first(*n)).count(), MAX_ORIGINS);
        assert!(repeats.is_first(("throttled", "read".to_owned()), "192.0.2.1".to_owned()));
        assert!((0..MAX_ORIGINS).all(|n| !is_first(n)));
        let taken = repeats.take();
        assert_eq!(taken.iter().map(|(_, _, repeated)| repeated).sum::<u64>(), 2 * MAX_ORIGINS as u64);
        assert_eq!(taken.iter().find(|(_, source, _)| source.is_none()).unwrap().2, MAX_ORIGINS as u64);
        // Whoever filled it, others have room in the next period.
        assert!(is_first(7 * MAX_ORIGINS));
    }
}
