//! Name and version of the program that runs, as its `App` states them.
//!
//! They are in the prefix of API keys, in telemetry, in requests to other servers, and in the
//! defaults of two settings.

use std::sync::OnceLock;

static PACKAGE: OnceLock<(&str, &str)> = OnceLock::new();

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
