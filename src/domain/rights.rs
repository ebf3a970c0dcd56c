//! Names of rights: OAuth scopes, roles of a tenant, and rights of internal services.
//!
//! Settings and authentication parse them; what each one allows is decided in `authz` (its matrix,
//! its role policy and its table of internal operations), which re-exports them.

use std::str::FromStr;

/// An OAuth 2.0 scope (RFC 6749 section 3.3) of this API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// `catalog:read`
    CatalogRead,
    /// `catalog:write`
    CatalogWrite,
    /// `customers:read`
    CustomersRead,
    /// `customers:write`
    CustomersWrite,
    /// `orders:read`
    OrdersRead,
    /// `orders:write`
    OrdersWrite,
    /// `billing:read`
    BillingRead,
    /// `billing:write`
    BillingWrite,
    /// `billing:refund`
    BillingRefund,
    /// `keys:manage`
    KeysManage,
    /// `exports:create`
    ExportsCreate,
    /// `audit:read`
    AuditRead,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 12] = [
        Self::CatalogRead,
        Self::CatalogWrite,
        Self::CustomersRead,
        Self::CustomersWrite,
        Self::OrdersRead,
        Self::OrdersWrite,
        Self::BillingRead,
        Self::BillingWrite,
        Self::BillingRefund,
        Self::KeysManage,
        Self::ExportsCreate,
        Self::AuditRead,
    ];

    /// The scope as a token's `scope` claim spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CatalogRead => "catalog:read",
            Self::CatalogWrite => "catalog:write",
            Self::CustomersRead => "customers:read",
            Self::CustomersWrite => "customers:write",
            Self::OrdersRead => "orders:read",
            Self::OrdersWrite => "orders:write",
            Self::BillingRead => "billing:read",
            Self::BillingWrite => "billing:write",
            Self::BillingRefund => "billing:refund",
            Self::KeysManage => "keys:manage",
            Self::ExportsCreate => "exports:create",
            Self::AuditRead => "audit:read",
        }
    }
}

/// The text is not a scope of this API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown scope")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(s: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == s).ok_or(UnknownScope)
    }
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
    /// A program acting for itself (RFC 6749 section 4.4): the daily work of any role within its
    /// scopes, but no administration and no refunds, which need an accountable person.
    /// Authentication assigns it; it is never read from a token's roles.
    Service,
}

/// The text is not a role that a token can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown role")]
pub struct UnknownRole;

impl Role {
    /// All roles that a token can give.
    pub const ALL: [Self; 5] = [Self::Viewer, Self::Sales, Self::Billing, Self::Auditor, Self::Admin];

    /// The role as a token's roles claim spells it.
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
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(s: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == s).ok_or(UnknownRole)
    }
}

/// A right of an internal service: an operation of the internal listener beyond the public API
/// (AUTHN-18). Each right is granted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceRight {
    /// `incidents`: POST `/incidents`, as powerful as the operator's login at the command line.
    Incidents,
    /// `metrics`: GET `/metrics`.
    Metrics,
}

impl ServiceRight {
    /// The right as the settings spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Incidents => "incidents",
            Self::Metrics => "metrics",
        }
    }
}

impl FromStr for ServiceRight {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "incidents" => Ok(Self::Incidents),
            "metrics" => Ok(Self::Metrics),
            _ => Err("expected `metrics` or `incidents`"),
        }
    }
}
