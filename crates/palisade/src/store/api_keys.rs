//! SQL of API keys as their owners manage them: create, list, rotate and revoke.
//!
//! In: permits and domain values. Out: API keys without the hash of their secret, which the logins
//! of operations cannot read; `db/api_keys.rs` reads it for authentication. The handlers of
//! `api/api_keys` call this.

use chrono::{DateTime, Utc};

use super::{Database, Loader, Lockable, ObjectPermit, Position, WriteTx};
use crate::{
    authz::{
        Change, Permit,
        api_keys::{CreateApiKey, ListApiKeys, RevokeApiKey, RotateApiKey},
    },
    db::{DbError, TracingExecutor, api_keys::ApiKeyRow},
    model::{ApiKey, ApiKeyId, Stateless, TenantId},
};

/// Marks the actions that create an API key.
pub trait CreatesKey: Change {}
impl CreatesKey for CreateApiKey {}
impl CreatesKey for RotateApiKey {}

impl<A: CreatesKey, K> WriteTx<'_, A, K> {
    /// Stores a new API key of the caller, with the hash of its secret.
    pub async fn add_api_key(&self, permit: &Permit<A>, key: &ApiKey, secret_hash: &str) -> Result<(), DbError> {
        DbError::unless(key.tenant == permit.tenant() && key.created_by == permit.principal().subject())?;
        sqlx::query!(
            "insert into palisade.api_keys (tenant_id, id, name, secret_hash, scopes, created_by, authorized_at,
                                            authorized_by, replaces, created_at, expires_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            permit.tenant().uuid(),
            key.id.uuid(),
            key.name.as_str(),
            secret_hash,
            &key.scopes,
            key.created_by,
            key.authorized_at,
            permit.principal().token_id(),
            key.replaces.map(ApiKeyId::uuid),
            key.created_at,
            key.expires_at
        )
        .execute(TracingExecutor(&mut *self.open.connection().await?))
        .await?;
        Ok(())
    }
}

impl Database {
    /// Reads a page of at most `limit` API keys after `from`, newest first, in one message.
    pub async fn api_keys(
        &self,
        permit: &Permit<ListApiKeys>,
        from: Position,
        limit: i64,
    ) -> Result<Vec<ApiKey>, DbError> {
        let rows = sqlx::query_as!(
            ApiKeyRow,
            "with t as materialized (select set_config('app.tenant_id', $1::uuid::text, true)::uuid as tenant)
             select q.* from t, lateral (
                 select tenant_id, id, name, scopes, created_by, replaces, authorized_at, created_at, expires_at,
                        revoked_at, last_used_at
                 from palisade.api_keys
                 where tenant_id = t.tenant and (created_at, id) < ($2, $3)
                 order by created_at desc, id desc limit $4 offset 0) q",
            permit.tenant().uuid(),
            from.time(),
            from.id,
            limit
        )
        .fetch_all(TracingExecutor(&mut *self.reader.connection().await?))
        .await?;
        rows.into_iter().map(ApiKey::try_from).collect()
    }
}

impl Lockable for ApiKey {
    type Id = ApiKeyId;
    type State = Stateless;

    fn id(&self) -> ApiKeyId {
        self.id
    }

    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn state(&self) -> Stateless {
        Stateless
    }

    async fn load(tx: &Loader<'_>, id: ApiKeyId) -> Result<Option<Self>, DbError> {
        let row = sqlx::query_as!(
            ApiKeyRow,
            "select tenant_id, id, name, scopes, created_by, replaces, authorized_at, created_at, expires_at, revoked_at,
                    last_used_at
             from palisade.api_keys where tenant_id = $1 and id = $2 for no key update",
            tx.tenant().uuid(),
            id.uuid()
        )
        .fetch_optional(TracingExecutor(&mut *tx.locking_connection().await?))
        .await?;
        row.map(Self::try_from).transpose()
    }
}

impl<K> WriteTx<'_, RotateApiKey, K> {
    /// Makes the API key expire at this time, unless it expires earlier.
    pub async fn expire_api_key(
        &self,
        permit: &ObjectPermit<'_, RotateApiKey, ApiKey>,
        at: DateTime<Utc>,
    ) -> Result<(), DbError> {
        self.check_object(permit)?;
        sqlx::query!(
            "update palisade.api_keys set expires_at = $3 where tenant_id = $1 and id = $2 and expires_at > $3",
            permit.tenant().uuid(),
            permit.id().uuid(),
            at
        )
        .execute(TracingExecutor(&mut *self.open.connection().await?))
        .await?;
        Ok(())
    }
}

impl WriteTx<'_, RevokeApiKey> {
    /// Revokes the API key now. If it is revoked already, nothing changes.
    pub async fn revoke_api_key(
        &self,
        permit: &ObjectPermit<'_, RevokeApiKey, ApiKey>,
        at: DateTime<Utc>,
    ) -> Result<(), DbError> {
        self.check_object(permit)?;
        sqlx::query!(
            "update palisade.api_keys set revoked_at = $3 where tenant_id = $1 and id = $2 and revoked_at is null",
            permit.tenant().uuid(),
            permit.id().uuid(),
            at
        )
        .execute(TracingExecutor(&mut *self.open.connection().await?))
        .await?;
        Ok(())
    }
}
