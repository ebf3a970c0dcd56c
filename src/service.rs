//! The service: the one place that lists what it adds to the kernel.

use std::sync::Arc;

use crate::{access::ACCESS, api, app::App, operations::Exports};

/// Begins the description of the OpenAPI document.
const DESCRIPTION: &str = "\
Multi-tenant API for orders, invoices and payments. Amounts are integers in minor units of an ISO 4217 currency. \
Payments and refunds require an `Idempotency-Key`.";

/// The service.
pub fn app() -> App<api::OrderLimits> {
    let app = App::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
        .title("Orders and billing", DESCRIPTION)
        .access(&ACCESS)
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
    let app = app.demo(crate::demo::DEMO);
    app
}
