//! What operators do in an incident and with keys, from the command line.

mod backup;
mod keys;
mod revocation;
mod throttle;

pub use backup::{Backup, BackupError, Restore};
pub use keys::{Keys, KeysError, Pass};
pub use revocation::{Kind, NotRevoked, Revocation};
pub use throttle::{NotThrottled, Throttle};

/// Longest reason, in characters.
const MAX_REASON: usize = 500;

/// Every act has a reason, for whoever reads it later.
fn check_reason(reason: &str) -> Result<(), &'static str> {
    if reason.trim().is_empty() || reason.chars().count() > MAX_REASON {
        return Err("a reason has 1 to 500 characters");
    }
    Ok(())
}
