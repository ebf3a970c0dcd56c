//! `keys …`: rotation of the keys of sealed fields (CRYPTO-05). docs/keys.md says when to use
//! which.
//!
//! These commands need the settings of the service, because they open and seal sealed data.
//! `main` calls [`Keys::run`]; the internal listener calls [`rotate`] for an incident. An
//! interrupted command can be run again. A record that cannot be decrypted is skipped, counted
//! and logged, and the command fails at the end.

use std::{collections::BTreeSet, time::Duration};

use clap::{Args, Subcommand};
use thiserror::Error;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    crypto::MasterKeys,
    db::{DbError, UnfitDatabase},
    model::{Clock, TenantId},
    settings::{LoginSettings, Settings},
    store::{
        RegisteredTable,
        maintenance::{self, Maintenance, Operator, OperatorError, ResealPosition, Rewrapped},
    },
    telemetry::event,
};

/// Maximum number of passes that wait for replicas to stop using an older data key.
const MAX_LAST_PASSES: usize = 5;

/// A command for master keys, data keys and index keys.
#[derive(Clone, Debug, Subcommand)]
pub enum Keys {
    /// List all keys and how many records need each; fails if a key is missing
    Status,
    /// Wrap every data key with the first master key, or with the vault's key (uses
    /// `APP_DATABASE__OPERATOR_URL` too)
    Rewrap,
    /// Create a new data key for one tenant or all, and re-encrypt sealed data with it
    Rotate {
        /// Tenant and pace
        #[command(flatten)]
        options: ResealOptions,
    },
    /// Continue an interrupted rotation; also updates blind indexes to the first key of
    /// `APP_KEYS__INDEX`
    Reseal {
        /// Tenant and pace
        #[command(flatten)]
        options: ResealOptions,
    },
}

/// Scope and pace of re-encryption.
#[derive(Args, Clone, Copy, Debug)]
pub struct ResealOptions {
    /// UUID of the tenant; default: all tenants
    #[arg(long)]
    pub tenant: Option<Uuid>,
    /// Maximum number of records per second, to spare the database for callers
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub pace: u32,
}

impl ResealOptions {
    /// One tenant or all, at the default pace.
    #[must_use]
    pub fn new(tenant: Option<Uuid>) -> Self {
        Self { tenant, pace: 1_000 }
    }
}

/// Errors of a key command. Work that was done before the error stays done.
#[derive(Debug, Error)]
pub enum KeysError {
    /// The database fails a check, or a master key is missing.
    #[error(transparent)]
    Unfit(#[from] UnfitDatabase),
    /// A query with a login of the service failed.
    #[error(transparent)]
    Store(#[from] DbError),
    /// A query with the operator's login failed.
    #[error(transparent)]
    Operator(#[from] OperatorError),
    /// A replica still uses an older data key, for longer than its settings explain.
    #[error(
        "replicas still use an older data key, for {0} records before the last pass; check that every replica responds, then run `keys reseal`"
    )]
    OlderKeyInUse(usize),
    /// The key cannot be removed.
    #[error("cannot remove {key}: {reason}")]
    InUse {
        /// Kind and version of the key.
        key: String,
        /// What needs it.
        reason: String,
    },
    /// Some records were skipped. All others were processed.
    #[error("{records} records and {tenants} tenants could not be decrypted; the log names them and the reasons")]
    Unreadable {
        /// Records that could not be decrypted.
        records: usize,
        /// Tenants with data keys that cannot be unwrapped.
        tenants: usize,
    },
    /// Some data keys were skipped. All others were rewrapped.
    #[error("{0} data keys cannot be unwrapped with the configured master keys; see the events `sealed_data_invalid`")]
    NotRewrapped(usize),
    /// An argument or setting is invalid.
    #[error("{0}")]
    Invalid(&'static str),
}

impl Keys {
    /// Whether the command needs the operator's login.
    #[must_use]
    pub fn needs_operator(&self) -> bool {
        matches!(self, Self::Rewrap)
    }

    /// Runs the command. Calls `report` with one line per step.
    pub async fn run(
        &self,
        settings: &Settings,
        sealed: &[RegisteredTable],
        operator: Option<&LoginSettings>,
        clock: &Clock,
        mut report: impl FnMut(String),
    ) -> Result<(), KeysError> {
        let (_, database) = maintenance::open(settings, sealed, clock.clone())?;
        database.validate().await?;
        match self {
            Self::Status => status(&database, &mut report).await,
            Self::Rewrap => {
                let operator = operator.ok_or(KeysError::Invalid("APP_DATABASE__OPERATOR_URL is required"))?;
                let master = MasterKeys::new(&settings.keys.master).map_err(OperatorError::from)?;
                let rewrapped = Operator::connect(&operator.url).await?.rewrap(&master).await?;
                let Rewrapped { primary, moved, failed } = rewrapped;
                event::crypto_key_rotated("master", &primary);
                report(format!("{moved} data keys are now wrapped by {primary}"));
                if failed == 0 { Ok(()) } else { Err(KeysError::NotRewrapped(failed)) }
            }
            Self::Rotate { options } => rotate(&database, options, &mut report).await,
            Self::Reseal { options } => reseal(&database, options, &mut report).await?.into_result(),
        }
    }
}

/// Creates a new data key for one tenant or all, and re-encrypts sealed data with it. Calls
/// `report` with one line per step.
///
/// Takes one second per `pace` records, and at least about 13 s: replicas use the older data key
/// until they refresh. If it is interrupted, `keys reseal` continues.
pub async fn rotate(
    database: &Maintenance,
    options: &ResealOptions,
    report: &mut impl FnMut(String),
) -> Result<(), KeysError> {
    let mut tenants = Tenants::select(database, options.tenant).await?;
    while let Some(tenant) = tenants.next().await? {
        let version = database.add_data_key(tenant).await?;
        event::crypto_key_rotated(&tenant.to_string(), &version.to_string());
        report(format!("{tenant}: created data key {version}"));
    }
    let created_at = Instant::now();
    reseal(database, options, report).await?;
    // Replicas seal with the older data key until then. The last passes find those records.
    tokio::time::sleep_until(created_at + database.propagation_delay()).await;
    let mut late = 0;
    for _ in 0..MAX_LAST_PASSES {
        let outcome = reseal(database, options, report).await?;
        late = outcome.late;
        if late == 0 {
            return outcome.into_result();
        }
    }
    Err(KeysError::OlderKeyInUse(late))
}

/// The tenants with data keys, one or all, read in pages.
struct Tenants<'m> {
    database: &'m Maintenance,
    page: std::vec::IntoIter<TenantId>,
    /// Where the next page begins. `None` after the last tenant.
    from: Option<Uuid>,
}

impl<'m> Tenants<'m> {
    async fn select(database: &'m Maintenance, only: Option<Uuid>) -> Result<Self, KeysError> {
        let Some(only) = only.map(TenantId::from_uuid) else {
            return Ok(Self { database, page: Vec::new().into_iter(), from: Some(Uuid::nil()) });
        };
        if !database.has_data_keys(only).await? {
            return Err(KeysError::Invalid("the tenant does not exist, or has no encrypted data"));
        }
        Ok(Self { database, page: vec![only].into_iter(), from: None })
    }

    async fn next(&mut self) -> Result<Option<TenantId>, DbError> {
        if let Some(from) = self.from
            && self.page.len() == 0
        {
            let page = self.database.tenants_with_keys(from).await?;
            self.from = page.last().and_then(|last| last.uuid().as_u128().checked_add(1)).map(Uuid::from_u128);
            self.page = page.into_iter();
        }
        Ok(self.page.next())
    }
}

async fn status(database: &Maintenance, report: &mut impl FnMut(String)) -> Result<(), KeysError> {
    let mut outcome = Outcome::default();
    let mut tenants = Tenants::select(database, None).await?;
    while let Some(tenant) = tenants.next().await? {
        let (data_key_uses, index_key_uses) = database.key_uses(tenant).await?;
        for key in database.data_keys(tenant).await? {
            let uses = data_key_uses.iter().find(|uses| uses.version == key.version);
            let records = uses.map_or(0, |uses| uses.records);
            if key.fault.is_some() {
                outcome.unreadable_tenants.insert(tenant);
            }
            let fault = key.fault.map_or_else(String::new, |fault| format!(", cannot be unwrapped: {fault}"));
            let version = key.version;
            let master = key.wrapped_by;
            report(format!("{tenant}: data key {version}, wrapped by {master}: {records} records{fault}"));
        }
        for uses in index_key_uses {
            report(format!("{tenant}: index key {}: {} records", uses.version, uses.records));
        }
    }
    outcome.into_result()
}

/// Counts of one pass over the records.
#[derive(Default)]
struct Outcome {
    /// Records that still had an older data key. They have the newest one now.
    late: usize,
    /// Records that could not be decrypted.
    unreadable: usize,
    /// Tenants with data keys that cannot be unwrapped. Some of their records were not tried.
    unreadable_tenants: BTreeSet<TenantId>,
}

impl Outcome {
    fn into_result(self) -> Result<(), KeysError> {
        let records = self.unreadable;
        let tenants = self.unreadable_tenants.len();
        if records + tenants == 0 { Ok(()) } else { Err(KeysError::Unreadable { records, tenants }) }
    }
}

/// Re-encrypts records that have an older data key or index key. A record that cannot be decrypted stays as it is, is counted, and does not stop the pass.
async fn reseal(
    database: &Maintenance,
    options: &ResealOptions,
    report: &mut impl FnMut(String),
) -> Result<Outcome, KeysError> {
    let mut outcome = Outcome::default();
    let mut tenants = Tenants::select(database, options.tenant).await?;
    while let Some(tenant) = tenants.next().await? {
        let mut total = 0;
        let mut next = Some(ResealPosition::default());
        while let Some(position) = next {
            let started = Instant::now();
            let batch = match database.reseal_batch(tenant, position).await {
                Ok(batch) => batch,
                Err(error @ (DbError::MasterKey(_) | DbError::KeyDestroyed)) => {
                    outcome.unreadable_tenants.insert(tenant);
                    report(format!("{tenant}: {error}"));
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            total += batch.resealed;
            outcome.late += batch.had_older_key;
            outcome.unreadable += batch.unreadable;
            next = batch.next;
            if batch.resealed > 0 || next.is_none() {
                let done = if next.is_none() { "done, " } else { "" };
                report(format!("{tenant}: {done}{total} records re-encrypted"));
            }
            let records = u32::try_from(batch.resealed).unwrap_or(u32::MAX);
            tokio::time::sleep_until(started + Duration::from_secs(1) * records / options.pace).await;
        }
    }
    Ok(outcome)
}
