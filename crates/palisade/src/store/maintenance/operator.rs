//! Acts of operators on credentials, overrides and keys, with an operator login (CRYPTO-08).
//!
//! The command line connects as `app_operator`, which the service never holds. The internal
//! listener connects as `app_incidents`, which can revoke, override and announce rotations, and do
//! nothing else. `ops` calls all of it. Every act leaves an event in the audit trail.

use std::{str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use thiserror::Error;

use crate::{
    crypto::{MasterKeyError, MasterKeys, WrappedDataKey},
    model::{Override, QuotaName, RevocationKind, TenantId},
    telemetry::event,
};

/// Time limit for a statement and for a lock. An operator in an incident must not wait longer.
const STATEMENT_TIMEOUT: &str = "5s";

/// Time limit for a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an act failed. Nothing was done, as far as is known.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// The login could not connect.
    #[error("cannot connect as the operator; check the URL of the login and the database")]
    Connect(#[source] sqlx::Error),
    /// The database rejected the statement, or did not answer in time.
    #[error(
        "the database refused, or did not answer within five seconds; look in the audit trail whether it was done, \
         then retry"
    )]
    Refused(#[source] sqlx::Error),
    /// A data key cannot be wrapped or unwrapped.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// Row keys are wrapped by the data key.
    #[error("records are encrypted with it; run `keys reseal` first")]
    KeyInUse,
    /// Records are indexed with the index key.
    #[error(
        "records are indexed with it; run `keys reseal` first, or `keys destroy` again if their tenant has left; \
         `keys status` lists the tenants"
    )]
    IndexKeyInUse,
    /// Without an index key, no indexed record can be added.
    #[error("it is the only index key; configure another one first")]
    OnlyIndexKey,
    /// The version was never in use, or was forgotten before.
    #[error("there is no index key of this version, or it was forgotten already; `keys status` lists all")]
    UnknownIndexKey,
    /// The tenant never had a data key. The id is most likely wrong.
    #[error("there was never a data key of this tenant, and nothing was destroyed; check its id")]
    NoDataKeys,
}

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

/// A connection with an operator login.
#[derive(Debug)]
pub struct Operator(PgConnection);

impl Operator {
    /// Connects with a login.
    pub async fn connect(url: &SecretString) -> Result<Self, OperatorError> {
        Self::connect_for(url, "").await
    }

    /// Connects on behalf of a service, which the audit trail names as the client. `service` is
    /// empty at the command line, and ignored unless the login is `app_incidents`.
    pub async fn connect_for(url: &SecretString, service: &str) -> Result<Self, OperatorError> {
        let options = PgConnectOptions::from_str(url.expose_secret()).map_err(OperatorError::Connect)?.options([
            ("statement_timeout", STATEMENT_TIMEOUT),
            ("lock_timeout", STATEMENT_TIMEOUT),
            ("app.on_behalf_of", service),
        ]);
        let connect = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options));
        let connection = connect.await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        Ok(Self(connection.map_err(OperatorError::Connect)?))
    }

    /// Revokes credentials that `kind` and `value` name and that were issued before a time: now,
    /// unless `issued_before` is given.
    ///
    /// Returns the position of the revocation. Replicas are notified; if the notification is lost,
    /// they find the revocation within two seconds.
    pub async fn revoke(
        &mut self,
        kind: RevocationKind,
        value: &str,
        issued_before: Option<DateTime<Utc>>,
        reason: &str,
    ) -> Result<i64, OperatorError> {
        let position = sqlx::query_scalar!(
            r#"select palisade.record_revocation($1, $2, coalesce($3, now()), $4) as "position!""#,
            kind.as_str(),
            value,
            issued_before,
            reason
        );
        let position = position.fetch_one(&mut self.0).await.map_err(OperatorError::Refused)?;
        // After the commit, since it may fail: any login can fill the notification queue.
        if let Err(error) = sqlx::query("select pg_notify('revocations', '')").execute(&mut self.0).await {
            tracing::warn!(%error, "could not notify replicas; they find the revocation within two seconds");
        }
        Ok(position)
    }

    /// Sets an override for a number of hours. Returns its end. Replicas apply it within two
    /// seconds.
    pub async fn apply_override(
        &mut self,
        new: &Override,
        hours: i32,
        reason: &str,
    ) -> Result<DateTime<Utc>, OperatorError> {
        let calls = |per_minute: u32| i32::try_from(per_minute).unwrap_or(i32::MAX);
        let (kind, target, per_minute) = match new {
            Override::TenantQuota { tenant, name, per_minute } => {
                return self.set_quota(*tenant, *name, calls(*per_minute), hours, reason).await;
            }
            Override::GlobalQuota { name, per_minute } => ("class", name.to_string(), Some(calls(*per_minute))),
            Override::NetworkLimit { network, per_minute } => {
                ("address", network.to_string(), Some(calls(*per_minute)))
            }
            Override::ReadOnly => ("read_only", String::new(), None),
        };
        let until = sqlx::query_scalar!(
            r#"select palisade.set_override($1, $2, $3, $4, $5) as "until!""#,
            kind,
            target,
            per_minute,
            hours,
            reason
        );
        until.fetch_one(&mut self.0).await.map_err(OperatorError::Refused)
    }

    async fn set_quota(
        &mut self,
        tenant: TenantId,
        quota: QuotaName,
        per_minute: i32,
        hours: i32,
        reason: &str,
    ) -> Result<DateTime<Utc>, OperatorError> {
        let until = sqlx::query_scalar!(
            r#"with until as materialized (select now() + make_interval(hours => $4) as it)
               select u.it as "until!" from until u, palisade.set_tenant_quota($1, $2, $3, u.it, $5)"#,
            tenant.uuid(),
            quota.as_str(),
            per_minute,
            hours,
            reason
        );
        until.fetch_one(&mut self.0).await.map_err(OperatorError::Refused)
    }

    /// Records in the audit trail that a rotation of data keys was started, of one tenant or all.
    pub async fn record_rotation(&mut self, tenant: Option<TenantId>, reason: &str) -> Result<(), OperatorError> {
        let recorded = record_act(&mut self.0, tenant, "key_rotation_ordered", "data keys", reason).await;
        recorded.map_err(OperatorError::Refused)
    }

    /// Rewraps every data key with the primary master key (CRYPTO-05).
    ///
    /// Leaves a data key unchanged if another operator rewraps it concurrently. A data key that
    /// cannot be unwrapped is counted and reported as an event, and does not stop the others.
    pub async fn rewrap(&mut self, master: &MasterKeys) -> Result<Rewrapped, OperatorError> {
        let primary = master.primary().await?;
        record_act(&mut self.0, None, "data_keys_rewrapped", &primary, "").await.map_err(OperatorError::Refused)?;
        let keys = sqlx::query!(
            r#"select of_tenant, version, wrapped_by, wrapped as "wrapped!" from palisade.data_keys
               where wrapped is not null and (wrapped_by < $1 or wrapped_by > $1)"#,
            primary
        );
        let mut moved = 0;
        let mut failed = 0;
        for key in keys.fetch_all(&mut self.0).await.map_err(OperatorError::Refused)? {
            let old = WrappedDataKey { version: key.version, wrapped_by: key.wrapped_by, wrapped: key.wrapped };
            let new = match master.rewrap(&primary, key.of_tenant, &old).await {
                Ok(Some(new)) => new,
                Ok(None) => continue,
                Err(error) if error.concerns_one_data_key() => {
                    event::data_key_invalid(&key.of_tenant.to_string(), old.version, &error);
                    failed += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let update = sqlx::query!(
                "update palisade.data_keys set wrapped_by = $3, wrapped = $4
                 where of_tenant = $1 and version = $2 and wrapped_by = $5 and wrapped is not null",
                key.of_tenant,
                new.version,
                new.wrapped_by,
                new.wrapped,
                old.wrapped_by
            );
            moved += update.execute(&mut self.0).await.map_err(OperatorError::Refused)?.rows_affected();
        }
        Ok(Rewrapped { primary, moved, failed })
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

/// Records an act in the audit trail of a tenant, or of all tenants.
async fn record_act(
    connection: &mut PgConnection,
    tenant: Option<TenantId>,
    action: &str,
    object: &str,
    reason: &str,
) -> Result<(), sqlx::Error> {
    let tenant = tenant.map(TenantId::uuid);
    sqlx::query!("select palisade.record_operator_act($1, $2, $3, $4)", tenant, action, object, reason)
        .execute(connection)
        .await?;
    Ok(())
}
