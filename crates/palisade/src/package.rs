//! Name, version and schema of the program that runs, as its `App` states them.
//!
//! They are in the prefix of API keys, in telemetry, in requests to other servers, and in the
//! defaults of two settings.

use std::{borrow::Cow, sync::OnceLock};

use sqlx::migrate::Migrator;

static PACKAGE: OnceLock<(&str, &str)> = OnceLock::new();

static SCHEMA: OnceLock<(&Migrator, &str)> = OnceLock::new();

/// The migrations of a service without tables.
static NO_MIGRATIONS: Migrator = Migrator { migrations: Cow::Borrowed(&[]), ..Migrator::DEFAULT };

/// States the migrations of the service's tables, and the reviewed rights of each login on them.
/// Only the first call has an effect.
pub(crate) fn set_schema(migrations: &'static Migrator, rights: &'static str) {
    // An error means that they are set.
    let _ = SCHEMA.set((migrations, rights));
}

/// The migrations of the service's tables.
pub(crate) fn migrations() -> &'static Migrator {
    SCHEMA.get().map_or(&NO_MIGRATIONS, |(migrations, _)| migrations)
}

/// The reviewed rights of each login on the service's tables.
pub(crate) fn rights() -> &'static str {
    SCHEMA.get().map_or("", |(_, rights)| rights)
}

/// States name and version. Only the first call has an effect: a process runs one service.
pub(crate) fn set(name: &'static str, version: &'static str) {
    // An error means that they are set.
    let _ = PACKAGE.set((name, version));
}

/// The name of the package. Before [`set`], that of this crate.
#[must_use]
pub fn name() -> &'static str {
    PACKAGE.get().map_or(env!("CARGO_PKG_NAME"), |(name, _)| name)
}

/// The version of the package. Before [`set`], that of this crate.
#[must_use]
pub fn version() -> &'static str {
    PACKAGE.get().map_or(env!("CARGO_PKG_VERSION"), |(_, version)| version)
}

/// The `User-Agent` of requests to other servers.
pub(crate) fn user_agent() -> String {
    format!("{}/{}", name(), version())
}
