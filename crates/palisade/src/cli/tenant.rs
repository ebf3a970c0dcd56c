//! `tenant …`: loads the login, and for an export the settings, then runs the command.

use std::error::Error as StdError;

#[cfg(feature = "exports")]
use super::load_settings;
use super::with_logging;
#[cfg(feature = "exports")]
use crate::model::Clock;
use crate::{
    app::App,
    ops::TenantCommand,
    settings::{LoginSettings, ServiceSettings},
};

/// Runs a command on the registry of tenants.
pub(super) async fn run<S: ServiceSettings>(app: &App<S>, command: &TenantCommand) -> Result<(), Box<dyn StdError>> {
    #[cfg(feature = "exports")]
    if let TenantCommand::Export(export) = command {
        let settings = load_settings(app, "tenant")?;
        let login = with_logging("tenant", LoginSettings::operator()?);
        println!("{}", export.write(&settings, app.sealed_tables(), &login.url, &Clock::system()).await?);
        return Ok(());
    }
    #[cfg(not(feature = "exports"))]
    let _ = app;
    let login = with_logging("tenant", LoginSettings::operator()?);
    let outcome = command.run(&login.url, "").await?;
    outcome.lines.iter().for_each(|line| println!("{line}"));
    match outcome.deletion {
        Some(deletion) => Ok(deletion.complete(|line| println!("{line}")).await?),
        None => Ok(()),
    }
}
