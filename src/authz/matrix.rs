//! Route matrix: one row per public operation, with its access rules, quota class and audit name.
//!
//! Controls: THREAT-01, THREAT-02, AUTHN-01, AUTHN-13, AUTHZ-01, AUTHZ-02, AUTHZ-05, RATE-08.
//! This table is the only source of access rules. `http/guard.rs` enforces it; the OpenAPI
//! document, the `routes` command and the tests read it. The service does not start if it serves
//! an operation without a row.

use std::fmt::Write as _;

use super::{internal::INTERNAL, policy::Permission};

pub use crate::domain::Scope;

/// All operations of the public listener. The internal listener serves them too.
#[rustfmt::skip]
pub static MATRIX: [Row; 30] = {
    use Callers::{Authenticated as Auth, NoKeys, Public};
    use DataClass::{Own, Personal, Tenant};
    use Method::{Delete, Get, Patch, Post, Put};
    use Outage::{Closed, Open};
    use Permission as P;
    use QuotaClass::{Export, Health, Read, Sensitive, Write};
    use ReadOnly::{Refused, Served};
    use Scope as S;
    [
        //          path, operation                                   callers scope                    permission               quota      data              audit event           outage  read-only
        row(Get,    "/v1/me", "getMe",                                Auth,   None,                    None,                    Read,      Own,              "account_read",       Closed, Served),
        row(Get,    "/v1/products", "listProducts",                   Auth,   Some(S::CatalogRead),    Some(P::ReadCatalog),    Read,      Tenant,           "products_listed",    Closed, Served),
        row(Get,    "/v1/products/{sku}", "getProduct",               Auth,   Some(S::CatalogRead),    Some(P::ReadCatalog),    Read,      Tenant,           "product_read",       Closed, Served),
        row(Put,    "/v1/products/{sku}", "putProduct",               Auth,   Some(S::CatalogWrite),   Some(P::WriteCatalog),   Write,     Tenant,           "product_put",        Closed, Refused),
        row(Post,   "/v1/customers", "createCustomer",                Auth,   Some(S::CustomersWrite), Some(P::WriteCustomers), Write,     Personal,         "customer_created",   Closed, Refused),
        row(Get,    "/v1/customers", "listCustomers",                 Auth,   Some(S::CustomersRead),  Some(P::ReadCustomers),  Read,      Personal,         "customers_listed",   Closed, Served),
        row(Get,    "/v1/customers/{id}", "getCustomer",              Auth,   Some(S::CustomersRead),  Some(P::ReadCustomers),  Read,      Personal,         "customer_read",      Closed, Served),
        row(Patch,  "/v1/customers/{id}", "updateCustomer",           Auth,   Some(S::CustomersWrite), Some(P::WriteCustomers), Write,     Personal,         "customer_updated",   Closed, Refused),
        row(Delete, "/v1/customers/{id}", "eraseCustomer",            NoKeys, Some(S::CustomersWrite), Some(P::EraseCustomers), Sensitive, Personal,         "customer_erased",    Closed, Refused),
        row(Post,   "/v1/orders", "createOrder",                      Auth,   Some(S::OrdersWrite),    Some(P::WriteOrders),    Write,     Tenant,           "order_created",      Closed, Refused),
        row(Get,    "/v1/orders", "listOrders",                       Auth,   Some(S::OrdersRead),     Some(P::ReadOrders),     Read,      Tenant,           "orders_listed",      Closed, Served),
        row(Get,    "/v1/orders/{id}", "getOrder",                    Auth,   Some(S::OrdersRead),     Some(P::ReadOrders),     Read,      Tenant,           "order_read",         Closed, Served),
        row(Post,   "/v1/orders/{id}/cancel", "cancelOrder",          Auth,   Some(S::OrdersWrite),    Some(P::WriteOrders),    Write,     Tenant,           "order_cancelled",    Closed, Refused),
        row(Post,   "/v1/orders/{id}/fulfil", "fulfilOrder",          Auth,   Some(S::OrdersWrite),    Some(P::WriteOrders),    Write,     Tenant,           "order_fulfilled",    Closed, Refused),
        row(Post,   "/v1/orders/{id}/invoice", "createInvoice",       Auth,   Some(S::BillingWrite),   Some(P::WriteBilling),   Write,     Tenant,           "invoice_issued",     Closed, Refused),
        row(Get,    "/v1/invoices", "listInvoices",                   Auth,   Some(S::BillingRead),    Some(P::ReadBilling),    Read,      Tenant,           "invoices_listed",    Closed, Served),
        row(Get,    "/v1/invoices/{id}", "getInvoice",                Auth,   Some(S::BillingRead),    Some(P::ReadBilling),    Read,      Tenant,           "invoice_read",       Closed, Served),
        row(Post,   "/v1/invoices/{id}/payments", "createPayment",    Auth,   Some(S::BillingWrite),   Some(P::WriteBilling),   Sensitive, Tenant,           "payment_recorded",   Closed, Refused),
        row(Post,   "/v1/invoices/{id}/void", "voidInvoice",          Auth,   Some(S::BillingWrite),   Some(P::WriteBilling),   Sensitive, Tenant,           "invoice_voided",     Closed, Refused),
        row(Post,   "/v1/payments/{id}/refunds", "createRefund",      NoKeys, Some(S::BillingRefund),  Some(P::Refund),         Sensitive, Tenant,           "payment_refunded",   Closed, Refused),
        row(Post,   "/v1/api-keys", "createApiKey",                   NoKeys, Some(S::KeysManage),     Some(P::ManageKeys),     Sensitive, Tenant,           "api_key_created",    Closed, Refused),
        row(Get,    "/v1/api-keys", "listApiKeys",                    NoKeys, Some(S::KeysManage),     Some(P::ManageKeys),     Sensitive, Tenant,           "api_keys_listed",    Closed, Served),
        row(Post,   "/v1/api-keys/{id}/rotate", "rotateApiKey",       NoKeys, Some(S::KeysManage),     Some(P::ManageKeys),     Sensitive, Tenant,           "api_key_rotated",    Closed, Refused),
        row(Delete, "/v1/api-keys/{id}", "revokeApiKey",              NoKeys, Some(S::KeysManage),     Some(P::ManageKeys),     Sensitive, Tenant,           "api_key_revoked",    Closed, Served),
        row(Post,   "/v1/exports", "createExport",                    NoKeys, Some(S::ExportsCreate),  Some(P::Export),         Export,    Tenant,           "books_exported",     Closed, Served),
        row(Get,    "/v1/audit-events", "listAuditEvents",            Auth,   Some(S::AuditRead),      Some(P::ReadAudit),      Read,      Tenant,           "audit_events_listed", Closed, Served),
        row(Get,    "/health/live", "getLiveness",                    Public, None,                    None,                    Health,    DataClass::Public, "liveness_read",     Open,   Served),
        row(Get,    "/health/ready", "getReadiness",                  Public, None,                    None,                    Health,    DataClass::Public, "readiness_read",    Closed, Served),
        row(Get,    "/openapi.json", "getOpenApi",                    Public, None,                    None,                    Health,    DataClass::Public, "document_read",     Open,   Served),
        row(Get,    "/docs", "getDocs",                               Public, None,                    None,                    Health,    DataClass::Public, "docs_read",         Open,   Served),
    ]
};

/// Finds the row of a method and a path template. Names of path parameters may differ.
#[must_use]
pub fn find(method: &http::Method, template: &str) -> Option<&'static Row> {
    let same_path = |row: &&Row| {
        row.path.split('/').count() == template.split('/').count()
            && row.path.split('/').zip(template.split('/')).all(|(a, b)| a == b || (is_parameter(a) && is_parameter(b)))
    };
    MATRIX.iter().find(|row| row.method.as_str() == method.as_str() && same_path(row))
}

/// The value of an `Allow` field for a path (RFC 9110 section 10.2.1). `GET` includes `HEAD`.
#[must_use]
pub fn allowed(path: &str) -> String {
    let matches_path = |row: &&Row| {
        row.path.split('/').count() == path.split('/').count()
            && row.path.split('/').zip(path.split('/')).all(|(a, b)| a == b || is_parameter(a))
    };
    let methods = MATRIX.iter().filter(matches_path).map(|row| match row.method {
        Method::Get => "GET, HEAD",
        method => method.as_str(),
    });
    methods.collect::<Vec<_>>().join(", ")
}

/// The matrix as the Markdown tables of `SECURITY.md`.
#[must_use]
pub fn markdown() -> String {
    let mut table = String::from(
        "| operation | callers | scope | permission | quota | data | audit event | dependency down | quota store down | read-only |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in &MATRIX {
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| `{} {}` | {} | {} | {} | {} | {} | `{}` | fails {} | {} | {} |",
            row.method.as_str(),
            row.path,
            match row.callers {
                Callers::NoKeys => "authenticated, no API key".to_owned(),
                callers => lower(callers),
            },
            row.scope.map_or_else(|| "–".to_owned(), |scope| format!("`{}`", scope.as_str())),
            row.permission.map_or_else(|| "–".to_owned(), |permission| format!("{permission:?}")),
            lower(row.quota),
            lower(row.data),
            row.audit,
            lower(row.outage),
            match row.quota {
                QuotaClass::Health => "–",
                class => match class.on_store_down() {
                    OnStoreDown::Local => "counted locally",
                    OnStoreDown::Closed => "fails closed",
                },
            },
            lower(row.read_only),
        );
    }
    table.push_str("\nOnly on the internal listener, for services with the right:\n\n");
    table.push_str("| operation | right | name in events |\n|---|---|---|\n");
    for row in &INTERNAL {
        let _ = writeln!(
            table,
            "| `{} {}` | `{}` | `{}` |",
            row.method.as_str(),
            row.path,
            row.right.as_str(),
            row.operation
        );
    }
    table
}

fn lower(value: impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

/// Whether a path segment is a parameter: `{id}` in the OpenAPI document, `:id` in the router.
fn is_parameter(segment: &str) -> bool {
    segment.starts_with('{') || segment.starts_with(':')
}

/// One operation with all rules that apply to it before its handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// HTTP method.
    pub method: Method,
    /// Path template in OpenAPI notation.
    pub path: &'static str,
    /// The `operationId`, which is also [`Action::OPERATION`](super::Action::OPERATION).
    pub operation: &'static str,
    /// Kinds of caller that may call it.
    pub callers: Callers,
    /// The scope that the caller's credential must have, if any.
    pub scope: Option<Scope>,
    /// The permission that a role of the caller must allow, if any.
    pub permission: Option<Permission>,
    /// The quota that a call counts against.
    pub quota: QuotaClass,
    /// Class of the data in its response.
    pub data: DataClass,
    /// The operation's name in security events and the audit trail.
    pub audit: &'static str,
    /// Behaviour while a dependency is down.
    pub outage: Outage,
    /// Behaviour in read-only mode.
    pub read_only: ReadOnly,
}

#[expect(clippy::too_many_arguments, reason = "one argument per column of the table")]
const fn row(
    method: Method,
    path: &'static str,
    operation: &'static str,
    callers: Callers,
    scope: Option<Scope>,
    permission: Option<Permission>,
    quota: QuotaClass,
    data: DataClass,
    audit: &'static str,
    outage: Outage,
    read_only: ReadOnly,
) -> Row {
    Row { method, path, operation, callers, scope, permission, quota, data, audit, outage, read_only }
}

/// An HTTP method of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `DELETE`
    Delete,
    /// `GET`
    Get,
    /// `PATCH`
    Patch,
    /// `POST`
    Post,
    /// `PUT`
    Put,
}

impl Method {
    /// All methods that operations have.
    pub const ALL: [Self; 5] = [Self::Delete, Self::Get, Self::Patch, Self::Post, Self::Put];

    /// The method in the notation of a request line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::Patch => "PATCH",
            Self::Post => "POST",
            Self::Put => "PUT",
        }
    }
}

/// The kinds of caller that may call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// Every client, without a credential.
    Public,
    /// Users, services and API keys.
    Authenticated,
    /// Users and services, but no API key, whatever its scopes (AUTHN-13).
    NoKeys,
}

/// The quota class of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaClass {
    /// Probes and documentation: no quota.
    Health,
    /// Reads.
    Read,
    /// Ordinary changes.
    Write,
    /// Exports of a tenant's books.
    Export,
    /// Calls that move money, erase data or manage API keys.
    Sensitive,
}

/// Handling of calls while the shared quota store is down (RATE-08).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStoreDown {
    /// Each replica counts its own calls, so a caller has at most the quota per replica.
    Local,
    /// Rejects the call with 503.
    Closed,
}

impl QuotaClass {
    /// Handling of this class while the shared quota store is down.
    #[must_use]
    pub const fn on_store_down(self) -> OnStoreDown {
        match self {
            Self::Health | Self::Read | Self::Write => OnStoreDown::Local,
            Self::Export | Self::Sensitive => OnStoreDown::Closed,
        }
    }
}

/// The class of data in an operation's response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataClass {
    /// No data of a tenant or a person.
    Public,
    /// Data about the caller itself.
    Own,
    /// A tenant's business data.
    Tenant,
    /// Personal data.
    Personal,
}

/// Behaviour of an operation while a dependency is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Served: the operation depends on nothing.
    Open,
    /// Rejected with 503.
    Closed,
}

/// Behaviour of an operation while an operator has turned read-only mode on (LOG-08).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOnly {
    /// Served: it changes no business data, or it contains an incident (revoking an API key).
    Served,
    /// Rejected with 503.
    Refused,
}
