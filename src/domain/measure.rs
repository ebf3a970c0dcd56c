use std::fmt;

use chrono::{DateTime, Utc};

use super::{Network, QuotaName, TenantId};

/// What an operator ordered, for a while (LOG-08).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Another quota for a tenant.
    Tenant {
        /// Whose it is.
        tenant: TenantId,
        /// Which.
        name: QuotaName,
        /// Calls per minute.
        per_minute: u32,
    },
    /// Another quota for all whose tenant has none of its own.
    Class {
        /// Which.
        name: QuotaName,
        /// Calls per minute.
        per_minute: u32,
    },
    /// A limit for each address of a network, instead of the usual one.
    Address {
        /// Which addresses.
        network: Network,
        /// Calls per minute; with 0 nobody there is answered.
        per_minute: u32,
    },
    /// Nobody changes anything.
    ReadOnly,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant { tenant, name, per_minute } => write!(f, "{name} of {tenant}: {per_minute} a minute"),
            Self::Class { name, per_minute } => write!(f, "{name} of everyone: {per_minute} a minute"),
            Self::Address { network, per_minute } => write!(f, "each address of {network}: {per_minute} a minute"),
            Self::ReadOnly => f.write_str("read-only"),
        }
    }
}

/// A measure, and when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// What was ordered.
    pub measure: Measure,
    /// From then on it does not count.
    pub until: DateTime<Utc>,
}
