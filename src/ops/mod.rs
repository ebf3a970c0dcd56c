//! What operators do in an incident and with keys, from the command line and, in an incident, at the internal listener.

mod audit;
mod backup;
mod incident;
mod keys;
mod retired_keys;
mod revocation;
mod throttle;

pub use audit::{AuditError, Verify};
pub use backup::{Backup, BackupError, Restore};
pub use incident::{Done, Incident, NotDone, ReadOnly, Rotation, Sessions};
pub use keys::{Keys, KeysError, Pass, rotate};
pub use retired_keys::RetiredKeys;
pub use revocation::{Kind, Revocation};
pub use throttle::{Limit, Throttle, Whom};

/// Longest reason, in characters.
const MAX_REASON: usize = 500;

/// Every act has a reason, for whoever reads it later.
fn check_reason(reason: &str) -> Result<(), &'static str> {
    if reason.trim().is_empty() || reason.chars().count() > MAX_REASON || reason.contains(char::is_control) {
        return Err("a reason has 1 to 500 characters, in one line");
    }
    Ok(())
}
