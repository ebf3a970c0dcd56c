//! The development stack: PostgreSQL, OIDC issuer, demo data and API, started by one command.
//!
//! The feature `dev` enables this module. Release builds do not have it, so a release binary
//! contains neither the issuer nor the demo data. The tests use the same parts.

mod banner;
mod certificates;
pub mod database;
mod files;
pub mod issuer;
pub mod people;
pub mod postgres;
mod run;
mod seed;

pub use run::{Options, run};
pub use seed::{data_key, index_keys, seed};

use std::fmt::Display;

/// The folder of this crate's sources, for checks of a service that read them: `crates/palisade`, or
/// a checkout of the tag that a project depends on.
pub const SOURCES: &str = env!("CARGO_MANIFEST_DIR");

/// Why the stack does not start: a text for the developer at the terminal.
pub type DevError = Box<dyn std::error::Error + Send + Sync>;

/// Says what failed, for `map_err`.
fn failed<E: Display>(what: impl Display) -> impl FnOnce(E) -> DevError {
    move |error| format!("{what}: {error}").into()
}
