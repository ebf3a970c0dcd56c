//! Token buckets that all replicas share, in Redis or Valkey (RATE-08, FAIL-01).
//!
//! [`super::Quotas`] counts here first. While the store is down, [`SharedBuckets::take`] fails at
//! once instead of waiting, and the route matrix decides whether a call is counted locally or
//! rejected. A background task reconnects. The script `shared.lua` is the algorithm.

use std::{io, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, RedisError, Script, TlsCertificates, aio::MultiplexedConnection,
};
use secrecy::ExposeSecret as _;
use thiserror::Error;
use tokio::sync::Notify;

use super::{Bucket, QuotaPolicy, QuotaStatus, QuotaStoreUnavailable, WINDOW};
use crate::{
    crypto::MacKey,
    model::{QuotaName, TenantId},
    settings::{self, without_credentials},
};

/// Timeout of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause between connection attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// Interval between health checks of the store.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The token buckets in the quota store.
pub struct SharedBuckets {
    settings: settings::SharedQuota,
    link: ArcSwap<Link>,
    connection_config: AsyncConnectionConfig,
    script: Script,
    prefix: String,
    /// Pseudonymizes subjects in the store.
    mac_key: MacKey,
    connection_lost: Notify,
}

/// A password of the store, and the connection that was opened with it.
struct Link {
    client: Client,
    /// `None` while the store is down, so that calls fail at once instead of waiting.
    connection: Option<MultiplexedConnection>,
}

/// Why the settings of the quota store cannot be used. If a reload fails, the old connection stays
/// in use.
#[derive(Debug, Error)]
pub enum SharedQuotaError {
    /// The file with the CA certificates is not readable.
    #[error("cannot read the file of APP_QUOTA__REDIS_CA_PATH")]
    Authorities(#[source] io::Error),
    /// The client rejects the URL or the CA certificates. Its reason is dropped: it could quote the
    /// password.
    #[error("APP_QUOTA__REDIS_URL or APP_QUOTA__REDIS_CA_PATH is invalid")]
    Client,
    /// Only the user name and the password in the URL may change while the service runs.
    #[error("host, port or database of the quota store changed; restart the service")]
    DifferentStore,
    /// The store rejects the new credentials, or they lack a permission.
    #[error("the quota store rejects the new credentials: {0}")]
    Rejected(&'static str),
}

impl SharedBuckets {
    /// Buckets in the store of the settings, not connected yet.
    pub fn new(settings: &settings::SharedQuota, mac_key: MacKey) -> Result<Self, SharedQuotaError> {
        Ok(Self {
            settings: settings.clone(),
            link: ArcSwap::from_pointee(Link { client: client(settings)?, connection: None }),
            connection_config: AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(settings.timeout)),
            script: Script::new(include_str!("shared.lua")),
            prefix: settings.prefix.clone(),
            mac_key,
            connection_lost: Notify::new(),
        })
    }

    /// Takes one token from each bucket in turn, until one is empty, in one round trip.
    pub async fn take(&self, buckets: &[Bucket<'_>]) -> Result<Vec<QuotaStatus>, QuotaStoreUnavailable> {
        let link = self.link.load_full();
        let connection = link.connection.clone().ok_or(QuotaStoreUnavailable)?;
        match self.run_script(connection, buckets).await {
            Ok(statuses) => Ok(statuses),
            Err(error) => {
                // An error response concerns this call alone; the health check tests the store each
                // second.
                if error.is_timeout() || error.is_io_error() || error.is_unrecoverable_error() {
                    self.drop_connection(&link, &error);
                }
                Err(QuotaStoreUnavailable)
            }
        }
    }

    async fn run_script(
        &self,
        mut connection: MultiplexedConnection,
        buckets: &[Bucket<'_>],
    ) -> Result<Vec<QuotaStatus>, RedisError> {
        let mut invocation = self.script.prepare_invoke();
        for bucket in buckets {
            let size = bucket.policy.quota.max(1);
            invocation.key(self.key(bucket)).arg((WINDOW / size).as_micros().to_string()).arg(size);
        }
        let results: Vec<(u32, u64)> = invocation.invoke_async(&mut connection).await?;
        let status = |(bucket, (remaining, wait)): (&Bucket<'_>, (u32, u64))| QuotaStatus {
            policy: bucket.policy,
            remaining,
            wait: (wait > 0).then(|| Duration::from_micros(wait)),
        };
        let statuses: Vec<_> = buckets.iter().zip(results).map(status).collect();
        let complete = statuses.len() == buckets.len() || statuses.last().is_some_and(|last| last.wait.is_some());
        // A call that was not counted in every bucket must not pass as counted.
        if complete { Ok(statuses) } else { Err((ErrorKind::UnexpectedReturnType, "a bucket was not counted").into()) }
    }

    /// The Redis key of a bucket. It does not contain the size: a changed quota keeps the bucket.
    fn key(&self, bucket: &Bucket<'_>) -> String {
        let Bucket { tenant, subject, policy: QuotaPolicy { name, .. } } = bucket;
        let subject = subject.map_or_else(String::new, |subject| {
            let tag = self.mac_key.tag("quota", subject.as_bytes());
            URL_SAFE_NO_PAD.encode(tag.get(..16).unwrap_or(&tag))
        });
        format!("{}:{tenant}:{name}:{subject}", self.prefix)
    }

    /// Keeps the connection open. Runs until the service stops.
    pub(super) async fn stay_connected(&self) {
        let mut is_reported = false;
        loop {
            if self.link.load().connection.is_none() {
                match self.connect().await {
                    Ok(()) => tracing::info!("connected to the quota store"),
                    Err(error) => {
                        if !std::mem::replace(&mut is_reported, true) {
                            tracing::error!(error = describe(&error), "could not connect to the quota store");
                        }
                        tokio::time::sleep(RETRY_INTERVAL).await;
                        continue;
                    }
                }
            }
            is_reported = false;
            self.until_lost().await;
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    /// Connects and runs the script once: a store that responds may still reject scripts or writes.
    pub async fn connect(&self) -> Result<(), RedisError> {
        let link = self.link.load_full();
        let connection = self.open_and_test(&link.client).await?;
        // If the password was replaced meanwhile, there is a newer link already.
        let connected = Link { client: link.client.clone(), connection: Some(connection) };
        self.link.compare_and_swap(&link, Arc::new(connected));
        Ok(())
    }

    async fn open_and_test(&self, client: &Client) -> Result<MultiplexedConnection, RedisError> {
        let connection = client.get_multiplexed_async_connection_with_config(&self.connection_config).await?;
        self.run_script(connection.clone(), &[TEST_BUCKET]).await?;
        Ok(connection)
    }

    /// Connects to the same store with a new password. The old connection closes after its pending
    /// calls.
    pub(super) async fn reload(&self, settings: &settings::SharedQuota) -> Result<(), SharedQuotaError> {
        if without_credentials(&settings.url) != without_credentials(&self.settings.url) {
            return Err(SharedQuotaError::DifferentStore);
        }
        let client = client(&settings::SharedQuota { url: settings.url.clone(), ..self.settings.clone() })?;
        let connection =
            self.open_and_test(&client).await.map_err(|error| SharedQuotaError::Rejected(describe(&error)))?;
        self.link.store(Arc::new(Link { client, connection: Some(connection) }));
        Ok(())
    }

    /// Checks the connection once per [`CHECK_INTERVAL`]. Returns when the connection is lost.
    async fn until_lost(&self) {
        loop {
            let link = self.link.load_full();
            let Some(connection) = link.connection.clone() else { return };
            if tokio::time::timeout(CHECK_INTERVAL, self.connection_lost.notified()).await.is_err()
                && let Err(error) = self.run_script(connection, &[TEST_BUCKET]).await
            {
                self.drop_connection(&link, &error);
            }
        }
    }

    /// Drops a failed connection, but not a newer one. Many calls may fail on one connection; only
    /// the first of them logs the error.
    fn drop_connection(&self, failed: &Arc<Link>, error: &RedisError) {
        let disconnected = Link { client: failed.client.clone(), connection: None };
        let previous = self.link.compare_and_swap(failed, Arc::new(disconnected));
        if Arc::ptr_eq(&previous, failed) {
            tracing::error!(error = describe(error), "lost the connection to the quota store");
            self.connection_lost.notify_one();
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

/// The bucket of health checks. It belongs to no tenant.
const TEST_BUCKET: Bucket<'static> = Bucket {
    tenant: TenantId::from_uuid(uuid::Uuid::nil()),
    subject: Some("trial"),
    policy: QuotaPolicy { name: QuotaName::Tenant, quota: 1_000_000 },
};

/// Error codes of the server that tell an operator what to repair.
const SERVER_ERROR_CODES: [&str; 7] = ["MOVED", "NOAUTH", "NOPERM", "OOM", "READONLY", "WRONGPASS", "LOADING"];

/// The kind of an error, without the server's text, which could quote any data.
pub(super) fn describe(error: &RedisError) -> &'static str {
    if let Some(code) = error.code().and_then(|code| SERVER_ERROR_CODES.into_iter().find(|known| *known == code)) {
        code
    } else if error.is_timeout() {
        "timeout"
    } else if error.is_connection_refusal() {
        "connection refused"
    } else if error.is_io_error() || error.is_connection_dropped() {
        "connection lost, or TLS mismatch"
    } else {
        "rejected by the server"
    }
}

impl std::fmt::Debug for SharedBuckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedBuckets")
            .field("connected", &self.link.load().connection.is_some())
            .finish_non_exhaustive()
    }
}
