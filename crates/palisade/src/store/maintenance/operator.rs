//! Acts of operators on credentials and overrides, with an operator login. `operator_keys` has
//! those on keys.
//!
//! The command line connects as `app_operator`, which the service never holds. The internal
//! listener connects as `app_incidents`, which can revoke, override and announce rotations, and do
//! nothing else. `ops` calls all of it. Every act leaves an event in the audit trail.

use std::{str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use thiserror::Error;

use crate::{
    crypto::MasterKeyError,
    model::{Override, QuotaName, RevocationKind, TenantId},
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
    /// The registry has a state that this version does not know.
    #[error("the registry has a tenant in a state that this version does not know; use the newer version")]
    UnknownState,
    /// Another tenant has the external id.
    #[error("another tenant has this external id of this issuer")]
    ExternalIdTaken,
    /// A tenant is deleted when every replica has refused it for a while.
    #[error(
        "suspend the tenant first, and wait a minute until its last requests have ended; a day at the internal listener"
    )]
    TenantNotSuspended,
    /// The tenant never had a data key. The id is most likely wrong.
    #[error("there was never a data key of this tenant, and nothing was destroyed; check its id")]
    NoDataKeys,
}

/// A connection with an operator login.
#[derive(Debug)]
pub struct Operator(pub(super) PgConnection);

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
        notify(&mut self.0).await;
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
}

/// Makes replicas read revocations and tenants now. After the commit, since it may fail: any login can
/// fill the notification queue.
pub(super) async fn notify(connection: &mut PgConnection) {
    if let Err(error) = sqlx::query("select pg_notify('revocations', '')").execute(connection).await {
        tracing::warn!(%error, "could not notify replicas; they find the change within two seconds");
    }
}

/// Records an act in the audit trail of a tenant, or of all tenants.
pub(super) async fn record_act(
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
