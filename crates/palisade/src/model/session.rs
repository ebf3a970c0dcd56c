//! Browser sessions as lists show them: everything but the cookie and the refresh token.
//!
//! [`crate::authn`] opens and checks them, [`crate::operations`] lists and ends them.

use chrono::{DateTime, Utc};

use super::{SessionId, TenantId};

/// A browser session of a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Identifier.
    pub id: SessionId,
    /// Tenant that all its calls are confined to.
    pub tenant: TenantId,
    /// Subject of the person.
    pub subject: String,
    /// Network of the newest request, accurate to half a minute.
    pub network: String,
    /// User agent of the newest request.
    pub user_agent: String,
    /// Time of the sign-in.
    pub created_at: DateTime<Utc>,
    /// Time of the newest request, accurate to half a minute.
    pub last_used_at: DateTime<Utc>,
    /// Time at which it ends without a further request.
    pub idle_expires_at: DateTime<Utc>,
    /// Time at which it ends in any case.
    pub expires_at: DateTime<Utc>,
    /// Time at which it was ended.
    pub ended_at: Option<DateTime<Utc>>,
}

impl Session {
    /// Whether it has neither ended nor expired at this time.
    #[must_use]
    pub fn is_live(&self, at: DateTime<Utc>) -> bool {
        self.ended_at.is_none() && at < self.expires_at.min(self.idle_expires_at)
    }
}
