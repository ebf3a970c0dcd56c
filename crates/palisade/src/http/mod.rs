//! Between router and operation: the request pipeline ([`guard`]), strict parsing, idempotency,
//! paging, and the OpenAPI document.
//!
//! The edge passes requests in; operations use the types of this module in their
//! signatures. Every error leaves as a [`Problem`].

pub(crate) mod accept;
pub(crate) mod authentication;
pub(crate) mod challenge;
pub(crate) mod document;
pub mod field_errors;
mod framework_errors;
pub(crate) mod guard;
pub mod idempotency;
pub mod paging;
pub(crate) mod personal_data_monitor;
mod route_check;
pub(crate) mod schema;
pub mod strict_json;
pub(crate) mod strictness;
pub mod text;
pub mod values;

pub(crate) use framework_errors::from_framework;
pub(crate) use guard::GuardedRoutes;
pub use personal_data_monitor::PersonalDataMonitor;
pub use route_check::RoutesError;
pub use schema::UncheckedKeyword;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use http::HeaderValue;

use crate::{
    authn::Authenticator,
    authz::Matrix,
    crypto::{MacKey, SealError},
    db::DbError,
    model::Clock,
    problem::{Kind, Problem},
    quota::{Overrides, Quotas},
    store::Database,
    telemetry::{causes, repeats::coalesced},
};

/// Shared state of all operations. One per server.
#[derive(Debug)]
pub struct Context {
    /// The access rules of all operations.
    pub matrix: Matrix,
    /// Access to the data; every method requires a permit.
    pub database: Database,
    /// Verifies credentials.
    pub(crate) authenticator: Authenticator,
    /// Counts calls against quotas.
    pub(crate) quotas: Arc<Quotas>,
    /// Operator overrides in force: quotas and read-only mode.
    pub(crate) overrides: Arc<Overrides>,
    /// Authenticates cursors, and computes the fingerprints of requests with an idempotency key.
    pub mac_key: MacKey,
    /// How long the response to a request with an idempotency key is stored.
    pub idempotency_retention: Duration,
    /// Maximum rows of an export.
    pub max_export_rows: u32,
    /// Records reads of unmasked personal data.
    pub personal_data_monitor: PersonalDataMonitor,
    /// The current time.
    pub clock: Clock,
    /// Parameters of paths that the log may show.
    pub logged_parameters: LoggedParameters,
    /// Problems of violated constraints.
    pub constraints: Constraints,
    /// Whether `/openapi.json` and `/docs` are served.
    pub docs: bool,
    /// Whether the service got a stop signal: it serves, and is not ready.
    pub(crate) is_stopping: AtomicBool,
    /// URL of the first issuer, for the OpenAPI document.
    pub issuer: String,
    /// URL at which callers reach the service, for the OpenAPI document.
    pub public_url: String,
}

/// Constraints of the service's tables, each with the problem of a statement that violates it. Any
/// other violation is a 500.
pub type Constraints = &'static [(&'static str, fn() -> Problem)];

/// Response extension: the operation that answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    /// Operation id in the route matrix.
    pub(crate) name: &'static str,
    /// Path template in the route matrix.
    pub(crate) route: &'static str,
    /// Parameters of paths that the log may show.
    pub(crate) logged_parameters: LoggedParameters,
}

/// Parameters of paths that the log shows if the request succeeded, such as `{sku}`, each with the
/// check of its value. The log shows `{id}` always, if it is a UUID, and every other as `*`.
pub type LoggedParameters = &'static [(&'static str, fn(&str) -> bool)];

/// Method and path of a route, with `:` before each parameter.
pub type ServedRoute = (http::Method, String);

/// Defines an API enum with the variants of a domain enum, and conversions between the two.
#[macro_export]
macro_rules! api_enum {
    ($(#[$doc:meta])* $name:ident = $domain:path { $($variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, ::poem_openapi::Enum)]
        #[oai(rename_all = "camelCase")]
        pub(crate) enum $name { $($variant),+ }

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

/// Lets operations use `?` when they seal fields.
impl From<SealError> for poem::Error {
    fn from(error: SealError) -> Self {
        DbError::from(error).into()
    }
}

/// Lets operations use `?` on calls of the store. [`guard`] replaces a violated constraint by the
/// problem that the service declared for it.
impl From<DbError> for poem::Error {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Constraint { .. } => Self::new(error, http::StatusCode::INTERNAL_SERVER_ERROR),
            error => Problem::from(error).into(),
        }
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        match &error {
            // A retry helps once the master key is right, or if a rotation dropped the data key
            // meanwhile.
            DbError::Unavailable(_) | DbError::KeyDropped | DbError::MasterKey(_) => {
                coalesced!(warn, "database unavailable", %error, cause = causes(&error));
                Self::new(Kind::Unavailable)
            }
            // The first request ends within seconds: with its response, or rolled back.
            DbError::InFlight => Self::new(Kind::InFlight).header(http::header::RETRY_AFTER, HeaderValue::from(1)),
            DbError::State => Self::new(Kind::Conflict),
            // Another tenant's object looks like a missing one (AUTHZ-03).
            DbError::KeyDestroyed | DbError::OtherTenant => Self::new(Kind::NotFound),
            DbError::Broken(_)
            | DbError::Constraint { .. }
            | DbError::Inconsistent
            | DbError::Sealed(_)
            | DbError::Misuse(_) => {
                coalesced!(error, "database error", %error, cause = causes(&error));
                Self::new(Kind::Internal)
            }
        }
    }
}
