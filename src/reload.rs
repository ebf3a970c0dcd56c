//! Secrets that change while the service runs (SECRET-04): passwords of the database and of Redis, master keys, keys of
//! blind indexes. Certificates look after themselves (`edge::Tls`).

use std::{collections::BTreeMap, error::Error, sync::Arc};

use tokio::task::JoinSet;

use crate::{
    api,
    settings::{Looks, SecretRead, Settings, Sources},
    store::{Credentials, Retired},
    telemetry::event,
};

/// What takes secrets that changed into use.
pub(crate) struct Reload {
    sources: Sources,
    /// The secrets that are used.
    used: Vec<SecretRead>,
    context: Arc<api::Context>,
    credentials: Credentials,
    /// Why a setting is not used as it is now, so that it is told once.
    told: BTreeMap<String, String>,
    /// Connections of old passwords that are being closed.
    retiring: JoinSet<()>,
}

/// A secret of this setting is used from now on.
enum Renewed {
    At,
    /// There are connections of the one before.
    Over(Retired),
}

type Refused = Box<dyn Error + Send + Sync>;

impl Reload {
    pub(crate) fn new(settings: &Settings, context: Arc<api::Context>, credentials: Credentials) -> Self {
        let (sources, used) = (settings.sources.clone(), settings.secrets_read.clone());
        Self { sources, used, context, credentials, told: BTreeMap::new(), retiring: JoinSet::new() }
    }

    /// For as long as it runs.
    pub(crate) async fn follow(mut self, mut looks: Looks) {
        loop {
            looks.next().await;
            self.look().await;
            while self.retiring.try_join_next().is_some() {}
        }
    }

    /// Takes what changed into use, each secret by itself. What cannot be used is told, and tried again at each look.
    async fn look(&mut self) {
        let sources = self.sources.clone();
        // It reads files.
        let Ok(read) = tokio::task::spawn_blocking(move || sources.read()).await else { return };
        let settings = match read {
            Ok(settings) => settings,
            Err(faults) => return self.tell("APP_CONFIG", faults.to_string()),
        };
        self.told.remove("APP_CONFIG");
        for read in &settings.secrets_read {
            if self.used.contains(read) {
                self.told.remove(&read.setting);
                continue;
            }
            match self.renew(&read.setting, &settings).await {
                Ok(renewed) => self.now_used(read, renewed),
                Err(error) => self.tell(&read.setting, reason(&*error)),
            }
        }
    }

    async fn renew(&self, setting: &str, settings: &Settings) -> Result<Renewed, Refused> {
        let (database, to) = (&self.context.database, &settings.database);
        let retired = match setting {
            "APP_DATABASE__WRITER_URL" => database.renew_writer(to).await?,
            "APP_DATABASE__READER_URL" => database.renew_reader(to).await?,
            "APP_DATABASE__KEYS_URL" => database.renew_keeper(to).await?,
            "APP_DATABASE__AUTHN_URL" => self.credentials.renew(to).await?,
            "APP_KEYS__MASTER" | "APP_KEYS__VAULT__TOKEN" => {
                database.renew_master_keys(&settings.keys).await?;
                return Ok(Renewed::At);
            }
            "APP_KEYS__INDEX" => {
                database.renew_index_keys(Arc::clone(&settings.keys.index)).await?;
                return Ok(Renewed::At);
            }
            "APP_QUOTA__REDIS_URL" => {
                self.context.quotas.renew(&settings.quota).await?;
                return Ok(Renewed::At);
            }
            _ => return Err("needs a restart".into()),
        };
        Ok(Renewed::Over(retired))
    }

    fn now_used(&mut self, read: &SecretRead, renewed: Renewed) {
        event::secret_read("reload", &read.setting, &read.source.to_string());
        event::secret_renewed(&read.setting);
        self.told.remove(&read.setting);
        self.used.retain(|used| used.setting != read.setting);
        self.used.push(read.clone());
        if let Renewed::Over(retired) = renewed {
            let setting = read.setting.clone();
            self.retiring.spawn(async move {
                retired.close().await;
                event::secret_retired(&setting);
            });
        }
    }

    fn tell(&mut self, setting: &str, reason: String) {
        if self.told.get(setting) != Some(&reason) {
            event::secret_not_renewed(setting, &reason);
            self.told.insert(setting.to_owned(), reason);
        }
    }
}

/// An error with its causes. None of them has a secret.
fn reason(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
