//! Settings: the published reference and the example environments are current (SECRET-03).

use std::collections::BTreeMap;

use crate::support::PRODUCTION_SETTINGS;

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

/// Whether there is a setting with this variable.
fn is_setting(variable: &str) -> bool {
    let mut rows = service::app().sections().all().flat_map(|section| section.rows);
    rows.any(|row| row.variables().iter().any(|name| name.replace("<NAME>", "PARTNER") == variable))
}

/// Also of the generated project, whose placeholders are filled here.
#[test]
fn secret_03_example_environments_are_accepted_in_production() {
    let paths = ["deploy/example.env", "template/project/deploy/example.env"];
    for path in paths.into_iter().filter(|path| std::path::Path::new(path).exists()) {
        let text = std::fs::read_to_string(path).unwrap();
        let text = text.replace("{{issuer}}", "https://login.example.com").replace("{{audience}}", "api://orders");
        let mut variables = BTreeMap::new();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let Some(start) = name.find("APP_").filter(|start| name[..*start].trim_matches(['#', ' ']).is_empty())
            else {
                continue;
            };
            let variable = name[start..].trim_end_matches("_FILE");
            assert!(is_setting(variable), "{path}: there is no setting {variable}");
            let secret = PRODUCTION_SETTINGS.iter().find(|(name, _)| *name == variable).map(|(_, value)| *value);
            let value = if name.ends_with("_FILE") { secret.unwrap_or(value) } else { value };
            if start == 0 {
                variables.insert(variable.to_owned(), value.to_owned());
            }
        }
        for (required, _) in PRODUCTION_SETTINGS {
            assert!(variables.contains_key(required), "{path}: {required} is missing");
        }
        let faults = service::app().read_settings(variables).err().map(|faults| faults.0).unwrap_or_default();
        assert_eq!(faults, [], "{path}");
    }
}
