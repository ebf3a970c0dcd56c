//! The development stack: everything the service needs on one machine, started by one command.
//!
//! Behind the feature `dev`, which a release build does not have: such a binary contains no
//! issuer and no demo data. The tests use the same parts.

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
