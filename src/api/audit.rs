//! The audit trail of a tenant (control LOG-05).

use std::sync::Arc;

use chrono::{DateTime, Utc};
use poem::Result;
use poem_openapi::{Object, OpenApi, param::Query, payload::Json};
use uuid::Uuid;

use super::{
    Context, Tag,
    paging::Paging,
    text::{Text, form},
    values::Time,
};
use crate::{
    authz::{Permit, actions::ListAuditEvents},
    domain::AuditEvent,
    store::{AuditFilter, Position},
};

/// Who changed what.
pub(super) struct AuditEvents(pub(super) Arc<Context>);

/// Something that was changed.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct AuditEventView {
    /// What identifies the event.
    id: Uuid,
    /// When.
    at: DateTime<Utc>,
    /// Who: the `sub` of the credential, `api-key:` and its id, `service:` and its name, or `operator:` and a login.
    subject: Text<form::Subject>,
    /// Through which client; absent if an operator did it.
    #[oai(skip_serializing_if_is_none)]
    client: Option<Text<form::Subject>>,
    /// What was done, as the route matrix calls it.
    action: Text<form::Action>,
    /// To which object.
    object: Text<form::AuditObject>,
    /// The request, as its answer and log lines name it; absent if an operator did it.
    #[oai(skip_serializing_if_is_none)]
    trace_id: Option<Text<form::TraceId>>,
    /// What the operator gave as one; absent for a request.
    #[oai(skip_serializing_if_is_none)]
    reason: Option<Text<form::OperatorReason>>,
}

/// One page of events, newest first.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct AuditEventPage {
    /// The events of the page.
    #[oai(validator(max_items = 100))]
    items: Vec<AuditEventView>,
    /// What to send as `cursor` for the next page; null on the last.
    #[oai(nullable)]
    next_cursor: Option<Text<form::Cursor>>,
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
        }
    }
}

#[OpenApi(tag = "Tag::Audit")]
impl AuditEvents {
    /// List who changed what
    ///
    /// Newest first. Each change is here from the moment it is made, and stays.
    #[oai(path = "/v1/audit-events", method = "get", operation_id = "listAuditEvents")]
    async fn list(
        &self,
        permit: Permit<ListAuditEvents>,
        /// Only what was done to this object.
        object: Query<Option<Text<form::AuditObject>>>,
        /// Only what was done at this time or later.
        from: Query<Option<Time>>,
        /// Only what was done before this time.
        to: Query<Option<Time>>,
        /// Most items on the page.
        #[oai(default = "super::paging::default_limit", validator(minimum(value = "1"), maximum(value = "100")))]
        limit: Query<i64>,
        /// `nextCursor` of the page before.
        cursor: Query<Option<Text<form::Cursor>>>,
    ) -> Result<Json<AuditEventPage>> {
        let paging = Paging::new(&self.0.mac_key, "audit-events", permit.tenant(), limit.0);
        let end = to.0.map_or_else(Position::start, |to| Position::before(to.0));
        let start = paging.open(cursor.0.as_deref())?.map_or(end, |cursor: Position| cursor.later(end));
        let filter = AuditFilter { object: object.0.map(String::from), from: from.0.map(|from| from.0) };
        let mut tx = self.0.database.read(&permit).await?;
        let mut events = tx.audit_events(start, &filter, paging.read_ahead()).await?;
        let position = |event: &AuditEvent| Position { at: event.at, id: event.id.uuid() };
        let next_cursor = paging.cut(&mut events, |event| position(event).to_string());
        Ok(Json(AuditEventPage { items: events.into_iter().map(AuditEventView::from).collect(), next_cursor }))
    }
}
