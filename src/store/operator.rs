//! What operators do in an incident and with keys, with a login of their own, `app_operator`. The server does not hold it.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use thiserror::Error;

use crate::{
    crypto::{MasterKeyError, MasterKeys, WrappedDataKey},
    domain::{QuotaName, RevocationKind, TenantId},
};

/// How long the database may take. Whoever waits for it has no time to lose.
const PATIENCE: &str = "5s";

/// Why nothing was done.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// The operator's login could not connect.
    #[error("cannot connect as the operator")]
    Connect(#[source] sqlx::Error),
    /// The database refused.
    #[error("the database refused, or did not answer within five seconds: nothing was done")]
    Refused(#[source] sqlx::Error),
    /// A data key does not open.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
}

/// The operator's connection.
#[derive(Debug)]
pub struct Operator(PgConnection);

impl Operator {
    /// Connects with the login of this URL.
    pub async fn connect(url: &SecretString) -> Result<Self, OperatorError> {
        let options = PgConnectOptions::from_str(url.expose_secret())
            .map_err(OperatorError::Connect)?
            .options([("statement_timeout", PATIENCE), ("lock_timeout", PATIENCE)]);
        Ok(Self(PgConnection::connect_with(&options).await.map_err(OperatorError::Connect)?))
    }

    /// Revokes what `kind` and `value` name and was issued before an instant. Gives the position of the entry.
    /// Replicas know it as soon as this returns, or within two seconds if the notice is lost.
    pub async fn revoke(
        &mut self,
        kind: RevocationKind,
        value: &str,
        issued_before: DateTime<Utc>,
        reason: &str,
    ) -> Result<i64, OperatorError> {
        sqlx::query_scalar!(
            r#"select note_revocation($1, $2, $3, $4) as "position!""#,
            kind.as_str(),
            value,
            issued_before,
            reason
        )
        .fetch_one(&mut self.0)
        .await
        .map_err(OperatorError::Refused)
    }

    /// Gives a tenant a quota of its own until a time. Replicas know it within two seconds.
    pub async fn set_quota(
        &mut self,
        tenant: TenantId,
        quota: QuotaName,
        per_minute: i32,
        until: DateTime<Utc>,
        reason: &str,
    ) -> Result<(), OperatorError> {
        sqlx::query!(
            "select note_tenant_quota($1, $2, $3, $4, $5)",
            tenant.uuid(),
            quota.as_str(),
            per_minute,
            until,
            reason
        )
        .execute(&mut self.0)
        .await
        .map_err(OperatorError::Refused)?;
        Ok(())
    }

    /// Wraps every data key with the first of the master keys, and gives how many were not yet. One that another operator
    /// moves meanwhile stays as they left it.
    pub async fn rewrap(&mut self, master: &MasterKeys) -> Result<u64, OperatorError> {
        let keys = sqlx::query!(
            "select of_tenant, version, wrapped_by, wrapped from data_keys where wrapped_by < $1 or wrapped_by > $1",
            master.primary()
        );
        let mut moved = 0;
        for key in keys.fetch_all(&mut self.0).await.map_err(OperatorError::Refused)? {
            let old = WrappedDataKey { version: key.version, wrapped_by: key.wrapped_by, wrapped: key.wrapped };
            let Some(new) = master.rewrap(key.of_tenant, &old)? else { continue };
            let done = sqlx::query!(
                "update data_keys set wrapped_by = $3, wrapped = $4
                 where of_tenant = $1 and version = $2 and wrapped_by = $5",
                key.of_tenant,
                new.version,
                new.wrapped_by,
                new.wrapped,
                old.wrapped_by
            );
            moved += done.execute(&mut self.0).await.map_err(OperatorError::Refused)?.rows_affected();
        }
        Ok(moved)
    }

    /// Drops a data key. Whether something needs it is for the caller to know.
    pub async fn drop_data_key(&mut self, tenant: TenantId, version: i32) -> Result<(), OperatorError> {
        let drop = sqlx::query!("delete from data_keys where of_tenant = $1 and version = $2", tenant.uuid(), version);
        drop.execute(&mut self.0).await.map_err(OperatorError::Refused)?;
        Ok(())
    }

    /// Destroys all data keys of a tenant, and gives how many there were (CRYPTO-08).
    pub async fn destroy_data_keys(&mut self, tenant: TenantId) -> Result<u64, OperatorError> {
        let destroy = sqlx::query!("delete from data_keys where of_tenant = $1", tenant.uuid());
        Ok(destroy.execute(&mut self.0).await.map_err(OperatorError::Refused)?.rows_affected())
    }
}
