//! A secure orders and billing API for many tenants.
//!
//! # Modules
//!
//! Lowest layer first; a module imports only from earlier rows.
//! `tests/suite/architecture.rs` fails on an import in the other direction.
//!
//! | module | job |
//! |---|---|
//! | [`problem`] | errors as RFC 9457 problem details |
//! | [`domain`] | pure types and rules: orders, invoices, money, rights |
//! | `json` | strict JSON reader: no duplicate keys, bounded depth |
//! | [`telemetry`] | log, metrics, traces, security events |
//! | [`crypto`] | keys, sealed fields, blind indexes |
//! | [`settings`] | typed configuration, all faults reported at once |
//! | [`db`] | connection pools, role checks, credentials, data keys; no tenant data |
//! | [`authn`] | credential → [`Principal`](authn::Principal) |
//! | [`authz`] | principal + operation → [`Permit`](authz::Permit), by route matrix and roles |
//! | [`quota`] | token buckets per principal and tenant, operator overrides |
//! | [`store`] | all SQL on tenant data; a transaction needs a permit |
//! | [`http`] | request pipeline, strict parsing, OpenAPI document |
//! | [`edge`] | listener, TLS, client address, limits, request validation |
//! | [`api`] | operations and schemas; no SQL, no policy |
//! | [`ops`] | operator commands: keys, audit, incidents, backup |
//! | [`internal`] | operations of the internal listener |
//! | [`app`] | composition root: settings in, running service out |
//! | `dev` | feature `dev`: private PostgreSQL, development issuer, demo data |
//!
//! # One request
//!
//! `edge` finds the client address, applies its limits and validates the request. `http` then
//! authenticates (`authn`), counts (`quota`), authorizes (`authz`) and parses the body. The
//! operation in `api` gets a `Permit` and calls `store`, which confines every statement to the
//! tenant of that permit.

pub mod api;
pub mod app;
pub mod authn;
pub mod authz;
pub mod crypto;
pub mod db;
#[cfg(feature = "dev")]
pub mod dev;
pub mod domain;
pub mod edge;
pub mod http;
pub mod internal;
mod json;
pub mod ops;
pub mod problem;
pub mod quota;
pub mod settings;
pub mod store;
pub mod telemetry;
