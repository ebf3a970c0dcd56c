use std::str::FromStr;

use clap::Args;
use serde::Deserialize;

use super::{
    NotDone, check_reason,
    incident::{MAX_HOURS, checked_hours, one_day},
};
use crate::{
    domain::{Measure, Network, QuotaName, TenantId},
    store::{Operator, OperatorError},
};

/// A limit wider or narrower than that of the settings, for a while (RATE-03, LOG-08).
#[derive(Args, Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Throttle {
    /// A tenant's UUID; `everyone`, for tenants that have none of their own; or an address or network
    pub whom: Whom,
    /// `tenant` for all callers of a tenant together; `read`, `write`, `sensitive` or `export` for each of them; `address`
    /// for each address of a network, in front of everything else
    pub limit: Limit,
    /// Calls per minute; 0, for addresses alone, to answer nobody there
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub per_minute: u32,
    /// After so many hours the settings count again; 0 for at once
    #[arg(long, default_value_t = one_day(), value_parser = clap::value_parser!(i32).range(0..=MAX_HOURS as i64))]
    #[serde(default = "one_day")]
    pub hours: i32,
    /// Why, for whoever reads it later; a tenant's auditors do
    #[arg(long)]
    pub reason: String,
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Whom {
    /// A tenant.
    Tenant(TenantId),
    /// All whose tenant has none of its own.
    Everyone,
    /// Whoever calls from there.
    Network(Network),
}

/// Which limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Limit {
    /// Of callers who are known.
    Quota(QuotaName),
    /// Of an address.
    Address,
}

impl FromStr for Whom {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let tenant = || s.parse().ok().map(Self::Tenant);
        let network = || s.parse().ok().map(Self::Network);
        let everyone = (s == "everyone").then_some(Self::Everyone);
        everyone.or_else(tenant).or_else(network).ok_or("expected a tenant's UUID, `everyone`, or a network")
    }
}

impl FromStr for Limit {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match (s, s.parse()) {
            ("address", _) => Ok(Self::Address),
            (_, Ok(name)) => Ok(Self::Quota(name)),
            _ => Err("expected tenant, read, write, sensitive, export or address"),
        }
    }
}

impl TryFrom<String> for Whom {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl TryFrom<String> for Limit {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Throttle {
    /// Sets it. Every replica goes by it within two seconds.
    pub(super) async fn run(
        &self,
        connect: impl AsyncFnOnce() -> Result<Operator, OperatorError>,
    ) -> Result<String, NotDone> {
        check_reason(&self.reason).map_err(NotDone::Value)?;
        let hours = checked_hours(self.hours)?;
        let per_minute = self.per_minute;
        let order = match (self.whom, self.limit) {
            _ if per_minute > 1_000_000 => return Err(NotDone::Value("at most 1000000 calls per minute")),
            (Whom::Network(network), Limit::Address) if network.is_too_wide() => {
                return Err(NotDone::Value("a network is no wider than /8 of IPv4 or /32 of IPv6"));
            }
            (Whom::Network(network), Limit::Address) => Measure::Address { network, per_minute },
            (Whom::Network(_), _) | (_, Limit::Address) => {
                return Err(NotDone::Value("a network has the limit `address`, and nobody else has"));
            }
            _ if per_minute == 0 => return Err(NotDone::Value("only addresses may have 0 calls per minute")),
            (Whom::Everyone, Limit::Quota(name)) => Measure::Class { name, per_minute },
            (Whom::Tenant(tenant), Limit::Quota(name)) => Measure::Tenant { tenant, name, per_minute },
        };
        let until = connect().await?.order(&order, hours, &self.reason).await?;
        Ok(format!("{order} until {}", until.to_rfc3339()))
    }
}
