//! Operations of the internal listener alone, and the service right that each requires (AUTHN-18).
//!
//! `internal/mod.rs` looks a request's path up here, before the operations of the public API.

pub use crate::model::ServiceRight;

use super::matrix::Method;

/// The operations that only the internal listener serves; none without the feature
/// `internal_listener`.
pub static INTERNAL: &[InternalRow] = if cfg!(feature = "internal_listener") { &ROWS } else { &[] };

const ROWS: [InternalRow; 3] = [
    InternalRow { method: Method::Get, path: "/metrics", operation: "getMetrics", right: ServiceRight::Metrics },
    InternalRow {
        method: Method::Post,
        path: "/incidents",
        operation: "handleIncident",
        right: ServiceRight::Incidents,
    },
    InternalRow { method: Method::Post, path: "/tenants", operation: "manageTenant", right: ServiceRight::Tenants },
];

/// One internal operation and the right it requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InternalRow {
    /// The only method of the path; `GET` includes `HEAD`.
    pub method: Method,
    /// The path, without parameters.
    pub path: &'static str,
    /// The operation's name in security events.
    pub operation: &'static str,
    /// The right that the settings must give to the calling service.
    pub right: ServiceRight,
}

/// Finds the internal operation of a path; `None` if the path is not an internal one.
#[must_use]
pub fn find(path: &str) -> Option<&'static InternalRow> {
    INTERNAL.iter().find(|row| row.path == path)
}
