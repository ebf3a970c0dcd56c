//! API keys as the database stores them: everything but the secret.
//!
//! [`crate::authn`] checks them, [`crate::operations`] creates, lists and revokes them.

use chrono::{DateTime, Utc};

use super::{ApiKeyId, Name, TenantId};

/// An API key. A program that shows it acts within the rights of the key's creator. Only a hash of
/// the secret is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Identifier, which is also part of the key's text.
    pub id: ApiKeyId,
    /// Tenant that all its calls are confined to.
    pub tenant: TenantId,
    /// Display name.
    pub name: Name,
    /// Names of its scopes.
    pub scopes: Vec<String>,
    /// Subject of its creator. The creator's roles limit its rights.
    pub created_by: String,
    /// Key that it replaces, if it was made by a rotation.
    pub replaces: Option<ApiKeyId>,
    /// Time of issue of the credential that created it. A revocation of the creator's credentials
    /// that were issued until then revokes the key too.
    pub authorized_at: DateTime<Utc>,
    /// Time of creation.
    pub created_at: DateTime<Utc>,
    /// Time of expiry.
    pub expires_at: DateTime<Utc>,
    /// Time of revocation.
    pub revoked_at: Option<DateTime<Utc>>,
    /// Time of the last use, accurate to half a minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    /// Whether it is neither revoked nor expired at this time.
    #[must_use]
    pub fn is_live(&self, at: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && at < self.expires_at
    }
}
