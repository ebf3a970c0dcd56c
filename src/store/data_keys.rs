//! Data keys as they are stored, with the login that keeps them, `app_keys`.
//!
//! It reads data keys and adds new ones; it sees nothing that is sealed. Operations, the other way round, see what is
//! sealed and no data key.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::{StoreError, UnfitDatabase, migrate, pool, privileges};
use crate::{crypto::WrappedDataKey, domain::TenantId, settings};

/// Data keys, wrapped. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct DataKeys(PgPool);

impl DataKeys {
    /// A pool for the login. It connects when first used.
    pub(super) fn new(settings: &settings::Database) -> Result<Self, UnfitDatabase> {
        Ok(Self(pool(&settings.keys_url, settings)?))
    }

    /// Checks that the login can do no more than it must.
    pub(super) async fn check_fit(&self) -> Result<(), UnfitDatabase> {
        privileges::check(&self.0, privileges::Duty::KeepKeys).await?;
        migrate::check_version(&self.0).await?;
        privileges::check_row_security(&self.0).await
    }

    pub(super) async fn close(&self) {
        self.0.close().await;
    }

    /// The newest data key of a tenant.
    pub(super) async fn newest(&self, tenant: TenantId) -> Result<Option<WrappedDataKey>, StoreError> {
        let key = sqlx::query_as!(
            WrappedDataKey,
            "select version, wrapped_by, wrapped from data_keys
             where of_tenant = $1 and version = (select max(version) from data_keys where of_tenant = $1)",
            tenant.uuid()
        );
        Ok(key.fetch_optional(&self.0).await?)
    }

    /// A data key of a tenant.
    pub(super) async fn get(&self, tenant: TenantId, version: i32) -> Result<Option<WrappedDataKey>, StoreError> {
        let key = sqlx::query_as!(
            WrappedDataKey,
            "select version, wrapped_by, wrapped from data_keys where of_tenant = $1 and version = $2",
            tenant.uuid(),
            version
        );
        Ok(key.fetch_optional(&self.0).await?)
    }

    /// Adds a data key, unless another replica added that version first.
    pub(super) async fn add(
        &self,
        tenant: TenantId,
        key: &WrappedDataKey,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "insert into data_keys (of_tenant, version, wrapped_by, wrapped, created_at)
             values ($1, $2, $3, $4, $5) on conflict do nothing",
            tenant.uuid(),
            key.version,
            key.wrapped_by,
            key.wrapped,
            now
        )
        .execute(&self.0)
        .await?;
        Ok(())
    }

    /// Tenants that have data keys.
    pub(super) async fn tenants(&self) -> Result<Vec<TenantId>, StoreError> {
        let tenants = sqlx::query_scalar!("select of_tenant from data_keys group by of_tenant order by of_tenant");
        Ok(tenants.fetch_all(&self.0).await?.into_iter().map(TenantId::from_uuid).collect())
    }

    /// The data keys of a tenant, by version, each with the master key that wraps it.
    pub(super) async fn versions(&self, tenant: TenantId) -> Result<Vec<(i32, String)>, StoreError> {
        let keys = sqlx::query!(
            "select version, wrapped_by from data_keys where of_tenant = $1 order by version",
            tenant.uuid()
        );
        Ok(keys.fetch_all(&self.0).await?.into_iter().map(|key| (key.version, key.wrapped_by)).collect())
    }

    /// One data key that each master key wraps.
    pub(super) async fn one_of_each_master(&self) -> Result<Vec<(TenantId, WrappedDataKey)>, StoreError> {
        let rows = sqlx::query!(
            r#"with recursive masters as (
                   (select wrapped_by from data_keys order by wrapped_by limit 1)
                   union all
                   select (select k.wrapped_by from data_keys k where k.wrapped_by > m.wrapped_by
                           order by k.wrapped_by limit 1)
                   from masters m where m.wrapped_by is not null
               )
               select k.of_tenant, k.version, k.wrapped_by, k.wrapped
               from masters m
               cross join lateral (select * from data_keys k where k.wrapped_by = m.wrapped_by limit 1) k"#
        )
        .fetch_all(&self.0)
        .await?;
        let key = rows.into_iter().map(|row| {
            let key = WrappedDataKey { version: row.version, wrapped_by: row.wrapped_by, wrapped: row.wrapped };
            (TenantId::from_uuid(row.of_tenant), key)
        });
        Ok(key.collect())
    }
}
