//! Tenants as the registry has them (AUTHN-04). Operators change them, [`crate::authn`] keeps all of
//! them in memory.

use super::{QuotaName, TenantId};
use crate::text_enum;

text_enum! {
    /// Whether a tenant may call.
    TenantState {
        /// It may call.
        Active = "active",
        /// An operator suspended it. Its data stays.
        Suspended = "suspended",
        /// Its data is being deleted.
        Deleting = "deleting",
        /// Its data is gone. No issuer can create it again.
        Deleted = "deleted",
    }
}

/// The entry of a tenant in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredTenant {
    /// The tenant.
    pub id: TenantId,
    /// Whether it may call.
    pub state: TenantState,
    /// Its own quotas, in calls per minute.
    pub limits: Vec<(QuotaName, u32)>,
    /// The issuers and the names that stand for it in their tokens.
    pub external_ids: Vec<(String, String)>,
}
