//! Secret reload (SECRET-04): takes changed secrets into use while the service runs.
//!
//! Covers the passwords of the database and of Redis, master keys, index keys, the vault token and the
//! secrets of session clients.
//! A background task of [`super::components`] calls this whenever the reload ticker fires: at an
//! interval, at SIGHUP, and when a database login is refused. Each secret is validated before use
//! and changes independently of the others. TLS certificates reload themselves (`edge::Tls`).

use std::{collections::BTreeMap, error::Error, iter, sync::Arc};

use futures_util::future::join_all;
use tokio::task::JoinSet;

use crate::{
    db::{Credentials, RetiredPools},
    http::Context,
    settings::{Profile, ReloadTicker, SecretRead, Settings, Sources},
    store::maintenance::Maintenance,
    telemetry::event,
};

/// State of the secret reload.
pub(crate) struct SecretReload {
    sources: Sources,
    /// Profile at startup. Settings of another profile are not used.
    profile: Profile,
    /// Digest of the files when they were last read.
    seen: Option<[u8; 32]>,
    /// The secrets in use.
    used: Vec<SecretRead>,
    maintenance: Maintenance,
    context: Arc<Context>,
    credentials: Credentials,
    /// By setting, why its changed value is not in use. Each reason is reported once.
    failures: BTreeMap<String, String>,
    /// Tasks that close connections opened with previous passwords.
    retiring: JoinSet<()>,
}

/// Name in events for a fault of the settings as a whole.
const ALL_SETTINGS: &str = "settings";

type ReloadError = Box<dyn Error + Send + Sync>;

impl SecretReload {
    pub(crate) fn new(
        settings: &Settings,
        maintenance: Maintenance,
        context: Arc<Context>,
        credentials: Credentials,
    ) -> Self {
        Self {
            sources: settings.sources.clone(),
            profile: settings.profile,
            seen: None,
            used: settings.secrets_read.clone(),
            maintenance,
            context,
            credentials,
            failures: BTreeMap::new(),
            retiring: JoinSet::new(),
        }
    }

    /// Reloads at each tick. Never ends.
    pub(crate) async fn run(mut self, mut ticker: ReloadTicker) {
        loop {
            ticker.next().await;
            self.reload().await;
            while self.retiring.try_join_next().is_some() {}
        }
    }

    /// Takes each changed secret into use. A secret that fails is reported, and retried at each
    /// tick.
    async fn reload(&mut self) {
        let sources = self.sources.clone();
        let seen = self.seen;
        let is_retry = !self.failures.is_empty();
        let read = tokio::task::spawn_blocking(move || {
            let digest = sources.digest();
            (is_retry || Some(digest) != seen).then(|| (digest, sources.read()))
        });
        let Ok(Some((digest, read))) = read.await else { return };
        self.seen = Some(digest);
        let settings = match read {
            Ok(settings) => settings,
            Err(faults) => return self.report_failure(ALL_SETTINGS, faults.to_string()),
        };
        if settings.profile != self.profile {
            // Another profile has other safety checks, which run at startup only.
            return self.report_failure(ALL_SETTINGS, "the profile changed; restart the service".to_owned());
        }
        self.failures.remove(ALL_SETTINGS);
        let (same, changed): (Vec<_>, _) = settings.secrets_read.iter().partition(|read| self.used.contains(read));
        for read in same {
            self.failures.remove(&read.setting);
        }
        // Concurrently, because the check of one secret may need another one's new login.
        let reloads = changed.iter().map(|read| self.reload_secret(&read.setting, &settings));
        let outcomes = join_all(reloads).await;
        for (read, outcome) in changed.into_iter().zip(outcomes) {
            match outcome {
                Ok(retired) => self.record_use(read, retired),
                Err(error) => self.report_failure(&read.setting, error_chain(&*error)),
            }
        }
    }

    /// Validates a changed secret and takes it into use. Returns the connections that still use the
    /// previous password, if it is one of a database login.
    async fn reload_secret(&self, setting: &str, settings: &Settings) -> Result<Option<RetiredPools>, ReloadError> {
        let maintenance = &self.maintenance;
        let urls = &settings.database;
        Ok(match setting {
            "APP_DATABASE__WRITER_URL" => Some(maintenance.reload_writer(&urls.writer_url).await?),
            "APP_DATABASE__READER_URL" => Some(maintenance.reload_reader(&urls.reader_url).await?),
            "APP_DATABASE__KEYS_URL" => Some(maintenance.reload_keys_login(&urls.keys_url).await?),
            "APP_DATABASE__AUTHN_URL" => Some(self.credentials.reload(&urls.authn_url).await?),
            "APP_KEYS__MASTER" => maintenance.reload_master_keys(&settings.keys.master).await.map(|()| None)?,
            "APP_KEYS__VAULT__TOKEN" => maintenance.reload_vault_token(&settings.keys.master).await.map(|()| None)?,
            "APP_KEYS__INDEX" => {
                maintenance.reload_index_keys(Arc::clone(&settings.keys.index)).await.map(|()| None)?
            }
            "APP_QUOTA__REDIS_URL" => self.context.quotas.reload(&settings.quota).await.map(|()| None)?,
            // Each incident command reads it again.
            "APP_DATABASE__INCIDENTS_URL" => None,
            #[cfg(feature = "sessions")]
            _ if is_client_secret(setting) => {
                self.context.authenticator.reload_client_secrets(&settings.sessions);
                None
            }
            _ => return Err("needs a restart".into()),
        })
    }

    fn record_use(&mut self, read: &SecretRead, retired: Option<RetiredPools>) {
        event::secret_read("reload", &read.setting, &read.source.to_string());
        event::secret_renewed(&read.setting);
        self.failures.remove(&read.setting);
        self.used.retain(|used| used.setting != read.setting);
        self.used.push(read.clone());
        if let Some(retired) = retired {
            let setting = read.setting.clone();
            self.retiring.spawn(async move {
                retired.close().await;
                event::secret_retired(&setting);
            });
        }
    }

    fn report_failure(&mut self, setting: &str, reason: String) {
        if self.failures.get(setting) != Some(&reason) {
            event::secret_not_renewed(setting, &reason);
            self.failures.insert(setting.to_owned(), reason);
        }
    }
}

/// Whether a setting is the secret of a client with which people sign in, at whichever issuer.
#[cfg(feature = "sessions")]
fn is_client_secret(setting: &str) -> bool {
    setting.starts_with("APP_SESSIONS__") && setting.ends_with("__CLIENT_SECRET")
}

/// An error and its sources in one line. None of them contains a secret.
fn error_chain(error: &(dyn Error + 'static)) -> String {
    let errors = iter::successors(Some(error), |&error| error.source());
    errors.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
