//! Access to the operations on API keys: scope, permission, actions and object rules (AUTHZ-04).
//!
//! The [`Matrix`](super::Matrix) has these rows beside those of [`actions`](super::actions). A
//! service declares [`KEYS_MANAGE`] among its scopes and gives [`MANAGE_KEYS`] to a role. Without
//! the feature `api_keys`, `without_api_keys.rs` stands in for this module.

use super::{
    StepUp,
    policy::{Permission, Scope},
};
use crate::model::ApiKey;

/// `keys:manage`: create, list, rotate and revoke API keys.
pub const KEYS_MANAGE: Scope = Scope::new("keys:manage");
/// Create, list, rotate and revoke API keys.
pub const MANAGE_KEYS: Permission = Permission::new("manage_keys");
crate::actions! {
    /// The rows of the operations on API keys.
    pub static API_KEYS;

    /// Create an API key.
    Change CreateApiKey = Post "/v1/api-keys" as "createApiKey" {
        NoKeys, scope Some(KEYS_MANAGE), permission Some(MANAGE_KEYS), quota Sensitive,
        data Tenant, audit "api_key_created", outage Closed, read_only Refused, step_up StepUp::RECENT,
    }
    /// List API keys.
    Read ListApiKeys = Get "/v1/api-keys" as "listApiKeys" {
        NoKeys, scope Some(KEYS_MANAGE), permission Some(MANAGE_KEYS), quota Sensitive,
        data Tenant, audit "api_keys_listed", outage Closed, read_only Served, step_up StepUp::RECENT,
    }
    /// Create an API key that replaces another.
    Change RotateApiKey = Post "/v1/api-keys/{id}/rotate" as "rotateApiKey" {
        NoKeys, scope Some(KEYS_MANAGE), permission Some(MANAGE_KEYS), quota Sensitive,
        data Tenant, audit "api_key_rotated", outage Closed, read_only Refused, step_up StepUp::RECENT,
    }
    /// Revoke an API key. Read-only mode serves it: it contains an incident.
    Change RevokeApiKey = Delete "/v1/api-keys/{id}" as "revokeApiKey" {
        NoKeys, scope Some(KEYS_MANAGE), permission Some(MANAGE_KEYS), quota Sensitive,
        data Tenant, audit "api_key_revoked", outage Closed, read_only Served, step_up StepUp::RECENT,
    }
}

crate::object_rules! {
    RotateApiKey on ApiKey if |key| key.revoked_at.is_none();
    RevokeApiKey on ApiKey if |_key| true;
}
