//! The scopes of this API. A scope limits what a client may do for a principal.

use palisade::authz::Scope;
pub use palisade::authz::{api_keys::KEYS_MANAGE, policy::AUDIT_READ, sessions::SESSIONS_MANAGE};

/// Read products.
pub const CATALOG_READ: Scope = Scope::new("catalog:read");
/// Add and change products.
pub const CATALOG_WRITE: Scope = Scope::new("catalog:write");
/// Read customers.
pub const CUSTOMERS_READ: Scope = Scope::new("customers:read");
/// Add, change and erase customers.
pub const CUSTOMERS_WRITE: Scope = Scope::new("customers:write");
/// Read orders.
pub const ORDERS_READ: Scope = Scope::new("orders:read");
/// Place, cancel and fulfil orders.
pub const ORDERS_WRITE: Scope = Scope::new("orders:write");
/// Read invoices, payments and refunds.
pub const BILLING_READ: Scope = Scope::new("billing:read");
/// Issue and void invoices, and record payments.
pub const BILLING_WRITE: Scope = Scope::new("billing:write");
/// Refund payments.
pub const BILLING_REFUND: Scope = Scope::new("billing:refund");
/// Export the tenant's books as a file.
pub const EXPORTS_CREATE: Scope = Scope::new("exports:create");

/// All scopes.
pub const ALL: [Scope; 13] = [
    CATALOG_READ,
    CATALOG_WRITE,
    CUSTOMERS_READ,
    CUSTOMERS_WRITE,
    ORDERS_READ,
    ORDERS_WRITE,
    BILLING_READ,
    BILLING_WRITE,
    BILLING_REFUND,
    KEYS_MANAGE,
    SESSIONS_MANAGE,
    EXPORTS_CREATE,
    AUDIT_READ,
];
