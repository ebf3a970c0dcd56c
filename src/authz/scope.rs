use std::str::FromStr;

use super::matrix::{Callers, MATRIX};

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
    /// Every scope there is.
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

    /// Whether some operation that API keys may call asks for it; an API key is given no other.
    #[must_use]
    pub fn is_for_keys(self) -> bool {
        MATRIX.iter().any(|row| row.callers == Callers::Authenticated && row.scope == Some(self))
    }

    /// The scope as it stands in a token's `scope` claim.
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

/// The text names no scope of this API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown scope")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(s: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == s).ok_or(UnknownScope)
    }
}
