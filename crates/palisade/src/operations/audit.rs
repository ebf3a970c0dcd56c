//! `GET /v1/audit-events`: the audit trail of the caller's tenant (LOG-05).
//!
//! Reads only. [`crate::store`] writes the events, each in the transaction of its change.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use poem::Result;
use poem_openapi::{Object, OpenApi, param::Query, payload::Json};
use uuid::Uuid;

use super::Tag;
use crate::{
    authz::{Permit, actions::ListAuditEvents},
    http::{
        Context,
        paging::Paging,
        text::{Text, formats},
        values::Time,
    },
    model::{AuditEvent, ChangedColumn},
    store::{AuditFilter, Position},
};

/// Operation on the audit trail.
pub(super) struct AuditEvents {
    pub(super) context: Arc<Context>,
}

/// An event of the audit trail: a change of data, the start of an export, or an operator command.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct AuditEventView {
    /// Event id (UUIDv7, RFC 9562).
    id: Uuid,
    /// Time of the event by the clock of the database (RFC 3339, UTC).
    at: DateTime<Utc>,
    /// Subject of the caller: the `sub` of its token, `issuer:<name>:<sub>`, `api-key:<id>`,
    /// `service:<name>`, or `operator:` and a PostgreSQL login.
    subject: Text<formats::Subject>,
    /// OAuth client of the caller; absent for operator commands.
    #[oai(skip_serializing_if_is_none)]
    client: Option<Text<formats::Subject>>,
    /// Name of the action, such as `order_created`.
    action: Text<formats::Action>,
    /// Object of the action, such as an order id or a SKU.
    object: Text<formats::AuditObject>,
    /// Trace id of the request, also in its response and log lines; absent for operator commands.
    #[oai(skip_serializing_if_is_none)]
    trace_id: Option<Text<formats::TraceId>>,
    /// Reason that the operator gave; absent for requests.
    #[oai(skip_serializing_if_is_none)]
    reason: Option<Text<formats::OperatorReason>>,
    /// Changed columns, at most 500; empty if the action only adds rows.
    #[oai(validator(max_items = 500))]
    changes: Vec<ChangedColumnView>,
}

/// A changed column of a row. Values are present for numbers, booleans, UUIDs, states and currency
/// codes only, so that no event contains personal data.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct ChangedColumnView {
    /// Name of the table.
    table: Text<formats::SqlName>,
    /// Primary key of the row; absent if the tenant has one row.
    #[oai(skip_serializing_if_is_none)]
    key: Option<Text<formats::AuditObject>>,
    /// Name of the column.
    column: Text<formats::SqlName>,
    /// Value before the change.
    #[oai(skip_serializing_if_is_none)]
    before: Option<Text<formats::ChangedValue>>,
    /// Value after the change; absent if the row was deleted.
    #[oai(skip_serializing_if_is_none)]
    after: Option<Text<formats::ChangedValue>>,
}

/// One page of audit events, newest first.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct AuditEventPage {
    /// Events of the page, at most 100.
    #[oai(validator(max_items = 100))]
    items: Vec<AuditEventView>,
    /// Cursor of the next page, to send as `cursor`; `null` on the last page.
    #[oai(nullable)]
    next_cursor: Option<Text<formats::Cursor>>,
}

impl From<AuditEvent> for AuditEventView {
    fn from(event: AuditEvent) -> Self {
        let unless_empty = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            id: event.id.uuid(),
            at: event.at,
            subject: event.subject.into(),
            client: unless_empty(event.client).map(Text::from),
            action: event.action.into(),
            object: event.object.into(),
            trace_id: unless_empty(event.trace_id).map(Text::from),
            reason: unless_empty(event.reason).map(Text::from),
            changes: event.changes.into_iter().map(ChangedColumnView::from).collect(),
        }
    }
}

impl From<ChangedColumn> for ChangedColumnView {
    fn from(ChangedColumn { table, key, column, before, after }: ChangedColumn) -> Self {
        Self {
            table: table.into(),
            key: Some(key).filter(|key| !key.is_empty()).map(Text::from),
            column: column.into(),
            before: before.map(Text::from),
            after: after.map(Text::from),
        }
    }
}

#[OpenApi(tag = "Tag::Audit")]
impl AuditEvents {
    /// List audit events
    ///
    /// Lists the events of the tenant's audit trail, newest first. Each change writes its event in
    /// the same transaction. The trail is append-only.
    #[oai(path = "/v1/audit-events", method = "get", operation_id = "listAuditEvents")]
    async fn list(
        &self,
        permit: &Permit<ListAuditEvents>,
        /// Only events of this object, by the exact value of `object`.
        object: Query<Option<Text<formats::AuditObject>>>,
        /// Only events at or after this time (RFC 3339).
        from: Query<Option<Time>>,
        /// Only events before this time (RFC 3339).
        to: Query<Option<Time>>,
        /// Maximum number of items on the page: 1 to 100, default 20.
        #[oai(default = "crate::http::paging::default_limit", validator(minimum(value = "1"), maximum(value = "100")))]
        limit: Query<i64>,
        /// `nextCursor` of the previous page. Omit it for the first page.
        cursor: Query<Option<Text<formats::Cursor>>>,
    ) -> Result<Json<AuditEventPage>> {
        let paging = Paging::new(&self.context.mac_key, "audit-events", permit.tenant(), limit.0);
        let newest = to.0.map_or_else(Position::start, |to| Position::before(to.0));
        let start = paging.open(cursor.0.as_deref())?.map_or(newest, |cursor: Position| cursor.later(newest));
        let filter = AuditFilter { object: object.0.map(String::from), from: from.0.map(|from| from.0) };
        let mut events = self.context.database.audit_events(permit, start, &filter, paging.read_ahead()).await?;
        let next_cursor = paging.cut(&mut events, |event| Position { at: event.at, id: event.id.uuid() }.to_string());
        Ok(Json(AuditEventPage { items: events.into_iter().map(AuditEventView::from).collect(), next_cursor }))
    }
}
