//! Upkeep of the audit trail with the owner's login: pruning, and declared restores (LOG-05).
//!
//! In: commands of `ops::audit_upkeep`. Out: calls of the functions of migration 8, which check
//! ages and write the event of each act. No login of the service may call them.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};

use crate::db::DbError;

/// A connection of the owner's login.
#[derive(Debug)]
pub struct AuditOwner(PgConnection);

/// What a pruning deletes.
#[derive(Debug)]
pub struct Pruning {
    /// Number of the last seal whose events are deleted. It stays as the root.
    pub number: i64,
    /// When the root was made.
    pub sealed_at: DateTime<Utc>,
    /// Digest of the root.
    pub digest: Vec<u8>,
    /// Number of events.
    pub events: i64,
}

impl AuditOwner {
    /// Connects with the owner's login.
    pub async fn connect(url: &SecretString) -> Result<Self, DbError> {
        Ok(Self(PgConnection::connect_with(&PgConnectOptions::from_str(url.expose_secret())?).await?))
    }

    /// The pruning that [`record_pruning`](Self::record_pruning) would record: the number of the
    /// root, when it was sealed, and the number of events up to it. `None`: there is none.
    pub async fn plan_pruning(&mut self, before: DateTime<Utc>) -> Result<Option<Pruning>, DbError> {
        let plan = sqlx::query_as!(
            Pruning,
            r#"select s.number, s.sealed_at, s.digest,
                      (select count(*) from palisade.audit_journal j where j.position <= s.upto) as "events!"
               from palisade.audit_seals s where s.sealed_at < $1 order by s.number desc limit 1"#,
            before
        );
        Ok(plan.fetch_optional(&mut self.0).await?)
    }

    /// Records that everything up to the last seal before this time will be deleted. Returns the
    /// number of that seal, which stays as the root of the trail.
    pub async fn record_pruning(&mut self, before: DateTime<Utc>, reason: &str) -> Result<i64, DbError> {
        let root = sqlx::query_scalar!(r#"select palisade.record_audit_pruning($1, $2) as "root!""#, before, reason);
        Ok(root.fetch_one(&mut self.0).await?)
    }

    /// Deletes the events of the oldest seal up to the root, in one transaction. Returns their number;
    /// `None` if all are deleted.
    pub async fn prune_seal(&mut self, root: i64) -> Result<Option<i64>, DbError> {
        Ok(sqlx::query_scalar!("select palisade.prune_audit_seal($1)", root).fetch_one(&mut self.0).await?)
    }

    /// Records a restore, and the seals that were lost with it.
    pub async fn record_restore(&mut self, to: DateTime<Utc>, reason: &str, lost: &Value) -> Result<(), DbError> {
        sqlx::query!("select palisade.record_audit_restore($1, $2, $3)", to, reason, lost).execute(&mut self.0).await?;
        Ok(())
    }
}
