use super::text_enum::text_enum;

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
