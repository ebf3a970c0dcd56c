//! Reads the audit trail of all tenants, for its verification.
//!
//! In: the URL of the backup login, which sees the rows of every tenant. Out: seals, journal and
//! events of one snapshot. `ops::audit` is the only caller and recomputes all digests;
//! docs/audit.md describes the tables.

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
}

impl JournalRow {
    fn current(&self) -> Option<AuditEvent> {
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
        })
    }
}

impl AuditReader {
    /// Connects with a login that sees the rows of every tenant.
    pub async fn connect(url: &SecretString) -> Result<Self, DbError> {
        let options = PgConnectOptions::from_str(url.expose_secret())?;
        Ok(Self(PgConnection::connect_with(&options).await?))
    }

    /// Reads the trail in one transaction with snapshot isolation.
    ///
    /// Calls `on_seals` with all seals, then `on_event` with each line of the journal in order.
    /// Calls `on_unjournaled` with tenant and id of each event that the journal lacks.
    pub async fn read(
        &mut self,
        mut on_seals: impl FnMut(Vec<StoredSeal>),
        mut on_event: impl FnMut(JournaledEvent),
        mut on_unjournaled: impl FnMut(Uuid, Uuid),
    ) -> Result<(), DbError> {
        let mut tx = self.0.begin_with("begin isolation level repeatable read read only").await?;
        let seals = sqlx::query_as!(
            StoredSeal,
            "select number, upto, events, digest, lines from palisade.audit_seals order by number"
        );
        on_seals(seals.fetch_all(&mut *tx).await?);
        read_journal(&mut tx, &mut on_event).await?;
        let mut unjournaled = sqlx::query!(
            "select tenant_id, id from palisade.audit_events e
             where not exists (select from palisade.audit_journal j where j.of_tenant = e.tenant_id and j.event = e.id)
             order by at, id"
        )
        .fetch(&mut *tx);
        while let Some(row) = unjournaled.try_next().await? {
            on_unjournaled(row.tenant_id, row.id);
        }
        Ok(())
    }
}

async fn read_journal(tx: &mut PgTransaction<'_>, on_event: &mut impl FnMut(JournaledEvent)) -> Result<(), DbError> {
    let mut rows = sqlx::query_as!(
        JournalRow,
        r#"select j.position, j.of_tenant, j.event, j.digest, e.at as "at?", e.subject as "subject?",
                  e.client as "client?", e.action as "action?", e.object as "object?", e.trace_id as "trace_id?",
                  e.reason as "reason?"
           from palisade.audit_journal j left
           join palisade.audit_events e on e.tenant_id = j.of_tenant and e.id = j.event
           order by j.position"#
    )
    .fetch(&mut **tx);
    while let Some(row) = rows.try_next().await? {
        let current = row.current();
        let JournalRow { position, of_tenant, event, digest, .. } = row;
        on_event(JournaledEvent { position, tenant: of_tenant, event, digest, current });
    }
    Ok(())
}
