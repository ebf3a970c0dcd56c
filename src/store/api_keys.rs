use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Position, ReadTx, StoreError, WriteTx, position::stored};
use crate::{
    authz::{
        Change, ObjectPermit, Permit,
        actions::{CreateApiKey, ListApiKeys, RevokeApiKey, RotateApiKey},
    },
    domain::{ApiKey, ApiKeyId, TenantId},
};

/// All there is of a key but what it is checked with.
pub(super) struct ApiKeyRow {
    pub(super) tenant_id: Uuid,
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) scopes: Vec<String>,
    pub(super) created_by: String,
    pub(super) replaces: Option<Uuid>,
    pub(super) authorized_at: DateTime<Utc>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) revoked_at: Option<DateTime<Utc>>,
    pub(super) last_used_at: Option<DateTime<Utc>>,
}

impl TryFrom<ApiKeyRow> for ApiKey {
    type Error = StoreError;

    fn try_from(row: ApiKeyRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: ApiKeyId::from_uuid(row.id),
            tenant: TenantId::from_uuid(row.tenant_id),
            name: stored(&row.name)?,
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

/// Marks the actions that make a key.
pub trait MakesKey: Change {}
impl MakesKey for CreateApiKey {}
impl MakesKey for RotateApiKey {}

impl<A: MakesKey> WriteTx<A> {
    /// Stores a new key of the permit's caller, with the hash of its secret.
    pub async fn add_api_key(&mut self, permit: &Permit<A>, key: &ApiKey, secret_hash: &str) -> Result<(), StoreError> {
        StoreError::unless(key.tenant == permit.tenant() && key.created_by == permit.principal().subject())?;
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
    /// At most `limit` keys after a position, newest first.
    pub async fn api_keys(&mut self, from: Position, limit: i64) -> Result<Vec<ApiKey>, StoreError> {
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

/// Marks the actions that end a key, at once or after a while.
pub trait EndsKey: Change {}
impl EndsKey for RotateApiKey {}
impl EndsKey for RevokeApiKey {}

impl<A: EndsKey> WriteTx<A> {
    /// The key of this id, locked until the transaction ends.
    pub async fn lock_api_key(&mut self, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError> {
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
    /// Lets the key go on until this time, unless it ends earlier.
    pub async fn end_api_key(
        &mut self,
        permit: &ObjectPermit<'_, RotateApiKey, ApiKey>,
        at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
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
    /// Ends the key now. A second time changes nothing.
    pub async fn revoke_api_key(
        &mut self,
        permit: &ObjectPermit<'_, RevokeApiKey, ApiKey>,
        at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
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
