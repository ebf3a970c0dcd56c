//! Audit events: written in the transaction of the change they record (LOG-05), and listed.
//!
//! In: the permit of a change, and the changed objects. Out: a committed transaction with an audit
//! event per object, and a line in the log. [`WriteTx`] has no other public way to commit. The
//! handlers of `api/` call this; `maintenance` seals the trail.

use std::sync::atomic::Ordering;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::types::Json;
use uuid::Uuid;

use super::{CreateRecord, Database, Keyed, Position, StoredResponse, Unkeyed, WriteTx, keyset::clamp_time};
use crate::{
    authz::{Action, Change, Permit, actions::ListAuditEvents},
    db::{DbError, TracingExecutor},
    model::{AuditEvent, AuditEventId, AuditObject, ChangedColumn, TenantId},
    telemetry::{TraceId, event},
};

/// The audit event of a permitted change, before it is written (LOG-05).
#[derive(Debug, Serialize)]
pub(super) struct AuditRecord {
    pub(super) id: Uuid,
    pub(super) action: &'static str,
    pub(super) object: String,
}

impl AuditRecord {
    pub(super) fn new<A: Action>(_: &Permit<A>, action: &'static str, object: String) -> Self {
        Self { id: AuditEventId::generate().uuid(), action, object }
    }

    /// Logs the change. To be called after the commit.
    pub(super) fn log<A: Action>(&self, permit: &Permit<A>) {
        let principal = permit.principal();
        event::data_changed(principal.subject(), &permit.tenant().to_string(), self.action, &self.object);
    }
}

/// The trace id of the request, for its audit events.
pub(super) fn trace_id() -> String {
    TraceId::current().map(|id| id.as_str().to_owned()).unwrap_or_default()
}

impl<A: Change> WriteTx<'_, A, Unkeyed> {
    /// Writes the audit event, commits, and logs the change. There is no other way to commit. The
    /// response may be sent only after this has succeeded.
    pub async fn commit(self, permit: &Permit<A>, object: impl AuditObject) -> Result<(), DbError> {
        self.finish(permit, object, None).await
    }
}

impl<A: Change> WriteTx<'_, A, Keyed> {
    /// Commits with the audit event, and stores the response for retries if the request has a key.
    pub async fn commit(
        self,
        permit: &Permit<A>,
        object: impl AuditObject,
        response: &StoredResponse,
    ) -> Result<(), DbError> {
        self.finish(permit, object, Some(response)).await
    }
}

impl<A: Change, K> WriteTx<'_, A, K> {
    async fn finish(
        self,
        permit: &Permit<A>,
        object: impl AuditObject,
        response: Option<&StoredResponse>,
    ) -> Result<(), DbError> {
        if permit.tenant() != self.tenant() || self.open.is_refused.load(Ordering::Relaxed) {
            return Err(DbError::Misuse("the permit is for another tenant, or a change was refused before"));
        }
        let Self { open, request, further, .. } = self;
        let mut record = CreateRecord::new(permit, object, request.as_deref().zip(response));
        // The last event takes the changed rows that are of no further object.
        record.further = further.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        sqlx::query!("select palisade.record_change($1, $2)", permit.tenant().uuid(), record.json() as _)
            .execute(TracingExecutor(&mut *open.connection().await?))
            .await?;
        open.commit().await?;
        for event in record.further.iter().chain([&record.event]) {
            event.log(permit);
        }
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
    changes: Option<Json<Vec<ChangedColumn>>>,
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
            changes: row.changes.map(|Json(changes)| changes).unwrap_or_default(),
        }
    }
}

/// A page of events of the tenant in `t`, newest first. `$filter` is a further condition.
macro_rules! select_events {
    ($filter:tt, $($argument:expr),+ $(,)?) => {
        sqlx::query_as!(
            EventRow,
            "with t as materialized (select set_config('app.tenant_id', $1::uuid::text, true)::uuid as tenant)
             select q.* from t, lateral (
                 select tenant_id, id, at, subject, client, action, object, trace_id, reason,
                        changes as \"changes: _\"
                 from palisade.audit_events where tenant_id = t.tenant and at >= $2 and (at, id) < ($3, $4) " + $filter
                + " order by at desc, id desc limit $5 offset 0) q",
            $($argument),+
        )
    };
}

impl Database {
    /// Reads a page of at most `limit` events after `from`, newest first, in one message.
    pub async fn audit_events(
        &self,
        permit: &Permit<ListAuditEvents>,
        from: Position,
        filter: &AuditFilter,
        limit: i64,
    ) -> Result<Vec<AuditEvent>, DbError> {
        let tenant = permit.tenant().uuid();
        let since = clamp_time(filter.from.unwrap_or_default());
        let mut connection = self.reader.connection().await?;
        let executor = TracingExecutor(&mut connection);
        // One statement per combination of filters, so that each has its own plan and index.
        let rows = match &filter.object {
            None => select_events!("", tenant, since, from.time(), from.id, limit).fetch_all(executor).await?,
            Some(object) => {
                select_events!("and object = $6", tenant, since, from.time(), from.id, limit, object)
                    .fetch_all(executor)
                    .await?
            }
        };
        Ok(rows.into_iter().map(AuditEvent::from).collect())
    }

    /// Writes the audit event of an action that changes nothing, such as an export, in one message.
    pub(crate) async fn record<A: Action>(&self, permit: &Permit<A>, object: &'static str) -> Result<(), DbError> {
        let record = AuditRecord::new(permit, permit.audit(), object.to_owned());
        sqlx::query!(
            "with t as materialized (select set_config('app.tenant_id', $1::uuid::text, true)::uuid as tenant)
             select palisade.record_audit_event(t.tenant, $2, $3, $4, $5, $6, $7) from t",
            permit.tenant().uuid(),
            record.id,
            permit.principal().subject(),
            permit.principal().recorded_client(),
            record.action,
            record.object,
            trace_id()
        )
        .execute(TracingExecutor(&mut *self.writer.connection().await?))
        .await?;
        Ok(())
    }
}
