//! A secure orders and billing API for many tenants, on the kernel `palisade`.
//!
//! [`app`] is the one place that lists what this service adds to the kernel.
//!
//! | module | job |
//! |---|---|
//! | [`domain`] | types and rules: orders, invoices, money; no SQL, no HTTP |
//! | [`access`] | actions with their rows of the route matrix, scopes, roles, object rules |
//! | [`store`] | the SQL of this service, as statements that the kernel runs |
//! | `api` | operations and schemas; no SQL, no policy |
//! | `demo` | feature `dev`: demo data |

pub mod access;
pub mod api;
#[cfg(feature = "dev")]
pub mod demo;
pub mod domain;
pub mod store;

use std::sync::Arc;

use palisade::{App, operations::Exports};

use self::access::ACCESS;

/// Begins the description of the OpenAPI document.
const DESCRIPTION: &str = "\
Multi-tenant API for orders, invoices and payments. Amounts are integers in minor units of an ISO 4217 currency. \
Payments and refunds require an `Idempotency-Key`.";

/// The service.
pub fn app() -> App<api::OrderLimits> {
    let app = App::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
        .title("Orders and billing", DESCRIPTION)
        .access(&ACCESS)
        .database(&store::MIGRATIONS, store::RIGHTS)
        .sealed::<store::customers::CustomerTable>()
        .operations(|context, limits: &api::OrderLimits| {
            (
                api::Products { context: Arc::clone(context) },
                api::Customers { context: Arc::clone(context) },
                api::Orders { context: Arc::clone(context), limits: limits.clone() },
                api::Invoices { context: Arc::clone(context) },
                Exports::<api::ExportKind>::new(context),
            )
        })
        .constraints(api::CONSTRAINTS)
        .logged_parameters(api::LOGGED_PARAMETERS);
    #[cfg(feature = "dev")]
    let app = app.demo(demo::DEMO);
    app
}
