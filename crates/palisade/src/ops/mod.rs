//! Operator commands: incidents, tenants, keys of sealed fields, backups, verification and upkeep of
//! the audit trail, and checks of what the service depends on.
//!
//! `main` parses each command from arguments and runs it with the database login it needs; the
//! internal listener parses [`Incident`] and [`TenantCommand`] from JSON. Commands report progress line by line through a
//! callback, so that both callers decide where it goes.

mod audit;
mod audit_anchors;
mod audit_upkeep;
#[cfg(feature = "backup")]
mod backup;
mod doctor;
mod incident;
mod keys;
#[cfg(feature = "backup")]
mod pg_program;
#[cfg(feature = "backup")]
mod restore;
mod retired_keys;
mod revocation;
mod tenant_deletion;
#[cfg(feature = "exports")]
mod tenant_export;
mod tenants;
mod throttle;

pub use audit::{AuditError, Checkpoint, Verify};
pub use audit_upkeep::{Prune, Restored};
#[cfg(feature = "backup")]
pub use backup::{Backup, BackupCommand, BackupError, BackupKeys, BackupSummary};
pub use doctor::{ChecksFailed, doctor};
pub use incident::{Incident, IncidentError, IncidentOutcome, ReadOnly, Rotation, Sessions};
pub use keys::{Keys, KeysError, ResealOptions, rotate};
#[cfg(feature = "backup")]
pub use restore::Restore;
pub use retired_keys::RetireKeys;
pub use revocation::{Revocation, RevokeKind};
pub use tenant_deletion::{DeleteTenant, Deletion};
#[cfg(feature = "exports")]
pub use tenant_export::{ExportTenant, StartedExport};
pub use tenants::{
    CreateTenant, ExternalId, ListTenants, NamedTenant, TenantCommand, TenantError, TenantLimit, TenantOutcome,
    UpdateTenant,
};
pub use throttle::{LimitName, Throttle, ThrottleTarget};

use std::io::BufRead;

/// Maximum length of a reason, in characters.
const MAX_REASON: usize = 500;

/// Asks the operator to repeat `name` before an act that cannot be undone. `given` is the argument
/// `--confirm`, without which the operator types the name, if `terminal` is one.
fn confirm(name: &str, given: Option<&str>, terminal: Option<impl BufRead>) -> Result<(), &'static str> {
    let typed = match (given, terminal) {
        (Some(given), _) => given.to_owned(),
        (None, Some(mut terminal)) => {
            eprint!("this cannot be undone; type {name} to continue: ");
            let mut line = String::new();
            terminal.read_line(&mut line).map_err(|_| "could not read the confirmation; nothing was done")?;
            line
        }
        (None, None) => {
            return Err("not confirmed; nothing was done. Look at `--dry-run`, then give `--confirm`");
        }
    };
    if typed.trim() == name { Ok(()) } else { Err("the confirmation differs; nothing was done") }
}

/// Checks the reason that each operator command must give. The audit trail keeps it.
fn check_reason(reason: &str) -> Result<(), &'static str> {
    if reason.trim().is_empty() || reason.chars().count() > MAX_REASON || reason.contains(char::is_control) {
        return Err("the reason must have 1 to 500 characters on one line");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crypto_08_confirmation_repeats_the_name() {
        let typed = |line: &'static str| Some(line.as_bytes());
        assert_eq!(confirm("a-b", Some("a-b"), typed("no")), Ok(()));
        assert_eq!(confirm("a-b", None, typed("a-b\n")), Ok(()));
        let refused = [(None, None), (None, typed("")), (None, typed("y\n")), (Some("a"), typed("a-b\n"))];
        for (given, terminal) in refused {
            assert!(confirm("a-b", given, terminal).unwrap_err().contains("nothing was done"));
        }
    }
}
