//! Rotating the keys of sealed fields, from the command line. docs/keys.md says when to do what.

use std::{collections::BTreeSet, time::Duration};

use clap::{Args, Subcommand};
use thiserror::Error;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    crypto::MasterKeys,
    domain::{Clock, TenantId},
    settings::{LoginSettings, Settings},
    store::{Database, Operator, OperatorError, Position, Rewrapped, StoreError, UnfitDatabase},
    telemetry::event,
};

/// How often a rotation looks for who got the data key before, once everybody should know the new one.
const LAST_PASSES: usize = 5;

/// How keys are renewed.
#[derive(Clone, Debug, Subcommand)]
pub enum Keys {
    /// Say which keys there are and how many customers need each; fails if a key is missing
    Status,
    /// Wrap every data key with the first master key, or that of the vault (with `APP_DATABASE__OPERATOR_URL`)
    Rewrap,
    /// Give every tenant, or one, a new data key and seal everything anew with it
    Rotate {
        /// Which, and how fast
        #[command(flatten)]
        pass: Pass,
    },
    /// Go on where a rotation was stopped; also brings blind indexes to the first key of `APP_KEYS__INDEX`
    Reseal {
        /// Which, and how fast
        #[command(flatten)]
        pass: Pass,
    },
}

/// A pass over customers.
#[derive(Args, Clone, Copy, Debug)]
pub struct Pass {
    /// Only this tenant
    #[arg(long)]
    pub tenant: Option<Uuid>,
    /// Customers a second at most, so that callers do not notice
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub pace: u32,
}

impl Pass {
    /// Of all tenants, or one, as fast as usual.
    #[must_use]
    pub fn of(tenant: Option<Uuid>) -> Self {
        Self { tenant, pace: 1_000 }
    }
}

/// Why nothing was done with keys, or not all of it; what was done stays.
#[derive(Debug, Error)]
pub enum KeysError {
    /// The database is not fit, or a master key is missing.
    #[error(transparent)]
    Unfit(#[from] UnfitDatabase),
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operator's login did not do it.
    #[error(transparent)]
    Operator(#[from] OperatorError),
    /// Some replica goes on with an older data key, for longer than its settings would explain.
    #[error(
        "customers still get an older data key, {0} before the last pass: see that every replica answers; `keys reseal` goes on"
    )]
    Late(usize),
    /// A key is needed.
    #[error("{which} is needed: {why}")]
    Needed {
        /// Which.
        which: String,
        /// By what.
        why: String,
    },
    /// Everything else was done.
    #[error("{customers} customers and {tenants} tenants could not be opened; the log says which and why")]
    Unreadable {
        /// Customers that do not open.
        customers: usize,
        /// Tenants whose data keys do not open.
        tenants: usize,
    },
    /// All others were wrapped anew.
    #[error("{0} data keys do not open with the master keys there are; each is an event `sealed_data_invalid`")]
    Unopened(usize),
    /// A value is not one.
    #[error("{0}")]
    Value(&'static str),
}

impl Keys {
    /// Whether it takes the operator's login.
    #[must_use]
    pub fn is_for_operators(&self) -> bool {
        matches!(self, Self::Rewrap)
    }

    /// Does it, and says by `tell` how it goes on, a line at a time.
    pub async fn run(
        &self,
        settings: &Settings,
        operator: Option<&LoginSettings>,
        clock: &Clock,
        mut tell: impl FnMut(String),
    ) -> Result<(), KeysError> {
        let database = Database::new(settings, clock.clone())?;
        database.check_fit().await?;
        match self {
            Self::Status => status(&database, &mut tell).await,
            Self::Rewrap => {
                let operator = operator.ok_or(KeysError::Value("APP_DATABASE__OPERATOR_URL is required"))?;
                let master = MasterKeys::new(&settings.keys).map_err(OperatorError::from)?;
                let rewrapped = Operator::connect(&operator.url).await?.rewrap(&master).await?;
                let Rewrapped { primary, moved, unopened } = rewrapped;
                event::keys_rotated("master", &primary);
                tell(format!("{moved} data keys are now wrapped by {primary}"));
                if unopened == 0 { Ok(()) } else { Err(KeysError::Unopened(unopened)) }
            }
            Self::Rotate { pass } => rotate(&database, pass, &mut tell).await,
            Self::Reseal { pass } => {
                let tenants = tenants(&database, pass.tenant).await?;
                reseal(&database, &tenants, pass.pace, &mut tell).await?.complete()
            }
        }
    }
}

/// Gives every tenant, or one, a new data key and seals everything anew with it. Says by `tell` how it goes on, a line at a
/// time. It takes a second for so many customers as the pace is, or some thirteen seconds if that is less; broken off, `keys reseal` goes on.
pub async fn rotate(database: &Database, pass: &Pass, tell: &mut impl FnMut(String)) -> Result<(), KeysError> {
    let tenants = tenants(database, pass.tenant).await?;
    for tenant in &tenants {
        let version = database.add_data_key(*tenant).await?;
        event::keys_rotated(&tenant.to_string(), &version.to_string());
        tell(format!("{tenant}: data key {version}"));
    }
    // From now on, what replicas still seal with the one before is found by the last pass.
    let since = Instant::now();
    reseal(database, &tenants, pass.pace, tell).await?;
    tokio::time::sleep_until(since + database.settles_in()).await;
    // Until nobody is found any more who got the one before, whoever was slower than that.
    let mut late = 0;
    for _ in 0..LAST_PASSES {
        let left = reseal(database, &tenants, pass.pace, tell).await?;
        late = left.late;
        if late == 0 {
            return left.complete();
        }
    }
    Err(KeysError::Late(late))
}

async fn tenants(database: &Database, only: Option<Uuid>) -> Result<Vec<TenantId>, KeysError> {
    let mut tenants = database.tenants_with_keys().await?;
    if let Some(only) = only.map(TenantId::from_uuid) {
        tenants.retain(|tenant| *tenant == only);
        if tenants.is_empty() {
            return Err(KeysError::Value("there is no such tenant, or it has nothing sealed"));
        }
    }
    Ok(tenants)
}

async fn status(database: &Database, tell: &mut impl FnMut(String)) -> Result<(), KeysError> {
    let mut left = Left::default();
    for tenant in database.tenants_with_keys().await? {
        let (data_keys, index_keys) = database.key_uses(tenant).await?;
        let mut whole = true;
        for key in database.data_keys(tenant).await? {
            let needed = data_keys.iter().find(|needed| needed.version == key.version);
            let customers = needed.map_or(0, |needed| needed.customers);
            let fault = key.fault.map_or_else(String::new, |fault| format!(", and does not open: {fault}"));
            whole &= fault.is_empty();
            let (version, master) = (key.version, key.wrapped_by);
            tell(format!("{tenant}: data key {version}, wrapped by {master}: {customers} customers{fault}"));
        }
        if !whole {
            left.closed.insert(tenant);
        }
        for needed in index_keys {
            tell(format!("{tenant}: index key {}: {} customers", needed.version, needed.customers));
        }
    }
    left.complete()
}

/// What a pass came across.
#[derive(Default)]
struct Left {
    /// Customers who had an older data key, and have the newest now.
    late: usize,
    /// Customers that do not open.
    unreadable: usize,
    /// Tenants whose data keys do not open; not all of their customers were tried.
    closed: BTreeSet<TenantId>,
}

impl Left {
    fn complete(self) -> Result<(), KeysError> {
        let (customers, tenants) = (self.unreadable, self.closed.len());
        if customers + tenants == 0 { Ok(()) } else { Err(KeysError::Unreadable { customers, tenants }) }
    }
}

/// Who cannot be opened is left as they are, counted, and does not keep the others from being sealed anew.
async fn reseal(
    database: &Database,
    tenants: &[TenantId],
    pace: u32,
    tell: &mut impl FnMut(String),
) -> Result<Left, KeysError> {
    let mut left = Left::default();
    for tenant in tenants {
        let (mut total, mut next) = (0, Some(Position::start()));
        while let Some(from) = next {
            let began = Instant::now();
            let batch = match database.reseal_batch(*tenant, from).await {
                Ok(batch) => batch,
                Err(error @ (StoreError::MasterKey(_) | StoreError::KeyDestroyed)) => {
                    left.closed.insert(*tenant);
                    tell(format!("{tenant}: {error}"));
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            total += batch.resealed;
            left.late += batch.late;
            left.unreadable += batch.unreadable;
            next = batch.next;
            if batch.resealed > 0 || next.is_none() {
                let done = if next.is_none() { "done, " } else { "" };
                tell(format!("{tenant}: {done}{total} customers sealed anew"));
            }
            let customers = u32::try_from(batch.resealed).unwrap_or(u32::MAX);
            tokio::time::sleep_until(began + Duration::from_secs(1) * customers / pace).await;
        }
    }
    Ok(left)
}
