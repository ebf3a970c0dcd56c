//! Role policy: the permissions of each role inside its tenant (AUTHZ-02, AUTHZ-05).
//!
//! [`authorize`](super::authorize) looks up the permission that an operation's matrix row requires.
//! Reviewers find all role rules in one function, [`Role::allows`].

pub use crate::domain::Role;

/// A right that a role can have.
///
/// A scope limits what a *client* was delegated; a permission limits what its *user* may do. A call
/// needs both. Permissions are finer than scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Read products.
    ReadCatalog,
    /// Add and change products.
    WriteCatalog,
    /// Read customers; sensitive fields are masked.
    ReadCustomers,
    /// See customers' personal data in plain text.
    SeePersonal,
    /// Add and change customers.
    WriteCustomers,
    /// Erase customers.
    EraseCustomers,
    /// Read orders.
    ReadOrders,
    /// Place, cancel and fulfil orders.
    WriteOrders,
    /// Read invoices, payments and refunds.
    ReadBilling,
    /// Issue and void invoices, and record payments.
    WriteBilling,
    /// Refund payments.
    Refund,
    /// Create, list, rotate and revoke API keys.
    ManageKeys,
    /// Export the tenant's books as a file.
    Export,
    /// Read the audit trail.
    ReadAudit,
}

impl Role {
    /// Whether the role gives the permission.
    #[must_use]
    pub const fn allows(self, permission: Permission) -> bool {
        use Permission as P;
        match permission {
            P::ReadCatalog | P::ReadCustomers | P::ReadOrders => true,
            P::ReadBilling => matches!(self, Self::Billing | Self::Auditor | Self::Admin | Self::Service),
            P::SeePersonal => matches!(self, Self::Billing | Self::Auditor | Self::Admin),
            P::WriteOrders => matches!(self, Self::Sales | Self::Admin | Self::Service),
            P::WriteCustomers => matches!(self, Self::Sales | Self::Billing | Self::Admin | Self::Service),
            P::WriteBilling => matches!(self, Self::Billing | Self::Admin | Self::Service),
            P::Refund => matches!(self, Self::Billing | Self::Admin),
            P::Export | P::ReadAudit => matches!(self, Self::Auditor | Self::Admin),
            P::WriteCatalog | P::EraseCustomers | P::ManageKeys => matches!(self, Self::Admin),
        }
    }
}
