//! `incident throttle`: a temporary rate limit for a tenant, for everyone or for a network
//! (RATE-03).
//!
//! Called by [`super::Incident`]. Checks that target and limit fit together and writes the override
//! with the operator's login; `quota::Overrides` of every replica loads it within two seconds.

use std::{net::IpAddr, str::FromStr};

use clap::Args;
use serde::Deserialize;

use super::{
    IncidentError, check_reason,
    incident::{MAX_HOURS, checked_hours, one_day},
};
use crate::{
    model::{ClientNetwork, Network, Override, QuotaName, TenantId},
    store::maintenance::{Operator, OperatorError},
};

/// A temporary limit, higher or lower than the configured one (RATE-03, LOG-08).
#[derive(Args, Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Throttle {
    /// The UUID of a tenant; `everyone`, for tenants without a limit of their own; or an IP address
    /// or network. An IPv6 address without a length is its /64
    pub target: ThrottleTarget,
    /// `tenant` limits all callers of a tenant together; `read`, `write`, `sensitive` and `export`
    /// limit each of them; `address` limits each address of a network before authentication
    pub limit: LimitName,
    /// Calls per minute; 0 is allowed for the limit `address` only, and blocks the network
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub per_minute: u32,
    /// Hours until the configured limit applies again; 0 ends the override at once
    #[arg(long, default_value_t = one_day(), value_parser = clap::value_parser!(i32).range(0..=MAX_HOURS as i64))]
    #[serde(default = "one_day")]
    pub hours: i32,
    /// Reason, recorded in the audit trail, where auditors of the tenant can read it
    #[arg(long)]
    pub reason: String,
}

/// What a limit applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ThrottleTarget {
    /// One tenant.
    Tenant(TenantId),
    /// All tenants without a limit of their own.
    Everyone,
    /// All addresses of a network.
    Network(Network),
}

/// The limit that is overridden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LimitName {
    /// A quota of authenticated callers.
    Quota(QuotaName),
    /// The limit per client address.
    Address,
}

impl FromStr for ThrottleTarget {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let tenant = || s.parse().ok().map(Self::Tenant);
        // Events name the /64 of an IPv6 client by its first address.
        let client = s.parse::<IpAddr>().map(|address| ClientNetwork::narrowest(address).into());
        let network = || client.or_else(|_| s.parse()).ok().map(Self::Network);
        let everyone = (s == "everyone").then_some(Self::Everyone);
        everyone.or_else(tenant).or_else(network).ok_or("expected the UUID of a tenant, `everyone`, or a network")
    }
}

impl FromStr for LimitName {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match (s, s.parse()) {
            ("address", _) => Ok(Self::Address),
            (_, Ok(name)) => Ok(Self::Quota(name)),
            _ => Err("expected tenant, read, write, sensitive, export or address"),
        }
    }
}

impl TryFrom<String> for ThrottleTarget {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl TryFrom<String> for LimitName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Throttle {
    /// Sets the limit. Every replica applies it within two seconds.
    pub(super) async fn run(
        &self,
        connect: impl AsyncFnOnce() -> Result<Operator, OperatorError>,
    ) -> Result<String, IncidentError> {
        check_reason(&self.reason).map_err(IncidentError::Invalid)?;
        let hours = checked_hours(self.hours)?;
        let per_minute = self.per_minute;
        let limit = match (self.target, self.limit) {
            _ if per_minute > 1_000_000 => return Err(IncidentError::Invalid("at most 1000000 calls per minute")),
            (ThrottleTarget::Network(network), LimitName::Address) if network.is_wider_than(8, 32) => {
                return Err(IncidentError::Invalid("a network must not be wider than /8 (IPv4) or /32 (IPv6)"));
            }
            (ThrottleTarget::Network(network), LimitName::Address) => Override::NetworkLimit { network, per_minute },
            (ThrottleTarget::Network(_), _) | (_, LimitName::Address) => {
                return Err(IncidentError::Invalid("a network has the limit `address`, and no other target has it"));
            }
            _ if per_minute == 0 => return Err(IncidentError::Invalid("only the limit `address` may be 0")),
            (ThrottleTarget::Everyone, LimitName::Quota(name)) => Override::GlobalQuota { name, per_minute },
            (ThrottleTarget::Tenant(tenant), LimitName::Quota(name)) => {
                Override::TenantQuota { tenant, name, per_minute }
            }
        };
        let until = connect().await?.apply_override(&limit, hours, &self.reason).await?;
        Ok(format!("{limit} until {}", until.to_rfc3339()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_08_bare_ipv6_address_is_throttled_as_its_network() {
        for (text, network) in [
            ("2001:db8:7:8::", "2001:db8:7:8::/64"),
            ("2001:db8:7:8:1:2:3:4", "2001:db8:7:8::/64"),
            ("2001:db8:7:8:1:2:3:4/128", "2001:db8:7:8:1:2:3:4/128"),
            ("2001:db8:7::/48", "2001:db8:7::/48"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.7", "192.0.2.7/32"),
        ] {
            let expected = ThrottleTarget::Network(network.parse().unwrap());
            assert_eq!(text.parse::<ThrottleTarget>(), Ok(expected), "{text}");
        }
    }
}
