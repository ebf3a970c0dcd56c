//! The development stack: PostgreSQL, OIDC issuer, demo data and API, started by one command.
//!
//! The feature `dev` enables this module. Release builds do not have it, so a release binary
//! contains neither the issuer nor the demo data. The tests use the same parts.

mod banner;
mod certificates;
pub mod database;
pub mod demo;
mod demo_customers;
mod files;
pub mod issuer;
pub mod postgres;
mod run;

pub use run::{DevError, Options, run};
