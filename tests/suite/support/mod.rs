//! What tests are written in: a [`TestApp`], and actors that call it.

mod actor;
mod app;
mod postgres;
mod tokens;

pub use actor::{Actor, Reply};
pub use app::{ACME, GLOBEX, TestApp, person, start_issuer};
pub use postgres::{run, test_database};
pub use tokens::Forge;
