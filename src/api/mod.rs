//! Operations and their schemas. No SQL and no policy: an operation parses, asks for its
//! permit, calls [`crate::store`], and renders.
//!
//! [`guard`] wraps every route with its row of the matrix, so the checks run before an
//! operation's first argument is read, and an operation without a row stops the start.

mod accept;
mod api_keys;
mod audit;
mod created;
mod customers;
mod document;
mod exports;
mod faults;
mod guard;
mod health;
mod incidents;
mod internal;
mod invoices;
mod me;
mod meta;
mod money;
mod orders;
mod paging;
mod products;
mod schema;
mod strict_json;
mod text;
mod values;
mod watch;

pub use guard::UnguardedRoute;
pub use incidents::IncidentDesk;
pub(crate) use internal::Internal;
pub use meta::document;
pub(crate) use watch::Watch;

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode, header};
use poem::{Endpoint, EndpointExt, Response};
use poem_openapi::{OpenApiService, Tags};

use crate::{
    authn::Authenticator,
    authz::{Refusal, matrix},
    crypto::{MacKey, SealError},
    domain::{Clock, NewOrderError, TransitionError},
    measures::Measures,
    problem::{self, Kind, Problem},
    quota::Quotas,
    store::{Database, StoreError},
    telemetry::repeats::coalesced,
};

/// What operations work with. One per server.
#[derive(Debug)]
pub struct Context {
    /// The only way to the data.
    pub database: Database,
    /// Verifies credentials.
    pub authenticator: Authenticator,
    /// Counts calls.
    pub quotas: Arc<Quotas>,
    /// What operators ordered.
    pub measures: Arc<Measures>,
    /// Where services order what operators do, if any may.
    pub incidents: Option<IncidentDesk>,
    /// Authenticates the cursors of lists, and tells the requests of an idempotency key apart.
    pub mac_key: MacKey,
    /// How long the answer to a request with an idempotency key is given again.
    pub idempotency_retention: Duration,
    /// How long an API key may be valid.
    pub max_key_lifetime: Duration,
    /// Most rows of an export.
    pub max_export_rows: u32,
    /// Watches who sees how much in plain text.
    pub(crate) watch: Watch,
    /// The time.
    pub clock: Clock,
    /// Whether the document and its page are served.
    pub docs: bool,
    /// The first issuer's URL, for the document.
    pub issuer: String,
    /// Where callers reach the service, for the document.
    pub public_url: String,
}

/// Groups of operations in the document.
#[derive(Tags)]
enum Tag {
    /// Who the caller is.
    Identity,
    /// The tenant's products.
    Catalog,
    /// Who orders are for.
    Customers,
    /// Placing, reading, cancelling and fulfilling orders.
    Orders,
    /// Invoices, payments and refunds.
    Billing,
    /// Keys by which programs call.
    Keys,
    /// Who changed what.
    Audit,
    /// Probes and documents.
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

/// All operations.
fn operations(context: &Arc<Context>) -> Operations {
    (
        me::Me,
        products::Products(Arc::clone(context)),
        customers::Customers(Arc::clone(context)),
        orders::Orders(Arc::clone(context)),
        invoices::Invoices(Arc::clone(context)),
        api_keys::ApiKeys(Arc::clone(context)),
        exports::Exports(Arc::clone(context)),
        audit::AuditEvents(Arc::clone(context)),
        health::Health::new(Arc::clone(context)),
        meta::Meta::new(context),
    )
}

/// An extension of each request that has a body, if only one that was announced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HasBody;

/// An extension of each answer of an operation: which.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    /// Its id in the route matrix.
    pub(crate) name: &'static str,
    /// Its path there.
    pub(crate) route: &'static str,
}

/// What the router serves: method and path, with `:` before each parameter.
pub type ServedRoute = (http::Method, String);

/// The application: every operation behind its guard, every error a problem. With it, the list of
/// what it serves, taken from the router and not from the document.
pub fn routes(
    context: &Arc<Context>,
) -> Result<(impl Endpoint<Output = Response> + use<>, Vec<ServedRoute>), UnguardedRoute> {
    let guarded = guard::Guarded::new(operations(context), context)?;
    let served = guarded.served();
    let service = OpenApiService::new(guarded, meta::TITLE, env!("CARGO_PKG_VERSION"));
    let endpoint = poem::IntoEndpoint::into_endpoint(service)
        .catch_all_error(|error: poem::Error| async move { problem::from_framework(error).into_poem() })
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

/// An enumeration of the domain as the document shows it.
macro_rules! api_enum {
    ($(#[$doc:meta])* $name:ident = $domain:path { $($variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, poem_openapi::Enum)]
        #[oai(rename_all = "camelCase")]
        pub(super) enum $name { $($variant),+ }

        impl From<$domain> for $name {
            fn from(value: $domain) -> Self {
                type Domain = $domain;
                match value { $(Domain::$variant => Self::$variant),+ }
            }
        }

        impl From<$name> for $domain {
            fn from(value: $name) -> Self {
                match value { $($name::$variant => Self::$variant),+ }
            }
        }
    };
}
use api_enum;

/// So that an operation can say `?` to the second check.
impl From<Refusal> for poem::Error {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal {
            // As if it did not exist.
            Refusal::NotThisCaller => Kind::NotFound,
            Refusal::State => Kind::Conflict,
        };
        Problem::new(kind).into()
    }
}

/// So that an operation can say `?` to a state machine.
impl From<TransitionError> for poem::Error {
    fn from(_: TransitionError) -> Self {
        Problem::new(Kind::Conflict).into()
    }
}

/// So that an operation can say `?` to sealing.
impl From<SealError> for poem::Error {
    fn from(error: SealError) -> Self {
        StoreError::from(error).into()
    }
}

/// So that an operation can say `?` to its store.
impl From<StoreError> for poem::Error {
    fn from(error: StoreError) -> Self {
        Problem::from(error).into()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let source = std::error::Error::source(&error);
        match &error {
            // With the right master key it works again, and tried again so does what was read before a rotation.
            StoreError::Unavailable(_) | StoreError::KeyDropped | StoreError::MasterKey(_) => {
                coalesced!(warn, "store unavailable", %error, cause = ?source);
                Self::new(Kind::Unavailable)
            }
            StoreError::InFlight => Self::new(Kind::InFlight),
            StoreError::UnknownCustomer => NewOrderError::UnknownCustomer.into(),
            StoreError::TooManyApiKeys => Self::new(Kind::Conflict)
                .detail("You have as many live API keys as one may have; revoke those that nobody needs."),
            StoreError::KeyDestroyed => Self::new(Kind::NotFound),
            StoreError::Broken(_) | StoreError::Inconsistent | StoreError::Sealed(_) => {
                coalesced!(error, "store error", %error, cause = ?source);
                Self::new(Kind::Internal)
            }
        }
    }
}
