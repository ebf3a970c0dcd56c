//! A secure orders and billing API for many tenants.
//!
//! # Layout
//!
//! The modules are rooms, listed in the order a request walks through them. A room calls
//! only rooms further down; what travels down with the request are values that carry
//! authority and that only one room can make: a [`Principal`](authn::Principal), a
//! [`Permit`](authz::Permit), a tenant-scoped [transaction](store::ReadTx).
//!
//! | room | what happens there |
//! |---|---|
//! | [`edge`] | the listener, limits, throttle per address, panic fence, headers |
//! | [`authn`] | credential → `Principal` |
//! | [`authz`] | `Principal` + operation → `Permit`, by the route matrix and the role policy |
//! | [`quota`] | how much a principal and a tenant may ask for |
//! | [`api`] | operations and schemas: strict parsing; no SQL, no policy |
//! | [`domain`] | pure types and rules |
//! | [`crypto`] | keys and what is done with them |
//! | [`store`] | all SQL; opens a transaction only for a `Permit` |
//!
//! Beside the way: [`settings`] (typed configuration), [`telemetry`] (logs and security
//! events), [`problem`] (every error as RFC 9457), `json` (read strictly), [`ops`] (what
//! operators do in an incident), [`measures`] (what they ordered), `reload` (secrets that change), [`app`] (puts it all together), and, with the feature `dev`
//! only, `dev` (private PostgreSQL, development issuer, demo data).

pub mod api;
pub mod app;
pub mod authn;
pub mod authz;
pub mod crypto;
#[cfg(feature = "dev")]
pub mod dev;
pub mod domain;
pub mod edge;
mod json;
pub mod measures;
pub mod ops;
pub mod problem;
pub mod quota;
mod reload;
pub mod settings;
pub mod store;
pub mod telemetry;
