//! Data keys as they are stored, with the login that keeps them, `app_keys`.
//!
//! It reads data keys and adds new ones; it sees nothing that is sealed. Operations, the other way round, see what is
//! sealed and no data key.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{StoreError, login::Login, traced::Traced};
use crate::{crypto::WrappedDataKey, domain::TenantId};

/// Data keys, wrapped. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct DataKeys(pub(super) Login);

/// One with whose it is.
struct DataKeyRow {
    of_tenant: Uuid,
    version: i32,
    wrapped_by: String,
    wrapped: Vec<u8>,
}

/// A key of blind indexes.
pub(super) struct IndexKeyRow {
    pub(super) version: i32,
    pub(super) check_value: Vec<u8>,
    /// No row has it, and none gets it again.
    pub(super) forgotten: bool,
}

impl DataKeyRow {
    fn into_key(self) -> (TenantId, WrappedDataKey) {
        let Self { of_tenant, version, wrapped_by, wrapped } = self;
        (TenantId::from_uuid(of_tenant), WrappedDataKey { version, wrapped_by, wrapped })
    }
}

impl DataKeys {
    /// The newest data key of a tenant; an error if the tenant's were destroyed.
    pub(super) async fn newest(&self, tenant: TenantId) -> Result<Option<WrappedDataKey>, StoreError> {
        let newest = sqlx::query!(
            "select version, wrapped_by, wrapped from data_keys
             where of_tenant = $1 and version = (select max(version) from data_keys where of_tenant = $1)",
            tenant.uuid()
        );
        let Some(newest) = newest.fetch_optional(Traced(&mut *self.0.connection().await?)).await? else {
            return Ok(None);
        };
        let wrapped = newest.wrapped.ok_or(StoreError::KeyDestroyed)?;
        Ok(Some(WrappedDataKey { version: newest.version, wrapped_by: newest.wrapped_by, wrapped }))
    }

    /// A data key of a tenant; an error if it was dropped, or destroyed.
    pub(super) async fn get(&self, tenant: TenantId, version: i32) -> Result<WrappedDataKey, StoreError> {
        let key = sqlx::query!(
            "select wrapped_by, wrapped from data_keys where of_tenant = $1 and version = $2",
            tenant.uuid(),
            version
        );
        let key = key.fetch_optional(Traced(&mut *self.0.connection().await?)).await?.ok_or(StoreError::KeyDropped)?;
        let wrapped = key.wrapped.ok_or(StoreError::KeyDestroyed)?;
        Ok(WrappedDataKey { version, wrapped_by: key.wrapped_by, wrapped })
    }

    /// Adds a data key, unless another replica added that version first, or the tenant's were destroyed.
    pub(super) async fn add(
        &self,
        tenant: TenantId,
        key: &WrappedDataKey,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "insert into data_keys (of_tenant, version, wrapped_by, wrapped, created_at)
             select $1, $2, $3, $4, $5
             where not exists (select from data_keys where of_tenant = $1 and wrapped is null)
             on conflict do nothing",
            tenant.uuid(),
            key.version,
            key.wrapped_by,
            key.wrapped,
            now
        )
        .execute(Traced(&mut *self.0.connection().await?))
        .await?;
        Ok(())
    }

    /// Tenants that have data keys.
    pub(super) async fn tenants(&self) -> Result<Vec<TenantId>, StoreError> {
        let tenants = sqlx::query_scalar!(
            "select of_tenant from data_keys where wrapped is not null group by of_tenant order by of_tenant"
        );
        Ok(tenants
            .fetch_all(Traced(&mut *self.0.connection().await?))
            .await?
            .into_iter()
            .map(TenantId::from_uuid)
            .collect())
    }

    /// The data keys of a tenant, by version, but for destroyed ones.
    pub(super) async fn all(&self, tenant: TenantId) -> Result<Vec<WrappedDataKey>, StoreError> {
        let keys = sqlx::query_as!(
            WrappedDataKey,
            r#"select version, wrapped_by, wrapped as "wrapped!" from data_keys
               where of_tenant = $1 and wrapped is not null order by version"#,
            tenant.uuid()
        );
        Ok(keys.fetch_all(Traced(&mut *self.0.connection().await?)).await?)
    }

    /// Notes the key of blind indexes that new rows get, unless it is known.
    pub(super) async fn add_index_key(&self, version: u16, check_value: &[u8]) -> Result<(), StoreError> {
        sqlx::query!(
            "insert into index_keys (version, check_value) values ($1, $2) on conflict do nothing",
            i32::from(version),
            check_value
        )
        .execute(Traced(&mut *self.0.connection().await?))
        .await?;
        Ok(())
    }

    /// The keys of blind indexes that there were, by version.
    pub(super) async fn index_keys(&self) -> Result<Vec<IndexKeyRow>, StoreError> {
        let keys = sqlx::query_as!(
            IndexKeyRow,
            r#"select version, check_value, forgotten_at is not null as "forgotten!" from index_keys order by version"#
        );
        Ok(keys.fetch_all(Traced(&mut *self.0.connection().await?)).await?)
    }

    /// Notes the master key that new data keys get, unless one of its name is known.
    pub(super) async fn add_master_key(&self, name: &str, check_value: &[u8]) -> Result<(), StoreError> {
        sqlx::query!(
            "insert into master_keys (name, check_value) values ($1, $2) on conflict do nothing",
            name,
            check_value
        )
        .execute(Traced(&mut *self.0.connection().await?))
        .await?;
        Ok(())
    }

    /// The master keys of keysets that there were, by name, each with its check value.
    pub(super) async fn master_keys(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let keys = sqlx::query!("select name, check_value from master_keys order by name");
        let keys = keys.fetch_all(Traced(&mut *self.0.connection().await?)).await?;
        Ok(keys.into_iter().map(|key| (key.name, key.check_value)).collect())
    }

    /// All data keys that a master key wraps.
    pub(super) async fn wrapped_by(&self, master: &str) -> Result<Vec<(TenantId, WrappedDataKey)>, StoreError> {
        let rows = sqlx::query_as!(
            DataKeyRow,
            r#"select of_tenant, version, wrapped_by, wrapped as "wrapped!" from data_keys
               where wrapped_by = $1 and wrapped is not null"#,
            master
        )
        .fetch_all(Traced(&mut *self.0.connection().await?))
        .await?;
        Ok(rows.into_iter().map(DataKeyRow::into_key).collect())
    }

    /// A few data keys that each master key wraps.
    pub(super) async fn some_of_each_master(&self) -> Result<Vec<(TenantId, WrappedDataKey)>, StoreError> {
        let rows = sqlx::query_as!(
            DataKeyRow,
            r#"with recursive masters as (
                   (select wrapped_by from data_keys where wrapped is not null order by wrapped_by limit 1)
                   union all
                   select (select k.wrapped_by from data_keys k
                           where k.wrapped is not null and k.wrapped_by > m.wrapped_by order by k.wrapped_by limit 1)
                   from masters m where m.wrapped_by is not null
               )
               select k.of_tenant, k.version, k.wrapped_by, k.wrapped as "wrapped!"
               from masters m
               cross join lateral (select * from data_keys k
                                   where k.wrapped is not null and k.wrapped_by = m.wrapped_by limit 3) k"#
        )
        .fetch_all(Traced(&mut *self.0.connection().await?))
        .await?;
        Ok(rows.into_iter().map(DataKeyRow::into_key).collect())
    }
}
