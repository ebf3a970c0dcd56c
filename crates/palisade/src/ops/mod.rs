//! Operator commands: incidents, keys of sealed fields, backups, verification and upkeep of the
//! audit trail.
//!
//! `main` parses each command from arguments and runs it with the database login it needs; the
//! internal listener parses [`Incident`] from JSON. Commands report progress line by line through a
//! callback, so that both callers decide where it goes.

mod audit;
mod audit_anchors;
mod audit_upkeep;
#[cfg(feature = "backup")]
mod backup;
mod incident;
mod keys;
mod retired_keys;
mod revocation;
mod throttle;

pub use audit::{AuditError, Checkpoint, Verify};
pub use audit_upkeep::{Prune, Restored};
#[cfg(feature = "backup")]
pub use backup::{Backup, BackupCommand, BackupError, BackupSummary, Restore};
pub use incident::{Incident, IncidentError, IncidentOutcome, ReadOnly, Rotation, Sessions};
pub use keys::{Keys, KeysError, ResealOptions, rotate};
pub use retired_keys::RetireKeys;
pub use revocation::{Revocation, RevokeKind};
pub use throttle::{LimitName, Throttle, ThrottleTarget};

/// Maximum length of a reason, in characters.
const MAX_REASON: usize = 500;

/// Checks the reason that each operator command must give. The audit trail keeps it.
fn check_reason(reason: &str) -> Result<(), &'static str> {
    if reason.trim().is_empty() || reason.chars().count() > MAX_REASON || reason.contains(char::is_control) {
        return Err("the reason must have 1 to 500 characters on one line");
    }
    Ok(())
}
