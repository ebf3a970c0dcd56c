//! Sources of settings: variables of the environment, files named by them, and variables that must
//! be ignored or rejected (SECRET-02, SECRET-03, SECRET-05).

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use palisade::settings::{Fault, Faults, SecretSource, Settings};
use secrecy::ExposeSecret as _;

use crate::support::PRODUCTION_SETTINGS;

/// Reads valid settings with these variables added and those names removed.
fn read<'a>(added: impl IntoIterator<Item = (&'a str, &'a str)>, removed: &[&str]) -> Result<Settings, Faults> {
    let valid = PRODUCTION_SETTINGS.into_iter().filter(|(name, _)| !removed.contains(name));
    let variables = valid.chain(added).map(|(name, value)| (name.to_owned(), value.to_owned()));
    sample::app().read_settings(variables.collect())
}

/// The faults of valid settings with these variables added.
fn faults<'a>(added: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Fault> {
    read(added, &[]).err().map(|faults| faults.0).unwrap_or_default()
}

/// A file that only its owner can read.
fn file(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_file(&path);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    path
}

#[test]
fn secret_03_variables_of_other_programs_are_ignored() {
    let unrelated = ["APP_HOME", "APP_NAME", "APPLE__TREE", "OTHER__THING", "PATH", "OTHER__THING_FILE"];
    assert_eq!(faults(unrelated.map(|name| (name, "/no/such/place"))), []);
}

/// A misspelt name must not start the service without the setting that the operator relies on.
#[test]
fn secret_03_single_underscore_in_a_name_is_rejected() {
    for (written, meant) in [
        ("APP_OIDC_REQUIRE_BOUND_TOKENS", "APP_OIDC__REQUIRE_BOUND_TOKENS"),
        ("APP_QUOTA_REDIS_URL_FILE", "APP_QUOTA__REDIS_URL"),
        ("APP_TLS_CERTIFICATE_PATH", "APP_TLS__CERTIFICATE_PATH"),
    ] {
        let message = format!("no such setting; use {meant}");
        assert_eq!(faults([(written, "true")]), [Fault { variable: written.to_owned(), message }]);
    }
}

/// The driver takes what a URL leaves out from these variables.
#[test]
fn secret_03_production_rejects_variables_of_the_database_driver() {
    for name in ["PGPORT", "PGOPTIONS", "PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"] {
        let set = (name, "-c statement_timeout=0");
        let message = "must not be set in production: the PostgreSQL driver would apply it; unset it".to_owned();
        assert_eq!(faults([set]), [Fault { variable: name.to_owned(), message }]);
        assert_eq!(faults([set, ("APP_PROFILE", "development")]), []);
    }
    // A URL always names the host, so the driver ignores this one.
    assert_eq!(faults([("PGHOST", "db.example")]), []);
}

/// Editors and `echo` end a file with a newline.
#[test]
fn secret_02_trailing_newline_of_a_secret_file_is_removed() {
    let file = file("token-with-an-end", " 89abcdef01234567 \r\n");
    let added = [("APP_OTLP__ENDPOINT", "https://collector.example"), ("APP_OTLP__TOKEN_FILE", file.to_str().unwrap())];
    let otlp = read(added, &[]).unwrap().otlp.unwrap();
    assert_eq!(otlp.token.unwrap().expose_secret(), " 89abcdef01234567 ");
}

#[test]
fn secret_05_source_of_each_secret_is_recorded() {
    let [(key, in_config), (pepper, in_file)] = [PRODUCTION_SETTINGS[8], PRODUCTION_SETTINGS[9]];
    assert_eq!((key, pepper), ("APP_SECRETS__MAC_KEY", "APP_SECRETS__PEPPER"));
    let config = file("where.toml", &format!("[secrets]\nmac_key = \"{in_config}\"\n"));
    let file = file("where-pepper", in_file);
    let added = [("APP_CONFIG", config.to_str().unwrap()), ("APP_SECRETS__PEPPER_FILE", file.to_str().unwrap())];
    let secrets = read(added, &[key, pepper]).unwrap().secrets_read;
    let source = |name: &str| secrets.iter().find(|secret| secret.setting == name).unwrap().source.clone();
    assert_eq!(source(key), SecretSource::Config(config));
    assert_eq!(source(pepper), SecretSource::File(file));
    assert_eq!(source("APP_KEYS__MASTER"), SecretSource::Environment);
}

/// The server does not read the secrets of other commands, so it never holds them.
#[test]
fn secret_02_secret_files_of_other_commands_are_not_read() {
    for login in ["OWNER", "OPERATOR", "BACKUP"] {
        assert_eq!(faults([(&*format!("APP_DATABASE__{login}_URL_FILE"), "/no/such/file")]), []);
    }
    let faults = faults([("APP_QUOTA__REDIS_URL_FILE", "/no/such/file")]);
    let [fault] = faults.as_slice() else { panic!("{faults:?}") };
    assert_eq!(fault.variable, "APP_QUOTA__REDIS_URL_FILE");
    assert!(fault.message.starts_with("the file cannot be read: No such file"), "{fault:?}");
}
