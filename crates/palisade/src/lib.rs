//! The kernel of secure multi-tenant APIs.
//!
//! A service declares what it adds in an [`App`] and hands it to [`cli::run`]. The types that carry
//! authority, such as [`authz::Permit`] and [`store::Locked`], have private fields, so that only
//! this crate makes them.
//!
//! The feature `internals` makes public what a service has no use for, such as its keys and
//! settings, and modules that need no permit: for tests only.
//!
//! # Modules
//!
//! Lowest layer first; a module imports only from earlier rows. `tests/architecture.rs`
//! fails on an import in the other direction.
//!
//! | module | job |
//! |---|---|
//! | [`package`] | name and version of the program |
//! | [`problem`] | errors as RFC 9457 problem details |
//! | [`model`] | pure types that every service has: tenants, API keys, rights, time |
//! | `json` | strict JSON reader: no duplicate keys, bounded depth |
//! | [`telemetry`] | log, metrics, traces, security events |
//! | [`crypto`] | keys, sealed fields, blind indexes |
//! | [`settings`](mod@settings) | typed configuration, all faults reported at once |
//! | [`outbound`] | guarded HTTP client for calls to other services |
//! | [`db`] | connection pools, role checks, credentials, data keys; no tenant data |
//! | [`authn`] | credential → [`Principal`](authn::Principal) |
//! | [`authz`] | principal + operation → [`Permit`](authz::Permit), by route matrix and roles |
//! | [`quota`] | token buckets per principal and tenant, operator overrides |
//! | [`store`] | all SQL on tenant data; a transaction needs a permit |
//! | [`http`] | request pipeline, strict parsing, OpenAPI document |
//! | [`edge`] | listener, TLS, client address, limits, request validation |
//! | [`operations`] | operations that every service has; joins them with those of the service |
//! | [`ops`] | operator commands: keys, audit, incidents, backup |
//! | [`internal`] | operations of the internal listener |
//! | [`app`](mod@app) | what a service adds to the kernel; settings in, running service out |
//! | `dev` | feature `dev`: private PostgreSQL, development issuer, people |
//! | [`cli`] | the command line |
//!
//! # One request
//!
//! `edge` finds the client address, applies its limits and validates the request. `http` then
//! authenticates (`authn`), counts (`quota`), authorizes (`authz`) and parses the body. The
//! operation of the service gets a `Permit` and calls `store`, which confines every statement to the
//! tenant of that permit.

// Modules that need no permit are public for tests only, and some code is for API keys only. The
// build with both features has every lint.
#![cfg_attr(
    not(all(feature = "internals", feature = "api_keys")),
    allow(unreachable_pub, unused, reason = "public for tests, or used by a feature")
)]

/// Makes an item public for tests only.
macro_rules! internal {
    ($(#[$meta:meta])* pub $($item:tt)+) => {
        #[cfg(feature = "internals")]
        $(#[$meta])*
        pub $($item)+
        #[cfg(not(feature = "internals"))]
        $(#[$meta])*
        pub(crate) $($item)+
    };
}

#[cfg(feature = "internals")]
pub mod app;
#[cfg(not(feature = "internals"))]
mod app;
#[cfg(feature = "internals")]
pub mod authn;
#[cfg(not(feature = "internals"))]
mod authn;
pub mod authz;
pub mod cli;
pub mod crypto;
#[cfg(feature = "internals")]
pub mod db;
#[cfg(not(feature = "internals"))]
mod db;
#[cfg(feature = "dev")]
pub mod dev;
#[cfg(feature = "internals")]
pub mod edge;
#[cfg(not(feature = "internals"))]
mod edge;
pub mod http;
#[cfg(feature = "internals")]
#[cfg_attr(not(feature = "internal_listener"), path = "internal/without_internal_listener.rs")]
pub mod internal;
#[cfg(not(feature = "internals"))]
#[cfg_attr(not(feature = "internal_listener"), path = "internal/without_internal_listener.rs")]
mod internal;
mod json;
pub mod model;
pub mod operations;
#[cfg(feature = "internals")]
pub mod ops;
#[cfg(not(feature = "internals"))]
mod ops;
#[cfg(feature = "internals")]
pub mod outbound;
#[cfg(not(feature = "internals"))]
mod outbound;
#[cfg(feature = "internals")]
pub mod package;
#[cfg(not(feature = "internals"))]
mod package;
pub mod problem;
#[cfg(feature = "internals")]
pub mod quota;
#[cfg(not(feature = "internals"))]
mod quota;
pub mod settings;
pub mod store;
pub mod telemetry;

/// The version of the kernel.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub use app::App;
#[cfg(feature = "dev")]
pub use app::{Demo, DemoError, DemoFile, DemoKeys, Request, SeedFuture, Stack};
