//! The route matrix: one row per operation (controls THREAT-01, AUTHN-01, AUTHZ-01, AUTHZ-02).
//!
//! This table is the only place that says who may call what. The check itself, the OpenAPI
//! document, the `routes` command and the tests all read it. An operation without a row
//! stops the start and fails a test; see `api/guard.rs`.

use std::fmt::Write as _;

use super::policy::Permission;

/// All operations of the public listener.
#[rustfmt::skip]
pub static MATRIX: [Row; 11] = {
    use Callers::{Authenticated, Public};
    use DataClass::{Own, Tenant};
    use Method::{Get, Post};
    use Outage::{Closed, Open};
    use Permission as P;
    use QuotaClass::{Health, Read, Write};
    use Scope as S;
    [
        //        path, operation                         callers        scope                 permission                quota   data               audit event         outage
        row(Get,  "/v1/me", "getMe",                      Authenticated, None,                 None,                     Read,   Own,               "account_read",     Closed),
        row(Get,  "/v1/products", "listProducts",         Authenticated, Some(S::CatalogRead), Some(P::ReadCatalog),     Read,   Tenant,            "products_listed",  Closed),
        row(Get,  "/v1/products/{sku}", "getProduct",     Authenticated, Some(S::CatalogRead), Some(P::ReadCatalog),     Read,   Tenant,            "product_read",     Closed),
        row(Post, "/v1/orders", "createOrder",            Authenticated, Some(S::OrdersWrite), Some(P::WriteOrders),     Write,  Tenant,            "order_created",    Closed),
        row(Get,  "/v1/orders", "listOrders",             Authenticated, Some(S::OrdersRead),  Some(P::ReadOrders),      Read,   Tenant,            "orders_listed",    Closed),
        row(Get,  "/v1/orders/{id}", "getOrder",          Authenticated, Some(S::OrdersRead),  Some(P::ReadOrders),      Read,   Tenant,            "order_read",       Closed),
        row(Post, "/v1/orders/{id}/cancel", "cancelOrder", Authenticated, Some(S::OrdersWrite), Some(P::WriteOrders),    Write,  Tenant,            "order_cancelled",  Closed),
        row(Get,  "/health/live", "getLiveness",          Public,        None,                 None,                     Health, DataClass::Public, "liveness_read",    Open),
        row(Get,  "/health/ready", "getReadiness",        Public,        None,                 None,                     Health, DataClass::Public, "readiness_read",   Closed),
        row(Get,  "/openapi.json", "getOpenApi",          Public,        None,                 None,                     Health, DataClass::Public, "document_read",    Open),
        row(Get,  "/docs", "getDocs",                     Public,        None,                 None,                     Health, DataClass::Public, "docs_read",        Open),
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

/// The matrix as a Markdown table, as it stands in `SECURITY.md`.
#[must_use]
pub fn markdown() -> String {
    let mut table = String::from(
        "| operation | callers | scope | permission | quota | data | audit event | dependency down |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for row in &MATRIX {
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| `{} {}` | {:?} | {} | {} | {:?} | {:?} | `{}` | fails {:?} |",
            row.method.as_str(),
            row.path,
            row.callers,
            row.scope.map_or_else(|| "–".to_owned(), |scope| format!("`{}`", scope.as_str())),
            row.permission.map_or_else(|| "–".to_owned(), |permission| format!("{permission:?}")),
            row.quota,
            row.data,
            row.audit,
            row.outage,
        );
    }
    table.to_lowercase().replace("`get ", "`GET ").replace("`post ", "`POST ")
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
) -> Row {
    Row { method, path, operation, callers, scope, permission, quota, data, audit, outage }
}

/// An HTTP method some operation has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `POST`
    Post,
}

impl Method {
    /// The method as it stands in a request line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// What kinds of caller an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// Anybody, without a credential.
    Public,
    /// Users and services with an access token.
    Authenticated,
}

/// An OAuth 2.0 scope (RFC 6749 section 3.3) of this API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// `catalog:read`
    CatalogRead,
    /// `orders:read`
    OrdersRead,
    /// `orders:write`
    OrdersWrite,
}

impl Scope {
    /// Every scope there is.
    pub const ALL: [Self; 3] = [Self::CatalogRead, Self::OrdersRead, Self::OrdersWrite];

    /// The scope as it stands in a token's `scope` claim.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CatalogRead => "catalog:read",
            Self::OrdersRead => "orders:read",
            Self::OrdersWrite => "orders:write",
        }
    }
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
}

/// What an operation does when something it depends on is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Answers all the same: it depends on nothing.
    Open,
    /// Refuses with 503.
    Closed,
}
