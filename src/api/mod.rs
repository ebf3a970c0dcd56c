//! The operations of the service and their schemas, without SQL and without access rules.
//!
//! An operation gets its [`Permit`](palisade::authz::Permit) and the parsed request, calls
//! [`crate::store`], and renders the response. The kernel wraps every route with the checks of its
//! row in the route matrix; [`crate::app`] lists the operations.

mod customers;
mod exports;
mod formats;
mod ids;
mod invoices;
mod money;
mod orders;
mod products;
mod settings;

pub(crate) use customers::Customers;
pub(crate) use exports::ExportKind;
pub(crate) use invoices::Invoices;
pub(crate) use orders::Orders;
pub(crate) use products::Products;
pub(crate) use settings::OrderLimits;

use palisade::http::{Constraints, LoggedParameters};
use poem_openapi::Tags;

use crate::domain::{NewOrderError, Sku};

/// Groups of the service's operations in the OpenAPI document.
#[derive(Tags)]
enum Tag {
    /// The tenant's product catalogue.
    Catalog,
    /// Customers of the tenant, with encrypted and masked personal fields.
    Customers,
    /// Orders: place, read, cancel, fulfil.
    Orders,
    /// Invoices, payments and refunds.
    Billing,
}

/// Constraints whose violation is the caller's mistake.
pub(crate) const CONSTRAINTS: Constraints =
    // The customer was erased while an order for it was placed.
    &[("customer_exists", || NewOrderError::UnknownCustomer.into())];

/// Stock keeping units are no personal data.
pub(crate) const LOGGED_PARAMETERS: LoggedParameters = &[("{sku}", |text| text.parse::<Sku>().is_ok())];
