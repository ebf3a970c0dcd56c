//! Roles and permissions of this API, on one page (AUTHZ-02, AUTHZ-05).

use palisade::authz::{
    Permission, Role, RoleTable,
    api_keys::MANAGE_KEYS,
    policy::{READ_AUDIT, SEE_PERSONAL},
    sessions::MANAGE_SESSIONS,
};

/// Read products.
pub const READ_CATALOG: Permission = Permission::new("read_catalog");
/// Add and change products.
pub const WRITE_CATALOG: Permission = Permission::new("write_catalog");
/// Read customers; sensitive fields are masked.
pub const READ_CUSTOMERS: Permission = Permission::new("read_customers");
/// Add and change customers.
pub const WRITE_CUSTOMERS: Permission = Permission::new("write_customers");
/// Erase customers.
pub const ERASE_CUSTOMERS: Permission = Permission::new("erase_customers");
/// Read orders.
pub const READ_ORDERS: Permission = Permission::new("read_orders");
/// Place, cancel and fulfil orders.
pub const WRITE_ORDERS: Permission = Permission::new("write_orders");
/// Read invoices, payments and refunds.
pub const READ_BILLING: Permission = Permission::new("read_billing");
/// Issue and void invoices, and record payments.
pub const WRITE_BILLING: Permission = Permission::new("write_billing");
/// Refund payments.
pub const REFUND: Permission = Permission::new("refund");
/// Export the tenant's books as a file.
pub const EXPORT: Permission = Permission::new("export");

/// Reads orders, products, and customers with sensitive fields masked.
pub const VIEWER: Role = Role::new("viewer");
/// A viewer who also writes orders and customers.
pub const SALES: Role = Role::new("sales");
/// Invoices, payments, refunds, and unmasked billing data.
pub const BILLING: Role = Role::new("billing");
/// Reads everything, including the audit trail; writes nothing.
pub const AUDITOR: Role = Role::new("auditor");
/// Everything inside the tenant.
pub const ADMIN: Role = Role::new("admin");

/// All roles that a token can give.
pub const ALL: [Role; 5] = [VIEWER, SALES, BILLING, AUDITOR, ADMIN];

/// The permissions of each role.
#[rustfmt::skip]
pub const TABLE: RoleTable = RoleTable(&[
    (VIEWER, &[READ_CATALOG, READ_CUSTOMERS, READ_ORDERS]),
    (SALES, &[READ_CATALOG, READ_CUSTOMERS, READ_ORDERS, WRITE_CUSTOMERS, WRITE_ORDERS]),
    (BILLING, &[
        READ_CATALOG, READ_CUSTOMERS, READ_ORDERS, READ_BILLING, SEE_PERSONAL, WRITE_CUSTOMERS, WRITE_BILLING, REFUND,
    ]),
    (AUDITOR, &[READ_CATALOG, READ_CUSTOMERS, READ_ORDERS, READ_BILLING, SEE_PERSONAL, EXPORT, READ_AUDIT]),
    (ADMIN, &[
        READ_CATALOG, READ_CUSTOMERS, READ_ORDERS, READ_BILLING, SEE_PERSONAL, EXPORT, READ_AUDIT,
        WRITE_CATALOG, WRITE_CUSTOMERS, ERASE_CUSTOMERS, WRITE_ORDERS, WRITE_BILLING, REFUND, MANAGE_KEYS,
        MANAGE_SESSIONS,
    ]),
    // A program acting for itself: the daily work of any role within its scopes. No administration
    // and no refunds: they need an accountable person.
    (Role::SERVICE, &[
        READ_CATALOG, READ_CUSTOMERS, READ_ORDERS, READ_BILLING, WRITE_CUSTOMERS, WRITE_ORDERS, WRITE_BILLING,
    ]),
]);
