//! Where settings come from: variables, files, and what else is in the environment of a process.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use secrecy::ExposeSecret as _;
use service::settings::{Fault, Faults, SecretSource, Settings};

use crate::start::SOUND;

/// A sound configuration, with these in place of some of it.
fn with<'a>(others: impl IntoIterator<Item = (&'a str, &'a str)>, without: &[&str]) -> Result<Settings, Faults> {
    let sound = SOUND.into_iter().filter(|(name, _)| !without.contains(name));
    let variables = sound.chain(others).map(|(name, value)| (name.to_owned(), value.to_owned()));
    Settings::from_variables(variables.collect())
}

/// What is wrong with a sound configuration and these.
fn faults<'a>(others: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Fault> {
    with(others, &[]).err().map(|faults| faults.0).unwrap_or_default()
}

/// A file that others cannot read.
fn file(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_file(&path);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    path
}

/// Whatever else is in the environment of a process.
#[test]
fn secret_03_other_programs_variables_are_none_of_this_one() {
    let others = ["APP_HOME", "APP_NAME", "APPLE__TREE", "OTHER__THING", "PATH", "OTHER__THING_FILE"];
    assert_eq!(faults(others.map(|name| (name, "/no/such/place"))), []);
}

/// Believed in, and not there: the worst of misspellings is the one that starts.
#[test]
fn secret_03_a_name_that_lacks_an_underscore_is_told() {
    for (written, meant) in [
        ("APP_OIDC_REQUIRE_BOUND_TOKENS", "APP_OIDC__REQUIRE_BOUND_TOKENS"),
        ("APP_QUOTA_REDIS_URL_FILE", "APP_QUOTA__REDIS_URL"),
        ("APP_TLS_CERTIFICATE_PATH", "APP_TLS__CERTIFICATE_PATH"),
    ] {
        let message = format!("no such setting; {meant} is one");
        assert_eq!(faults([(written, "true")]), [Fault { variable: written.to_owned(), message }]);
    }
}

/// What a URL does not say, the driver takes from there.
#[test]
fn secret_03_what_the_driver_would_go_by_is_refused_in_production() {
    for name in ["PGPORT", "PGOPTIONS", "PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"] {
        let set = (name, "-c statement_timeout=0");
        let message = "must not be set in production: the database's driver would go by it".to_owned();
        assert_eq!(faults([set]), [Fault { variable: name.to_owned(), message }]);
        assert_eq!(faults([set, ("APP_PROFILE", "development")]), []);
    }
    // Of this a URL says all.
    assert_eq!(faults([("PGHOST", "db.example")]), []);
}

/// As an editor, or `echo`, leaves it.
#[test]
fn secret_02_the_end_of_the_last_line_of_a_file_is_no_part_of_its_value() {
    let file = file("token-with-an-end", " 89abcdef01234567 \r\n");
    let own = [("APP_OTLP__ENDPOINT", "https://collector.example"), ("APP_OTLP__TOKEN_FILE", file.to_str().unwrap())];
    let otlp = with(own, &[]).unwrap().otlp.unwrap();
    assert_eq!(otlp.token.unwrap().expose_secret(), " 89abcdef01234567 ");
}

#[test]
fn secret_05_where_each_secret_was_is_known() {
    let [(key, in_config), (pepper, in_file)] = [SOUND[8], SOUND[9]];
    assert_eq!((key, pepper), ("APP_SECRETS__MAC_KEY", "APP_SECRETS__PEPPER"));
    let config = file("where.toml", &format!("[secrets]\nmac_key = \"{in_config}\"\n"));
    let file = file("where-pepper", in_file);
    let own = [("APP_CONFIG", config.to_str().unwrap()), ("APP_SECRETS__PEPPER_FILE", file.to_str().unwrap())];
    let read = with(own, &[key, pepper]).unwrap().secrets_read;
    let source = |name: &str| read.iter().find(|read| read.setting == name).map(|read| read.source.clone()).unwrap();
    assert_eq!(source(key), SecretSource::Config(config));
    assert_eq!(source(pepper), SecretSource::File(file));
    assert_eq!(source("APP_KEYS__MASTER"), SecretSource::Environment);
}

/// What is another command's is not read, so a server never holds it.
#[test]
fn secret_02_a_file_is_read_by_whoever_asks_for_its_setting_and_by_nobody_else() {
    for other in ["OWNER", "OPERATOR", "BACKUP"] {
        assert_eq!(faults([(&*format!("APP_DATABASE__{other}_URL_FILE"), "/no/such/file")]), []);
    }
    let faults = faults([("APP_QUOTA__REDIS_URL_FILE", "/no/such/file")]);
    let [fault] = faults.as_slice() else { panic!("{faults:?}") };
    assert_eq!(fault.variable, "APP_QUOTA__REDIS_URL_FILE");
    assert!(fault.message.starts_with("the file cannot be read: No such file"), "{fault:?}");
}
