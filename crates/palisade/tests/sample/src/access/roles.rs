//! Roles and permissions of the sample service.

use palisade::authz::{
    Permission, Role, RoleTable,
    api_keys::MANAGE_KEYS,
    policy::{READ_AUDIT, SEE_PERSONAL},
    sessions::MANAGE_SESSIONS,
};

/// Read notes; personal fields are masked.
pub const READ_NOTES: Permission = Permission::new("read_notes");
/// Create, update and archive notes.
pub const WRITE_NOTES: Permission = Permission::new("write_notes");
/// Erase notes.
pub const ERASE_NOTES: Permission = Permission::new("erase_notes");
/// Export notes as a file.
pub const EXPORT: Permission = Permission::new("export");

/// Reads notes with personal fields masked.
pub const VIEWER: Role = Role::new("viewer");
/// A viewer who also writes notes.
pub const WRITER: Role = Role::new("writer");
/// Reads everything, including the audit trail; writes nothing.
pub const AUDITOR: Role = Role::new("auditor");
/// Everything inside the tenant.
pub const ADMIN: Role = Role::new("admin");

/// All roles that a token can give.
pub const ALL: [Role; 4] = [VIEWER, WRITER, AUDITOR, ADMIN];

/// The permissions of each role.
pub const TABLE: RoleTable = RoleTable(&[
    (VIEWER, &[READ_NOTES]),
    (WRITER, &[READ_NOTES, WRITE_NOTES]),
    (AUDITOR, &[READ_NOTES, SEE_PERSONAL, EXPORT, READ_AUDIT]),
    (ADMIN, &[READ_NOTES, SEE_PERSONAL, EXPORT, READ_AUDIT, WRITE_NOTES, ERASE_NOTES, MANAGE_KEYS, MANAGE_SESSIONS]),
    (Role::SERVICE, &[READ_NOTES, WRITE_NOTES]),
]);
