//! Queries of authentication, which run before there is a principal and so without a permit.
//!
//! In: settings with the URL of the login `app_authn`. Out: API keys with the hash of their secret,
//! revocations (AUTHN-11) and operator overrides. Writes the last use of API keys and the roles in
//! tokens. Operations use other logins: those cannot read a hash, and this one cannot read an
//! order. [`crate::authn`] and [`crate::quota`] hold a [`Credentials`].

use std::time::Duration;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use uuid::Uuid;

use super::{
    DbError, RetiredPools, UnfitDatabase, parse_stored,
    revocation_feed::{RevocationFeed, first_transaction, read_revocations},
    role_check::DbRole,
    rotating_pool::RotatingPool,
    tracing_executor::TracingExecutor,
};
use crate::{
    model::{ActiveOverride, ApiKey, ApiKeyId, Override, Revocation, TenantId},
    settings::{self, Settings},
};

/// Time-out for one page of revocations, and for the overrides.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// The tables of authentication, through the login `app_authn`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Credentials {
    pool: RotatingPool,
    /// One connection for revocations, used at startup and while no listener is connected. A
    /// separate pool, so that it does not queue behind look-ups of API keys.
    revocations: RotatingPool,
    /// One connection for operator overrides, for the same reason.
    overrides: RotatingPool,
}

/// An API key with what its verification needs.
pub struct StoredApiKey {
    /// The key without its secret, as lists show it.
    pub key: ApiKey,
    /// Hash of the secret, in PHC string format.
    pub secret_hash: String,
    /// Names of the roles in the newest token of the key's creator.
    pub creator_roles: Vec<String>,
    /// The `jti` of the token that authorized the creation, if it had one.
    pub authorized_by: Option<String>,
}

/// A row of `api_keys` without the hash of the secret.
pub(crate) struct ApiKeyRow {
    pub(crate) tenant_id: Uuid,
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) created_by: String,
    pub(crate) replaces: Option<Uuid>,
    pub(crate) authorized_at: DateTime<Utc>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) expires_at: DateTime<Utc>,
    pub(crate) revoked_at: Option<DateTime<Utc>>,
    pub(crate) last_used_at: Option<DateTime<Utc>>,
}

impl TryFrom<ApiKeyRow> for ApiKey {
    type Error = DbError;

    fn try_from(row: ApiKeyRow) -> Result<Self, DbError> {
        Ok(Self {
            id: ApiKeyId::from_uuid(row.id),
            tenant: TenantId::from_uuid(row.tenant_id),
            name: parse_stored(&row.name)?,
            scopes: row.scopes,
            created_by: row.created_by,
            replaces: row.replaces.map(ApiKeyId::from_uuid),
            authorized_at: row.authorized_at,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
        })
    }
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

    /// Reads the API key of this id, in one round trip.
    pub async fn api_key(&self, tenant: TenantId, id: ApiKeyId) -> Result<Option<StoredApiKey>, DbError> {
        let row = sqlx::query!(
            r#"select name as "name!", secret_hash as "secret_hash!", scopes as "scopes!", created_by as "created_by!",
                      creator_roles as "creator_roles!", replaces, authorized_at as "authorized_at!", authorized_by,
                      created_at as "created_at!", expires_at as "expires_at!", revoked_at, last_used_at
               from palisade.read_api_key($1, $2)"#,
            tenant.uuid(),
            id.uuid()
        )
        .fetch_optional(TracingExecutor(&mut *self.pool.connection().await?))
        .await?;
        let Some(row) = row else { return Ok(None) };
        let key = ApiKeyRow {
            tenant_id: tenant.uuid(),
            id: id.uuid(),
            name: row.name,
            scopes: row.scopes,
            created_by: row.created_by,
            replaces: row.replaces,
            authorized_at: row.authorized_at,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
        };
        Ok(Some(StoredApiKey {
            key: key.try_into()?,
            secret_hash: row.secret_hash,
            creator_roles: row.creator_roles,
            authorized_by: row.authorized_by,
        }))
    }

    /// Records the last use of API keys of a tenant.
    pub async fn record_key_uses(&self, tenant: TenantId, uses: &[(ApiKeyId, DateTime<Utc>)]) -> Result<(), DbError> {
        let (keys, times): (Vec<Uuid>, Vec<DateTime<Utc>>) = uses.iter().map(|(id, at)| (id.uuid(), *at)).unzip();
        sqlx::query!("select palisade.record_key_uses($1, $2, $3)", tenant.uuid(), &keys, &times)
            .execute(TracingExecutor(&mut *self.pool.connection().await?))
            .await?;
        Ok(())
    }

    /// Records the roles in a token of a subject. They bound all API keys of that subject. An older
    /// token than the newest recorded one changes nothing.
    pub async fn record_roles(
        &self,
        tenant: TenantId,
        subject: &str,
        roles: &[String],
        issued_at: DateTime<Utc>,
    ) -> Result<(), DbError> {
        sqlx::query!("select palisade.record_roles($1, $2, $3, $4)", tenant.uuid(), subject, roles, issued_at)
            .execute(TracingExecutor(&mut *self.pool.connection().await?))
            .await?;
        Ok(())
    }

    /// Reads all revocations in force. Drops the connection if a page takes more than two seconds.
    pub async fn revocations(&self) -> Result<Vec<Revocation>, DbError> {
        let mut connection = with_timeout(self.revocations.connection()).await?;
        read_revocations(&mut connection, &mut first_transaction()).await.inspect_err(|_| {
            // The pool would test the connection before it accepts it back, and a silent one would
            // keep its slot for as long as that test takes.
            drop(connection.detach());
        })
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
        let rows = with_timeout(rows).await.inspect_err(|_| drop(connection.detach()))?;
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

/// Leaves the hash of the secret out.
impl std::fmt::Debug for StoredApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredApiKey").field("key", &self.key).finish_non_exhaustive()
    }
}
