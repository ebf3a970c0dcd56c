//! SQL of API keys as their owners manage them: create, list, rotate and revoke.
//!
//! In: permits and domain values. Out: API keys without the hash of their secret, which the logins
//! of operations cannot read; `db/credentials.rs` reads it for authentication. The handlers of
//! `api/api_keys` call this.

use chrono::{DateTime, Utc};

use super::{Position, ReadTx, WriteTx};
use crate::{
    authz::{
        Change, ObjectPermit, Permit,
        actions::{CreateApiKey, ListApiKeys, RevokeApiKey, RotateApiKey},
    },
    db::{ApiKeyRow, DbError},
    domain::{ApiKey, ApiKeyId},
};

/// Marks the actions that create an API key.
pub trait CreatesKey: Change {}
impl CreatesKey for CreateApiKey {}
impl CreatesKey for RotateApiKey {}

impl<A: CreatesKey> WriteTx<A> {
    /// Stores a new API key of the caller, with the hash of its secret.
    pub async fn add_api_key(&mut self, permit: &Permit<A>, key: &ApiKey, secret_hash: &str) -> Result<(), DbError> {
        DbError::unless(key.tenant == permit.tenant() && key.created_by == permit.principal().subject())?;
        sqlx::query!(
            "insert into api_keys (tenant_id, id, name, secret_hash, scopes, created_by, authorized_at, authorized_by,
                                   replaces, created_at, expires_at)
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
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

impl ReadTx<ListApiKeys> {
    /// Reads a page of at most `limit` API keys after `from`, newest first.
    pub async fn api_keys(&mut self, from: Position, limit: i64) -> Result<Vec<ApiKey>, DbError> {
        let tenant = self.tenant().uuid();
        let rows = sqlx::query_as!(
            ApiKeyRow,
            "select tenant_id, id, name, scopes, created_by, replaces, authorized_at, created_at, expires_at, revoked_at,
                    last_used_at
             from api_keys
             where tenant_id = $1 and (created_at, id) < ($2, $3)
             order by created_at desc, id desc limit $4",
            tenant,
            from.time(),
            from.id,
            limit
        )
        .fetch_all(self.connection())
        .await?;
        rows.into_iter().map(ApiKey::try_from).collect()
    }
}

/// Marks the actions that end an API key, at once or after an overlap.
pub trait RevokesKey: Change {}
impl RevokesKey for RotateApiKey {}
impl RevokesKey for RevokeApiKey {}

impl<A: RevokesKey> WriteTx<A> {
    /// Reads the API key of this id and locks it until the transaction ends.
    pub async fn lock_api_key(&mut self, id: ApiKeyId) -> Result<Option<ApiKey>, DbError> {
        let tenant = self.tenant().uuid();
        let row = sqlx::query_as!(
            ApiKeyRow,
            "select tenant_id, id, name, scopes, created_by, replaces, authorized_at, created_at, expires_at, revoked_at,
                    last_used_at
             from api_keys where tenant_id = $1 and id = $2 for no key update",
            tenant,
            id.uuid()
        )
        .fetch_optional(self.connection())
        .await?;
        row.map(ApiKey::try_from).transpose()
    }
}

impl WriteTx<RotateApiKey> {
    /// Makes the API key expire at this time, unless it expires earlier.
    pub async fn expire_api_key(
        &mut self,
        permit: &ObjectPermit<'_, RotateApiKey, ApiKey>,
        at: DateTime<Utc>,
    ) -> Result<(), DbError> {
        sqlx::query!(
            "update api_keys set expires_at = $3 where tenant_id = $1 and id = $2 and expires_at > $3",
            permit.tenant().uuid(),
            permit.id().uuid(),
            at
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

impl WriteTx<RevokeApiKey> {
    /// Revokes the API key now. If it is revoked already, nothing changes.
    pub async fn revoke_api_key(
        &mut self,
        permit: &ObjectPermit<'_, RevokeApiKey, ApiKey>,
        at: DateTime<Utc>,
    ) -> Result<(), DbError> {
        sqlx::query!(
            "update api_keys set revoked_at = $3 where tenant_id = $1 and id = $2 and revoked_at is null",
            permit.tenant().uuid(),
            permit.id().uuid(),
            at
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}
