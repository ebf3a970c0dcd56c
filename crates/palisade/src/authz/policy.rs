//! Scopes and permissions of the operations that every service has (AUTHZ-02).
//!
//! A service declares its own beside them, and says in its [`RoleTable`] which roles have which
//! permissions. [`authorize`](super::authorize) looks them up.

pub use crate::model::{Permission, Rights, Role, RoleTable, Scope};

/// `audit:read`: read the audit trail.
pub const AUDIT_READ: Scope = Scope::new("audit:read");

/// Read the audit trail.
pub const READ_AUDIT: Permission = Permission::new("read_audit");
/// See personal data in plain text, in operations of
/// [`DataClass::Personal`](super::DataClass::Personal).
pub const SEE_PERSONAL: Permission = Permission::new("see_personal");
