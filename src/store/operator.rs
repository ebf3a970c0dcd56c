//! What operators do in an incident and with keys, with a login of their own, `app_operator`. The server does not hold it; where others may
//! order it to handle incidents, it does that as `app_incidents`, which can do nothing else.

use std::{str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use thiserror::Error;

use super::Position;
use crate::{
    crypto::{MasterKeyError, MasterKeys, WrappedDataKey},
    domain::{Measure, QuotaName, RevocationKind, TenantId},
    telemetry::event,
};

/// How long the database may take. Whoever waits for it has no time to lose.
const PATIENCE: &str = "5s";

/// How long connecting may take.
const CONNECTING: Duration = Duration::from_secs(5);

/// Why nothing was done, as far as is known.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// The operator's login could not connect.
    #[error("cannot connect as the operator")]
    Connect(#[source] sqlx::Error),
    /// The database refused.
    #[error(
        "the database refused, or did not answer within five seconds: nothing was done, unless the audit trail has it"
    )]
    Refused(#[source] sqlx::Error),
    /// A data key does not open.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// Customers are sealed with that data key, so it stays.
    #[error("customers are sealed with it")]
    KeyInUse,
    /// Customers of this tenant have that key of blind indexes, so it stays.
    #[error("customers of {0} have it: run `keys reseal` first, or `keys destroy` once more if that tenant has left")]
    IndexKeyInUse(TenantId),
    /// Without it no customer could be added.
    #[error("it is the only index key there is")]
    OnlyIndexKey,
    /// There is no such key of blind indexes.
    #[error("there is no index key of this version, or it was forgotten already")]
    NoIndexKey,
    /// Nobody ever made a data key of that tenant: most likely it is called otherwise.
    #[error("there was never a data key of this tenant: nothing was destroyed")]
    NoKeys,
}

/// What became of data keys that were to be wrapped anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrapped {
    /// The master key that wraps them.
    pub primary: String,
    /// How many were not wrapped by it yet, and are now.
    pub moved: u64,
    /// How many do not open, and stay as they are.
    pub unopened: usize,
}

/// The operator's connection.
#[derive(Debug)]
pub struct Operator(PgConnection);

impl Operator {
    /// Connects with the login of this URL.
    pub async fn connect(url: &SecretString) -> Result<Self, OperatorError> {
        Self::connect_for(url, "").await
    }

    /// The same, for whom the audit trail is to name: a service, if the login is that of incidents, or nobody.
    pub async fn connect_for(url: &SecretString, whom: &str) -> Result<Self, OperatorError> {
        let options = PgConnectOptions::from_str(url.expose_secret()).map_err(OperatorError::Connect)?.options([
            ("statement_timeout", PATIENCE),
            ("lock_timeout", PATIENCE),
            ("app.on_behalf_of", whom),
        ]);
        let connected = tokio::time::timeout(CONNECTING, PgConnection::connect_with(&options)).await;
        let connected = connected.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        Ok(Self(connected.map_err(OperatorError::Connect)?))
    }

    /// Revokes what `kind` and `value` name and was issued before an instant: now, unless another
    /// is given. Gives the position of the entry. Replicas are notified, and find it within two
    /// seconds if the notification is lost.
    pub async fn revoke(
        &mut self,
        kind: RevocationKind,
        value: &str,
        issued_before: Option<DateTime<Utc>>,
        reason: &str,
    ) -> Result<i64, OperatorError> {
        let position = sqlx::query_scalar!(
            r#"select note_revocation($1, $2, coalesce($3, now()), $4) as "position!""#,
            kind.as_str(),
            value,
            issued_before,
            reason
        );
        let position = position.fetch_one(&mut self.0).await.map_err(OperatorError::Refused)?;
        // After the commit, and it may fail: the queue of notifications can be filled by any login.
        if let Err(error) = sqlx::query("select pg_notify('revocations', '')").execute(&mut self.0).await {
            tracing::warn!(%error, "could not notify replicas: they find the revocation within two seconds");
        }
        Ok(position)
    }

    /// Has a measure taken for so many hours, and says until when. Replicas take it within two seconds.
    pub async fn order(&mut self, measure: &Measure, hours: i32, reason: &str) -> Result<DateTime<Utc>, OperatorError> {
        let calls = |per_minute: u32| i32::try_from(per_minute).unwrap_or(i32::MAX);
        let (kind, target, per_minute) = match measure {
            Measure::Tenant { tenant, name, per_minute } => {
                return self.set_quota(*tenant, *name, calls(*per_minute), hours, reason).await;
            }
            Measure::Class { name, per_minute } => ("class", name.to_string(), Some(calls(*per_minute))),
            Measure::Address { network, per_minute } => ("address", network.to_string(), Some(calls(*per_minute))),
            Measure::ReadOnly => ("read_only", String::new(), None),
        };
        sqlx::query_scalar!(
            r#"select note_measure($1, $2, $3, $4, $5) as "until!""#,
            kind,
            target,
            per_minute,
            hours,
            reason
        )
        .fetch_one(&mut self.0)
        .await
        .map_err(OperatorError::Refused)
    }

    async fn set_quota(
        &mut self,
        tenant: TenantId,
        quota: QuotaName,
        per_minute: i32,
        hours: i32,
        reason: &str,
    ) -> Result<DateTime<Utc>, OperatorError> {
        sqlx::query_scalar!(
            r#"with until as materialized (select now() + make_interval(hours => $4) as it)
               select u.it as "until!" from until u, note_tenant_quota($1, $2, $3, u.it, $5)"#,
            tenant.uuid(),
            quota.as_str(),
            per_minute,
            hours,
            reason
        )
        .fetch_one(&mut self.0)
        .await
        .map_err(OperatorError::Refused)
    }

    /// Writes down that keys are about to be rotated: of a tenant, or of all.
    pub async fn note_rotation(&mut self, tenant: Option<TenantId>, reason: &str) -> Result<(), OperatorError> {
        note(&mut self.0, tenant, "key_rotation_ordered", "data keys", reason).await.map_err(OperatorError::Refused)
    }

    /// Wraps every data key with the first of the master keys. One that another operator moves meanwhile stays as they left
    /// it, and so does one that does not open: it keeps no other under a master key that is to go.
    pub async fn rewrap(&mut self, master: &MasterKeys) -> Result<Rewrapped, OperatorError> {
        let primary = master.primary().await?;
        note(&mut self.0, None, "data_keys_rewrapped", &primary, "").await.map_err(OperatorError::Refused)?;
        let keys = sqlx::query!(
            r#"select of_tenant, version, wrapped_by, wrapped as "wrapped!" from data_keys
               where wrapped is not null and (wrapped_by < $1 or wrapped_by > $1)"#,
            primary
        );
        let (mut moved, mut unopened) = (0, 0);
        for key in keys.fetch_all(&mut self.0).await.map_err(OperatorError::Refused)? {
            let old = WrappedDataKey { version: key.version, wrapped_by: key.wrapped_by, wrapped: key.wrapped };
            let new = match master.rewrap(&primary, key.of_tenant, &old).await {
                Ok(Some(new)) => new,
                Ok(None) => continue,
                Err(error) if error.is_of_one_key() => {
                    event::data_key_invalid(&key.of_tenant.to_string(), old.version, &error);
                    unopened += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let done = sqlx::query!(
                "update data_keys set wrapped_by = $3, wrapped = $4
                 where of_tenant = $1 and version = $2 and wrapped_by = $5 and wrapped is not null",
                key.of_tenant,
                new.version,
                new.wrapped_by,
                new.wrapped,
                old.wrapped_by
            );
            moved += done.execute(&mut self.0).await.map_err(OperatorError::Refused)?.rows_affected();
        }
        Ok(Rewrapped { primary, moved, unopened })
    }

    /// Drops a data key; `false` if there is none of this version, or it is the newest. The database refuses to drop one
    /// that a customer needs.
    pub async fn drop_data_key(&mut self, tenant: TenantId, version: i32) -> Result<bool, OperatorError> {
        let drop = async {
            let mut tx = self.0.begin().await?;
            let drop = sqlx::query!(
                "delete from data_keys where of_tenant = $1 and version = $2 and wrapped is not null
                 and version < (select max(version) from data_keys where of_tenant = $1)",
                tenant.uuid(),
                version
            );
            let dropped = drop.execute(&mut *tx).await?.rows_affected() > 0;
            if dropped {
                note(&mut tx, Some(tenant), "data_key_dropped", &format!("data key {version}"), "").await?;
            }
            tx.commit().await?;
            Ok(dropped)
        };
        match drop.await {
            Ok(dropped) => Ok(dropped),
            Err(sqlx::Error::Database(error)) if error.constraint() == Some("data_key_is_there") => {
                Err(OperatorError::KeyInUse)
            }
            Err(error) => Err(OperatorError::Refused(error)),
        }
    }

    /// Destroys all data keys of a tenant, and gives how many there were (CRYPTO-08). It gets no others.
    pub async fn destroy_data_keys(
        &mut self,
        tenant: TenantId,
        now: DateTime<Utc>,
        reason: &str,
    ) -> Result<u64, OperatorError> {
        let destroy = async {
            // Who is storing a customer is waited for: with nothing held that others need, so in a transaction that does nothing.
            let mut waiting = self.0.begin().await?;
            lock_data_keys(&mut waiting, tenant).await?;
            waiting.rollback().await?;
            let mut tx = self.0.begin().await?;
            // Nobody adds a key from here on, and who began to store in between is waited for too.
            sqlx::query!("lock table data_keys in share row exclusive mode").execute(&mut *tx).await?;
            if lock_data_keys(&mut tx, tenant).await? == 0 {
                return Ok(None);
            }
            let destroy = sqlx::query!(
                "update data_keys set wrapped = null, destroyed_at = $2 where of_tenant = $1 and wrapped is not null",
                tenant.uuid(),
                now
            );
            let gone = destroy.execute(&mut *tx).await?.rows_affected();
            note(&mut tx, Some(tenant), "data_keys_destroyed", &format!("{gone} data keys"), reason).await?;
            tx.commit().await?;
            Ok(Some(gone))
        };
        destroy.await.map_err(OperatorError::Refused)?.ok_or(OperatorError::NoKeys)
    }

    /// Takes the next thousand customers of a tenant whose data keys are destroyed out of the indexes. Gives how many were in
    /// one, and where to go on. That the keys were destroyed is in the trail; this is not once more.
    pub async fn clear_indexes(
        &mut self,
        tenant: TenantId,
        from: Position,
    ) -> Result<(i64, Option<Position>), OperatorError> {
        let cleared = sqlx::query!(
            r#"select cleared as "cleared!", last_at, last_id from clear_indexes($1, $2, $3, 1000)"#,
            tenant.uuid(),
            from.time(),
            from.id
        );
        let cleared = cleared.fetch_one(&mut self.0).await.map_err(OperatorError::Refused)?;
        Ok((cleared.cleared, cleared.last_at.zip(cleared.last_id).map(|(at, id)| Position { at, id })))
    }

    /// Forgets a key of blind indexes that no customer has, for good: no row gets it again (CRYPTO-06).
    pub async fn forget_index_key(&mut self, version: u16) -> Result<(), OperatorError> {
        let forget = async {
            let mut tx = self.0.begin().await?;
            // It asks every tenant, and keeps nobody waiting but who goes by that key, once nobody is seen to have it.
            sqlx::query("set local statement_timeout = '10min'").execute(&mut *tx).await?;
            let done = sqlx::query!(
                r#"select known as "known!", only_one as "only_one!", needed_by from forget_index_key($1)"#,
                i32::from(version)
            );
            let done = done.fetch_one(&mut *tx).await?;
            tx.commit().await?;
            Ok(done)
        };
        let done = forget.await.map_err(OperatorError::Refused)?;
        match done.needed_by {
            _ if !done.known => Err(OperatorError::NoIndexKey),
            _ if done.only_one => Err(OperatorError::OnlyIndexKey),
            Some(tenant) => Err(OperatorError::IndexKeyInUse(TenantId::from_uuid(tenant))),
            None => Ok(()),
        }
    }
}

/// Locks the data keys of a tenant, as who stores a customer does in part, the newest first like them. Gives how many there are.
async fn lock_data_keys(connection: &mut PgConnection, tenant: TenantId) -> Result<usize, sqlx::Error> {
    let keys = sqlx::query_scalar!(
        "select version from data_keys where of_tenant = $1 order by -version for update",
        tenant.uuid()
    );
    Ok(keys.fetch_all(connection).await?.len())
}

/// Writes into the audit trail what is done: to a tenant, or to all.
async fn note(
    connection: &mut PgConnection,
    tenant: Option<TenantId>,
    action: &str,
    object: &str,
    reason: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!("select note_operator_act($1, $2, $3, $4)", tenant.map(TenantId::uuid), action, object, reason)
        .execute(connection)
        .await?;
    Ok(())
}
