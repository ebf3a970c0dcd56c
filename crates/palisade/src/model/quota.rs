//! Names of quotas. [`crate::quota`] counts by them, and operators override limits by them.

use crate::text_enum;

text_enum! {
    /// A quota of calls per minute.
    QuotaName {
        /// Reads of one principal.
        Read = "read",
        /// Changes of one principal.
        Write = "write",
        /// Sensitive changes of one principal: those that move money or destroy data.
        Sensitive = "sensitive",
        /// Exports of one principal.
        Export = "export",
        /// Credential operations of one client network, or of one browser session.
        Credential = "credential",
        /// Calls of all principals of a tenant together.
        Tenant = "tenant",
    }
}
