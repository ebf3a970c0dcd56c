//! What the internal listener has besides the operations of the API (AUTHN-18).

use std::str::FromStr;

/// What a service may call on the internal listener besides the operations of the API, each a right of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceRight {
    /// `metrics`: GET `/metrics`.
    Metrics,
}

impl ServiceRight {
    /// Its name in the settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
        }
    }
}

impl FromStr for ServiceRight {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "metrics" => Ok(Self::Metrics),
            _ => Err("expected `metrics`"),
        }
    }
}

/// The operations that only the internal listener has, and the right that each needs.
pub static INTERNAL: [InternalRow; 1] =
    [InternalRow { path: "/metrics", operation: "getMetrics", right: ServiceRight::Metrics }];

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InternalRow {
    /// The path. The method is GET, so far.
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
