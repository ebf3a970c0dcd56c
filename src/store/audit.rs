//! Audit events: written in the transaction of the change they record (LOG-05), and listed.
//!
//! In: the permit of a change, and the changed objects. Out: a committed transaction with an audit
//! event per object, and a line in the log. [`WriteTx`] has no other public way to commit. The
//! handlers of `api/` call this; `maintenance` seals the trail.

use std::fmt::Display;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Database, Position, ReadTx, WriteTx, keyset::clamp_time};
use crate::{
    authz::{
        Action, Change, Permit,
        actions::{CreateExport, ListAuditEvents},
    },
    db::{DbError, TracingExecutor},
    domain::{AuditEvent, AuditEventId, TenantId},
    telemetry::{TraceId, event},
};

/// The audit event of a permitted change, before it is written (LOG-05).
#[derive(Debug)]
pub(super) struct AuditRecord<'p> {
    pub(super) tenant: TenantId,
    pub(super) id: Uuid,
    pub(super) subject: &'p str,
    pub(super) client: &'p str,
    pub(super) action: &'p str,
    pub(super) object: String,
    pub(super) trace_id: String,
}

impl<'p> AuditRecord<'p> {
    pub(super) fn new<A: Action>(permit: &'p Permit<A>, action: &'p str, object: impl Display) -> Self {
        let principal = permit.principal();
        Self {
            tenant: permit.tenant(),
            id: AuditEventId::generate().uuid(),
            subject: principal.subject(),
            client: principal.client(),
            action,
            object: object.to_string(),
            trace_id: TraceId::current().map(|id| id.as_str().to_owned()).unwrap_or_default(),
        }
    }

    /// Writes the event in the current transaction, which is confined to the event's tenant.
    async fn insert(&self, connection: TracingExecutor<'_>) -> Result<(), DbError> {
        sqlx::query!(
            "select note_audit_event($1, $2, $3, $4, $5, $6, $7)",
            self.tenant.uuid(),
            self.id,
            self.subject,
            self.client,
            self.action,
            self.object,
            self.trace_id
        )
        .execute(connection)
        .await?;
        Ok(())
    }

    /// Logs the change. To be called after the commit.
    pub(super) fn log(&self) {
        event::data_changed(self.subject, &self.tenant.to_string(), self.action, &self.object);
    }
}

impl<A: Change> WriteTx<A> {
    /// Writes an audit event, commits, and logs the change. The response may be sent only after
    /// this has succeeded.
    pub async fn commit(self, permit: &Permit<A>, object: impl Display) -> Result<(), DbError> {
        self.commit_with(permit, object, &[]).await
    }

    /// Commits as [`commit`](Self::commit) does, for a change of more than the permit's object.
    /// `more` has an action and an object for each further audit event.
    pub async fn commit_with(
        mut self,
        permit: &Permit<A>,
        object: impl Display,
        more: &[(&'static str, String)],
    ) -> Result<(), DbError> {
        let more = more.iter().map(|(action, object)| AuditRecord::new(permit, action, object));
        let records: Vec<_> = std::iter::once(AuditRecord::new(permit, permit.audit(), object)).chain(more).collect();
        for record in &records {
            record.insert(self.connection()).await?;
        }
        self.commit_unaudited().await?;
        records.iter().for_each(AuditRecord::log);
        Ok(())
    }
}

/// Filter for a list of audit events. All conditions must hold.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only events of this object.
    pub object: Option<String>,
    /// Only events at this time or later.
    pub from: Option<DateTime<Utc>>,
}

struct EventRow {
    tenant_id: Uuid,
    id: Uuid,
    at: DateTime<Utc>,
    subject: String,
    client: String,
    action: String,
    object: String,
    trace_id: String,
    reason: String,
}

impl From<EventRow> for AuditEvent {
    fn from(row: EventRow) -> Self {
        Self {
            id: AuditEventId::from_uuid(row.id),
            tenant: TenantId::from_uuid(row.tenant_id),
            at: row.at,
            subject: row.subject,
            client: row.client,
            action: row.action,
            object: row.object,
            trace_id: row.trace_id,
            reason: row.reason,
        }
    }
}

impl ReadTx<ListAuditEvents> {
    /// Reads a page of at most `limit` events after `from`, newest first.
    pub async fn audit_events(
        &mut self,
        from: Position,
        filter: &AuditFilter,
        limit: i64,
    ) -> Result<Vec<AuditEvent>, DbError> {
        let tenant = self.tenant().uuid();
        let since = clamp_time(filter.from.unwrap_or_default());
        // One statement per combination of filters, so that each has its own plan and index.
        let rows = match &filter.object {
            None => {
                sqlx::query_as!(
                    EventRow,
                    "select tenant_id, id, at, subject, client, action, object, trace_id, reason from audit_events
                     where tenant_id = $1 and at >= $2 and (at, id) < ($3, $4) order by at desc, id desc limit $5",
                    tenant,
                    since,
                    from.time(),
                    from.id,
                    limit
                )
                .fetch_all(self.connection())
                .await?
            }
            Some(object) => {
                sqlx::query_as!(
                    EventRow,
                    "select tenant_id, id, at, subject, client, action, object, trace_id, reason from audit_events
                     where tenant_id = $1 and object = $6 and at >= $2 and (at, id) < ($3, $4)
                     order by at desc, id desc limit $5",
                    tenant,
                    since,
                    from.time(),
                    from.id,
                    limit,
                    object
                )
                .fetch_all(self.connection())
                .await?
            }
        };
        Ok(rows.into_iter().map(AuditEvent::from).collect())
    }
}

impl Database {
    /// Writes the audit event of an export before its first row. It has its own transaction, since
    /// an export changes nothing.
    pub async fn record_export(&self, permit: &Permit<CreateExport>, object: &str) -> Result<(), DbError> {
        let mut tx = self.writer.begin("begin", permit.tenant()).await?;
        AuditRecord::new(permit, permit.audit(), object).insert(TracingExecutor(&mut tx)).await?;
        Ok(tx.commit().await?)
    }
}
