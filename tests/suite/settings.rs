//! Settings: the published reference and the example environments are current (SECRET-03).

use std::collections::BTreeMap;

use crate::support::{PRODUCTION_SETTINGS, is_setting};

const REFERENCE: &str = "docs/settings.md";

#[test]
fn secret_03_the_reference_of_settings_is_current() {
    let published = std::fs::read_to_string(REFERENCE).unwrap_or_default();
    assert!(
        published == service::app().settings_reference(),
        "{REFERENCE} is not current: run `cargo run --features dev -- settings --markdown > {REFERENCE}` and review \
         the difference"
    );
}

#[test]
fn secret_03_example_environment_is_accepted_in_production_without_risks() {
    let text = std::fs::read_to_string("deploy/example.env").unwrap();
    let mut variables = BTreeMap::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let variable = name.trim_start_matches('#').trim_end_matches("_FILE");
        if !variable.starts_with("APP_") {
            continue;
        }
        assert!(is_setting(variable), "there is no setting {variable}");
        let secret = PRODUCTION_SETTINGS.iter().find(|(name, _)| *name == variable).map(|(_, value)| *value);
        let value = if name.ends_with("_FILE") { secret.unwrap_or(value) } else { value };
        if !name.starts_with('#') {
            variables.insert(variable.to_owned(), value.to_owned());
        }
    }
    for (required, _) in PRODUCTION_SETTINGS {
        assert!(variables.contains_key(required), "{required} is missing");
    }
    assert!(!variables.contains_key("APP_ACCEPTED_RISKS"));
    let settings = service::app().read_settings(variables).unwrap();
    assert!(settings.http.trusted_proxies.iter().all(|proxy| !proxy.is_wider_than(32, 128)));
}

/// Only in the template: what it generates differs in the answers, and in nothing else.
#[test]
fn secret_03_example_environment_of_the_generated_project_is_the_same() {
    for file in ["deploy/example.env", "deploy/kubernetes/service/settings.env"] {
        let Ok(generated) = std::fs::read_to_string(format!("template/project/{file}")) else { return };
        let mut expected = std::fs::read_to_string(file).unwrap();
        for (value, answer) in [
            ("https://login.example.com", "{{issuer}}"),
            ("api://orders", "{{audience}}"),
            ("crates/palisade/roles.sql", "{{roles}}"),
        ] {
            expected = expected.replace(value, answer);
        }
        assert_eq!(generated, expected);
    }
}
