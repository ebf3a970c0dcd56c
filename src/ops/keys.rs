//! Rotating the keys of sealed fields, from the command line. docs/keys.md says when to do what.

use std::time::Duration;

use clap::{Args, Subcommand};
use thiserror::Error;
use tokio::time::Instant;
use uuid::Uuid;

use super::check_reason;
use crate::{
    crypto::MasterKeys,
    domain::{Clock, TenantId},
    settings::{LoginSettings, Settings},
    store::{Database, Operator, OperatorError, Position, Rewrapped, StoreError, UnfitDatabase},
    telemetry::event,
};

/// What to do with keys.
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
    /// Drop a data key that nothing needs any more (with `APP_DATABASE__OPERATOR_URL`)
    Drop {
        /// The tenant's UUID
        tenant: Uuid,
        /// The version
        version: i32,
    },
    /// Forget a key of blind indexes that nothing needs any more, before it is left out of `APP_KEYS__INDEX` (with
    /// `APP_DATABASE__OPERATOR_URL`)
    ForgetIndex {
        /// The version
        version: u16,
    },
    /// Destroy all data keys of a tenant that has left: nobody reads its customers in this database again, and it can
    /// add none (with `APP_DATABASE__OPERATOR_URL`)
    Destroy {
        /// The tenant's UUID
        tenant: Uuid,
        /// Why, for whoever reads it later
        #[arg(long)]
        reason: String,
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
        matches!(self, Self::Rewrap | Self::Drop { .. } | Self::ForgetIndex { .. } | Self::Destroy { .. })
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
        // These need no key, and must not wait for who keeps them, nor for one that does not open and is to go.
        if !matches!(self, Self::Destroy { .. } | Self::Drop { .. }) {
            database.check_fit().await?;
        }
        let operator = async || match operator {
            Some(login) => Ok(Operator::connect(&login.url).await?),
            None => Err(KeysError::Value("APP_DATABASE__OPERATOR_URL is required")),
        };
        match self {
            Self::Status => status(&database, &mut tell).await,
            Self::Rewrap => {
                let master = MasterKeys::new(&settings.keys).map_err(OperatorError::from)?;
                let Rewrapped { primary, moved, unopened } = operator().await?.rewrap(&master).await?;
                event::keys_rotated("master", &primary);
                tell(format!("{moved} data keys are now wrapped by {primary}"));
                if unopened == 0 { Ok(()) } else { Err(KeysError::Unopened(unopened)) }
            }
            Self::Rotate { pass } => rotate(&database, pass, &mut tell).await,
            Self::Reseal { pass } => {
                reseal(&database, &tenants(&database, pass.tenant).await?, pass.pace, &mut tell).await
            }
            Self::Drop { tenant, version } => {
                drop_key(&database, operator().await?, (*tenant, *version), &mut tell).await
            }
            Self::ForgetIndex { version } => {
                if *version == settings.keys.index.primary() {
                    return Err(needed_index(*version, "new rows get it".to_owned()));
                }
                forget_index(&database, operator().await?, *version, &mut tell).await
            }
            Self::Destroy { tenant, reason } => {
                check_reason(reason).map_err(KeysError::Value)?;
                let gone =
                    operator().await?.destroy_data_keys(TenantId::from_uuid(*tenant), clock.now(), reason).await?;
                event::keys_destroyed(&tenant.to_string(), gone, reason);
                tell(format!("{gone} data keys destroyed; replicas forget them within a minute"));
                Ok(())
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
    reseal(database, &tenants, pass.pace, tell).await
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
    let mut unusable = 0;
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
        unusable += usize::from(!whole);
        for needed in index_keys {
            tell(format!("{tenant}: index key {}: {} customers", needed.version, needed.customers));
        }
    }
    complete(0, unusable)
}

fn complete(customers: usize, tenants: usize) -> Result<(), KeysError> {
    if customers + tenants == 0 { Ok(()) } else { Err(KeysError::Unreadable { customers, tenants }) }
}

/// Who cannot be opened is left as they are, counted, and does not keep the others from being sealed anew.
async fn reseal(
    database: &Database,
    tenants: &[TenantId],
    pace: u32,
    tell: &mut impl FnMut(String),
) -> Result<(), KeysError> {
    let (mut unreadable, mut closed) = (0, 0);
    for tenant in tenants {
        let (mut total, mut next) = (0, Some(Position::start()));
        while let Some(from) = next {
            let began = Instant::now();
            let batch = match database.reseal_batch(*tenant, from).await {
                Ok(batch) => batch,
                Err(error @ (StoreError::MasterKey(_) | StoreError::KeyDestroyed)) => {
                    closed += 1;
                    tell(format!("{tenant}: {error}"));
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            total += batch.resealed;
            unreadable += batch.unreadable;
            next = batch.next;
            let done = if next.is_none() { "done, " } else { "" };
            tell(format!("{tenant}: {done}{total} customers sealed anew"));
            let customers = u32::try_from(batch.resealed).unwrap_or(u32::MAX);
            tokio::time::sleep_until(began + Duration::from_secs(1) * customers / pace).await;
        }
    }
    complete(unreadable, closed)
}

async fn drop_key(
    database: &Database,
    mut operator: Operator,
    (tenant, version): (Uuid, i32),
    tell: &mut impl FnMut(String),
) -> Result<(), KeysError> {
    let tenant = TenantId::from_uuid(tenant);
    let needed = |why: String| KeysError::Needed { which: format!("data key {version}"), why };
    match operator.drop_data_key(tenant, version).await {
        Ok(true) => {}
        Ok(false) => return Err(needed("it is the newest, or there is none like it".to_owned())),
        Err(OperatorError::KeyInUse) => {
            let (uses, _) = database.key_uses(tenant).await?;
            let customers = uses.iter().find(|needed| needed.version == version).map_or(0, |needed| needed.customers);
            return Err(needed(format!("{customers} customers are sealed with it; run `keys reseal` first")));
        }
        Err(error) => return Err(error.into()),
    }
    event::keys_destroyed(&tenant.to_string(), 1, "nothing needed it");
    tell(format!("{tenant}: data key {version} dropped"));
    Ok(())
}

async fn forget_index(
    database: &Database,
    mut operator: Operator,
    version: u16,
    tell: &mut impl FnMut(String),
) -> Result<(), KeysError> {
    for tenant in database.tenants_with_keys().await? {
        let (_, uses) = database.key_uses(tenant).await?;
        let of = uses.iter().find(|needed| needed.version == i32::from(version) && needed.customers > 0);
        if let Some(needed) = of {
            let why = format!("{} customers of {tenant} have it; run `keys reseal` first", needed.customers);
            return Err(needed_index(version, why));
        }
    }
    if !operator.forget_index_key(version).await? {
        return Err(KeysError::Value("there is no index key of this version"));
    }
    tell(format!("index key {version} forgotten; it can be left out of APP_KEYS__INDEX"));
    Ok(())
}

fn needed_index(version: u16, why: String) -> KeysError {
    KeysError::Needed { which: format!("index key {version}"), why }
}
