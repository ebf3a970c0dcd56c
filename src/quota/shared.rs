//! Buckets that all replicas share, in Redis or Valkey (RATE-08).

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, RedisError, Script, TlsCertificates, aio::MultiplexedConnection,
};
use secrecy::ExposeSecret as _;
use thiserror::Error;
use tokio::sync::Notify;

use super::{Owner, Policy, Standing, WINDOW};
use crate::{
    crypto::MacKey,
    domain::{QuotaName, TenantId},
    settings::{self, without_credentials},
};

/// The longest that making a connection may take.
const CONNECT: Duration = Duration::from_secs(1);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// How often it is tried whether the store still counts.
const TRY: Duration = Duration::from_secs(1);

/// Counts in the shared store, or says at once that it cannot.
pub struct SharedBuckets {
    settings: settings::SharedQuota,
    client: ArcSwap<Client>,
    /// Held while the client or the connection is replaced.
    changing: Mutex<()>,
    connecting: AsyncConnectionConfig,
    script: Script,
    prefix: String,
    /// What a caller is called there says nothing to who reads it.
    mac_key: MacKey,
    /// Empty while the store is down: nobody waits for what was seen to fail.
    current: ArcSwapOption<MultiplexedConnection>,
    lost: Notify,
}

/// The shared store does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the shared store of quotas does not answer")]
pub struct StoreDown;

/// Why quotas cannot be shared as the settings want it.
#[derive(Debug, Error)]
pub enum SharedQuotaError {
    /// The file of the authorities cannot be read.
    #[error("cannot read APP_QUOTA__REDIS_CA_PATH")]
    Authorities(#[source] io::Error),
    /// The client refuses the URL or the authorities. Its reason could quote the password.
    #[error("APP_QUOTA__REDIS_URL or APP_QUOTA__REDIS_CA_PATH cannot be used")]
    Client,
}

/// Why another password of the shared store is not used.
#[derive(Debug, Error)]
pub enum NotRenewed {
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] SharedQuotaError),
    /// A password may change while the service runs, and nothing else of a URL but the user's name.
    #[error("names another store, or another way there; that needs a restart")]
    Elsewhere,
    /// The store does not count for who has it.
    #[error("the shared store of quotas: {0}")]
    Refused(&'static str),
}

impl SharedBuckets {
    /// Buckets in the store of these settings. It is not connected to yet.
    pub fn new(settings: &settings::SharedQuota, mac_key: MacKey) -> Result<Self, SharedQuotaError> {
        Ok(Self {
            settings: settings.clone(),
            client: ArcSwap::from_pointee(client(settings)?),
            changing: Mutex::new(()),
            connecting: AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT))
                .set_response_timeout(Some(settings.timeout)),
            script: Script::new(include_str!("shared.lua")),
            prefix: settings.prefix.clone(),
            mac_key,
            current: ArcSwapOption::empty(),
            lost: Notify::new(),
        })
    }

    /// Takes one call out of each bucket, in turn until one has none left, in one round trip.
    pub async fn take(&self, asked: &[(Owner<'_>, Policy)]) -> Result<Vec<Standing>, StoreDown> {
        let connection = self.current.load_full().ok_or(StoreDown)?;
        match self.count(MultiplexedConnection::clone(&connection), asked).await {
            Ok(standings) => Ok(standings),
            Err(error) => {
                // An answer, if a bad one, is this call's alone: whether the store can still count is tried each second.
                if error.is_timeout() || error.is_io_error() || error.is_unrecoverable_error() {
                    self.give_up(&connection, &error);
                }
                Err(StoreDown)
            }
        }
    }

    async fn count(
        &self,
        mut connection: MultiplexedConnection,
        asked: &[(Owner<'_>, Policy)],
    ) -> Result<Vec<Standing>, RedisError> {
        let mut call = self.script.prepare_invoke();
        for (owner, policy) in asked {
            let calls = policy.quota.max(1);
            call.key(self.key(owner, calls)).arg((WINDOW / calls).as_micros().to_string()).arg(calls);
        }
        let answer: Vec<(u32, u64)> = call.invoke_async(&mut connection).await?;
        let standing = |((_, policy), (remaining, wait)): (&(_, Policy), (u32, u64))| Standing {
            policy: *policy,
            remaining,
            wait: (wait > 0).then(|| Duration::from_micros(wait)),
        };
        let standings: Vec<_> = asked.iter().zip(answer).map(standing).collect();
        let all = standings.len() == asked.len() || standings.last().is_some_and(|last| last.wait.is_some());
        // What was not counted must not pass for counted.
        if all { Ok(standings) } else { Err((ErrorKind::UnexpectedReturnType, "a bucket was not counted").into()) }
    }

    /// Of another size, a quota is another bucket.
    fn key(&self, owner: &Owner<'_>, calls: u32) -> String {
        let Owner { tenant, name, subject } = owner;
        let subject = subject.map_or_else(String::new, |subject| {
            let tag = self.mac_key.tag("quota", subject.as_bytes());
            URL_SAFE_NO_PAD.encode(tag.get(..16).unwrap_or(&tag))
        });
        format!("{}:{tenant}:{name}:{calls}:{subject}", self.prefix)
    }

    /// Stays connected, for as long as it runs.
    pub(super) async fn stay_connected(&self) {
        let mut told = false;
        loop {
            if self.current.load().is_none() {
                match self.connect().await {
                    Ok(()) => tracing::info!("the shared store of quotas can be used"),
                    Err(error) => {
                        if !std::mem::replace(&mut told, true) {
                            tracing::error!(error = kind(&error), "the shared store of quotas cannot be used");
                        }
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                }
            }
            told = false;
            self.until_lost().await;
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Connects, and counts something, so that a store that only answers is told from one that can count.
    pub async fn connect(&self) -> Result<(), RedisError> {
        let client = self.client.load_full();
        let connection = self.try_out(&client).await?;
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // Of a password that was replaced meanwhile, there is a newer one.
        if Arc::ptr_eq(&client, &self.client.load()) {
            self.current.store(Some(Arc::new(connection)));
        }
        Ok(())
    }

    async fn try_out(&self, client: &Client) -> Result<MultiplexedConnection, RedisError> {
        let connection = client.get_multiplexed_async_connection_with_config(&self.connecting).await?;
        self.count(connection.clone(), &[TRIAL]).await?;
        Ok(connection)
    }

    /// Connects with another password, of the same store. The connection of the one before ends after what is asked on it.
    pub(super) async fn renew(&self, settings: &settings::SharedQuota) -> Result<(), NotRenewed> {
        if without_credentials(&settings.url) != without_credentials(&self.settings.url) {
            return Err(NotRenewed::Elsewhere);
        }
        let client = client(&settings::SharedQuota { url: settings.url.clone(), ..self.settings.clone() })?;
        let connection = self.try_out(&client).await.map_err(|error| NotRenewed::Refused(kind(&error)))?;
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.client.store(Arc::new(client));
        self.current.store(Some(Arc::new(connection)));
        Ok(())
    }

    async fn until_lost(&self) {
        while let Some(connection) = self.current.load_full() {
            if tokio::time::timeout(TRY, self.lost.notified()).await.is_err()
                && let Err(error) = self.count(MultiplexedConnection::clone(&connection), &[TRIAL]).await
            {
                self.give_up(&connection, &error);
            }
        }
    }

    /// Of many that fail on a connection, the first gives it up; a newer one is not theirs.
    fn give_up(&self, failed: &Arc<MultiplexedConnection>, error: &RedisError) {
        let before = self.current.compare_and_swap(failed, None);
        if before.as_ref().is_some_and(|current| Arc::ptr_eq(current, failed)) {
            tracing::error!(error = kind(error), "the shared store of quotas does not answer");
            self.lost.notify_one();
        }
    }
}

fn client(settings: &settings::SharedQuota) -> Result<Client, SharedQuotaError> {
    let root_cert = settings.authorities.as_ref().map(std::fs::read).transpose();
    let root_cert = root_cert.map_err(SharedQuotaError::Authorities)?;
    let url = settings.url.expose_secret();
    let client = match root_cert {
        Some(_) => Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert }),
        None => Client::open(url),
    };
    client.map_err(|_| SharedQuotaError::Client)
}

/// A bucket of nobody's.
const TRIAL: (Owner<'static>, Policy) = (
    Owner { tenant: TenantId::from_uuid(uuid::Uuid::nil()), name: QuotaName::Tenant, subject: Some("trial") },
    Policy { name: QuotaName::Tenant, quota: 1_000_000 },
);

/// Codes of errors that say what to mend.
const CODES: [&str; 7] = ["MOVED", "NOAUTH", "NOPERM", "OOM", "READONLY", "WRONGPASS", "LOADING"];

/// What an error is, without what the server says: that could quote anything.
fn kind(error: &RedisError) -> &'static str {
    if let Some(code) = error.code().and_then(|code| CODES.into_iter().find(|known| *known == code)) {
        code
    } else if error.is_timeout() {
        "timeout"
    } else if error.is_connection_refusal() {
        "connection refused"
    } else if error.is_io_error() || error.is_connection_dropped() {
        "connection lost, or no TLS"
    } else {
        "refused by the server"
    }
}

impl std::fmt::Debug for SharedBuckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedBuckets").field("connected", &self.current.load().is_some()).finish_non_exhaustive()
    }
}
