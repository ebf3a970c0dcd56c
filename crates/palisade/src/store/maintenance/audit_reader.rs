//! Reads the audit trail of all tenants, for its verification.
//!
//! In: the URL of the backup login, which sees the rows of every tenant, or of the owner, which sees
//! seals and acts of operators. Out: seals, journal and events of one snapshot, in bounded memory.
//! `ops::audit` and `ops::audit_upkeep` call this and recompute all digests; docs/audit.md describes
//! the tables.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{Connection as _, PgConnection, PgTransaction, postgres::PgConnectOptions};
use uuid::Uuid;

use crate::{
    db::DbError,
    model::{AuditEvent, AuditEventId, TenantId},
};

/// A connection that reads the audit trail.
#[derive(Debug)]
pub struct AuditReader(PgConnection);

/// The trail at one time.
#[derive(Debug)]
pub struct AuditSnapshot<'c>(PgTransaction<'c>);

/// An event as a line of the journal recorded it, and the event as it is stored now.
#[derive(Clone, Debug)]
pub struct JournaledEvent {
    /// Position in the journal. Positions of rolled-back transactions are missing.
    pub position: i64,
    /// Tenant of the event.
    pub tenant: Uuid,
    /// Identifier of the event.
    pub event: Uuid,
    /// Digest of the event at the time of writing.
    pub digest: Vec<u8>,
    /// The event as it is stored now. `None` if it was removed.
    pub current: Option<AuditEvent>,
    /// The text of its changes, as the digest covers it.
    pub changes: Option<String>,
}

/// A stored seal.
#[derive(Clone, Debug)]
pub struct StoredSeal {
    /// Sequence number, from 1.
    pub number: i64,
    /// Last journal position that it covers.
    pub upto: i64,
    /// Number of journal lines that it covers.
    pub events: i64,
    /// Digest of the previous seal and of the lines that it covers.
    pub digest: Vec<u8>,
    /// 16 bytes per journal line: 8 of its position and the first 8 of its digest.
    pub lines: Vec<u8>,
}

struct JournalRow {
    position: i64,
    of_tenant: Uuid,
    event: Uuid,
    digest: Vec<u8>,
    at: Option<DateTime<Utc>>,
    subject: Option<String>,
    client: Option<String>,
    action: Option<String>,
    object: Option<String>,
    trace_id: Option<String>,
    reason: Option<String>,
    changes: Option<String>,
}

impl JournalRow {
    fn current(&self) -> Option<AuditEvent> {
        let changes = self.changes.as_deref().and_then(|text| serde_json::from_str(text).ok());
        Some(AuditEvent {
            id: AuditEventId::from_uuid(self.event),
            tenant: TenantId::from_uuid(self.of_tenant),
            at: self.at?,
            subject: self.subject.clone()?,
            client: self.client.clone()?,
            action: self.action.clone()?,
            object: self.object.clone()?,
            trace_id: self.trace_id.clone()?,
            reason: self.reason.clone()?,
            // Text that an attacker wrote may not parse. Its digest differs.
            changes: changes.unwrap_or_default(),
        })
    }
}

impl From<JournalRow> for JournaledEvent {
    fn from(row: JournalRow) -> Self {
        let current = row.current();
        let JournalRow { position, of_tenant: tenant, event, digest, changes, .. } = row;
        Self { position, tenant, event, digest, current, changes }
    }
}

/// Lines of the journal with their events. `$rest` follows the join.
macro_rules! select_lines {
    ($rest:literal $(, $argument:expr)*) => {
        sqlx::query_as!(
            JournalRow,
            r#"select j.position, j.of_tenant, j.event, j.digest, e.at as "at?", e.subject as "subject?",
                      e.client as "client?", e.action as "action?", e.object as "object?", e.trace_id as "trace_id?",
                      e.reason as "reason?", e.changes::text as "changes?"
               from palisade.audit_journal j left
               join palisade.audit_events e on e.tenant_id = j.of_tenant and e.id = j.event "# + $rest
            $(, $argument)*
        )
    };
}

impl AuditReader {
    /// Connects with a login that reads seals and events.
    pub async fn connect(url: &SecretString) -> Result<Self, DbError> {
        let options = PgConnectOptions::from_str(url.expose_secret())?;
        Ok(Self(PgConnection::connect_with(&options).await?))
    }

    /// Begins a transaction with snapshot isolation. Its tenant is that of operators' acts.
    pub async fn snapshot(&mut self) -> Result<AuditSnapshot<'_>, DbError> {
        let mut tx = self.0.begin_with("begin isolation level repeatable read read only").await?;
        // A generic plan does not know that a stretch is short, and would read all events for each.
        sqlx::raw_sql(
            "set local plan_cache_mode = force_custom_plan;
             set local app.tenant_id = '00000000-0000-0000-0000-000000000000'",
        )
        .execute(&mut *tx)
        .await?;
        Ok(AuditSnapshot(tx))
    }
}

impl AuditSnapshot<'_> {
    /// Reads the first seal after this number.
    pub async fn next_seal(&mut self, after: i64) -> Result<Option<StoredSeal>, DbError> {
        let seal = sqlx::query_as!(
            StoredSeal,
            "select number, upto, events, digest, lines from palisade.audit_seals
             where number > $1 order by number limit 1",
            after
        );
        Ok(seal.fetch_optional(&mut *self.0).await?)
    }

    /// Calls `on_seal` with number and digest of each seal, in order.
    pub async fn digests(&mut self, mut on_seal: impl FnMut(i64, &[u8])) -> Result<(), DbError> {
        let mut rows =
            sqlx::query!("select number, digest from palisade.audit_seals order by number").fetch(&mut *self.0);
        while let Some(row) = rows.try_next().await? {
            on_seal(row.number, &row.digest);
        }
        Ok(())
    }

    /// Calls `on_line` with each line after one position and up to another, in order.
    pub async fn lines(
        &mut self,
        after: i64,
        upto: i64,
        mut on_line: impl FnMut(JournaledEvent),
    ) -> Result<(), DbError> {
        let mut rows = select_lines!("where j.position > $1 and j.position <= $2 order by j.position", after, upto)
            .fetch(&mut *self.0);
        while let Some(row) = rows.try_next().await? {
            on_line(row.into());
        }
        Ok(())
    }

    /// Reads the declarations of prunings and restores, in order: those of the owner, since every
    /// login of the service is another one.
    pub async fn declarations(&mut self) -> Result<Vec<JournaledEvent>, DbError> {
        let rows = select_lines!(
            "where e.tenant_id = '00000000-0000-0000-0000-000000000000' and e.action in ('audit_pruned', 'audit_restored')
             and e.client = '' and e.subject in (
                 select 'operator:' || r.rolname from pg_roles r
                 join pg_class c on c.oid = 'palisade.audit_events'::regclass
                 where pg_has_role(r.oid, c.relowner, 'member'))
             order by j.position"
        );
        Ok(rows.fetch_all(&mut *self.0).await?.into_iter().map(JournaledEvent::from).collect())
    }

    /// Calls `on_event` with tenant and id of each event without a line after the position of the
    /// root: a pruning deletes all others. The time of an event proves nothing, so it is no filter.
    ///
    /// No index serves this, because every change would maintain it. The server hashes the lines in
    /// parts of `work_mem`.
    pub async fn unjournaled(
        &mut self,
        root: Option<i64>,
        mut on_event: impl FnMut(Uuid, Uuid),
    ) -> Result<(), DbError> {
        let mut rows = sqlx::query!(
            "select tenant_id, id from palisade.audit_events e
             where not exists (
                 select from palisade.audit_journal j
                 where j.of_tenant = e.tenant_id and j.event = e.id and j.position > $1)
             order by at, id",
            root.unwrap_or(i64::MIN)
        )
        .fetch(&mut *self.0);
        while let Some(row) = rows.try_next().await? {
            on_event(row.tenant_id, row.id);
        }
        Ok(())
    }
}
