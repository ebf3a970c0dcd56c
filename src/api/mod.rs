//! The operations of the public API and their schemas, without SQL and without access rules.
//!
//! An operation gets its [`Permit`](crate::authz::Permit) and the parsed request, calls
//! [`crate::store`], and renders the response. [`GuardedRoutes`] wraps every route with the checks
//! of its row in the route matrix, so they run before the first argument is read. An operation
//! without a row prevents startup. The router serves exactly the documented routes (THREAT-03).
//! [`crate::app`] calls [`routes`].

mod api_keys;
mod audit;
mod customers;
mod exports;
mod health;
mod invoices;
mod me;
mod meta;
mod money;
mod orders;
mod products;

pub use meta::document;

use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};
use poem::{Endpoint, EndpointExt, Response};
use poem_openapi::{OpenApiService, Tags};

use crate::{
    authz::matrix,
    http::{Context, GuardedRoutes, RoutesError, ServedRoute, UncheckedKeyword, from_framework, schema::Schemas},
};

/// Groups of operations in the OpenAPI document.
#[derive(Tags)]
enum Tag {
    /// The authenticated caller.
    Identity,
    /// The tenant's product catalogue.
    Catalog,
    /// Customers of the tenant, with encrypted and masked personal fields.
    Customers,
    /// Orders: place, read, cancel, fulfil.
    Orders,
    /// Invoices, payments, refunds and exports.
    Billing,
    /// API keys, with which programs call this API.
    Keys,
    /// The tenant's audit trail.
    Audit,
    /// Health probes and API documentation.
    Operations,
}

type Operations = (
    me::Me,
    products::Products,
    customers::Customers,
    orders::Orders,
    invoices::Invoices,
    api_keys::ApiKeys,
    exports::Exports,
    audit::AuditEvents,
    health::Health,
    meta::Meta,
);

fn operations(context: &Arc<Context>) -> Operations {
    (
        me::Me,
        products::Products { context: Arc::clone(context) },
        customers::Customers { context: Arc::clone(context) },
        orders::Orders { context: Arc::clone(context) },
        invoices::Invoices { context: Arc::clone(context) },
        api_keys::ApiKeys { context: Arc::clone(context) },
        exports::Exports { context: Arc::clone(context) },
        audit::AuditEvents { context: Arc::clone(context) },
        health::Health::new(Arc::clone(context)),
        meta::Meta::new(context),
    )
}

/// Checks that the schemas of all request bodies are supported (INPUT-02).
///
/// [`routes`] does the same; the command `openapi` calls this to publish no other document.
///
/// # Errors
/// The first keyword of a schema that the check of bodies does not support.
pub fn check_schemas() -> Result<(), UncheckedKeyword> {
    Schemas::new::<Operations>().map(drop)
}

/// The API as one endpoint, with every operation behind its guard and every error as a problem.
///
/// Also returns the served routes, read from the router and not from the document. A 405 lists the
/// allowed methods (RFC 9110 section 15.5.6).
///
/// # Errors
/// [`RoutesError`] if an operation has no row in the route matrix, or a body an unsupported schema.
pub fn routes(
    context: &Arc<Context>,
) -> Result<(impl Endpoint<Output = Response> + use<>, Vec<ServedRoute>), RoutesError> {
    let guarded = GuardedRoutes::new(operations(context), context)?;
    let served = guarded.list_routes();
    let service = OpenApiService::new(guarded, meta::TITLE, env!("CARGO_PKG_VERSION"));
    let endpoint = poem::IntoEndpoint::into_endpoint(service)
        .catch_all_error(|error: poem::Error| async move { from_framework(error).into_poem() })
        .map_to_response()
        .around(|endpoint, request| async move {
            let path = request.uri().path().to_owned();
            let mut response = endpoint.call(request).await?;
            if response.status() == StatusCode::METHOD_NOT_ALLOWED
                && let Ok(methods) = HeaderValue::try_from(matrix::allowed(&path))
            {
                response.headers_mut().insert(header::ALLOW, methods);
            }
            Ok(response)
        });
    Ok((endpoint, served))
}
