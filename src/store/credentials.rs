//! Queries of authentication, which run before there is a principal and so without a permit.
//!
//! They use the login `app_authn`: operations cannot read the hash of a secret, and these queries
//! cannot read an order. They also read revocations and overrides. They write when a key was last
//! used, and the roles in tokens.

use std::time::Duration;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use sqlx::{Acquire as _, PgConnection, postgres::PgListener};
use uuid::Uuid;

use super::{
    Retired, StoreError, UnfitDatabase,
    api_keys::ApiKeyRow,
    login::{Login, Renewals},
    position::stored,
    privileges::Duty,
    traced::Traced,
};
use crate::{
    domain::{ApiKey, ApiKeyId, InForce, Measure, Revocation, TenantId},
    settings::{self, Settings},
};

/// Notifications of new revocations, with no payload, and of changes of API keys, with the tenant.
const CHANNEL: &str = "revocations";

/// Most revocations read in one message.
const PAGE: usize = 10_000;

/// How long the database may take for one page of revocations.
const PATIENCE: Duration = Duration::from_secs(2);

/// Credentials, seen with the login that only looks them up. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Credentials {
    login: Login,
    /// One connection, for revocations at the start and while none can listen. Look-ups of keys do
    /// not keep it waiting.
    revocations: Login,
    /// The same for what operators order.
    measures: Login,
}

/// An API key as it is checked.
pub struct StoredApiKey {
    /// What everybody who may see keys sees.
    pub key: ApiKey,
    /// Of its secret, in PHC string format.
    pub secret_hash: String,
    /// Names of the roles that whoever made it was last seen with.
    pub creator_roles: Vec<String>,
    /// The `jti` of the token by which it was made, if that had one.
    pub authorized_by: Option<String>,
}

struct RevocationRow {
    position: i64,
    kind: String,
    value: String,
    issued_before: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    horizon: String,
}

impl TryFrom<RevocationRow> for Revocation {
    type Error = StoreError;

    fn try_from(row: RevocationRow) -> Result<Self, StoreError> {
        let RevocationRow { kind, value, issued_before, expires_at, .. } = row;
        Ok(Self { kind: stored(&kind)?, value, issued_before, expires_at })
    }
}

struct MeasureRow {
    kind: String,
    target: String,
    of_tenant: Option<Uuid>,
    per_minute: Option<i32>,
    until: DateTime<Utc>,
}

impl MeasureRow {
    fn read(self) -> Option<InForce> {
        let per_minute = u32::try_from(self.per_minute.unwrap_or_default()).ok()?;
        let measure = match (self.kind.as_str(), self.of_tenant.map(TenantId::from_uuid)) {
            ("tenant", Some(tenant)) => Measure::Tenant { tenant, name: self.target.parse().ok()?, per_minute },
            ("class", None) => Measure::Class { name: self.target.parse().ok()?, per_minute },
            ("address", None) => Measure::Address { network: self.target.parse().ok()?, per_minute },
            ("read_only", None) => Measure::ReadOnly,
            _ => return None,
        };
        Some(InForce { measure, until: self.until })
    }
}

/// Listens for notifications, and reads new revocations on the same connection.
#[derive(Debug)]
pub struct RevocationFeed {
    listener: PgListener,
    renewed: Renewals,
    /// Transactions before this one (`xid8`) had ended when revocations were last read.
    horizon: String,
}

/// What a notification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// There are new revocations.
    Revoked,
    /// An API key of this tenant changed, or the roles of its maker.
    KeysChanged(TenantId),
}

impl Credentials {
    /// The login connects when first used.
    pub fn new(settings: &Settings) -> Result<Self, UnfitDatabase> {
        let Settings { database, sources, .. } = settings;
        let login = |of: &settings::Database| Login::new(Duty::Authenticate, &database.authn_url, of, sources);
        Ok(Self { login: login(database)?, revocations: login(&one(database))?, measures: login(&one(database))? })
    }

    /// Checks that the login can do no more than it must.
    pub async fn check_fit(&self) -> Result<(), UnfitDatabase> {
        self.login.check_fit().await
    }

    /// Connects as this URL says, once that is found to be fit (SECRET-04).
    pub async fn renew(&self, url: &SecretString) -> Result<Retired, UnfitDatabase> {
        let retired = self.login.renew(url).await?;
        Ok(retired.and(self.revocations.follow(url)?).and(self.measures.follow(url)?))
    }

    /// Closes all connections, after the work they are doing.
    pub async fn close(&self) {
        tokio::join!(self.login.close(), self.revocations.close(), self.measures.close());
    }

    /// The API key of this id, in one message.
    pub async fn api_key(&self, tenant: TenantId, id: ApiKeyId) -> Result<Option<StoredApiKey>, StoreError> {
        let row = sqlx::query!(
            r#"select name as "name!", secret_hash as "secret_hash!", scopes as "scopes!", created_by as "created_by!",
                      creator_roles as "creator_roles!", replaces, authorized_at as "authorized_at!", authorized_by,
                      created_at as "created_at!", expires_at as "expires_at!", revoked_at, last_used_at
               from read_api_key($1, $2)"#,
            tenant.uuid(),
            id.uuid()
        )
        .fetch_optional(Traced(&mut *self.login.connection().await?))
        .await?;
        let Some(row) = row else { return Ok(None) };
        let key = ApiKeyRow {
            tenant_id: tenant.uuid(),
            id: id.uuid(),
            name: row.name,
            scopes: row.scopes,
            created_by: row.created_by,
            replaces: row.replaces,
            authorized_at: row.authorized_at,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
        };
        Ok(Some(StoredApiKey {
            key: key.try_into()?,
            secret_hash: row.secret_hash,
            creator_roles: row.creator_roles,
            authorized_by: row.authorized_by,
        }))
    }

    /// Notes when keys of a tenant were used last.
    pub async fn note_uses(&self, tenant: TenantId, uses: &[(ApiKeyId, DateTime<Utc>)]) -> Result<(), StoreError> {
        let (keys, times): (Vec<Uuid>, Vec<DateTime<Utc>>) = uses.iter().map(|(id, at)| (id.uuid(), *at)).unzip();
        sqlx::query!("select note_key_uses($1, $2, $3)", tenant.uuid(), &keys, &times)
            .execute(Traced(&mut *self.login.connection().await?))
            .await?;
        Ok(())
    }

    /// Notes what somebody may do, by a token that was issued at this time: it bounds the keys they made or will make.
    pub async fn note_roles(
        &self,
        tenant: TenantId,
        subject: &str,
        roles: &[String],
        as_of: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!("select note_roles($1, $2, $3, $4)", tenant.uuid(), subject, roles, as_of)
            .execute(Traced(&mut *self.login.connection().await?))
            .await?;
        Ok(())
    }

    /// All revocations in force. If the database does not answer with a page within two seconds,
    /// the connection is given up.
    pub async fn revocations(&self) -> Result<Vec<Revocation>, StoreError> {
        let mut connection = in_time(self.revocations.connection()).await?;
        revocations_since(&mut connection, &mut all_transactions()).await.inspect_err(|_| {
            // The pool would test it first, and a silent one keeps its slot for as long as that
            // takes.
            drop(connection.detach());
        })
    }

    /// Says how many connections there are.
    pub fn measure(&self) {
        self.login.measure();
    }

    /// What operators ordered, and has not ended; and how much of that cannot be read. Of a database that does not answer within
    /// two seconds, the connection is given up.
    pub async fn measures(&self) -> Result<(Vec<InForce>, usize), StoreError> {
        let mut connection = in_time(self.measures.connection()).await?;
        let rows = sqlx::query_as!(
            MeasureRow,
            r#"select 'tenant' as "kind!", quota as "target!", of_tenant, per_minute, expires_at as "until!"
               from tenant_quotas where expires_at > now()
               union all
               select kind, target, null, per_minute, expires_at from measures where expires_at > now()"#
        )
        .fetch_all(Traced(&mut connection));
        let rows = in_time(rows).await.inspect_err(|_| drop(connection.detach()))?;
        let all = rows.len();
        let measures: Vec<_> = rows.into_iter().filter_map(MeasureRow::read).collect();
        let unreadable = all - measures.len();
        Ok((measures, unreadable))
    }

    /// Listens from now on, on a connection of its own.
    pub async fn listen(&self) -> Result<RevocationFeed, StoreError> {
        let renewed = self.revocations.renewals();
        let now = self.revocations.pool();
        // In a pool of its own, since a silent one is never given back to it.
        let own = now.options().clone().connect_lazy_with(now.connect_options().as_ref().clone());
        let listen = async {
            let mut listener = PgListener::connect_with(&own).await?;
            // A lost connection is an error, since notifications may have been missed.
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok(RevocationFeed { listener, renewed, horizon: all_transactions() })
        };
        in_time(listen).await
    }
}

/// For one connection.
fn one(settings: &settings::Database) -> settings::Database {
    settings::Database { max_connections: 1, ..settings.clone() }
}

/// A connection that is silent, but not closed, would otherwise be waited for as long as TCP hopes.
async fn in_time<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
    let done = tokio::time::timeout(PATIENCE, work).await.map_err(|_| sqlx::Error::PoolTimedOut)?;
    Ok(done?)
}

/// Before every transaction.
fn all_transactions() -> String {
    "0".to_owned()
}

/// Revocations in force that were written by transactions from `horizon` on, and moves it. What is
/// written by a transaction that has not ended is read next time, whatever its position; some rows
/// are read twice.
async fn revocations_since(connection: &mut PgConnection, horizon: &mut String) -> Result<Vec<Revocation>, StoreError> {
    let (mut all, mut position, from) = (Vec::new(), 0, horizon.clone());
    loop {
        let page = sqlx::query_as!(
            RevocationRow,
            r#"select position, kind, value, issued_before, expires_at,
                      pg_snapshot_xmin(pg_current_snapshot())::text as "horizon!"
               from revocations where written_by >= $1::text::xid8 and position > $2 and expires_at > now()
               order by position limit $3"#,
            from,
            position,
            i64::try_from(PAGE).unwrap_or(i64::MAX)
        );
        let page = in_time(page.fetch_all(Traced(&mut *connection))).await?;
        let is_last = page.len() < PAGE;
        for row in page {
            if position == 0 {
                // Of the first page: the others see more.
                horizon.clone_from(&row.horizon);
            }
            position = row.position;
            all.push(row.try_into()?);
        }
        if is_last {
            return Ok(all);
        }
    }
}

impl RevocationFeed {
    /// Waits for the next notification. An error if the connection was lost, or has a password from
    /// before.
    pub async fn next(&mut self) -> Result<Notice, StoreError> {
        let notification = tokio::select! {
            notification = self.listener.try_recv() => notification?,
            () = self.renewed.next() => None,
        };
        let notification = notification.ok_or(StoreError::Unavailable(sqlx::Error::PoolClosed))?;
        let tenant = notification.payload().parse().map(TenantId::from_uuid);
        Ok(tenant.map_or(Notice::Revoked, Notice::KeysChanged))
    }

    /// Revocations since the last call; all that are in force, at the first. An error if the
    /// database does not answer within two seconds.
    pub async fn new_revocations(&mut self) -> Result<Vec<Revocation>, StoreError> {
        let connection = in_time(self.listener.acquire()).await?;
        revocations_since(connection, &mut self.horizon).await
    }
}

/// Without the hash.
impl std::fmt::Debug for StoredApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredApiKey").field("key", &self.key).finish_non_exhaustive()
    }
}
