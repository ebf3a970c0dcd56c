//! Records of the audit trail: events, and the seals that chain the journal of events.
//!
//! [`crate::store`] writes and reads them, `ops::audit` verifies them; docs/audit.md explains the
//! trail.

use std::fmt::Debug;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use uuid::Uuid;

use super::{AuditEventId, TenantId};

/// What an audit event may name as its object: an identifier, and never personal data. The trail
/// outlives an erasure. Ids of [`ids!`](crate::ids) and [`Code`](super::Code) implement it.
#[diagnostic::on_unimplemented(message = "`{Self}` is no identifier of an object, so no audit event names it")]
pub trait AuditObject {
    /// The text that the event has.
    #[doc(hidden)]
    fn __object(&self) -> String;
}

impl<T: AuditObject> AuditObject for &T {
    fn __object(&self) -> String {
        T::__object(self)
    }
}

/// The identifier of an object that changes. Only [`ids!`](crate::ids) implements it, so that the
/// locked row, the changed row and the audit event have the same id.
pub trait ObjectId: AuditObject + Copy + Debug + Send + Sync {
    /// The identifier in the row.
    #[doc(hidden)]
    fn __uuid(&self) -> Uuid;
}

/// A change, as the audit trail records it (LOG-05).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// Identifier.
    pub id: AuditEventId,
    /// Tenant that owns the object. The nil UUID for an operator's act on all tenants.
    pub tenant: TenantId,
    /// Time of the transaction, by the clock of the database.
    pub at: DateTime<Utc>,
    /// Subject of the credential. For an operator, `operator:` and the login of the database.
    pub subject: String,
    /// OAuth client of the credential. For an operator, the service that sent the command to the
    /// internal listener, or empty.
    pub client: String,
    /// Name of the operation, for requests the one in the route matrix.
    pub action: String,
    /// Object that was changed.
    pub object: String,
    /// Trace id of the request. Empty for an operator.
    pub trace_id: String,
    /// Reason that the operator gave. Empty for a request.
    pub reason: String,
    /// Columns that the transaction changed, as the database collected them.
    pub changes: Vec<ChangedColumn>,
}

/// A column that changed. The database names the values of types that hold no personal data only:
/// migration 8 lists them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ChangedColumn {
    /// Table of the row.
    pub table: String,
    /// Primary key of the row without the tenant. Empty if the table has one row per tenant.
    pub key: String,
    /// Name of the column.
    pub column: String,
    /// The old value, if the trail may have it.
    pub before: Option<String>,
    /// The new value, if the trail may have it.
    pub after: Option<String>,
}

/// A seal: one digest over a range of the journal and over the previous seal, and so over
/// everything before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSeal {
    /// Sequence number, from 1.
    pub number: i64,
    /// Last position of the range. The range begins after the one of the previous seal.
    pub upto: i64,
    /// Number of events in the range.
    pub events: i64,
    /// SHA-256 of the previous digest, `number`, `upto`, and the lines of the journal.
    pub digest: Vec<u8>,
}
