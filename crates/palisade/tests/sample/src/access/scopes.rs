//! The scopes of the sample service.

use palisade::authz::Scope;
pub use palisade::authz::{api_keys::KEYS_MANAGE, policy::AUDIT_READ, sessions::SESSIONS_MANAGE};

/// Read notes.
pub const NOTES_READ: Scope = Scope::new("notes:read");
/// Create, update, archive and erase notes.
pub const NOTES_WRITE: Scope = Scope::new("notes:write");
/// Export notes as a file.
pub const EXPORTS_CREATE: Scope = Scope::new("exports:create");

/// All scopes.
pub const ALL: [Scope; 6] = [NOTES_READ, NOTES_WRITE, EXPORTS_CREATE, KEYS_MANAGE, SESSIONS_MANAGE, AUDIT_READ];
