//! The route matrix: one row per operation (controls THREAT-01, AUTHN-01, AUTHZ-01, AUTHZ-02).
//!
//! This table is the only place that says who may call what. The check itself, the OpenAPI
//! document, the `routes` command and the tests all read it. An operation without a row
//! stops the start and fails a test; see `api/guard.rs`.

use std::fmt::Write as _;

use super::{internal::INTERNAL, policy::Permission};

pub use super::scope::{Scope, UnknownScope};

/// All operations of the public listener.
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

/// The row of a method and a path template, whatever the template calls its parameters.
#[must_use]
pub fn find(method: &http::Method, template: &str) -> Option<&'static Row> {
    let same_path = |row: &&Row| {
        let (ours, theirs) = (row.path.split('/'), template.split('/'));
        ours.clone().count() == theirs.clone().count()
            && ours.zip(theirs).all(|(a, b)| a == b || (is_parameter(a) && is_parameter(b)))
    };
    MATRIX.iter().find(|row| row.method.as_str() == method.as_str() && same_path(row))
}

/// The methods of a path, as `Allow` lists them (RFC 9110 section 10.2.1); whatever has GET has HEAD.
#[must_use]
pub fn allowed(path: &str) -> String {
    let fits = |row: &&Row| {
        let (ours, theirs) = (row.path.split('/'), path.split('/'));
        ours.clone().count() == theirs.clone().count() && ours.zip(theirs).all(|(a, b)| a == b || is_parameter(a))
    };
    let methods = MATRIX.iter().filter(fits).map(|row| match row.method {
        Method::Get => "GET, HEAD",
        method => method.as_str(),
    });
    methods.collect::<Vec<_>>().join(", ")
}

/// The matrix as a Markdown table, as it stands in `SECURITY.md`.
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
                class => match class.uncounted() {
                    Uncounted::Local => "counted locally",
                    Uncounted::Closed => "fails closed",
                },
            },
            lower(row.read_only),
        );
    }
    table.push_str("\nOn the internal listener alone, for services that were given the right:\n\n");
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

/// `{id}`, or `:id` as the router writes it.
fn is_parameter(segment: &str) -> bool {
    segment.starts_with('{') || segment.starts_with(':')
}

/// One operation and everything that is decided about it in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// HTTP method.
    pub method: Method,
    /// Path template as the OpenAPI document spells it.
    pub path: &'static str,
    /// The `operationId`; also the name of the [`Action`](super::Action) its handler asks a permit for.
    pub operation: &'static str,
    /// Who may call it.
    pub callers: Callers,
    /// The scope its credential must carry, if it needs one.
    pub scope: Option<Scope>,
    /// The permission the caller's role must give, if it needs one.
    pub permission: Option<Permission>,
    /// How it counts against quotas.
    pub quota: QuotaClass,
    /// What its answer holds.
    pub data: DataClass,
    /// Name in security events and the audit trail.
    pub audit: &'static str,
    /// What it does when a dependency is down.
    pub outage: Outage,
    /// What it does while the service is read-only.
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

/// An HTTP method some operation has.
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
    /// Every method there is.
    pub const ALL: [Self; 5] = [Self::Delete, Self::Get, Self::Patch, Self::Post, Self::Put];

    /// The method as it stands in a request line.
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

/// What kinds of caller an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// Anybody, without a credential.
    Public,
    /// Users and services with an access token, and API keys.
    Authenticated,
    /// Users and services with an access token; an API key never (AUTHN-13).
    NoKeys,
}

/// How an operation counts against quotas, from loosest to strictest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaClass {
    /// Probes and documents.
    Health,
    /// Reads.
    Read,
    /// Changes.
    Write,
    /// Whole books at once.
    Export,
    /// Changes that move money or destroy something.
    Sensitive,
}

/// What becomes of calls while the shared store of quotas is down (RATE-08).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncounted {
    /// Each replica counts what it sees: a caller has at most the quota at each.
    Local,
    /// 503.
    Closed,
}

impl QuotaClass {
    /// What becomes of calls that cannot be counted together.
    #[must_use]
    pub const fn uncounted(self) -> Uncounted {
        match self {
            Self::Health | Self::Read | Self::Write => Uncounted::Local,
            Self::Export | Self::Sensitive => Uncounted::Closed,
        }
    }
}

/// What an operation's answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataClass {
    /// Nothing about anybody.
    Public,
    /// About the caller itself.
    Own,
    /// A tenant's business data.
    Tenant,
    /// Data about persons.
    Personal,
}

/// What an operation does when something it depends on is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Answers all the same: it depends on nothing.
    Open,
    /// Refuses with 503.
    Closed,
}

/// What an operation does while operators have made the service read-only (LOG-08).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOnly {
    /// Answers all the same: it changes nothing, or whoever calls it defends themselves.
    Served,
    /// Refuses with 503.
    Refused,
}
