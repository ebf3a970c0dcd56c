use std::sync::Arc;

use super::matrix::{Callers, Row, Scope};
use crate::authn::{CallerKind, Principal};

/// The decision that this principal may call this operation. Made by [`authorize`] only.
#[derive(Clone, Debug)]
pub struct Grant {
    pub(super) row: &'static Row,
    pub(super) principal: Arc<Principal>,
}

/// Why a principal may not call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Its credential was not delegated this scope (AUTHZ-01).
    MissingScope(Scope),
    /// The operation is closed to API keys (AUTHN-13).
    ApiKey,
    /// None of its roles gives the permission (AUTHZ-02).
    MissingPermission,
}

/// Decides by the operation's row: the scope *and* the permission are needed, so neither widens the other.
pub fn authorize(row: &'static Row, principal: Arc<Principal>) -> Result<Grant, Denied> {
    if row.callers == Callers::NoKeys && principal.kind() == CallerKind::ApiKey {
        return Err(Denied::ApiKey);
    }
    if let Some(scope) = row.scope
        && !principal.has_scope(scope)
    {
        return Err(Denied::MissingScope(scope));
    }
    if let Some(permission) = row.permission
        && !principal.roles().iter().any(|role| role.allows(permission))
    {
        return Err(Denied::MissingPermission);
    }
    Ok(Grant { row, principal })
}
