use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use thiserror::Error;
use uuid::Uuid;

use super::check_reason;
use crate::{
    domain::{QuotaName, TenantId},
    settings::LoginSettings,
    store::{Operator, OperatorError},
};

/// A quota for one tenant, wider or narrower than that of the settings (RATE-03).
#[derive(Args, Clone, Debug)]
pub struct Throttle {
    /// The tenant's UUID
    pub tenant: Uuid,
    /// `tenant` for all its callers together; `read`, `write`, `sensitive` or `export` for each of them
    pub quota: QuotaName,
    /// Calls per minute
    #[arg(value_parser = clap::value_parser!(i32).range(1..=1_000_000))]
    pub per_minute: i32,
    /// After so many hours the settings count again; 0 for at once
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(i64).range(0..=8_784))]
    pub hours: i64,
    /// Why, for whoever reads it later; the tenant's auditors do
    #[arg(long)]
    pub reason: String,
}

/// Why no quota was set.
#[derive(Debug, Error)]
pub enum NotThrottled {
    /// A value is out of bounds.
    #[error("{0}")]
    Value(&'static str),
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] OperatorError),
}

impl Throttle {
    /// Sets it, as the operator's login, and gives the time it ends. Every replica goes by it within two seconds.
    pub async fn set(&self, login: &LoginSettings, now: DateTime<Utc>) -> Result<DateTime<Utc>, NotThrottled> {
        check_reason(&self.reason).map_err(NotThrottled::Value)?;
        let until = now + TimeDelta::try_hours(self.hours).unwrap_or_default();
        let tenant = TenantId::from_uuid(self.tenant);
        let mut operator = Operator::connect(&login.url).await?;
        operator.set_quota(tenant, self.quota, self.per_minute, until, &self.reason).await?;
        Ok(until)
    }
}
