//! Operations of browser sessions (AUTHN-14, AUTHN-15, AUTHN-16).
//!
//! [`browser`] has those of a browser on its own session, without a permit. Here people list and end
//! their own sessions, and administrators those of their tenant.

mod browser;
mod docs_page;
mod form;
mod schema;

use std::sync::Arc;

use browser::Browser;
pub(super) use docs_page::DOCS_PAGE;
use poem::Result;
use poem_openapi::{
    ApiResponse, OpenApi, Tags,
    param::{Path, Query},
    payload::Json,
};
use schema::{SessionPage, SessionView};

use crate::{
    authz::{
        Permit,
        sessions::{EndMySession, EndSession, ListMySessions, ListSessions},
    },
    http::{
        Context,
        paging::Paging,
        text::{Text, formats},
    },
    model::{Session, SessionId},
    problem::{Kind, Problem},
    store::Position,
};

/// Group of these operations in the OpenAPI document.
#[derive(Tags)]
enum Tag {
    /// Browser sessions of people.
    Sessions,
}

/// Operations of browser sessions.
pub(super) type Sessions = (Browser, ManagedSessions);

/// Lists of sessions, and their end.
pub(super) struct ManagedSessions {
    context: Arc<Context>,
}

/// The operations of a server.
pub(super) fn new(context: &Arc<Context>) -> Sessions {
    (Browser { context: Arc::clone(context) }, ManagedSessions { context: Arc::clone(context) })
}

crate::id_parameters! { SessionId }

#[derive(ApiResponse)]
enum Ended {
    /// The session is ended.
    #[oai(status = 204)]
    NoContent,
}

#[OpenApi(tag = "Tag::Sessions")]
impl ManagedSessions {
    /// List the caller's browser sessions
    ///
    /// Returns the caller's live browser sessions in the tenant, newest first.
    #[oai(path = "/v1/me/sessions", method = "get", operation_id = "listMySessions")]
    async fn list_mine(
        &self,
        permit: &Permit<ListMySessions>,
        /// Maximum number of items on the page: 1 to 100, default 20.
        #[oai(default = "crate::http::paging::default_limit", validator(minimum(value = "1"), maximum(value = "100")))]
        limit: Query<i64>,
        /// `nextCursor` of the previous page. Omit it for the first page.
        cursor: Query<Option<Text<formats::Cursor>>>,
    ) -> Result<Json<SessionPage>> {
        let paging = Paging::new(&self.context.mac_key, "my-sessions", permit.tenant(), limit.0);
        let start = paging.open(cursor.0.as_deref())?.unwrap_or_else(Position::start);
        let subject = Some(permit.principal().subject());
        let range = (start, paging.read_ahead());
        let sessions = self.context.database.sessions(permit, subject, self.context.clock.now(), range).await?;
        Ok(page(&paging, sessions, permit.principal().session()))
    }

    /// End a browser session of the caller
    ///
    /// Ends the session on all replicas at once. Idempotent: ending an ended session returns 204.
    /// Works in read-only mode too.
    #[oai(path = "/v1/me/sessions/:id", method = "delete", operation_id = "endMySession")]
    async fn end_mine(
        &self,
        permit: &Permit<EndMySession>,
        /// Id of the session (UUID).
        id: Path<SessionId>,
    ) -> Result<Ended> {
        let tx = self.context.database.write(permit).await?;
        let session = tx.lock::<Session>(id.0).await?.ok_or_else(|| Problem::new(Kind::NotFound))?;
        // A session of another person looks like a missing one.
        if session.subject != permit.principal().subject() {
            return Err(Problem::new(Kind::NotFound).into());
        }
        tx.end_session(&permit.for_object(&session)?, self.context.clock.now()).await?;
        tx.commit(permit, id.0).await?;
        Ok(Ended::NoContent)
    }

    /// List browser sessions
    ///
    /// Returns live browser sessions of the tenant's members, newest first.
    #[oai(path = "/v1/sessions", method = "get", operation_id = "listSessions")]
    async fn list(
        &self,
        permit: &Permit<ListSessions>,
        /// Subject of a person. Omit it for all.
        user: Query<Option<Text<formats::Subject>>>,
        /// Maximum number of items on the page: 1 to 100, default 20.
        #[oai(default = "crate::http::paging::default_limit", validator(minimum(value = "1"), maximum(value = "100")))]
        limit: Query<i64>,
        /// `nextCursor` of the previous page. Omit it for the first page.
        cursor: Query<Option<Text<formats::Cursor>>>,
    ) -> Result<Json<SessionPage>> {
        let paging = Paging::new(&self.context.mac_key, "sessions", permit.tenant(), limit.0);
        let start = paging.open(cursor.0.as_deref())?.unwrap_or_else(Position::start);
        let range = (start, paging.read_ahead());
        let sessions =
            self.context.database.sessions(permit, user.0.as_deref(), self.context.clock.now(), range).await?;
        Ok(page(&paging, sessions, permit.principal().session()))
    }

    /// End a browser session
    ///
    /// Ends the session of any member of the tenant, on all replicas at once. Idempotent: ending an
    /// ended session returns 204. Works in read-only mode too.
    #[oai(path = "/v1/sessions/:id", method = "delete", operation_id = "endSession")]
    async fn end(
        &self,
        permit: &Permit<EndSession>,
        /// Id of the session (UUID).
        id: Path<SessionId>,
    ) -> Result<Ended> {
        let tx = self.context.database.write(permit).await?;
        let session = tx.lock::<Session>(id.0).await?.ok_or_else(|| Problem::new(Kind::NotFound))?;
        tx.end_session(&permit.for_object(&session)?, self.context.clock.now()).await?;
        tx.commit(permit, id.0).await?;
        Ok(Ended::NoContent)
    }
}

/// The page of a list.
fn page(paging: &Paging<'_>, mut sessions: Vec<Session>, current: Option<SessionId>) -> Json<SessionPage> {
    let position = |session: &Session| Position { at: session.created_at, id: session.id.uuid() }.to_string();
    let next_cursor = paging.cut(&mut sessions, position);
    Json(SessionPage { items: sessions.into_iter().map(|it| SessionView::new(it, current)).collect(), next_cursor })
}
