//! Keys that go for good, by the operator's login and no other. These need no master key: they must not wait for who keeps
//! them, nor for one that does not open and is to go.

use clap::Subcommand;
use uuid::Uuid;

use super::{KeysError, check_reason};
use crate::{
    domain::{Clock, TenantId},
    settings::RetirementSettings,
    store::{Operator, OperatorError, Position},
    telemetry::event,
};

/// Which keys go.
#[derive(Clone, Debug, Subcommand)]
pub enum RetiredKeys {
    /// Drop a data key that nothing needs any more (with `APP_DATABASE__OPERATOR_URL`, and without the service's settings)
    Drop {
        /// The tenant's UUID
        tenant: Uuid,
        /// The version
        version: i32,
    },
    /// Forget a key of blind indexes that nothing needs any more, before it is left out of `APP_KEYS__INDEX` (with that and
    /// `APP_DATABASE__OPERATOR_URL`). No row gets its version again
    ForgetIndex {
        /// The version
        version: u16,
    },
    /// Destroy all data keys of a tenant that has left: nobody reads or finds its customers in this database again, and it
    /// can add none (with `APP_DATABASE__OPERATOR_URL`, and without the service's settings)
    Destroy {
        /// The tenant's UUID
        tenant: Uuid,
        /// Why, for whoever reads it later
        #[arg(long)]
        reason: String,
    },
}

impl RetiredKeys {
    /// Whether it goes by the index keys that new rows get.
    #[must_use]
    pub fn needs_index_keys(&self) -> bool {
        matches!(self, Self::ForgetIndex { .. })
    }

    /// Does it, and says by `tell` what was done, a line at a time.
    pub async fn run(
        &self,
        settings: &RetirementSettings,
        clock: &Clock,
        mut tell: impl FnMut(String),
    ) -> Result<(), KeysError> {
        let operator = async || Operator::connect(&settings.operator.url).await;
        match self {
            Self::Drop { tenant, version } => {
                let tenant = TenantId::from_uuid(*tenant);
                let needed = |why: &str| needed(format!("data key {version}"), why);
                match operator().await?.drop_data_key(tenant, *version).await {
                    Ok(true) => {}
                    Ok(false) => return Err(needed("it is the newest, or there is none like it")),
                    Err(OperatorError::KeyInUse) => {
                        return Err(needed("customers are sealed with it; run `keys reseal` first"));
                    }
                    Err(error) => return Err(error.into()),
                }
                event::keys_destroyed(&tenant.to_string(), 1, "nothing needed it");
                tell(format!("{tenant}: data key {version} dropped"));
            }
            Self::ForgetIndex { version } => {
                let keys = settings.index.as_ref().ok_or(KeysError::Value("APP_KEYS__INDEX is required"))?;
                if *version == keys.primary() {
                    return Err(needed(format!("index key {version}"), "new rows get it"));
                }
                match operator().await?.forget_index_key(*version).await {
                    Ok(()) => {}
                    Err(error @ (OperatorError::IndexKeyInUse(_) | OperatorError::OnlyIndexKey)) => {
                        return Err(needed(format!("index key {version}"), &error.to_string()));
                    }
                    Err(error) => return Err(error.into()),
                }
                tell(format!("index key {version} forgotten; it can be left out of APP_KEYS__INDEX"));
            }
            Self::Destroy { tenant, reason } => {
                check_reason(reason).map_err(KeysError::Value)?;
                destroy(operator().await?, TenantId::from_uuid(*tenant), (clock, reason), &mut tell).await?;
            }
        }
        Ok(())
    }
}

/// First what cannot be undone. Broken off after that, it goes on when it is run again.
async fn destroy(
    mut operator: Operator,
    tenant: TenantId,
    (clock, reason): (&Clock, &str),
    tell: &mut impl FnMut(String),
) -> Result<(), KeysError> {
    let gone = operator.destroy_data_keys(tenant, clock.now(), reason).await?;
    event::keys_destroyed(&tenant.to_string(), gone, reason);
    tell(format!("{gone} data keys destroyed; replicas forget them within a minute"));
    let (mut total, mut next) = (0, Some(Position::start()));
    while let Some(from) = next {
        let cleared;
        (cleared, next) = operator.clear_indexes(tenant, from).await?;
        total += cleared;
    }
    tell(format!("{total} customers are found by nothing any more"));
    Ok(())
}

fn needed(which: String, why: &str) -> KeysError {
    KeysError::Needed { which, why: why.to_owned() }
}
