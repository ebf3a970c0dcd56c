//! SQL of browser sessions as people and administrators manage them: list and end (AUTHN-16).
//!
//! In: permits. Out: sessions without the hash of their cookie and the refresh token, which the logins
//! of operations cannot read; `db/sessions.rs` reads them for authentication. The handlers of
//! `operations/sessions` call this.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Database, Loader, Lockable, ObjectPermit, Position, WriteTx};
use crate::{
    authz::{
        Action, Change, ObjectRule, Permit,
        sessions::{EndMySession, EndSession, ListMySessions, ListSessions},
    },
    db::{DbError, TracingExecutor},
    model::{Session, SessionId, Stateless, TenantId},
};

/// Marks the actions that list sessions.
pub trait ListsSessions: Action {}
impl ListsSessions for ListMySessions {}
impl ListsSessions for ListSessions {}

/// Marks the actions that end a session.
pub trait EndsSession: Change + ObjectRule<Session> {}
impl EndsSession for EndMySession {}
impl EndsSession for EndSession {}

struct SessionRow {
    tenant_id: Uuid,
    id: Uuid,
    subject: String,
    network: String,
    user_agent: String,
    created_at: DateTime<Utc>,
    last_used_at: DateTime<Utc>,
    idle_expires_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
}

impl From<SessionRow> for Session {
    fn from(row: SessionRow) -> Self {
        Self {
            id: SessionId::from_uuid(row.id),
            tenant: TenantId::from_uuid(row.tenant_id),
            subject: row.subject,
            network: row.network,
            user_agent: row.user_agent,
            created_at: row.created_at,
            last_used_at: row.last_used_at,
            idle_expires_at: row.idle_expires_at,
            expires_at: row.expires_at,
            ended_at: row.ended_at,
        }
    }
}

impl Database {
    /// Reads a page of at most `limit` live sessions of a person, or of all people, newest first, in
    /// one message.
    pub async fn sessions<A: ListsSessions>(
        &self,
        permit: &Permit<A>,
        subject: Option<&str>,
        at: DateTime<Utc>,
        (from, limit): (Position, i64),
    ) -> Result<Vec<Session>, DbError> {
        let rows = sqlx::query_as!(
            SessionRow,
            "with t as materialized (select set_config('app.tenant_id', $1::uuid::text, true)::uuid as tenant)
             select q.* from t, lateral (
                 select tenant_id, id, subject, network, user_agent, created_at, last_used_at, idle_expires_at,
                        expires_at, ended_at
                 from palisade.sessions
                 where tenant_id = t.tenant and (subject = $2 or $2 is null) and ended_at is null
                   and expires_at > $3 and idle_expires_at > $3 and (created_at, id) < ($4, $5)
                 order by created_at desc, id desc limit $6 offset 0) q",
            permit.tenant().uuid(),
            subject,
            at,
            from.time(),
            from.id,
            limit
        )
        .fetch_all(TracingExecutor(&mut *self.reader.connection().await?))
        .await?;
        Ok(rows.into_iter().map(Session::from).collect())
    }
}

impl Lockable for Session {
    type Id = SessionId;
    type State = Stateless;

    fn id(&self) -> SessionId {
        self.id
    }

    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn state(&self) -> Stateless {
        Stateless
    }

    async fn load(tx: &Loader<'_>, id: SessionId) -> Result<Option<Self>, DbError> {
        let row = sqlx::query_as!(
            SessionRow,
            "select tenant_id, id, subject, network, user_agent, created_at, last_used_at, idle_expires_at, expires_at,
                    ended_at
             from palisade.sessions where tenant_id = $1 and id = $2 for no key update",
            tx.tenant().uuid(),
            id.uuid()
        )
        .fetch_optional(TracingExecutor(&mut *tx.locking_connection().await?))
        .await?;
        Ok(row.map(Session::from))
    }
}

impl<A: EndsSession> WriteTx<'_, A> {
    /// Ends the session now, and deletes its refresh token.
    pub async fn end_session(&self, permit: &ObjectPermit<'_, A, Session>, at: DateTime<Utc>) -> Result<(), DbError> {
        self.check_object(permit)?;
        sqlx::query!(
            "update palisade.sessions set ended_at = $3, refresh_token = null, claimed_until = null
             where tenant_id = $1 and id = $2 and ended_at is null",
            permit.tenant().uuid(),
            permit.id().uuid(),
            at
        )
        .execute(TracingExecutor(&mut *self.open.connection().await?))
        .await?;
        Ok(())
    }
}
