use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Database, Position, ReadTx, StoreError, WriteTx, position::storable, traced::Traced};
use crate::{
    authz::{
        Action, Change, Permit,
        actions::{CreateExport, ListAuditEvents},
    },
    domain::{AuditEvent, AuditEventId, AuditSeal, TenantId},
    telemetry::{TraceId, event},
};

/// How often it is told that the trail cannot be sealed.
const TELL_AGAIN: Duration = Duration::from_mins(1);

/// What a permitted change is written down as, in the same transaction (LOG-05).
#[derive(Debug)]
pub(super) struct Entry<'p> {
    pub(super) tenant: TenantId,
    pub(super) id: Uuid,
    pub(super) subject: &'p str,
    pub(super) client: &'p str,
    pub(super) action: &'p str,
    pub(super) object: String,
    pub(super) trace_id: String,
}

impl<'p> Entry<'p> {
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

    /// In a transaction of its tenant.
    async fn write_down(&self, connection: Traced<'_>) -> Result<(), StoreError> {
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

    /// Says in the log that it happened. To be called after the commit.
    pub(super) fn tell(&self) {
        event::data_changed(self.subject, &self.tenant.to_string(), self.action, &self.object);
    }
}

impl<A: Change> WriteTx<A> {
    /// Makes the changes lasting, with an entry in the audit trail for each object that was changed, and says so in the log.
    /// Only after this succeeds may the caller be told.
    pub async fn commit(self, permit: &Permit<A>, object: impl Display) -> Result<(), StoreError> {
        self.commit_with(permit, object, &[]).await
    }

    /// The same if more was changed than what the permit is for: what, and to which object.
    pub async fn commit_with(
        mut self,
        permit: &Permit<A>,
        object: impl Display,
        more: &[(&'static str, String)],
    ) -> Result<(), StoreError> {
        let more = more.iter().map(|(action, object)| Entry::new(permit, action, object));
        let entries: Vec<_> = std::iter::once(Entry::new(permit, permit.audit(), object)).chain(more).collect();
        for entry in &entries {
            entry.write_down(self.connection()).await?;
        }
        self.finish().await?;
        entries.iter().for_each(Entry::tell);
        Ok(())
    }
}

/// Which events a list holds.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Those of this object.
    pub object: Option<String>,
    /// Those of then or later.
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
    /// At most `limit` events after `from`, newest first.
    pub async fn audit_events(
        &mut self,
        from: Position,
        filter: &AuditFilter,
        limit: i64,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let tenant = self.tenant().uuid();
        let since = storable(filter.from.unwrap_or_default());
        // One statement per set of filters, so that each has a plan of its own, by its own index.
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
    /// Seals it, for as long as it runs. A failure is told at once and then each minute.
    pub async fn keep_sealing(&self, every: Duration) {
        let (mut failing_since, mut told): (Option<Instant>, i64) = (None, 0);
        loop {
            tokio::time::sleep(every).await;
            match self.seal_audit_journal().await {
                Ok(seal) => {
                    failing_since = None;
                    if let Some(seal) = seal {
                        event::audit_sealed(&seal);
                        if seal.number <= told {
                            // Somebody took back what was sealed.
                            event::audit_trail_invalid(1);
                        }
                        told = told.max(seal.number);
                    }
                }
                Err(error) if failing_since.is_none_or(|since| since.elapsed() > TELL_AGAIN) => {
                    event::audit_not_sealed(&error);
                    failing_since = Some(Instant::now());
                }
                Err(_) => {}
            }
        }
    }

    /// Writes down that somebody begins to take the books out: in a transaction of its own, as there is no change.
    pub async fn write_down_export(&self, permit: &Permit<CreateExport>, object: &str) -> Result<(), StoreError> {
        let mut tx = self.writer.begin("begin", permit.tenant()).await?;
        Entry::new(permit, permit.audit(), object).write_down(Traced(&mut tx)).await?;
        Ok(tx.commit().await?)
    }

    /// Seals what is final of the journal of the audit trail; `None` if there is nothing, or another replica does it.
    pub async fn seal_audit_journal(&self) -> Result<Option<AuditSeal>, StoreError> {
        let seal = sqlx::query_as!(
            AuditSeal,
            r#"select number as "number!", upto as "upto!", events as "events!", digest as "digest!"
               from seal_audit_journal()"#
        )
        .fetch_optional(Traced(&mut *self.writer.connection().await?))
        .await?;
        Ok(seal)
    }
}
