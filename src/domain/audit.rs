use chrono::{DateTime, Utc};

use super::{AuditEventId, TenantId};

/// Something that was changed, as the audit trail keeps it (LOG-05).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// What identifies it.
    pub id: AuditEventId,
    /// Whose.
    pub tenant: TenantId,
    /// When, by the database's clock.
    pub at: DateTime<Utc>,
    /// Who: the subject of the credential; of an act of an operator, `operator:` and the database login.
    pub subject: String,
    /// Through which client; empty for an act of an operator.
    pub client: String,
    /// What was done, by its name in the route matrix.
    pub action: String,
    /// To which object.
    pub object: String,
    /// In which request; empty for an act of an operator.
    pub trace_id: String,
    /// Why, as the operator gave it; empty for a request.
    pub reason: String,
}

/// A stretch of the journal of the audit trail, and all before it, in one digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSeal {
    /// Counts from 1.
    pub number: i64,
    /// The last position of the stretch, which begins behind that of the seal before.
    pub upto: i64,
    /// How many events it has.
    pub events: i64,
    /// SHA-256 of the seal before, the number, `upto`, and the lines of the journal.
    pub digest: Vec<u8>,
}
