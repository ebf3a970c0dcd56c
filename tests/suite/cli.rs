//! The binary, started as a user starts it.

use std::process::Output;

use service::{
    authz::{internal, matrix, policy::Role},
    domain::Clock,
};

use crate::support::{Actor, Serving, TestApp, binary, start_issuer, test_database};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

#[test]
fn secret_03_check_config_lists_every_fault_and_fails() {
    let output = binary().arg("check-config").env("APP_HTTP__LISTEN", "nowhere").output().unwrap();
    assert!(!output.status.success());
    let shown = text(&output);
    for variable in ["APP_HTTP__LISTEN", "APP_DATABASE__WRITER_URL", "APP_OIDC__ISSUER", "APP_SECRETS__MAC_KEY"] {
        assert!(shown.contains(variable), "{shown}");
    }
}

/// The login of a command is looked at like those of the server, before anybody is called.
#[test]
fn secret_03_a_command_takes_no_login_that_a_server_would_not() {
    let migrate = |profile: &str, url: &str| {
        let mut migrate = binary();
        migrate.arg("migrate").env("APP_PROFILE", profile).env("APP_DATABASE__OWNER_URL", url);
        let output = migrate.output().unwrap();
        assert!(!output.status.success());
        text(&output)
    };
    let [weak, sound] =
        ["postgres://app_owner:short@127.0.0.1:9/app", "postgres://app_owner:0123456789abcdef@127.0.0.1:9/app"];
    let fault = "APP_DATABASE__OWNER_URL: must have a password, in production of 16 characters or more";
    assert!(migrate("production", weak).contains(fault), "{}", migrate("production", weak));
    let mut migrate_with = binary();
    migrate_with.arg("migrate").env("APP_DATABASE__OWNER_URL", sound).env("PGOPTIONS", "-c statement_timeout=0");
    let output = migrate_with.output().unwrap();
    assert!(text(&output).contains("PGOPTIONS: must not be set in production"), "{}", text(&output));
    // These get as far as the database, which is not there.
    for (profile, url) in [("development", weak), ("production", sound)] {
        let said = migrate(profile, url);
        assert!(!said.contains("APP_DATABASE__OWNER_URL:"), "{said}");
    }
}

#[test]
fn threat_02_routes_prints_the_matrix() {
    let output = binary().arg("routes").output().unwrap();
    assert!(output.status.success());
    let shown = text(&output);
    assert_eq!(shown.lines().count(), matrix::MATRIX.len() + internal::INTERNAL.len());
    assert!(shown.contains("GET    /metrics"), "{shown}");
    assert!(shown.contains("POST   /v1/orders/{id}/cancel"), "{shown}");
}

#[tokio::test]
async fn fail_03_serve_logs_json_and_stops_in_order() {
    let database = test_database().await;
    let issuer = start_issuer(Clock::system()).await;
    let serving = Serving::start(&TestApp::variables(&database, issuer.url())).await;
    let token = issuer.access_token(&crate::support::person(&crate::support::ACME, Role::Viewer), &[]);
    Actor::new(serving.address, Some(token.clone())).get("/v1/me").await.ok(200);
    let (status, rest) = serving.terminate().await;
    assert!(status.success(), "{status}");
    assert!(rest.contains("\"stopped\""), "{rest}");
    assert!(!rest.contains(&token), "a token is in the log");
}
