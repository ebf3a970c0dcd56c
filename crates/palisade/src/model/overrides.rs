//! Operator overrides, as the command line, the database and [`crate::quota`] exchange them
//! (LOG-08).

use std::fmt;

use chrono::{DateTime, Utc};

use super::{Network, QuotaName, TenantId};

/// A setting that an operator changes for a limited time (LOG-08).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Override {
    /// The quota of one tenant.
    TenantQuota {
        /// The tenant.
        tenant: TenantId,
        /// The name of the quota.
        name: QuotaName,
        /// Calls per minute.
        per_minute: u32,
    },
    /// A quota of all tenants that have no override for it.
    GlobalQuota {
        /// The name of the quota.
        name: QuotaName,
        /// Calls per minute.
        per_minute: u32,
    },
    /// A limit for each address of a network, instead of the rate limit per address.
    NetworkLimit {
        /// The network.
        network: Network,
        /// Calls per minute; 0 blocks the network.
        per_minute: u32,
    },
    /// Read-only mode: the service rejects all changes.
    ReadOnly,
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TenantQuota { tenant, name, per_minute } => {
                write!(f, "{name} quota of {tenant}: {per_minute} per minute")
            }
            Self::GlobalQuota { name, per_minute } => write!(f, "{name} quota of all tenants: {per_minute} per minute"),
            Self::NetworkLimit { network, per_minute } => {
                write!(f, "each address of {network}: {per_minute} per minute")
            }
            Self::ReadOnly => f.write_str("read-only mode"),
        }
    }
}

/// An override and its expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveOverride {
    /// The override.
    pub value: Override,
    /// The time at which it expires.
    pub until: DateTime<Utc>,
}
