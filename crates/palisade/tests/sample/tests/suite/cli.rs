//! The command line: `check-config`, `migrate`, `routes` and `serve`, run as separate processes.

use std::process::Output;

use palisade::{authz::internal, model::Clock, settings};
use sample::access::roles;

use crate::support::{ACME, Actor, MATRIX, SERVICE, ServiceProcess, TestApp, person, start_issuer};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

#[test]
fn secret_03_check_config_lists_every_fault_and_fails() {
    let output = SERVICE.binary().arg("check-config").env("APP_HTTP__LISTEN", "nowhere").output().unwrap();
    assert!(!output.status.success());
    let shown = text(&output);
    for variable in ["APP_HTTP__LISTEN", "APP_DATABASE__WRITER_URL", "APP_OIDC__ISSUER", "APP_SECRETS__MAC_KEY"] {
        assert!(shown.contains(variable), "{shown}");
    }
}

/// The URL of a command is checked like those of the server, before it connects to the database.
#[test]
fn secret_03_commands_reject_weak_database_urls() {
    let migrate = |profile: &str, url: &str| {
        let mut migrate = SERVICE.binary();
        migrate.arg("migrate").env("APP_PROFILE", profile).env("APP_DATABASE__OWNER_URL", url);
        let output = migrate.output().unwrap();
        assert!(!output.status.success());
        text(&output)
    };
    let [weak, strong] =
        ["postgres://app_owner:short@127.0.0.1:9/app", "postgres://app_owner:0123456789abcdef@127.0.0.1:9/app"];
    let fault = "APP_DATABASE__OWNER_URL: must have a password, in production of 16 characters or more";
    assert!(migrate("production", weak).contains(fault), "{}", migrate("production", weak));
    let mut migrate_with = SERVICE.binary();
    migrate_with.arg("migrate").env("APP_DATABASE__OWNER_URL", strong).env("PGOPTIONS", "-c statement_timeout=0");
    let output = migrate_with.output().unwrap();
    assert!(text(&output).contains("PGOPTIONS: must not be set in production"), "{}", text(&output));
    // These are accepted and fail at the database, which does not exist.
    for (profile, url) in [("development", weak), ("production", strong)] {
        let output = migrate(profile, url);
        assert!(!output.contains("APP_DATABASE__OWNER_URL:"), "{output}");
    }
}

#[test]
fn secret_03_settings_command_lists_every_setting() {
    let output = SERVICE.binary().arg("settings").output().unwrap();
    assert!(output.status.success());
    let shown = text(&output);
    for variable in sample::app().sections().all().flat_map(|section| section.rows).flat_map(settings::Row::variables) {
        assert!(shown.lines().any(|line| line.split(' ').next() == Some(&variable)), "{variable} is not in {shown}");
    }
}

#[test]
fn threat_02_routes_command_prints_the_matrix() {
    let output = SERVICE.binary().arg("routes").output().unwrap();
    assert!(output.status.success());
    let shown = text(&output);
    assert_eq!(shown.lines().count(), MATRIX.iter().count() + internal::INTERNAL.len());
    assert!(shown.contains("GET    /metrics"), "{shown}");
    assert!(shown.contains("POST   /v1/notes/{id}/archive"), "{shown}");
}

#[tokio::test]
async fn fail_03_serve_stops_cleanly_on_sigterm() {
    let database = SERVICE.database().await;
    let issuer = start_issuer(Clock::system()).await;
    let process = ServiceProcess::start(&SERVICE, &TestApp::variables(&database, issuer.url())).await;
    let token = issuer.access_token(&person(&ACME, roles::VIEWER), &[]);
    Actor::new(process.address, Some(token.clone())).get("/v1/me").await.ok(200);
    let (status, log) = process.terminate().await;
    assert!(status.success(), "{status}");
    assert!(log.contains("\"stopped\""), "{log}");
    assert!(!log.contains(&token), "the log contains a token");
}
