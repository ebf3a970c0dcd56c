//! File descriptors: as many as the settings may need (RATE-09).
//!
//! Each connection takes one. A process that has none left accepts nobody and cannot reach its own
//! database, so the limit of the operating system is raised, and compared with the settings, before
//! the first connection.

use rustix::process::{Resource, getrlimit, setrlimit};
use thiserror::Error;

use crate::settings::{Profile, Settings};

/// Files, pipes, and sockets to issuers, the collector, the vault and the quota store.
const OTHERS: u64 = 128;

/// The operating system grants fewer descriptors than the settings may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the descriptor limit is {granted}, and the settings may need {needed}: raise it (`ulimit -n`, `LimitNOFILE=`), \
     or lower http.max_connections"
)]
pub struct TooFewDescriptors {
    needed: u64,
    granted: u64,
}

/// Raises the soft limit as far as needed. In production, too low a hard limit is an error; in
/// development, `http.max_connections` is lowered to what fits.
pub fn provide(settings: &mut Settings) -> Result<(), TooFewDescriptors> {
    let listeners = 1 + u64::from(settings.internal.is_some());
    // Four pools and three connections of their own, twice while a password is renewed.
    let fixed = OTHERS + 2 * (4 * u64::from(settings.database.max_connections) + 3);
    let needed = fixed + listeners * settings.http.max_connections as u64;
    let granted = raise(needed);
    if granted >= needed {
        return Ok(());
    }
    let error = TooFewDescriptors { needed, granted };
    if settings.profile == Profile::Production {
        return Err(error);
    }
    let fits = usize::try_from(granted.saturating_sub(fixed) / listeners).unwrap_or(usize::MAX).max(1);
    tracing::warn!(%error, max_connections = fits, "fewer connections are accepted");
    settings.http.max_connections = fits;
    Ok(())
}

/// Gives the soft limit of now.
fn raise(needed: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let granted = limit.current.unwrap_or(u64::MAX);
    if granted >= needed {
        return granted;
    }
    let wanted = needed.min(limit.maximum.unwrap_or(u64::MAX));
    match setrlimit(Resource::Nofile, rustix::process::Rlimit { current: Some(wanted), ..limit }) {
        Ok(()) => wanted,
        Err(_) => granted,
    }
}
