//! A service process that reads each secret from a file ([`FileSecretsService`]).
//!
//! Tests of reload (SECRET-04) replace the files while the service runs and wait for its events.

use std::{
    fs,
    path::{Path, PathBuf},
};

use palisade::{
    dev::{database::Urls, issuer::DevIssuer},
    model::Clock,
};
use sample::access::{roles, scopes};
use uuid::Uuid;

use super::{ACME, Actor, Logins, SERVICE, ServiceProcess, TestApp, UNTHROTTLED, person, start_issuer};

const SECRETS: [&str; 9] = [
    "DATABASE__WRITER_URL",
    "DATABASE__READER_URL",
    "DATABASE__AUTHN_URL",
    "DATABASE__KEYS_URL",
    "KEYS__MASTER",
    "KEYS__INDEX",
    "SECRETS__MAC_KEY",
    "QUOTA__REDIS_URL",
    "KEYS__VAULT__TOKEN",
];

/// The process, its issuer and database, and the files with its secrets.
pub struct FileSecretsService {
    pub process: ServiceProcess,
    pub issuer: DevIssuer,
    pub database: Urls,
    pub files: Files,
}

pub struct Files(PathBuf);

impl Files {
    /// Replaces the file atomically, so that the service never reads half of it.
    pub fn write(&self, secret: &str, text: &str) {
        let partial = self.0.join(format!("{secret}.new"));
        fs::write(&partial, text).unwrap();
        fs::rename(partial, self.0.join(secret)).unwrap();
    }

    pub fn read(&self, secret: &str) -> String {
        fs::read_to_string(self.0.join(secret)).unwrap()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl FileSecretsService {
    /// Starts with these further variables. The service checks the files at this interval, in
    /// milliseconds, and on SIGHUP.
    pub async fn start(database: Urls, reload_interval_ms: &str, extra: &[(&str, &str)]) -> Self {
        let issuer = start_issuer(Clock::system()).await;
        let mut variables = TestApp::variables(&database, issuer.url());
        let extra = UNTHROTTLED.iter().chain(extra);
        variables.extend(extra.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        variables.retain(|_, value| !value.is_empty());
        variables.insert("APP_SECRETS__RELOAD_INTERVAL_MS".to_owned(), reload_interval_ms.to_owned());
        let files = Files(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("reload-{}", Uuid::now_v7())));
        fs::create_dir(&files.0).unwrap();
        for secret in SECRETS {
            let Some(text) = variables.remove(&format!("APP_{secret}")) else { continue };
            files.write(secret, &text);
            variables.insert(format!("APP_{secret}_FILE"), files.0.join(secret).to_str().unwrap().to_owned());
        }
        let process = ServiceProcess::start(&SERVICE, &variables).await;
        Self { process, issuer, database, files }
    }

    pub fn admin(&self) -> Actor {
        Actor::new(self.process.address, Some(self.issuer.access_token(&person(&ACME, roles::ADMIN), &scopes::ALL)))
    }

    /// Waits for the event that the settings as a whole were rejected; returns the reason.
    pub async fn wait_for_settings_fault(&mut self) -> String {
        let line = self.process.wait_for_event("secret_not_renewed", "settings").await;
        line["reason"].as_str().unwrap().to_owned()
    }

    /// Waits for this event about a secret; returns its reason, if it has one.
    pub async fn wait_for_event(&mut self, event: &str, secret: &str) -> String {
        let line = self.process.wait_for_event(event, &format!("APP_{secret}")).await;
        line["reason"].as_str().unwrap_or_default().to_owned()
    }

    /// The connection URL in the file of this login, such as `reader`.
    pub fn url(&self, login: &str) -> String {
        self.files.read(&format!("DATABASE__{}_URL", login.to_uppercase()))
    }

    pub fn write_urls(&self, logins: &Logins) {
        for login in Logins::ALL {
            let secret = format!("DATABASE__{}_URL", login.to_uppercase());
            self.files.write(&secret, &logins.url(login, &self.url(login)));
        }
    }
}
