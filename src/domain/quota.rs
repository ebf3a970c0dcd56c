use super::{TenantId, text_enum::text_enum};

text_enum! {
    /// A quota, as callers and operators name it.
    QuotaName {
        /// Reads of one principal.
        Read = "read",
        /// Changes of one principal.
        Write = "write",
        /// Changes of one principal that move money or destroy something.
        Sensitive = "sensitive",
        /// Exports of one principal.
        Export = "export",
        /// Calls of all principals of a tenant together.
        Tenant = "tenant",
    }
}

/// A quota that an operator gave a tenant instead of that of the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantQuota {
    /// Whose it is.
    pub tenant: TenantId,
    /// Which.
    pub name: QuotaName,
    /// Calls per minute.
    pub per_minute: u32,
}
