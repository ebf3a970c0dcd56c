//! Queries of authentication, which run before there is a principal and so without a permit.
//!
//! In: settings with the URL of the login `app_authn`. Out: revocations (AUTHN-11) and operator
//! overrides; `api_keys.rs` adds the queries of API keys. Operations use other logins: those cannot
//! read a hash of an API key, and this one cannot read an order. [`crate::authn`] and
//! [`crate::quota`] hold a [`Credentials`].

use std::time::Duration;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use uuid::Uuid;

use super::{
    DbError, RetiredPools, UnfitDatabase,
    revocation_feed::{RevocationFeed, first_transaction, read_revocations},
    role_check::DbRole,
    rotating_pool::RotatingPool,
    tenants::read_tenants,
    tracing_executor::TracingExecutor,
};
use crate::{
    model::{ActiveOverride, Override, RegisteredTenant, Revocation, TenantId},
    settings::{self, Settings},
};

/// Time-out for one page of revocations, and for the overrides.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// The tables of authentication, through the login `app_authn`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub(super) pool: RotatingPool,
    /// One connection for revocations, used at startup and while no listener is connected. A
    /// separate pool, so that it does not queue behind look-ups of API keys.
    revocations: RotatingPool,
    /// One connection for operator overrides, for the same reason.
    overrides: RotatingPool,
}

struct OverrideRow {
    kind: String,
    target: String,
    of_tenant: Option<Uuid>,
    per_minute: Option<i32>,
    until: DateTime<Utc>,
}

impl OverrideRow {
    /// `None`: the row is of a kind, or has a value, that this version cannot parse.
    fn parse(self) -> Option<ActiveOverride> {
        let per_minute = u32::try_from(self.per_minute.unwrap_or_default()).ok()?;
        let value = match (self.kind.as_str(), self.of_tenant.map(TenantId::from_uuid)) {
            ("tenant", Some(tenant)) => Override::TenantQuota { tenant, name: self.target.parse().ok()?, per_minute },
            ("class", None) => Override::GlobalQuota { name: self.target.parse().ok()?, per_minute },
            ("address", None) => Override::NetworkLimit { network: self.target.parse().ok()?, per_minute },
            ("read_only", None) => Override::ReadOnly,
            _ => return None,
        };
        Some(ActiveOverride { value, until: self.until })
    }
}

impl Credentials {
    /// Creates the pools. They connect when they are first used.
    pub fn new(settings: &Settings) -> Result<Self, UnfitDatabase> {
        let Settings { database, sources, .. } = settings;
        let single = settings::Database { max_connections: 1, ..database.clone() };
        let pool = |settings| RotatingPool::new(DbRole::Authn, &database.authn_url, settings, sources);
        Ok(Self { pool: pool(database)?, revocations: pool(&single)?, overrides: pool(&single)? })
    }

    /// Checks that the login has exactly the privileges of its role, and that the database is fit.
    pub async fn validate(&self) -> Result<(), UnfitDatabase> {
        self.pool.validate().await
    }

    /// Replaces the pools by ones of this URL, after the same checks as at startup (SECRET-04).
    pub async fn reload(&self, url: &SecretString) -> Result<RetiredPools, UnfitDatabase> {
        let retired = self.pool.reload(url).await?;
        Ok(retired.merge(self.revocations.reload_unchecked(url)?).merge(self.overrides.reload_unchecked(url)?))
    }

    /// Closes all connections after the work they do.
    pub async fn close(&self) {
        tokio::join!(self.pool.close(), self.revocations.close(), self.overrides.close());
    }

    /// Whether a value with this digest is used for the first time, by any replica. It is remembered
    /// until then.
    pub(crate) async fn use_once(&self, digest: &[u8], until: DateTime<Utc>) -> Result<bool, DbError> {
        let mut connection = self.pool.connection().await?;
        let claim = sqlx::query_scalar!(r#"select palisade.use_once($1, $2) as "is_first!""#, digest, until);
        let is_first = claim.fetch_one(TracingExecutor(&mut connection)).await?;
        connection.release();
        Ok(is_first)
    }

    /// Reads all revocations in force. Drops the connection if a page takes more than two seconds.
    pub async fn revocations(&self) -> Result<Vec<Revocation>, DbError> {
        let mut connection = with_timeout(self.revocations.connection()).await?;
        let revocations = read_revocations(&mut connection, &mut first_transaction()).await;
        connection.return_or_close(revocations.is_ok());
        revocations
    }

    /// Reads all tenants, as [`revocations`](Self::revocations) does.
    pub async fn tenants(&self) -> Result<Vec<RegisteredTenant>, DbError> {
        let mut connection = with_timeout(self.revocations.connection()).await?;
        let tenants = read_tenants(&mut connection, &mut first_transaction()).await;
        connection.return_or_close(tenants.is_ok());
        tenants
    }

    /// Opens a connection that listens for notifications.
    pub async fn listen(&self) -> Result<RevocationFeed, DbError> {
        RevocationFeed::open(&self.revocations).await
    }

    /// Records the sizes of the connection pool as metrics.
    pub fn record_pool_metrics(&self) {
        self.pool.record_pool_metrics();
    }

    /// Reads the overrides in force, and the number of rows that this version cannot parse. Drops
    /// the connection if the database does not answer within two seconds.
    pub async fn overrides(&self) -> Result<(Vec<ActiveOverride>, usize), DbError> {
        let mut connection = with_timeout(self.overrides.connection()).await?;
        let rows = sqlx::query_as!(
            OverrideRow,
            r#"select 'tenant' as "kind!", quota as "target!", of_tenant, per_minute, expires_at as "until!"
               from palisade.tenant_quotas where expires_at > now()
               union all
               select kind, target, null, per_minute, expires_at from palisade.overrides where expires_at > now()"#
        )
        .fetch_all(TracingExecutor(&mut connection));
        let rows = with_timeout(rows).await;
        connection.return_or_close(rows.is_ok());
        let rows = rows?;
        let count = rows.len();
        let overrides: Vec<_> = rows.into_iter().filter_map(OverrideRow::parse).collect();
        let unreadable = count - overrides.len();
        Ok((overrides, unreadable))
    }
}

/// Limits the wait for a connection that is silent but open, which otherwise lasts until TCP gives
/// up.
pub(super) async fn with_timeout<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, DbError> {
    let result = tokio::time::timeout(READ_TIMEOUT, work).await.map_err(|_| sqlx::Error::PoolTimedOut)?;
    Ok(result?)
}
