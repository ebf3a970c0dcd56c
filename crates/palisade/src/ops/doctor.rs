//! The command `doctor`: tries everything that the service depends on, and says what to do.
//!
//! It makes the calls that `serve` makes at startup, with the same settings, and changes nothing but
//! a test bucket of the quota store.

use std::sync::Arc;

use thiserror::Error;
use uuid::Uuid;

use crate::{
    authn,
    crypto::MasterKeys,
    db::{self, Credentials, UnfitDatabase},
    model::Clock,
    quota::{Overrides, Quotas},
    settings::{self, Settings},
    store::{RegisteredTable, maintenance},
    telemetry::{self, with_causes},
};

/// Some checks failed; the report says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} of the checks failed")]
pub struct ChecksFailed(usize);

/// The outcome of a check: what works, or what failed.
type Outcome = Result<String, String>;

/// Checks issuers, database, quota store, master keys and collector, and reports line by line.
///
/// # Errors
/// At least one check failed.
pub async fn doctor(
    settings: &Settings,
    sealed: &[RegisteredTable],
    clock: &Clock,
    mut report: impl FnMut(String),
) -> Result<(), ChecksFailed> {
    let mut failed = 0;
    let mut add = |what: String, outcome: Outcome, advice: &str| match outcome {
        Ok(found) => report(format!("ok    {what}: {found}")),
        Err(error) => {
            failed += 1;
            report(format!("FAIL  {what}: {error}"));
            report(format!("      do: {advice}"));
        }
    };
    for (url, outcome) in authn::check_issuers(settings, clock).await {
        let found = outcome.map(|ids| format!("keys {ids}"));
        add(format!("issuer {url}"), found, "open the addresses from this machine; docs/issuers.md has the settings");
    }
    let database = check_database(settings, sealed, clock).await;
    add("database".to_owned(), database, "run `migrate`, and check APP_DATABASE__… and deploy/roles.sql");
    if settings.quota.shared.is_some() {
        let outcome = check_quota_store(settings, clock).await;
        add("quota store".to_owned(), outcome, "check APP_QUOTA__REDIS_URL, its password and its authorities");
    }
    let outcome = check_master_keys(settings).await;
    add("master keys".to_owned(), outcome, "check APP_KEYS__…, the vault, and the policy of its token");
    if let Some(otlp) = &settings.otlp {
        let outcome = telemetry::check_collector(otlp).await.map(|()| "accepts traces".to_owned());
        add("collector".to_owned(), outcome, "check APP_OTLP__ENDPOINT, its token and its authorities");
    }
    for (variable, what) in settings::relaxations(settings) {
        report(format!("note  {variable}: {what}"));
    }
    if failed == 0 { Ok(()) } else { Err(ChecksFailed(failed)) }
}

async fn check_database(settings: &Settings, sealed: &[RegisteredTable], clock: &Clock) -> Outcome {
    let check = async {
        let (_, maintenance) = maintenance::open(settings, sealed, clock.clone())?;
        let credentials = Credentials::new(settings)?;
        let outcome = async {
            Box::pin(maintenance.validate()).await?;
            Box::pin(credentials.validate()).await?;
            Box::pin(db::check_incidents_login(settings)).await
        };
        let outcome = outcome.await;
        tokio::join!(maintenance.close(), credentials.close());
        outcome
    };
    let describe = |error: UnfitDatabase| with_causes(&error);
    check.await.map(|()| "every login connects and has its rights; the schema is current".to_owned()).map_err(describe)
}

async fn check_quota_store(settings: &Settings, clock: &Clock) -> Outcome {
    let overrides = Arc::new(Overrides::new(clock.clone()));
    let quotas = Quotas::new(settings.quota.clone(), &settings.secrets.mac_key, clock.clone(), overrides);
    let quotas = quotas.map_err(|error| error.to_string())?;
    quotas.check_store().await.map(|()| "counts a call".to_owned())
}

/// Wraps a data key that nothing uses, and unwraps it.
async fn check_master_keys(settings: &Settings) -> Outcome {
    let check = async {
        let keys = MasterKeys::new(&settings.keys.master)?;
        let (_, wrapped) = keys.generate(Uuid::nil(), 1).await?;
        keys.unwrap_data_key(Uuid::nil(), &wrapped).await?;
        Ok::<_, crate::crypto::MasterKeyError>(wrapped.wrapped_by)
    };
    check.await.map(|name| format!("{name} wraps and unwraps")).map_err(|error| error.to_string())
}
