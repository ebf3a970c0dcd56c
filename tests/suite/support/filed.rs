use std::{
    fs,
    path::{Path, PathBuf},
};

use service::{
    authz::{matrix::Scope, policy::Role},
    dev::{database::Urls, issuer::DevIssuer},
    domain::Clock,
};
use uuid::Uuid;

use super::{ACME, Actor, Logins, Serving, TestApp, UNTHROTTLED, person, start_issuer};

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

/// A service whose secrets are in files.
pub struct FiledService {
    pub serving: Serving,
    pub issuer: DevIssuer,
    pub database: Urls,
    pub files: Files,
}

pub struct Files(PathBuf);

impl Files {
    pub fn write(&self, secret: &str, text: &str) {
        fs::write(self.0.join(secret), text).unwrap();
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

impl FiledService {
    /// Files are looked at this often, in milliseconds, or when it is asked to.
    pub async fn start(database: Urls, look_every: &str, own: &[(&str, &str)]) -> Self {
        let issuer = start_issuer(Clock::system()).await;
        let mut variables = TestApp::variables(&database, issuer.url());
        variables.extend(UNTHROTTLED.iter().chain(own).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        variables.retain(|_, value| !value.is_empty());
        variables.insert("APP_SECRETS__LOOK_EVERY_MS".to_owned(), look_every.to_owned());
        let files = Files(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("reload-{}", Uuid::now_v7())));
        fs::create_dir(&files.0).unwrap();
        for secret in SECRETS {
            let Some(text) = variables.remove(&format!("APP_{secret}")) else { continue };
            files.write(secret, &text);
            variables.insert(format!("APP_{secret}_FILE"), files.0.join(secret).to_str().unwrap().to_owned());
        }
        let serving = Serving::start(&variables).await;
        Self { serving, issuer, database, files }
    }

    pub fn admin(&self) -> Actor {
        Actor::new(self.serving.address, Some(self.issuer.access_token(&person(&ACME, Role::Admin), &Scope::ALL)))
    }

    /// What is wrong with the settings as they are now.
    pub async fn fault(&mut self) -> String {
        let line = self.serving.event("secret_not_renewed", "settings").await;
        line["reason"].as_str().unwrap().to_owned()
    }

    pub async fn event(&mut self, event: &str, secret: &str) -> String {
        let line = self.serving.event(event, &format!("APP_{secret}")).await;
        line["reason"].as_str().unwrap_or_default().to_owned()
    }

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
