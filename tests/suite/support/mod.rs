//! The vocabulary of the suite: the test kit ([`palisade_test`]), the [`SERVICE`] under test, and
//! what only tests of orders and billing need.
//!
//! Everything that more than one test file needs lives here; test files do not import each other.

mod billing_fixture;
pub mod promtool;

use std::sync::LazyLock;

use palisade::{
    authz::{Matrix, Role},
    dev::{
        issuer::DevIssuer,
        people::{Person, Tenant},
    },
    model::Clock,
};
pub use palisade_test::*;
use service::{access::ACCESS, app};

pub use billing_fixture::{BillingFixture, id, id_of, order_body, search};

/// The service of this repository.
pub static SERVICE: LazyLock<TestService> =
    LazyLock::new(|| TestService::new(app()).with_binary(env!(concat!("CARGO_BIN_EXE_", env!("CARGO_PKG_NAME")))));

/// Its route matrix.
pub static MATRIX: LazyLock<Matrix> = LazyLock::new(|| SERVICE.matrix());

/// The demo person with this tenant and role.
pub fn person(tenant: &Tenant, role: Role) -> Person {
    SERVICE.person(tenant, role)
}

pub async fn start_issuer(clock: Clock) -> DevIssuer {
    issuer_of(ACCESS.rights, clock).await
}

/// Whether there is a setting with this variable.
pub fn is_setting(variable: &str) -> bool {
    let mut rows = app().sections().all().flat_map(|section| section.rows);
    let is_named = |name: &String| match name.split_once("<NAME>") {
        Some((start, end)) => variable.starts_with(start) && variable.ends_with(end),
        None => name == variable,
    };
    rows.any(|row| row.variables().iter().any(is_named))
}
