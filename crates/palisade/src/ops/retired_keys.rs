//! `keys drop`, `keys forget-index` and `keys destroy`: retirement of keys for good
//! (CRYPTO-05, CRYPTO-08).
//!
//! `main` calls [`RetireKeys::run`] with the operator's login only. These commands need neither
//! master keys nor the settings of the service, so they work while the vault is down, while the
//! service does not start, and for a data key that cannot be unwrapped.

use std::io::{self, IsTerminal as _};

use clap::Subcommand;
use uuid::Uuid;

use super::{KeysError, check_reason};
use crate::{
    model::{Clock, TenantId},
    settings::RetirementSettings,
    store::maintenance::{Operator, OperatorError, TenantItem},
    telemetry::event,
};

/// A command that retires keys for good.
#[derive(Clone, Debug, Subcommand)]
pub enum RetireKeys {
    /// Delete a data key that no record needs any more (uses `APP_DATABASE__OPERATOR_URL`, and no
    /// settings of the service)
    Drop {
        /// UUID of the tenant
        tenant: Uuid,
        /// Version of the data key
        version: i32,
    },
    /// Forget an index key that no record needs any more, before it is removed from
    /// `APP_KEYS__INDEX`; its version cannot be used again (uses that setting and
    /// `APP_DATABASE__OPERATOR_URL`)
    ForgetIndex {
        /// Version of the index key
        version: u16,
    },
    /// Destroy all data keys of a tenant that has left: its sealed data cannot be decrypted, searched
    /// or added any more. Asks for the UUID of the tenant first (uses
    /// `APP_DATABASE__OPERATOR_URL`, and no settings of the service)
    Destroy {
        /// UUID of the tenant
        tenant: Uuid,
        /// Reason, recorded in the audit trail
        #[arg(long, required_unless_present = "dry_run")]
        reason: Option<String>,
        /// Only list what would be destroyed
        #[arg(long)]
        dry_run: bool,
        /// The UUID of the tenant again; without it, the command asks for it if standard input is a
        /// terminal, and fails otherwise
        #[arg(long, value_name = "TENANT")]
        confirm: Option<String>,
    },
}

impl RetireKeys {
    /// Whether the command needs `APP_KEYS__INDEX`, to keep the index key that new records get.
    #[must_use]
    pub fn needs_index_keys(&self) -> bool {
        matches!(self, Self::ForgetIndex { .. })
    }

    /// Runs the command. Calls `report` with one line per step.
    pub async fn run(
        &self,
        settings: &RetirementSettings,
        clock: &Clock,
        mut report: impl FnMut(String),
    ) -> Result<(), KeysError> {
        let connect = async || Operator::connect(&settings.operator.url).await;
        match self {
            Self::Drop { tenant, version } => {
                let tenant = TenantId::from_uuid(*tenant);
                let in_use = |reason: &str| in_use(format!("data key {version}"), reason);
                match connect().await?.drop_data_key(tenant, *version).await {
                    Ok(true) => {}
                    Ok(false) => return Err(in_use("it is the newest one, or does not exist")),
                    Err(OperatorError::KeyInUse) => {
                        return Err(in_use("records are encrypted with it; run `keys reseal` first"));
                    }
                    Err(error) => return Err(error.into()),
                }
                event::crypto_key_destroyed(&tenant.to_string(), 1, "no longer in use");
                report(format!("{tenant}: data key {version} dropped"));
            }
            Self::ForgetIndex { version } => {
                let required = KeysError::Invalid("APP_KEYS__INDEX is required");
                let keys = settings.index.as_ref().ok_or(required)?;
                if *version == keys.primary() {
                    return Err(in_use(format!("index key {version}"), "new records get it"));
                }
                match connect().await?.forget_index_key(*version).await {
                    Ok(()) => {}
                    Err(error @ (OperatorError::IndexKeyInUse | OperatorError::OnlyIndexKey)) => {
                        return Err(in_use(format!("index key {version}"), &error.to_string()));
                    }
                    Err(error) => return Err(error.into()),
                }
                report(format!("index key {version} forgotten; remove it from APP_KEYS__INDEX"));
            }
            Self::Destroy { tenant, reason, dry_run, confirm } => {
                let reason = reason.as_deref().unwrap_or_default();
                if !dry_run {
                    check_reason(reason).map_err(KeysError::Invalid)?;
                }
                let mut operator = connect().await?;
                let tenant = TenantId::from_uuid(*tenant);
                for TenantItem { name, number, last_use } in operator.describe_tenant(tenant).await? {
                    let number = number.map(|number| number.to_string());
                    let value = number.or(last_use.map(|at| at.to_rfc3339())).unwrap_or_else(|| "none".to_owned());
                    report(format!("{tenant}: {name}: {value}"));
                }
                if !dry_run {
                    let terminal = io::stdin().is_terminal().then(|| io::stdin().lock());
                    super::confirm(&tenant.to_string(), confirm.as_deref(), terminal).map_err(KeysError::Invalid)?;
                    destroy(operator, tenant, (clock, reason), &mut report).await?;
                }
            }
        }
        Ok(())
    }
}

/// Destroys the data keys first, which is the irreversible step. Then clears the search indexes and
/// deletes stored responses. If it is interrupted, running it again continues.
async fn destroy(
    mut operator: Operator,
    tenant: TenantId,
    (clock, reason): (&Clock, &str),
    report: &mut impl FnMut(String),
) -> Result<(), KeysError> {
    let destroyed = operator.destroy_data_keys(tenant, clock.now(), reason).await?;
    event::crypto_key_destroyed(&tenant.to_string(), destroyed, reason);
    report(format!("{destroyed} data keys destroyed; replicas forget them within a minute"));
    let mut total = 0;
    while let Some(cleared) = operator.clear_blind_indexes(tenant).await? {
        total += cleared;
    }
    report(format!("removed {total} records from the search indexes"));
    let mut responses = 0;
    loop {
        match operator.delete_stored_responses(tenant).await? {
            0 => break,
            deleted => responses += deleted,
        }
    }
    report(format!("deleted {responses} stored responses"));
    Ok(())
}

fn in_use(key: String, reason: &str) -> KeysError {
    KeysError::InUse { key, reason: reason.to_owned() }
}
