//! The `incident` command, run in a process as an operator does.

use std::process::Output;

use palisade::dev::database::Urls;
use secrecy::ExposeSecret as _;

use crate::TestService;

/// Runs `incident` with these arguments, and with a reason if they have none.
pub fn run_incident(service: &TestService, database: &Urls, arguments: &[&str]) -> Output {
    let mut command = service.binary();
    command.arg("incident").args(arguments).env("APP_PROFILE", "development");
    if !arguments.contains(&"--reason") {
        command.args(["--reason", "a test"]);
    }
    command.env("APP_DATABASE__OPERATOR_URL", database.operator.expose_secret()).output().unwrap()
}

/// The same; the command must succeed.
#[track_caller]
pub fn incident(service: &TestService, database: &Urls, arguments: &[&str]) {
    let output = run_incident(service, database, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
