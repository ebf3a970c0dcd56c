//! Where secrets are read from, who is told, and who else could read them (SECRET-03, SECRET-05).

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use secrecy::ExposeSecret;
use serde_json::Value;
use service::{domain::Clock, settings::Settings};

use crate::{
    start::SOUND,
    support::{Authority, PemFiles, Serving, TestApp, binary, start_issuer, test_database},
};

/// A file in a folder of this test's, with this mode.
fn secret_file(name: &str, text: &str, mode: u32) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("secrets-{}", uuid::Uuid::now_v7()));
    fs::create_dir(&folder).unwrap();
    let file = folder.join(name);
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    file
}

/// `setting source` of each event, for one component.
fn read_by(component: &str, lines: &[Value]) -> Vec<String> {
    let read = |line: &&Value| line["event"] == "secret_read" && line["component"] == component;
    let told = |line: &Value| format!("{} {}", line["setting"].as_str().unwrap(), line["source"].as_str().unwrap());
    lines.iter().filter(read).map(told).collect()
}

fn lines(output: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(output).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test]
async fn secret_05_each_reading_of_a_secret_is_told_and_never_its_value() {
    let database = test_database().await;
    let issuer = start_issuer(Clock::system()).await;
    let mut variables = TestApp::variables(&database, issuer.url());
    let reader = variables.remove("APP_DATABASE__READER_URL").unwrap();
    let file = secret_file("reader-url", &reader, 0o400);
    variables.insert("APP_DATABASE__READER_URL_FILE".to_owned(), file.to_str().unwrap().to_owned());
    let serving = Serving::start(&variables).await;
    let told = read_by("serve", &serving.said);
    assert!(told.contains(&format!("APP_DATABASE__READER_URL file {}", file.display())), "{told:?}");
    for name in [
        "DATABASE__WRITER_URL",
        "DATABASE__AUTHN_URL",
        "DATABASE__KEYS_URL",
        "KEYS__MASTER",
        "KEYS__INDEX",
        "SECRETS__MAC_KEY",
        "SECRETS__PEPPER",
    ] {
        assert!(told.contains(&format!("APP_{name} environment")), "{name}: {told:?}");
    }
    assert_eq!(told.len(), 8, "{told:?}");
    let read = serving.said.iter().find(|line| line["event"] == "secret_read").unwrap();
    assert!(read["timestamp"].is_string(), "{read}");
    let said = serde_json::to_string(&serving.said).unwrap();
    for secret in [&database.writer, &database.reader, &database.master_keys, &database.index_keys] {
        let secret = secret.expose_secret();
        // The password, or the key.
        let part = secret.split(['@', ',']).next().unwrap().rsplit(':').next().unwrap();
        assert!(part.len() >= 16 && !said.contains(part), "a secret is in the log");
    }
    // The commands of operators say so as well.
    let migrate = binary()
        .arg("migrate")
        .env("APP_PROFILE", "development")
        .env("APP_DATABASE__OWNER_URL", database.owner.expose_secret())
        .output()
        .unwrap();
    assert!(migrate.status.success(), "{migrate:?}");
    assert_eq!(read_by("migrate", &lines(&migrate.stderr)), ["APP_DATABASE__OWNER_URL environment"]);
    // Of a tenant that is not there, so that nothing is to be done.
    let rotate = binary()
        .args(["incident", "rotate", "--tenant", &uuid::Uuid::nil().to_string(), "--reason", "leaked"])
        .envs(TestApp::variables(&database, issuer.url()))
        .env("APP_DATABASE__OPERATOR_URL", database.operator.expose_secret())
        .output()
        .unwrap();
    let read = read_by("incident", &lines(&[rotate.stdout, rotate.stderr].concat()));
    assert_eq!(read.len(), 9, "all that the service reads, and the operator's login: {read:?}");
}

#[tokio::test]
async fn secret_05_the_key_of_tls_is_told_too() {
    let database = test_database().await;
    let issuer = start_issuer(Clock::system()).await;
    let files = PemFiles::new(Authority::new().sign());
    let mut variables = TestApp::variables(&database, issuer.url());
    variables.insert("APP_TLS__CERTIFICATE_PATH".to_owned(), files.certificate().to_str().unwrap().to_owned());
    variables.insert("APP_TLS__KEY_PATH".to_owned(), files.key().to_str().unwrap().to_owned());
    let serving = Serving::start(&variables).await;
    assert_eq!(read_by("tls", &serving.said), [format!("the key of the certificate file {}", files.key().display())]);
}

/// A secret may be in it, and so may what else changes with one.
#[test]
fn secret_04_the_file_of_settings_is_followed_with_those_of_secrets() {
    let file = secret_file("settings.toml", "[http]\ndocs = true\n", 0o600);
    let mut variables = BTreeMap::from(SOUND.map(|(name, value)| (name.to_owned(), value.to_owned())));
    variables.insert("APP_CONFIG".to_owned(), file.display().to_string());
    let sources = Settings::from_variables(variables.clone()).unwrap().sources;
    let before = sources.digest();
    assert_eq!(sources.digest(), before);
    fs::write(&file, "[http]\ndocs = false\n").unwrap();
    assert_ne!(sources.digest(), before);
    // It is the file of this very name, or none.
    variables.insert("APP_CONFIG".to_owned(), file.with_extension("").display().to_string());
    assert_eq!(faults(variables), ["APP_CONFIG: cannot be read"]);
}

fn faults(variables: BTreeMap<String, String>) -> Vec<String> {
    let Err(faults) = Settings::from_variables(variables) else { return Vec::new() };
    faults.0.into_iter().map(|fault| format!("{}: {}", fault.variable, fault.message)).collect()
}

#[tokio::test]
async fn secret_03_production_refuses_files_of_secrets_that_everybody_can_read() {
    let database = test_database().await;
    let variables = |profile: &str, mode| {
        let mut variables = TestApp::variables(&database, "https://login.example.com");
        variables.insert("APP_PROFILE".to_owned(), profile.to_owned());
        let file = secret_file("master-keys", &variables.remove("APP_KEYS__MASTER").unwrap(), mode);
        variables.insert("APP_KEYS__MASTER_FILE".to_owned(), file.to_str().unwrap().to_owned());
        variables
    };
    for (mode, expected) in [(0o400, 0), (0o440, 0), (0o600, 0), (0o444, 1), (0o604, 1), (0o402, 1)] {
        let found = faults(variables("production", mode));
        let open = found.iter().filter(|fault| fault.starts_with("APP_KEYS__MASTER: ") && fault.contains("everybody"));
        assert_eq!(open.count(), expected, "{mode:o}: {found:#?}");
    }
    assert_eq!(faults(variables("development", 0o644)), Vec::<String>::new());
    let key = secret_file("key.pem", "no key", 0o644);
    let mut with_tls = variables("production", 0o400);
    with_tls.insert("APP_TLS__CERTIFICATE_PATH".to_owned(), key.to_str().unwrap().to_owned());
    with_tls.insert("APP_TLS__KEY_PATH".to_owned(), key.to_str().unwrap().to_owned());
    assert!(
        faults(with_tls).iter().any(|fault| fault.starts_with("APP_TLS__KEY_PATH: ") && fault.contains("everybody"))
    );
}

#[tokio::test]
async fn secret_03_settings_of_a_vault_are_whole_and_safe_or_refused() {
    let database = test_database().await;
    let found = |own: &[(&str, &str)]| {
        let mut all: BTreeMap<String, String> = TestApp::variables(&database, "http://127.0.0.1:9");
        all.extend(own.iter().map(|(name, value)| (format!("APP_{name}"), (*value).to_owned())));
        all.retain(|_, value| !value.is_empty());
        Settings::from_variables(all).err().map(|faults| faults.to_string()).unwrap_or_default()
    };
    let url = ("KEYS__VAULT__URL", "https://vault.example.com:8200");
    let (token, provider) = (("KEYS__VAULT__TOKEN", "hvs.0f3b5f0e7c1d4a52"), ("KEYS__PROVIDER", "vault"));
    assert_eq!(found(&[url, token, provider]), "");
    assert_eq!(found(&[url, token, ("KEYS__MASTER", "")]), "");
    for (own, fault) in [
        (&[url, token][..], "APP_KEYS__PROVIDER: is required, since there are both"),
        (&[url, provider], "APP_KEYS__VAULT__TOKEN: is required"),
        (&[provider], "APP_KEYS__PROVIDER: is `vault`, so keys.vault.url is required"),
        (&[token], "APP_KEYS__VAULT__TOKEN: is of no use without keys.vault.url"),
        (&[("KEYS__MASTER", "")], "APP_KEYS__MASTER: is required"),
        (&[url, token, ("KEYS__PROVIDER", "keyset"), ("KEYS__MASTER", "")], "APP_KEYS__MASTER: is required"),
        (&[url, token, ("KEYS__PROVIDER", "kms")], "APP_KEYS__PROVIDER: expected `keyset` or `vault`"),
        (&[url, token, provider, ("KEYS__VAULT__KEY", "a/b")], "APP_KEYS__VAULT__KEY: must be"),
        (&[url, token, provider, ("KEYS__VAULT__MOUNT", "a/../b")], "APP_KEYS__VAULT__MOUNT: must be"),
        (&[url, token, provider, ("KEYS__VAULT__TIMEOUT_MS", "60000")], "APP_KEYS__VAULT__TIMEOUT_MS: must be"),
        (&[token, provider, ("KEYS__VAULT__URL", "ftp://vault")], "APP_KEYS__VAULT__URL: must be an https URL"),
        (&[token, provider, ("KEYS__VAULT__URL", "https://vault/?x")], "APP_KEYS__VAULT__URL: must have no user"),
        (&[token, provider, ("KEYS__VAULT__URL", "https://me@vault")], "APP_KEYS__VAULT__URL: must have no user"),
        (
            &[token, provider, ("PROFILE", "production"), ("KEYS__VAULT__URL", "http://vault.example.com")],
            "APP_KEYS__VAULT__URL: must be an https URL",
        ),
    ] {
        assert!(found(own).contains(fault), "{own:?}: {}", found(own));
    }
}
