//! Commands that only check: `check-config`, `doctor` and `token explain`. They change nothing.

use std::{error::Error as StdError, io::Read as _, sync::Arc};

use clap::Subcommand;
use zeroize::Zeroizing;

use crate::{
    app::App,
    authn,
    crypto::MasterKeys,
    edge,
    model::Clock,
    ops,
    quota::{Overrides, Quotas},
    settings::{self, ServiceSettings, Settings},
};

/// Most bytes that `token explain` reads.
const MAX_TOKEN_INPUT: u64 = 64 * 1024;

#[derive(Subcommand)]
pub(super) enum Token {
    /// Read a token from standard input, and say which rule it fails or who its caller would be.
    /// Nothing of it is stored or logged
    Explain,
}

/// Checks the settings, and what needs more than parsing: certificates, the quota store's URL and
/// master keys. Names what the settings accept beyond the defaults.
pub(super) fn check_config<S: ServiceSettings>(app: &App<S>) -> Result<(), Box<dyn StdError>> {
    let settings = Settings::load(app.sections())?;
    let notes = settings::relaxations(&settings);
    let clock = Clock::system();
    let internal = settings.internal.map(|internal| internal.tls);
    for tls in settings.tls.into_iter().chain(internal) {
        edge::Tls::load(tls, clock.clone())?;
    }
    let overrides = Arc::new(Overrides::new(clock.clone()));
    Quotas::new(settings.quota, &settings.secrets.mac_key, clock, overrides)?;
    MasterKeys::new(&settings.keys.master)?;
    println!("the configuration is valid");
    for (variable, what) in notes {
        println!("note: {variable}: {what}");
    }
    Ok(())
}

/// Tries everything that the service depends on.
pub(super) async fn doctor<S: ServiceSettings>(app: &App<S>) -> Result<(), Box<dyn StdError>> {
    let settings = Settings::load(app.sections())?;
    let report = |line| println!("{line}");
    Ok(Box::pin(ops::doctor(&settings, app.sealed_tables(), &Clock::system(), report)).await?)
}

/// Fails unless the service would accept the token.
pub(super) async fn explain_token<S: ServiceSettings>(app: &App<S>) -> Result<(), Box<dyn StdError>> {
    let settings = Settings::load(app.sections())?;
    let token = Zeroizing::new(std::io::read_to_string(std::io::stdin().take(MAX_TOKEN_INPUT))?);
    let report = |line| println!("{line}");
    let is_accepted = authn::explain(&settings, app.rights(), &Clock::system(), token.trim(), report).await;
    if is_accepted { Ok(()) } else { Err("the token is rejected".into()) }
}
