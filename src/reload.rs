//! Secrets that change while the service runs (SECRET-04): passwords of the database and of Redis, master keys, keys of
//! blind indexes. Certificates look after themselves (`edge::Tls`).

use std::{collections::BTreeMap, error::Error, sync::Arc};

use futures_util::future::join_all;
use tokio::task::JoinSet;

use crate::{
    api,
    settings::{Looks, Profile, SecretRead, Settings, Sources},
    store::{Credentials, Retired},
    telemetry::event,
};

/// What takes secrets that changed into use.
pub(crate) struct Reload {
    sources: Sources,
    /// As at the start.
    profile: Profile,
    /// The files as they were at the last look.
    seen: Option<[u8; 32]>,
    /// The secrets that are used.
    used: Vec<SecretRead>,
    context: Arc<api::Context>,
    credentials: Credentials,
    /// Why a setting is not used as it is now, so that it is told once.
    told: BTreeMap<String, String>,
    /// Connections of old passwords that are being closed.
    retiring: JoinSet<()>,
}

/// What is told of when it is no single setting.
const ALL: &str = "settings";

type Refused = Box<dyn Error + Send + Sync>;

impl Reload {
    pub(crate) fn new(settings: &Settings, context: Arc<api::Context>, credentials: Credentials) -> Self {
        let (sources, used) = (settings.sources.clone(), settings.secrets_read.clone());
        let profile = settings.profile;
        Self {
            sources,
            profile,
            seen: None,
            used,
            context,
            credentials,
            told: BTreeMap::new(),
            retiring: JoinSet::new(),
        }
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
        let (sources, seen, again) = (self.sources.clone(), self.seen, !self.told.is_empty());
        let read = tokio::task::spawn_blocking(move || {
            let digest = sources.digest();
            (again || Some(digest) != seen).then(|| (digest, sources.read()))
        });
        let Ok(Some((digest, read))) = read.await else { return };
        self.seen = Some(digest);
        let settings = match read {
            Ok(settings) => settings,
            Err(faults) => return self.tell(ALL, faults.to_string()),
        };
        if settings.profile != self.profile {
            // What is safe enough would be decided anew.
            return self.tell(ALL, "the profile changed; that needs a restart".to_owned());
        }
        self.told.remove(ALL);
        let (same, changed): (Vec<_>, _) = settings.secrets_read.iter().partition(|read| self.used.contains(read));
        for read in same {
            self.told.remove(&read.setting);
        }
        // At once: a check of one may need the login of another.
        let renewals = changed.iter().map(|read| self.renew(&read.setting, &settings));
        let outcomes = join_all(renewals).await;
        for (read, outcome) in changed.into_iter().zip(outcomes) {
            match outcome {
                Ok(retired) => self.now_used(read, retired),
                Err(error) => self.tell(&read.setting, reason(&*error)),
            }
        }
    }

    /// Connections with the secret from before, if it is one of a database login.
    async fn renew(&self, setting: &str, settings: &Settings) -> Result<Option<Retired>, Refused> {
        let (database, to) = (&self.context.database, &settings.database);
        let retired = match setting {
            "APP_DATABASE__WRITER_URL" => database.renew_writer(&to.writer_url).await?,
            "APP_DATABASE__READER_URL" => database.renew_reader(&to.reader_url).await?,
            "APP_DATABASE__KEYS_URL" => database.renew_keeper(&to.keys_url).await?,
            "APP_DATABASE__AUTHN_URL" => self.credentials.renew(&to.authn_url).await?,
            "APP_KEYS__MASTER" => return Ok(database.renew_master_keys(&settings.keys).await.map(|()| None)?),
            "APP_KEYS__VAULT__TOKEN" => return Ok(database.renew_vault_token(&settings.keys).await.map(|()| None)?),
            "APP_KEYS__INDEX" => {
                return Ok(database.renew_index_keys(Arc::clone(&settings.keys.index)).await.map(|()| None)?);
            }
            "APP_QUOTA__REDIS_URL" => {
                return Ok(self.context.quotas.renew(&settings.quota).await.map(|()| None)?);
            }
            // It is read anew for each order.
            "APP_DATABASE__INCIDENTS_URL" => return Ok(None),
            _ => return Err("needs a restart".into()),
        };
        Ok(Some(retired))
    }

    fn now_used(&mut self, read: &SecretRead, retired: Option<Retired>) {
        event::secret_read("reload", &read.setting, &read.source.to_string());
        event::secret_renewed(&read.setting);
        self.told.remove(&read.setting);
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
