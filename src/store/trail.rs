//! Reads the audit trail of all tenants, to verify it.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{Connection as _, PgConnection, PgTransaction, postgres::PgConnectOptions};
use uuid::Uuid;

use super::StoreError;
use crate::domain::{AuditEvent, AuditEventId, TenantId};

/// The trail as it is at one moment.
#[derive(Debug)]
pub struct Trail(PgConnection);

/// A line of the journal, and the event it is of, if that is there.
#[derive(Clone, Debug)]
pub struct JournalLine {
    /// Its place.
    pub position: i64,
    /// Whose event it is of.
    pub tenant: Uuid,
    /// Which.
    pub event: Uuid,
    /// What the event's digest was.
    pub digest: Vec<u8>,
    /// What the event is now.
    pub now: Option<AuditEvent>,
}

/// A seal as it is stored.
#[derive(Clone, Debug)]
pub struct StoredSeal {
    /// Counts from 1.
    pub number: i64,
    /// The last position it covers.
    pub upto: i64,
    /// How many lines it covers.
    pub events: i64,
    /// Over all that it covers and the seal before.
    pub digest: Vec<u8>,
    /// 16 bytes for each line of the journal: its position, and the beginning of its digest.
    pub lines: Vec<u8>,
}

struct LineRow {
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

impl LineRow {
    fn now(&self) -> Option<AuditEvent> {
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

impl Trail {
    /// Connects with the login of this URL, which must see the rows of every tenant.
    pub async fn connect(url: &SecretString) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url.expose_secret())?;
        Ok(Self(PgConnection::connect_with(&options).await?))
    }

    /// Gives all seals, then all lines of the journal in order, then the events of which it has no line. All are of one
    /// moment.
    pub async fn read(
        &mut self,
        mut seals: impl FnMut(Vec<StoredSeal>),
        mut line: impl FnMut(JournalLine),
        mut stray: impl FnMut(Uuid, Uuid),
    ) -> Result<(), StoreError> {
        let mut tx = self.0.begin_with("begin isolation level repeatable read read only").await?;
        let all = sqlx::query_as!(
            StoredSeal,
            "select number, upto, events, digest, lines from public.audit_seals order by number"
        );
        seals(all.fetch_all(&mut *tx).await?);
        lines(&mut tx, &mut line).await?;
        let mut strays = sqlx::query!(
            "select tenant_id, id from public.audit_events e
             where not exists (select from public.audit_journal j where j.of_tenant = e.tenant_id and j.event = e.id)
             order by at, id"
        )
        .fetch(&mut *tx);
        while let Some(row) = strays.try_next().await? {
            stray(row.tenant_id, row.id);
        }
        Ok(())
    }
}

async fn lines(tx: &mut PgTransaction<'_>, line: &mut impl FnMut(JournalLine)) -> Result<(), StoreError> {
    let mut rows = sqlx::query_as!(
        LineRow,
        r#"select j.position, j.of_tenant, j.event, j.digest, e.at as "at?", e.subject as "subject?",
                  e.client as "client?", e.action as "action?", e.object as "object?", e.trace_id as "trace_id?",
                  e.reason as "reason?"
           from public.audit_journal j left join public.audit_events e on e.tenant_id = j.of_tenant and e.id = j.event
           order by j.position"#
    )
    .fetch(&mut **tx);
    while let Some(row) = rows.try_next().await? {
        let now = row.now();
        let LineRow { position, of_tenant, event, digest, .. } = row;
        line(JournalLine { position, tenant: of_tenant, event, digest, now });
    }
    Ok(())
}
