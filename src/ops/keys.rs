//! Rotating the keys of sealed fields, from the command line. docs/keys.md says when to do what.

use std::time::Duration;

use clap::Subcommand;
use thiserror::Error;
use uuid::Uuid;

use super::check_reason;
use crate::{
    domain::{Clock, TenantId},
    settings::{LoginSettings, Settings},
    store::{Database, Operator, OperatorError, Position, StoreError, UnfitDatabase},
    telemetry::event,
};

/// How long a replica may go on with a data key that is not the newest any more, and a bit.
const SETTLED: Duration = Duration::from_secs(6);

/// What to do with keys.
#[derive(Clone, Debug, Subcommand)]
pub enum Keys {
    /// Say which keys there are and how many customers need each; fails if a key is missing
    Status,
    /// Wrap every data key with the first master key of `APP_KEYS__MASTER` (with `APP_DATABASE__OPERATOR_URL`)
    Rewrap,
    /// Give every tenant, or one, a new data key and seal everything anew with it
    Rotate {
        /// Only this one
        #[arg(long)]
        tenant: Option<Uuid>,
    },
    /// Go on where a rotation was stopped; also brings blind indexes to the first key of `APP_KEYS__INDEX`
    Reseal {
        /// Only this one
        #[arg(long)]
        tenant: Option<Uuid>,
    },
    /// Drop a data key that nothing needs any more (with `APP_DATABASE__OPERATOR_URL`)
    Drop {
        /// The tenant's UUID
        tenant: Uuid,
        /// The version
        version: i32,
    },
    /// Destroy all data keys of a tenant that has left: nobody reads its customers again, in no backup either (with
    /// `APP_DATABASE__OPERATOR_URL`)
    Destroy {
        /// The tenant's UUID
        tenant: Uuid,
        /// Why, for whoever reads it later
        #[arg(long)]
        reason: String,
    },
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
    /// A data key is needed.
    #[error("data key {version} is needed: {why}")]
    Needed {
        /// Which.
        version: i32,
        /// By what.
        why: String,
    },
    /// A value is not one.
    #[error("{0}")]
    Value(&'static str),
}

impl Keys {
    /// Whether it takes the operator's login.
    #[must_use]
    pub fn is_for_operators(&self) -> bool {
        matches!(self, Self::Rewrap | Self::Drop { .. } | Self::Destroy { .. })
    }

    /// Does it, and says by `tell` how it goes on, a line at a time.
    pub async fn run(
        &self,
        settings: &Settings,
        operator: Option<&LoginSettings>,
        clock: &Clock,
        mut tell: impl FnMut(String),
    ) -> Result<(), KeysError> {
        let database = Database::new(&settings.database, &settings.keys, clock.clone())?;
        database.check_fit().await?;
        let operator = async || match operator {
            Some(login) => Ok(Operator::connect(&login.url).await?),
            None => Err(KeysError::Value("APP_DATABASE__OPERATOR_URL is required")),
        };
        match self {
            Self::Status => status(&database, &mut tell).await,
            Self::Rewrap => {
                let moved = operator().await?.rewrap(&settings.keys.master).await?;
                event::keys_rotated("master", &settings.keys.master.primary());
                tell(format!("{moved} data keys are now wrapped by {}", settings.keys.master.primary()));
                Ok(())
            }
            Self::Rotate { tenant } => {
                let tenants = tenants(&database, *tenant).await?;
                for tenant in &tenants {
                    let version = database.add_data_key(*tenant).await?;
                    event::keys_rotated(&tenant.to_string(), &version.to_string());
                    tell(format!("{tenant}: data key {version}"));
                }
                // From now on, what replicas still seal with the one before is found by the last pass.
                let since = tokio::time::Instant::now();
                reseal(&database, &tenants, &mut tell).await?;
                tokio::time::sleep_until(since + SETTLED).await;
                reseal(&database, &tenants, &mut tell).await
            }
            Self::Reseal { tenant } => reseal(&database, &tenants(&database, *tenant).await?, &mut tell).await,
            Self::Drop { tenant, version } => {
                drop_key(&database, operator().await?, (*tenant, *version), &mut tell).await
            }
            Self::Destroy { tenant, reason } => {
                check_reason(reason).map_err(KeysError::Value)?;
                let gone = operator().await?.destroy_data_keys(TenantId::from_uuid(*tenant)).await?;
                event::keys_destroyed(&tenant.to_string(), gone, reason);
                tell(format!("{gone} data keys destroyed; replicas forget them within a minute"));
                Ok(())
            }
        }
    }
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
    for tenant in database.tenants_with_keys().await? {
        let (data_keys, index_keys) = database.key_uses(tenant).await?;
        for (version, master) in database.data_keys(tenant).await? {
            let customers =
                data_keys.iter().find(|needed| needed.version == version).map_or(0, |needed| needed.customers);
            tell(format!("{tenant}: data key {version}, wrapped by {master}: {customers} customers"));
        }
        for needed in index_keys {
            tell(format!("{tenant}: index key {}: {} customers", needed.version, needed.customers));
        }
    }
    Ok(())
}

async fn reseal(database: &Database, tenants: &[TenantId], tell: &mut impl FnMut(String)) -> Result<(), KeysError> {
    for tenant in tenants {
        let (mut total, mut next) = (0, Some(Position::start()));
        while let Some(from) = next {
            let batch = database.reseal_batch(*tenant, from).await?;
            total += batch.resealed;
            next = batch.next;
            let done = if next.is_none() { "done, " } else { "" };
            tell(format!("{tenant}: {done}{total} customers sealed anew"));
        }
    }
    Ok(())
}

async fn drop_key(
    database: &Database,
    mut operator: Operator,
    (tenant, version): (Uuid, i32),
    tell: &mut impl FnMut(String),
) -> Result<(), KeysError> {
    let tenant = TenantId::from_uuid(tenant);
    let newest = database.data_keys(tenant).await?.last().map(|(version, _)| *version);
    if newest.is_none_or(|newest| version >= newest) {
        return Err(KeysError::Needed { version, why: "it is the newest, or there is none like it".to_owned() });
    }
    let (uses, _) = database.key_uses(tenant).await?;
    if let Some(needed) = uses.iter().find(|needed| needed.version == version) {
        let why = format!("{} customers are sealed with it; run `keys reseal` first", needed.customers);
        return Err(KeysError::Needed { version, why });
    }
    operator.drop_data_key(tenant, version).await?;
    event::keys_destroyed(&tenant.to_string(), 1, "nothing needed it");
    tell(format!("{tenant}: data key {version} dropped"));
    Ok(())
}
