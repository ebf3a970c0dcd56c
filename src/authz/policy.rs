//! What each role may do inside its tenant (control AUTHZ-02).

use std::str::FromStr;

/// Something a role may do. Finer than a scope: a scope is what the *client* was
/// delegated, a permission what the *person* may do; a call needs both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Read products.
    ReadCatalog,
    /// Add and change products.
    WriteCatalog,
    /// Read customers; sensitive fields are masked.
    ReadCustomers,
    /// See customers' fields about a person in plain text.
    SeePersonal,
    /// Add and change customers.
    WriteCustomers,
    /// Forget customers.
    EraseCustomers,
    /// Read orders.
    ReadOrders,
    /// Place, cancel and fulfil orders.
    WriteOrders,
    /// Read invoices, payments and refunds.
    ReadBilling,
    /// Issue and void invoices, and record payments.
    WriteBilling,
    /// Give money back.
    Refund,
    /// Make, see, rotate and revoke API keys.
    ManageKeys,
    /// Take the books out as a file.
    Export,
    /// Read the audit trail.
    ReadAudit,
}

/// A role inside a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Reads orders, products, and customers with sensitive fields masked.
    Viewer,
    /// A viewer who also writes orders and customers.
    Sales,
    /// Invoices, payments, refunds, and unmasked billing data.
    Billing,
    /// Reads everything, including the audit trail; writes nothing.
    Auditor,
    /// Everything inside the tenant.
    Admin,
    /// A program acting for itself (RFC 6749 section 4.4): the daily work of any role, within its scopes, but
    /// nothing that takes an administrator, and no money given back: a person answers for that. Given by authentication, never read from a token's roles.
    Service,
}

/// The text names no role a token can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown role")]
pub struct UnknownRole;

impl Role {
    /// Every role a token can give.
    pub const ALL: [Self; 5] = [Self::Viewer, Self::Sales, Self::Billing, Self::Auditor, Self::Admin];

    /// The role as it stands in a token's roles claim.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Sales => "sales",
            Self::Billing => "billing",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
            Self::Service => "service",
        }
    }

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

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(s: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == s).ok_or(UnknownRole)
    }
}
