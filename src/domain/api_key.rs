use chrono::{DateTime, Utc};

use super::{ApiKeyId, Name, TenantId, TenantObject};

/// A key by which a program calls for the one who made it. Its secret is nowhere: only a hash of it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Also part of the key's text.
    pub id: ApiKeyId,
    /// The tenant all its calls are confined to.
    pub tenant: TenantId,
    /// For people.
    pub name: Name,
    /// The names of the scopes it was given.
    pub scopes: Vec<String>,
    /// Who made it, and whose rights bound it.
    pub created_by: String,
    /// The key it was made to take the place of.
    pub replaces: Option<ApiKeyId>,
    /// When the credential was issued by which it was made: whatever revokes its maker up to then revokes this.
    pub authorized_at: DateTime<Utc>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: DateTime<Utc>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was used last, to within half a minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    /// Whether it opens anything at this time.
    #[must_use]
    pub fn is_live(&self, at: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && at < self.expires_at
    }
}

impl TenantObject for ApiKey {
    type Id = ApiKeyId;

    fn id(&self) -> ApiKeyId {
        self.id
    }

    fn tenant(&self) -> TenantId {
        self.tenant
    }
}
