//! Queries of browser sessions for authentication, which run before there is a principal.
//!
//! In: the login `app_authn`, which may call the functions here and nothing else on sessions. Out:
//! rows with the hash of the cookie's secret and the sealed refresh token. `authn/sessions` calls
//! this. [`crate::store`] has the queries of operations, which can read neither.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{Credentials, DbError, tracing_executor::TracingExecutor};
use crate::{
    crypto::hex,
    model::{SessionId, TenantId},
};

/// A row of `palisade.sessions`. It serializes as the JSON of a PostgreSQL record.
#[derive(Clone, Serialize)]
pub(crate) struct StoredSession {
    pub(crate) tenant_id: Uuid,
    pub(crate) id: Uuid,
    pub(crate) issuer: String,
    pub(crate) issuer_session: Option<String>,
    pub(crate) logout_hint: Option<String>,
    pub(crate) subject: String,
    pub(crate) client: String,
    pub(crate) roles: Vec<String>,
    pub(crate) scopes: Vec<String>,
    pub(crate) token_id: Option<String>,
    pub(crate) access_expires_at: DateTime<Utc>,
    pub(crate) auth_time: Option<DateTime<Utc>>,
    pub(crate) acr: Option<String>,
    #[serde(serialize_with = "as_bytea")]
    pub(crate) handle_hash: Vec<u8>,
    pub(crate) generation: i32,
    pub(crate) rotated_at: DateTime<Utc>,
    #[serde(serialize_with = "as_optional_bytea")]
    pub(crate) refresh_token: Option<Vec<u8>>,
    pub(crate) claimed_until: Option<DateTime<Utc>>,
    pub(crate) network: String,
    pub(crate) user_agent: String,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) last_used_at: DateTime<Utc>,
    pub(crate) idle_expires_at: DateTime<Utc>,
    pub(crate) expires_at: DateTime<Utc>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
}

fn as_bytea<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("\\x{}", hex(bytes)))
}

#[expect(clippy::ref_option, reason = "the signature that serde calls")]
fn as_optional_bytea<S: serde::Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    match bytes {
        Some(bytes) => as_bytea(bytes, serializer),
        None => serializer.serialize_none(),
    }
}

/// Network and user agent of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenClient {
    pub(crate) network: String,
    pub(crate) user_agent: String,
}

/// Reads all columns of the function that follows.
macro_rules! read_row {
    ($from:literal, $($argument:expr),+) => {
        sqlx::query_as!(
            StoredSession,
            r#"select tenant_id as "tenant_id!", id as "id!", issuer as "issuer!", issuer_session, logout_hint,
                      subject as "subject!", client as "client!", roles as "roles!", scopes as "scopes!", token_id,
                      access_expires_at as "access_expires_at!", auth_time, acr, handle_hash as "handle_hash!",
                      generation as "generation!", rotated_at as "rotated_at!", refresh_token, claimed_until,
                      network as "network!", user_agent as "user_agent!", created_at as "created_at!",
                      last_used_at as "last_used_at!", idle_expires_at as "idle_expires_at!",
                      expires_at as "expires_at!", ended_at
               from "# + $from,
            $($argument),+
        )
    };
}

impl Credentials {
    /// Stores a new session.
    pub(crate) async fn open_session(&self, session: &StoredSession) -> Result<(), DbError> {
        let record = serde_json::to_value(session).map_err(DbError::broken)?;
        sqlx::query!("select palisade.open_session($1, $2)", session.tenant_id, record)
            .execute(TracingExecutor(&mut *self.pool.connection().await?))
            .await?;
        Ok(())
    }

    /// Reads a session as it was before this request, and records the request as its newest one.
    pub(crate) async fn use_session(
        &self,
        tenant: TenantId,
        id: SessionId,
        at: DateTime<Utc>,
        idle_until: DateTime<Utc>,
        seen: &SeenClient,
    ) -> Result<Option<StoredSession>, DbError> {
        let row = read_row!(
            "palisade.use_session($1, $2, $3, $4, $5, $6)",
            tenant.uuid(),
            id.uuid(),
            at,
            idle_until,
            seen.network,
            seen.user_agent
        );
        Ok(row.fetch_optional(TracingExecutor(&mut *self.pool.connection().await?)).await?)
    }

    /// Reads a session.
    pub(crate) async fn session(&self, tenant: TenantId, id: SessionId) -> Result<Option<StoredSession>, DbError> {
        let row = read_row!("palisade.read_session($1, $2)", tenant.uuid(), id.uuid());
        Ok(row.fetch_optional(TracingExecutor(&mut *self.pool.connection().await?)).await?)
    }

    /// Claims the refresh of a session for one request; `None` if another one has it, or if the refresh
    /// token is no longer the one that was read. A claim ends by itself.
    pub(crate) async fn claim_refresh(&self, session: &StoredSession) -> Result<Option<DateTime<Utc>>, DbError> {
        let claim = sqlx::query_scalar!(
            "select palisade.claim_refresh($1, $2, $3)",
            session.tenant_id,
            session.id,
            session.refresh_token.as_deref()
        )
        .fetch_one(TracingExecutor(&mut *self.pool.connection().await?))
        .await?;
        Ok(claim)
    }

    /// Ends the claim and stores the refreshed session; without one, changes nothing else. Returns
    /// whether the claim was still there.
    pub(crate) async fn finish_refresh(
        &self,
        (tenant, id): (Uuid, Uuid),
        claim: DateTime<Utc>,
        refreshed: Option<&StoredSession>,
    ) -> Result<bool, DbError> {
        let changes = refreshed.map_or(Ok(serde_json::json!({})), serde_json::to_value).map_err(DbError::broken)?;
        let is_stored = sqlx::query_scalar!(
            r#"select palisade.finish_refresh($1, $2, $3, $4) as "is_stored!""#,
            tenant,
            id,
            claim,
            changes
        )
        .fetch_one(TracingExecutor(&mut *self.pool.connection().await?))
        .await?;
        Ok(is_stored)
    }

    /// Ends a session. Returns whether it was still there.
    pub(crate) async fn end_session(&self, (tenant, id): (Uuid, Uuid), at: DateTime<Utc>) -> Result<bool, DbError> {
        let has_ended =
            sqlx::query_scalar!(r#"select palisade.end_session($1, $2, $3) as "has_ended!""#, tenant, id, at)
                .fetch_one(TracingExecutor(&mut *self.pool.connection().await?))
                .await?;
        Ok(has_ended)
    }

    /// Revokes the sign-ins that a logout token names: kind `token` or `sessions`, and the value.
    /// `false` if the logout token, of this digest, was used before.
    pub(crate) async fn record_logout(
        &self,
        (digest, until): (&[u8], DateTime<Utc>),
        (kind, value): (&str, &str),
        at: DateTime<Utc>,
    ) -> Result<bool, DbError> {
        let mut connection = self.pool.connection().await?;
        let is_first = sqlx::query_scalar!(
            r#"select palisade.record_logout($1, $2, $3, $4, $5) as "is_first!""#,
            digest,
            until,
            kind,
            value,
            at
        )
        .fetch_one(TracingExecutor(&mut connection))
        .await?;
        // A separate statement: it fails while the queue of notifications is full. Replicas poll.
        let _ = sqlx::query("select pg_notify('revocations', '')").execute(TracingExecutor(&mut connection)).await;
        Ok(is_first)
    }
}

/// Leaves hash and refresh token out.
impl std::fmt::Debug for StoredSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredSession").field("id", &self.id).finish_non_exhaustive()
    }
}
