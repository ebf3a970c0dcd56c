//! Acts of operators on the keys of sealed fields, with the login `app_operator` (CRYPTO-05,
//! CRYPTO-08). `ops` calls all of it. Every act leaves an event in the audit trail.

use chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::operator::{Operator, OperatorError, record_act};
use crate::{
    crypto::{MasterKeys, WrappedDataKey},
    model::TenantId,
    telemetry::event,
};

/// Result of a rewrap of all data keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrapped {
    /// Name of the primary master key, which wraps them now.
    pub primary: String,
    /// Number of data keys that were rewrapped.
    pub moved: u64,
    /// Number of data keys that cannot be unwrapped and were left unchanged.
    pub failed: usize,
}

/// Something that a tenant has: its name with a number, or with a time.
#[derive(Clone, Debug)]
pub struct TenantItem {
    /// Such as `data keys`, or `last change`.
    pub name: String,
    /// How many there are.
    pub number: Option<i64>,
    /// When it happened.
    pub last_use: Option<DateTime<Utc>>,
}

impl Operator {
    /// Rewraps every data key with the primary master key (CRYPTO-05).
    ///
    /// Leaves a data key unchanged if another operator rewraps it concurrently. A data key that
    /// cannot be unwrapped is counted and reported as an event, and does not stop the others.
    pub async fn rewrap(&mut self, master: &MasterKeys) -> Result<Rewrapped, OperatorError> {
        let primary = master.primary().await?;
        record_act(&mut self.0, None, "data_keys_rewrapped", &primary, "").await.map_err(OperatorError::Refused)?;
        let mut rewrapped = Rewrapped { primary, moved: 0, failed: 0 };
        let mut position = (Uuid::nil(), 0);
        loop {
            let page = sqlx::query!(
                r#"select of_tenant, version, wrapped_by, wrapped as "wrapped!" from palisade.data_keys
                   where wrapped is not null and wrapped_by <> $1 and (of_tenant, version) > ($2, $3)
                   order by of_tenant, version limit 1000"#,
                rewrapped.primary,
                position.0,
                position.1
            );
            let page = page.fetch_all(&mut self.0).await.map_err(OperatorError::Refused)?;
            let Some(last) = page.last() else { return Ok(rewrapped) };
            position = (last.of_tenant, last.version);
            for key in page {
                let old = WrappedDataKey { version: key.version, wrapped_by: key.wrapped_by, wrapped: key.wrapped };
                self.rewrap_one(master, key.of_tenant, old, &mut rewrapped).await?;
            }
        }
    }

    async fn rewrap_one(
        &mut self,
        master: &MasterKeys,
        tenant: Uuid,
        old: WrappedDataKey,
        rewrapped: &mut Rewrapped,
    ) -> Result<(), OperatorError> {
        let new = match master.rewrap(&rewrapped.primary, tenant, &old).await {
            Ok(Some(new)) => new,
            Ok(None) => return Ok(()),
            Err(error) if error.concerns_one_data_key() => {
                event::data_key_invalid(&tenant.to_string(), old.version, &error);
                rewrapped.failed += 1;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let update = sqlx::query!(
            "update palisade.data_keys set wrapped_by = $3, wrapped = $4
             where of_tenant = $1 and version = $2 and wrapped_by = $5 and wrapped is not null",
            tenant,
            new.version,
            new.wrapped_by,
            new.wrapped,
            old.wrapped_by
        );
        rewrapped.moved += update.execute(&mut self.0).await.map_err(OperatorError::Refused)?.rows_affected();
        Ok(())
    }

    /// Deletes a data key. Returns `false` if the tenant has no such version, or it is the newest.
    ///
    /// A foreign key constraint rejects the deletion of a data key that a row key needs.
    pub async fn drop_data_key(&mut self, tenant: TenantId, version: i32) -> Result<bool, OperatorError> {
        let transaction = async {
            let mut tx = self.0.begin().await?;
            let delete = sqlx::query!(
                "delete from palisade.data_keys where of_tenant = $1 and version = $2 and wrapped is not null
                 and version < (select max(version) from palisade.data_keys where of_tenant = $1)",
                tenant.uuid(),
                version
            );
            let dropped = delete.execute(&mut *tx).await?.rows_affected() > 0;
            if dropped {
                record_act(&mut tx, Some(tenant), "data_key_dropped", &format!("data key {version}"), "").await?;
            }
            tx.commit().await?;
            Ok(dropped)
        };
        match transaction.await {
            Ok(dropped) => Ok(dropped),
            Err(sqlx::Error::Database(error)) if error.constraint() == Some("data_key_exists") => {
                Err(OperatorError::KeyInUse)
            }
            Err(error) => Err(OperatorError::Refused(error)),
        }
    }

    /// Destroys all data keys of a tenant for good. Returns their number. The tenant gets no new
    /// ones.
    pub async fn destroy_data_keys(
        &mut self,
        tenant: TenantId,
        now: DateTime<Utc>,
        reason: &str,
    ) -> Result<u64, OperatorError> {
        let transaction = async {
            // First waits for transactions that are storing row keys, without the table lock:
            // other tenants would wait behind it.
            let mut wait = self.0.begin().await?;
            lock_data_keys(&mut wait, tenant).await?;
            wait.rollback().await?;
            let mut tx = self.0.begin().await?;
            // From here on no key is added. Then waits again, for those that began in between.
            sqlx::query!("lock table palisade.data_keys in share row exclusive mode").execute(&mut *tx).await?;
            if lock_data_keys(&mut tx, tenant).await? == 0 {
                return Ok(None);
            }
            let update = sqlx::query!(
                "update palisade.data_keys set wrapped = null, destroyed_at = $2
                 where of_tenant = $1 and wrapped is not null",
                tenant.uuid(),
                now
            );
            let destroyed = update.execute(&mut *tx).await?.rows_affected();
            record_act(&mut tx, Some(tenant), "data_keys_destroyed", &format!("{destroyed} data keys"), reason).await?;
            tx.commit().await?;
            Ok(Some(destroyed))
        };
        transaction.await.map_err(OperatorError::Refused)?.ok_or(OperatorError::NoDataKeys)
    }

    /// What a destruction of the tenant's data keys would destroy.
    ///
    /// # Errors
    /// [`OperatorError::NoDataKeys`]: the tenant never had one.
    pub async fn describe_tenant(&mut self, tenant: TenantId) -> Result<Vec<TenantItem>, OperatorError> {
        let describe = async {
            // Counting millions of rows takes long, and blocks nothing.
            sqlx::query("set statement_timeout = '1min'").execute(&mut self.0).await?;
            let items = sqlx::query_as!(
                TenantItem,
                r#"select name as "name!", number, last_use from palisade.describe_tenant($1)"#,
                tenant.uuid()
            );
            let items = items.fetch_all(&mut self.0).await?;
            sqlx::query("reset statement_timeout").execute(&mut self.0).await?;
            Ok(items)
        };
        let items = describe.await.map_err(OperatorError::Refused)?;
        if items.is_empty() { Err(OperatorError::NoDataKeys) } else { Ok(items) }
    }

    /// Deletes the next 1,000 stored responses of a tenant with destroyed data keys. Returns their
    /// number.
    pub async fn delete_stored_responses(&mut self, tenant: TenantId) -> Result<i64, OperatorError> {
        let query = sqlx::query_scalar!(r#"select palisade.delete_stored_responses($1) as "deleted!""#, tenant.uuid());
        query.fetch_one(&mut self.0).await.map_err(OperatorError::Refused)
    }

    /// Removes the next 1,000 rows of a tenant with destroyed data keys from the blind indexes.
    ///
    /// Returns their number; `None` if none is left. The audit trail has the destruction of the
    /// keys, and no further event for this.
    pub async fn clear_blind_indexes(&mut self, tenant: TenantId) -> Result<Option<i64>, OperatorError> {
        let query = sqlx::query_scalar!("select palisade.clear_blind_indexes($1, 1000)", tenant.uuid());
        query.fetch_one(&mut self.0).await.map_err(OperatorError::Refused)
    }

    /// Retires an index key for good: the database accepts no row with its version again
    /// (CRYPTO-06).
    ///
    /// A foreign key constraint rejects this while a row is indexed with it.
    pub async fn forget_index_key(&mut self, version: u16) -> Result<(), OperatorError> {
        let version = i32::from(version);
        let transaction = async {
            let mut tx = self.0.begin().await?;
            // One operator at a time: of two keys, two operators could each forget the other one.
            let in_use = sqlx::query_scalar!(
                "select version from palisade.index_keys where forgotten_at is null order by version for no key update"
            );
            let in_use = in_use.fetch_all(&mut *tx).await?;
            if !in_use.contains(&version) {
                return Ok(Err(OperatorError::UnknownIndexKey));
            }
            if in_use.len() == 1 {
                return Ok(Err(OperatorError::OnlyIndexKey));
            }
            sqlx::query!("update palisade.index_keys set forgotten_at = now() where version = $1", version)
                .execute(&mut *tx)
                .await?;
            record_act(&mut tx, None, "index_key_forgotten", &format!("index key {version}"), "").await?;
            tx.commit().await?;
            Ok(Ok(()))
        };
        match transaction.await {
            Ok(result) => result,
            Err(sqlx::Error::Database(error)) if error.constraint() == Some("index_key_in_use") => {
                Err(OperatorError::IndexKeyInUse)
            }
            Err(error) => Err(OperatorError::Refused(error)),
        }
    }
}

/// Locks all data keys of a tenant. Returns their number.
///
/// Newest first, in the lock order of transactions that store row keys: this avoids deadlocks.
async fn lock_data_keys(connection: &mut PgConnection, tenant: TenantId) -> Result<usize, sqlx::Error> {
    let keys = sqlx::query_scalar!(
        "select version from palisade.data_keys where of_tenant = $1 order by -version for update",
        tenant.uuid()
    );
    Ok(keys.fetch_all(connection).await?.len())
}
