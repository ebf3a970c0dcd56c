//! Runs `keys` commands against a running service, and starts services whose master keys are in a
//! vault.

use std::collections::BTreeMap;

use palisade::{model::Clock, ops::Keys, settings::LoginSettings};

use super::{SERVICE, TestApp, UNTHROTTLED, Vault, query, vault::TOKEN};

/// The environment of a service or command on the database of this app, with these changes. An
/// empty value removes the variable.
fn variables(app: &TestApp, changes: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut variables = TestApp::variables(&app.database, app.issuer.url());
    variables.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    variables.retain(|_, value| !value.is_empty());
    variables
}

/// Runs a command in this process, as `main` does; returns its output lines, or its error.
pub async fn run_keys(app: &TestApp, command: Keys, changes: &[(&str, &str)]) -> Result<Vec<String>, String> {
    let settings = SERVICE.read_settings(variables(app, changes)).unwrap();
    let operator = LoginSettings { url: app.database.operator.clone(), secrets_read: Vec::new() };
    let mut lines = Vec::new();
    let report = |line| lines.push(line);
    let result = command.run(&settings, SERVICE.sealed_tables(), Some(&operator), &Clock::system(), report).await;
    result.map(|()| lines).map_err(|error| error.to_string())
}

/// The error of a startup that must fail.
pub async fn start_error(app: &TestApp, changes: &[(&str, &str)]) -> String {
    SERVICE.try_start(variables(app, changes)).await.expect_err("startup fails")
}

/// Settings with the master keys of a vault, beside the keyset that wraps the demo data's keys.
pub fn vault_and_keyset(url: &str) -> Vec<(&str, &str)> {
    let vault = [("APP_KEYS__PROVIDER", "vault"), ("APP_KEYS__VAULT__URL", url), ("APP_KEYS__VAULT__TOKEN", TOKEN)];
    UNTHROTTLED.into_iter().chain(vault).collect()
}

/// Settings with the master keys of a vault alone.
pub fn vault_only(url: &str) -> Vec<(&str, &str)> {
    [&vault_and_keyset(url)[..], &[("APP_KEYS__MASTER", "")]].concat()
}

/// Starts an app whose data keys are all wrapped by the vault.
pub async fn start_with_vault(vault: &Vault) -> TestApp {
    let url = vault.url();
    let before = SERVICE.start_with(&vault_and_keyset(&url)).await;
    let lines = run_keys(&before, Keys::Rewrap, &vault_and_keyset(&url)).await.unwrap();
    assert_eq!(lines, [format!("2 data keys are now wrapped by {}", vault_key(1))]);
    let long_timeout = [&vault_only(&url)[..], &[("APP_KEYS__VAULT__TIMEOUT_MS", "4900")]].concat();
    SERVICE.start_on(before.database, &long_timeout).await
}

/// The name of a version of the vault's master key.
pub fn vault_key(version: u32) -> String {
    format!("vault:transit/{}:v{version}", env!("CARGO_PKG_NAME"))
}

/// The names of the master keys that wrap data keys.
pub async fn wrapping_keys(app: &TestApp) -> Vec<String> {
    query(&app.database.owner, "select distinct wrapped_by from palisade.data_keys order by 1").await
}
