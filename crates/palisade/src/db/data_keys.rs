//! Wrapped data keys (CRYPTO-04), and check values of master keys and index keys, in the database.
//!
//! In: the pool of the login `app_keys`, which reads and adds data keys and reads no sealed field.
//! The logins of operations read sealed fields and no data key. Changing and destroying data keys
//! is reserved to operators. `keyring` is the only caller.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{DbError, rotating_pool::RotatingPool, tracing_executor::TracingExecutor};
use crate::{crypto::WrappedDataKey, model::TenantId};

/// Rows of a page. A database may have millions of tenants.
const PAGE_SIZE: i64 = 1_000;

/// The tables of keys, through the login `app_keys`. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct DataKeys(pub(crate) RotatingPool);

/// A row of `palisade.data_keys`.
struct DataKeyRow {
    of_tenant: Uuid,
    version: i32,
    wrapped_by: String,
    wrapped: Vec<u8>,
}

/// A row of `palisade.index_keys`: an index key that rows are, or were, indexed with.
pub(crate) struct IndexKeyRow {
    pub(crate) version: i32,
    pub(crate) check_value: Vec<u8>,
    /// No row is indexed with this key, and the database accepts none.
    pub(crate) forgotten: bool,
}

impl DataKeyRow {
    fn into_key(self) -> (TenantId, WrappedDataKey) {
        let Self { of_tenant, version, wrapped_by, wrapped } = self;
        (TenantId::from_uuid(of_tenant), WrappedDataKey { version, wrapped_by, wrapped })
    }
}

impl DataKeys {
    /// Reads the newest data key of a tenant. An error if the tenant's data keys were destroyed.
    pub(crate) async fn newest(&self, tenant: TenantId) -> Result<Option<WrappedDataKey>, DbError> {
        let newest = sqlx::query!(
            "select version, wrapped_by, wrapped from palisade.data_keys
             where of_tenant = $1 and version = (select max(version) from palisade.data_keys where of_tenant = $1)",
            tenant.uuid()
        );
        let Some(newest) = newest.fetch_optional(TracingExecutor(&mut *self.0.connection().await?)).await? else {
            return Ok(None);
        };
        let wrapped = newest.wrapped.ok_or(DbError::KeyDestroyed)?;
        Ok(Some(WrappedDataKey { version: newest.version, wrapped_by: newest.wrapped_by, wrapped }))
    }

    /// Reads a data key of a tenant. An error if it was dropped or destroyed.
    pub(crate) async fn get(&self, tenant: TenantId, version: i32) -> Result<WrappedDataKey, DbError> {
        let key = sqlx::query!(
            "select wrapped_by, wrapped from palisade.data_keys where of_tenant = $1 and version = $2",
            tenant.uuid(),
            version
        );
        let key =
            key.fetch_optional(TracingExecutor(&mut *self.0.connection().await?)).await?.ok_or(DbError::KeyDropped)?;
        let wrapped = key.wrapped.ok_or(DbError::KeyDestroyed)?;
        Ok(WrappedDataKey { version, wrapped_by: key.wrapped_by, wrapped })
    }

    /// Adds a data key, unless another replica added that version first, or the tenant's data keys
    /// were destroyed.
    pub(crate) async fn add(&self, tenant: TenantId, key: &WrappedDataKey, now: DateTime<Utc>) -> Result<(), DbError> {
        sqlx::query!(
            "insert into palisade.data_keys (of_tenant, version, wrapped_by, wrapped, created_at)
             select $1, $2, $3, $4, $5
             where not exists (select from palisade.data_keys where of_tenant = $1 and wrapped is null)
             on conflict do nothing",
            tenant.uuid(),
            key.version,
            key.wrapped_by,
            key.wrapped,
            now
        )
        .execute(TracingExecutor(&mut *self.0.connection().await?))
        .await?;
        Ok(())
    }

    /// Lists the tenants that have data keys, a page of them from this id on.
    pub(crate) async fn tenants(&self, from: Uuid) -> Result<Vec<TenantId>, DbError> {
        let tenants = sqlx::query_scalar!(
            "select distinct of_tenant from palisade.data_keys where wrapped is not null and of_tenant >= $1
             order by of_tenant limit $2",
            from,
            PAGE_SIZE
        );
        Ok(tenants
            .fetch_all(TracingExecutor(&mut *self.0.connection().await?))
            .await?
            .into_iter()
            .map(TenantId::from_uuid)
            .collect())
    }

    /// Reads the data keys of a tenant in order of version, without destroyed ones.
    pub(crate) async fn all(&self, tenant: TenantId) -> Result<Vec<WrappedDataKey>, DbError> {
        let keys = sqlx::query_as!(
            WrappedDataKey,
            r#"select version, wrapped_by, wrapped as "wrapped!" from palisade.data_keys
               where of_tenant = $1 and wrapped is not null order by version"#,
            tenant.uuid()
        );
        Ok(keys.fetch_all(TracingExecutor(&mut *self.0.connection().await?)).await?)
    }

    /// Records the check value of the index key for new rows, unless that version is recorded.
    pub(crate) async fn add_index_key(&self, version: u16, check_value: &[u8]) -> Result<(), DbError> {
        sqlx::query!(
            "insert into palisade.index_keys (version, check_value) values ($1, $2) on conflict do nothing",
            i32::from(version),
            check_value
        )
        .execute(TracingExecutor(&mut *self.0.connection().await?))
        .await?;
        Ok(())
    }

    /// Reads all index keys that were ever in use, in order of version.
    pub(crate) async fn index_keys(&self) -> Result<Vec<IndexKeyRow>, DbError> {
        let keys = sqlx::query_as!(
            IndexKeyRow,
            r#"select version, check_value, forgotten_at is not null as "forgotten!" from palisade.index_keys
               order by version"#
        );
        Ok(keys.fetch_all(TracingExecutor(&mut *self.0.connection().await?)).await?)
    }

    /// Records the check value of the master key for new data keys, unless that name is recorded.
    pub(crate) async fn add_master_key(&self, name: &str, check_value: &[u8]) -> Result<(), DbError> {
        sqlx::query!(
            "insert into palisade.master_keys (name, check_value) values ($1, $2) on conflict do nothing",
            name,
            check_value
        )
        .execute(TracingExecutor(&mut *self.0.connection().await?))
        .await?;
        Ok(())
    }

    /// Reads all master keys of keysets that were ever in use, by name, with their check values.
    pub(crate) async fn master_keys(&self) -> Result<Vec<(String, Vec<u8>)>, DbError> {
        let keys = sqlx::query!("select name, check_value from palisade.master_keys order by name");
        let keys = keys.fetch_all(TracingExecutor(&mut *self.0.connection().await?)).await?;
        Ok(keys.into_iter().map(|key| (key.name, key.check_value)).collect())
    }

    /// Reads the data keys that a master key wraps, a page of them after this tenant and version.
    pub(crate) async fn wrapped_by(
        &self,
        master: &str,
        (tenant, version): (TenantId, i32),
    ) -> Result<Vec<(TenantId, WrappedDataKey)>, DbError> {
        let rows = sqlx::query_as!(
            DataKeyRow,
            r#"select of_tenant, version, wrapped_by, wrapped as "wrapped!" from palisade.data_keys
               where wrapped_by = $1 and wrapped is not null and (of_tenant, version) > ($2, $3)
               order by of_tenant, version limit $4"#,
            master,
            tenant.uuid(),
            version,
            PAGE_SIZE
        )
        .fetch_all(TracingExecutor(&mut *self.0.connection().await?))
        .await?;
        Ok(rows.into_iter().map(DataKeyRow::into_key).collect())
    }

    /// Reads up to three data keys per master key.
    pub(crate) async fn sample_per_master_key(&self) -> Result<Vec<(TenantId, WrappedDataKey)>, DbError> {
        let rows = sqlx::query_as!(
            DataKeyRow,
            r#"with recursive masters as (
                   (select wrapped_by from palisade.data_keys where wrapped is not null order by wrapped_by limit 1)
                   union all
                   select (select k.wrapped_by from palisade.data_keys k
                           where k.wrapped is not null and k.wrapped_by > m.wrapped_by order by k.wrapped_by limit 1)
                   from masters m where m.wrapped_by is not null
               )
               select k.of_tenant, k.version, k.wrapped_by, k.wrapped as "wrapped!"
               from masters m
               cross join lateral (select * from palisade.data_keys k
                                   where k.wrapped is not null and k.wrapped_by = m.wrapped_by limit 3) k"#
        )
        .fetch_all(TracingExecutor(&mut *self.0.connection().await?))
        .await?;
        Ok(rows.into_iter().map(DataKeyRow::into_key).collect())
    }
}
