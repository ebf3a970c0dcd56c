//! Queries of API keys for authentication, which run before there is a principal.
//!
//! In: the login `app_authn`. Out: API keys with the hash of their secret. Writes the last use of
//! API keys and the roles in tokens. `authn/api_keys` calls this. [`crate::store`] has the queries
//! of operations, which cannot read a hash.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Credentials, DbError, parse_stored, tracing_executor::TracingExecutor};
use crate::model::{ApiKey, ApiKeyId, TenantId};

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

impl Credentials {
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
}

/// Leaves the hash of the secret out.
impl std::fmt::Debug for StoredApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredApiKey").field("key", &self.key).finish_non_exhaustive()
    }
}
