//! What the internal listener has besides the operations of the API (AUTHN-18).

use std::str::FromStr;

use super::matrix::Method;

/// What a service may call on the internal listener besides the operations of the API, each a right of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceRight {
    /// `incidents`: POST `/incidents`, which is as much as the operator's login at the command line.
    Incidents,
    /// `metrics`: GET `/metrics`.
    Metrics,
}

impl ServiceRight {
    /// Its name in the settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Incidents => "incidents",
            Self::Metrics => "metrics",
        }
    }
}

impl FromStr for ServiceRight {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "incidents" => Ok(Self::Incidents),
            "metrics" => Ok(Self::Metrics),
            _ => Err("expected `metrics` or `incidents`"),
        }
    }
}

/// The operations that only the internal listener has, and the right that each needs.
pub static INTERNAL: [InternalRow; 2] = [
    InternalRow { method: Method::Get, path: "/metrics", operation: "getMetrics", right: ServiceRight::Metrics },
    InternalRow {
        method: Method::Post,
        path: "/incidents",
        operation: "handleIncident",
        right: ServiceRight::Incidents,
    },
];

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InternalRow {
    /// The only method of the path; GET has HEAD.
    pub method: Method,
    /// The path.
    pub path: &'static str,
    /// Its name in events.
    pub operation: &'static str,
    /// What the service's certificate must have been given.
    pub right: ServiceRight,
}

/// The operation of a path, if only this listener has it.
#[must_use]
pub fn find(path: &str) -> Option<&'static InternalRow> {
    INTERNAL.iter().find(|row| row.path == path)
}
