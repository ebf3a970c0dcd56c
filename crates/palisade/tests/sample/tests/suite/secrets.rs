//! Sources of secrets: the events that name them (SECRET-05), permissions of their files
//! (SECRET-03) and the digest by which reloads detect changes (SECRET-04).

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use palisade::model::Clock;
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::support::{Authority, PRODUCTION_SETTINGS, PemFiles, SERVICE, ServiceProcess, TestApp, start_issuer};

/// A file with this mode, in a new folder.
fn secret_file(name: &str, text: &str, mode: u32) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("secrets-{}", uuid::Uuid::now_v7()));
    fs::create_dir(&folder).unwrap();
    let file = folder.join(name);
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    file
}

/// The `secret_read` events of a component, each as `setting source`.
fn secrets_read(component: &str, lines: &[Value]) -> Vec<String> {
    let is_read = |line: &&Value| line["event"] == "secret_read" && line["component"] == component;
    let text = |line: &Value| format!("{} {}", line["setting"].as_str().unwrap(), line["source"].as_str().unwrap());
    lines.iter().filter(is_read).map(text).collect()
}

fn lines(output: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(output).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test]
async fn secret_05_each_secret_read_is_logged_without_its_value() {
    let database = SERVICE.database().await;
    let issuer = start_issuer(Clock::system()).await;
    let mut variables = TestApp::variables(&database, issuer.url());
    let reader = variables.remove("APP_DATABASE__READER_URL").unwrap();
    let file = secret_file("reader-url", &reader, 0o400);
    variables.insert("APP_DATABASE__READER_URL_FILE".to_owned(), file.to_str().unwrap().to_owned());
    let process = ServiceProcess::start(&SERVICE, &variables).await;
    let read = secrets_read("serve", &process.log_lines);
    assert!(read.contains(&format!("APP_DATABASE__READER_URL file {}", file.display())), "{read:?}");
    for name in [
        "DATABASE__WRITER_URL",
        "DATABASE__AUTHN_URL",
        "DATABASE__KEYS_URL",
        "KEYS__MASTER",
        "KEYS__INDEX",
        "SECRETS__MAC_KEY",
        "SECRETS__PEPPER",
    ] {
        assert!(read.contains(&format!("APP_{name} environment")), "{name}: {read:?}");
    }
    assert_eq!(read.len(), 8, "{read:?}");
    let event = process.log_lines.iter().find(|line| line["event"] == "secret_read").unwrap();
    assert!(event["timestamp"].is_string(), "{event}");
    let log = serde_json::to_string(&process.log_lines).unwrap();
    for secret in [&database.writer, &database.reader, &database.master_keys, &database.index_keys] {
        let secret = secret.expose_secret();
        // The password of a URL, or the key of a keyset.
        let part = secret.split(['@', ',']).next().unwrap().rsplit(':').next().unwrap();
        assert!(part.len() >= 16 && !log.contains(part), "the log contains a secret");
    }
    // Operator commands log it too.
    let migrate = SERVICE
        .binary()
        .arg("migrate")
        .env("APP_PROFILE", "development")
        .env("APP_DATABASE__OWNER_URL", database.owner.expose_secret())
        .output()
        .unwrap();
    assert!(migrate.status.success(), "{migrate:?}");
    assert_eq!(secrets_read("migrate", &lines(&migrate.stderr)), ["APP_DATABASE__OWNER_URL environment"]);
    // The tenant does not exist, so the command does nothing.
    let rotate = SERVICE
        .binary()
        .args(["incident", "rotate", "--tenant", &uuid::Uuid::nil().to_string(), "--reason", "leaked"])
        .envs(TestApp::variables(&database, issuer.url()))
        .env("APP_DATABASE__OPERATOR_URL", database.operator.expose_secret())
        .output()
        .unwrap();
    let read = secrets_read("incident", &lines(&[rotate.stdout, rotate.stderr].concat()));
    assert_eq!(read.len(), 9, "the service's secrets and the operator's URL: {read:?}");
}

#[tokio::test]
async fn secret_05_reading_the_tls_key_is_logged() {
    let database = SERVICE.database().await;
    let issuer = start_issuer(Clock::system()).await;
    let files = PemFiles::new(Authority::new().sign());
    let mut variables = TestApp::variables(&database, issuer.url());
    variables.insert("APP_TLS__CERTIFICATE_PATH".to_owned(), files.certificate().to_str().unwrap().to_owned());
    variables.insert("APP_TLS__KEY_PATH".to_owned(), files.key().to_str().unwrap().to_owned());
    let process = ServiceProcess::start(&SERVICE, &variables).await;
    let expected = format!("certificate key file {}", files.key().display());
    assert_eq!(secrets_read("tls", &process.log_lines), [expected]);
}

/// The settings file may contain a secret, or a setting that changes together with one.
#[test]
fn secret_04_settings_file_changes_are_detected_like_secret_files() {
    let file = secret_file("settings.toml", "[http]\ndocs = true\n", 0o600);
    let mut variables = BTreeMap::from(PRODUCTION_SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())));
    variables.insert("APP_CONFIG".to_owned(), file.display().to_string());
    let sources = sample::app().read_settings(variables.clone()).unwrap().sources;
    let before = sources.digest();
    assert_eq!(sources.digest(), before);
    fs::write(&file, "[http]\ndocs = false\n").unwrap();
    assert_ne!(sources.digest(), before);
    // No other extension is tried.
    variables.insert("APP_CONFIG".to_owned(), file.with_extension("").display().to_string());
    assert_eq!(faults(variables), ["APP_CONFIG: the file cannot be read"]);
}

fn faults(variables: BTreeMap<String, String>) -> Vec<String> {
    let Err(faults) = sample::app().read_settings(variables) else { return Vec::new() };
    faults.0.into_iter().map(|fault| format!("{}: {}", fault.variable, fault.message)).collect()
}

#[tokio::test]
async fn secret_03_production_rejects_world_readable_secret_files() {
    let database = SERVICE.database().await;
    let variables = |profile: &str, mode| {
        let mut variables = TestApp::variables(&database, "https://login.example.com");
        variables.insert("APP_PROFILE".to_owned(), profile.to_owned());
        let file = secret_file("master-keys", &variables.remove("APP_KEYS__MASTER").unwrap(), mode);
        variables.insert("APP_KEYS__MASTER_FILE".to_owned(), file.to_str().unwrap().to_owned());
        variables
    };
    for (mode, expected) in [(0o400, 0), (0o440, 0), (0o600, 0), (0o444, 1), (0o604, 1), (0o402, 1)] {
        let found = faults(variables("production", mode));
        let open = found
            .iter()
            .filter(|fault| fault.starts_with("APP_KEYS__MASTER: ") && fault.contains("accessible to all users"));
        // Kubernetes and Swarm mount secrets with mode 644 and 444, so the fault says how to change that.
        let open =
            open.filter(|fault| ["defaultMode: 0400", "fsGroup", "mode: 0400"].iter().all(|w| fault.contains(w)));
        assert_eq!(open.count(), expected, "{mode:o}: {found:#?}");
    }
    assert_eq!(faults(variables("development", 0o644)), Vec::<String>::new());
    let key = secret_file("key.pem", "no key", 0o644);
    let mut with_tls = variables("production", 0o400);
    with_tls.insert("APP_TLS__CERTIFICATE_PATH".to_owned(), key.to_str().unwrap().to_owned());
    with_tls.insert("APP_TLS__KEY_PATH".to_owned(), key.to_str().unwrap().to_owned());
    assert!(
        faults(with_tls)
            .iter()
            .any(|fault| fault.starts_with("APP_TLS__KEY_PATH: ") && fault.contains("accessible to all users"))
    );
}

#[tokio::test]
async fn secret_03_incomplete_or_unsafe_vault_settings_are_rejected() {
    let database = SERVICE.database().await;
    let faults = |settings: &[(&str, &str)]| {
        let mut all: BTreeMap<String, String> = TestApp::variables(&database, "http://127.0.0.1:9");
        all.extend(settings.iter().map(|(name, value)| (format!("APP_{name}"), (*value).to_owned())));
        all.retain(|_, value| !value.is_empty());
        sample::app().read_settings(all).err().map(|faults| faults.to_string()).unwrap_or_default()
    };
    let url = ("KEYS__VAULT__URL", "https://vault.example.com:8200");
    let token = ("KEYS__VAULT__TOKEN", "hvs.0f3b5f0e7c1d4a52");
    let provider = ("KEYS__PROVIDER", "vault");
    assert_eq!(faults(&[url, token, provider]), "");
    assert_eq!(faults(&[url, token, ("KEYS__MASTER", "")]), "");
    for (settings, fault) in [
        (&[url, token][..], "APP_KEYS__PROVIDER: is required, since there are both"),
        (&[url, provider], "APP_KEYS__VAULT__TOKEN: is required"),
        (&[provider], "APP_KEYS__PROVIDER: is `vault`, so APP_KEYS__VAULT__URL is required"),
        (&[token], "APP_KEYS__VAULT__TOKEN: has no effect without APP_KEYS__VAULT__URL"),
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
        assert!(faults(settings).contains(fault), "{settings:?}: {}", faults(settings));
    }
}
