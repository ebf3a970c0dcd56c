//! File descriptor limit: raised at startup to what the settings may need (RATE-09).
//!
//! Each connection takes one descriptor. A process without free descriptors accepts no connection
//! and cannot reach its own database. So `main` calls [`ensure_limit`] before the service listens.

use rustix::process::{Resource, getrlimit, setrlimit};
use thiserror::Error;

use crate::settings::{Profile, Settings};

/// Reserve for files, pipes, and sockets to issuers, the collector, the vault and the quota store.
const OTHER_DESCRIPTORS: u64 = 128;

/// The hard limit of the operating system is below what the settings may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the file descriptor limit is {granted}, but the settings may need {needed}: raise it (`ulimit -n`, \
     `LimitNOFILE=`) or lower http.max_connections"
)]
pub struct TooFewDescriptors {
    needed: u64,
    granted: u64,
}

/// Raises the soft limit to what the settings may need.
///
/// In development, a hard limit that is too low reduces `http.max_connections` to what fits.
///
/// # Errors
/// [`TooFewDescriptors`] if the hard limit is too low in production.
pub fn ensure_limit(settings: &mut Settings) -> Result<(), TooFewDescriptors> {
    let listeners = 1 + u64::from(settings.internal.is_some());
    // Four pools and five single connections; twice as many while a password is replaced.
    let fixed = OTHER_DESCRIPTORS + 2 * (4 * u64::from(settings.database.max_connections) + 5);
    let needed = fixed + listeners * settings.http.max_connections as u64;
    let granted = raise_soft_limit(needed);
    if granted >= needed {
        return Ok(());
    }
    let error = TooFewDescriptors { needed, granted };
    if settings.profile == Profile::Production {
        return Err(error);
    }
    let max_connections = usize::try_from(granted.saturating_sub(fixed) / listeners).unwrap_or(usize::MAX).max(1);
    tracing::warn!(%error, max_connections, "connection limit reduced to fit the file descriptor limit");
    settings.http.max_connections = max_connections;
    Ok(())
}

/// Raises the soft limit up to the hard limit if needed. Returns the soft limit in force.
fn raise_soft_limit(needed: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let granted = limit.current.unwrap_or(u64::MAX);
    if granted >= needed {
        return granted;
    }
    let raised = needed.min(limit.maximum.unwrap_or(u64::MAX));
    match setrlimit(Resource::Nofile, rustix::process::Rlimit { current: Some(raised), ..limit }) {
        Ok(()) => raised,
        Err(_) => granted,
    }
}
