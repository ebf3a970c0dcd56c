//! Connection pool of one login. The password can change while the service runs (SECRET-04).
//!
//! In: a URL, the role of the login and the pool settings. Out: connections, and transactions that
//! are confined to a tenant (AUTHZ-07). If the server refuses the password, a request waits for the
//! next one up to the acquire time-out (FAIL-01). [`crate::store`], `credentials` and `keyring`
//! hold one pool per login; `secret_reload` replaces them.

use std::{fmt, str::FromStr as _, sync::Arc, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::watch;
use url::Url;

use super::{
    DbError, UnfitDatabase, migrate,
    pooled::{Pool, PooledConnection, PooledTransaction},
    role_check::{self, DbRole},
};
use crate::{
    model::TenantId,
    package,
    settings::{self, LoginSettings, Settings, Sources},
    telemetry::metrics,
};

/// Time that the revocation listener may take to notice that the password changed.
const LISTENER_GRACE: Duration = Duration::from_secs(5);

/// Connection pool of a login. Cheap to clone; all clones share the current pool.
#[derive(Clone)]
pub(crate) struct RotatingPool {
    role: DbRole,
    settings: Arc<settings::Database>,
    /// The URL without login and password. A reload must not change it.
    server: Url,
    current: watch::Sender<Arc<Pool>>,
    sources: Sources,
}

/// Pools with the previous password.
#[must_use = "their connections stay open until `close`"]
#[derive(Debug)]
pub struct RetiredPools(Vec<Arc<Pool>>);

impl RotatingPool {
    /// Creates the pool. It connects when it is first used.
    pub(crate) fn new(
        role: DbRole,
        url: &SecretString,
        settings: &settings::Database,
        sources: &Sources,
    ) -> Result<Self, UnfitDatabase> {
        let current = watch::Sender::new(open_pool(url, settings)?);
        let server = without_credentials(url)?;
        Ok(Self { role, settings: Arc::new(settings.clone()), server, current, sources: sources.clone() })
    }

    /// Checks that the login has exactly the privileges of its role, that this binary suits the
    /// schema, and that row-level security and the audit trail are in force.
    pub(crate) async fn validate(&self) -> Result<(), UnfitDatabase> {
        validate(&self.pool(), self.role).await
    }

    /// The current pool. After a reload it closes, but no sooner than the acquire time-out.
    fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.current.borrow())
    }

    /// Upper bound for one statement: the wait for a connection plus the statement time-out.
    pub(crate) fn longest_statement(&self) -> Duration {
        self.settings.acquire_timeout.saturating_add(self.settings.statement_timeout)
    }

    /// Takes a connection from the pool.
    pub(crate) async fn connection(&self) -> Result<PooledConnection, sqlx::Error> {
        let (pool, reloads) = self.pool_and_reloads();
        match pool.connection().await {
            Err(error) if is_login_refused(&error) => {
                self.wait_for_newer(reloads).await.ok_or(error)?.connection().await
            }
            result => result,
        }
    }

    /// Begins a transaction that is confined to a tenant.
    pub(crate) async fn begin(&self, begin: &'static str, tenant: TenantId) -> Result<PooledTransaction, sqlx::Error> {
        let (pool, reloads) = self.pool_and_reloads();
        match pool.begin(begin_statement(begin, tenant)).await {
            Err(error) if is_login_refused(&error) => {
                let newer = self.wait_for_newer(reloads).await.ok_or(error)?;
                newer.begin(begin_statement(begin, tenant)).await
            }
            result => result,
        }
    }

    /// Waits for the next pool, after the server has refused the password of this one.
    ///
    /// The file of the secret may hold the new password already, so this reloads the secrets. The
    /// wait ends after the acquire time-out. `None`: nothing follows the files, or no new password
    /// came in time.
    async fn wait_for_newer(&self, mut reloads: watch::Receiver<Arc<Pool>>) -> Option<Arc<Pool>> {
        if !self.sources.are_followed() {
            return None;
        }
        self.reload_secrets();
        tokio::time::timeout(self.settings.acquire_timeout, reloads.changed()).await.ok()?.ok()?;
        Some(self.pool())
    }

    /// The current pool, and its replacement when there is one.
    pub(super) fn pool_and_reloads(&self) -> (Arc<Pool>, watch::Receiver<Arc<Pool>>) {
        let mut reloads = self.current.subscribe();
        let pool = Arc::clone(&reloads.borrow_and_update());
        (pool, reloads)
    }

    /// Replaces the pool by one of this URL, after the same checks as at startup.
    pub(crate) async fn reload(&self, url: &SecretString) -> Result<RetiredPools, UnfitDatabase> {
        let pool = open_pool(url, &self.settings)?;
        if without_credentials(url)? != self.server {
            return Err(UnfitDatabase::DifferentDatabase);
        }
        if let Err(error) = validate(&pool, self.role).await {
            pool.close().await;
            return Err(error);
        }
        Ok(self.replace(pool))
    }

    /// Replaces the pool without checks. For a URL that [`reload`](Self::reload) has just accepted
    /// for another pool of the same login.
    pub(crate) fn reload_unchecked(&self, url: &SecretString) -> Result<RetiredPools, UnfitDatabase> {
        Ok(self.replace(open_pool(url, &self.settings)?))
    }

    fn replace(&self, pool: Arc<Pool>) -> RetiredPools {
        RetiredPools(vec![self.current.send_replace(pool)])
    }

    /// Makes the service read the files of secrets now.
    pub(crate) fn reload_secrets(&self) {
        self.sources.reload_now();
    }

    /// Records the used, idle and maximum numbers of connections as metrics, and gives up idle ones.
    pub(crate) fn record_pool_metrics(&self) {
        let pool = self.pool();
        pool.trim();
        let login = match self.role {
            DbRole::Writer => "writer",
            DbRole::Reader => "reader",
            DbRole::Authn => "authn",
            DbRole::Keys => "keys",
            DbRole::Incidents => "incidents",
        };
        let idle = u32::try_from(pool.idle()).unwrap_or(u32::MAX);
        let used = pool.sqlx.size().saturating_sub(idle);
        let max = pool.sqlx.options().get_max_connections();
        metrics::record_connections(login, used.into(), idle.into(), max.into());
    }

    /// Closes the current pool after the work that its connections do.
    pub(crate) async fn close(&self) {
        self.pool().close().await;
    }
}

impl RetiredPools {
    /// Adds the pools of `other`.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Closes the pools one after the other.
    ///
    /// Waits before each until no task can still be about to take a connection from it; the pool
    /// then waits for the work that its connections do.
    pub async fn close(self) {
        for pool in self.0 {
            tokio::time::sleep(pool.sqlx.options().get_acquire_timeout().max(LISTENER_GRACE)).await;
            pool.close().await;
        }
    }
}

/// Checks that the login of incident commands, if there is one, has exactly its privileges.
pub async fn check_incidents_login(settings: &Settings) -> Result<(), UnfitDatabase> {
    let Some(LoginSettings { url, .. }) = &settings.incidents else { return Ok(()) };
    let pool = RotatingPool::new(DbRole::Incidents, url, &settings.database, &settings.sources)?;
    let result = pool.validate().await;
    pool.close().await;
    result
}

/// Runs all checks on one connection: the pool would open one for nearly each check.
async fn validate(pool: &Arc<Pool>, role: DbRole) -> Result<(), UnfitDatabase> {
    let mut connection = Arc::clone(pool).connection().await.map_err(DbError::from)?;
    role_check::check_session(&mut connection, role).await?;
    let is_ahead = migrate::check_version(&mut connection, role).await?;
    role_check::check_rights(&mut connection, role, is_ahead).await?;
    role_check::check_row_security(&mut connection).await?;
    role_check::check_append_only(&mut connection).await?;
    role_check::check_tracked_changes(&mut connection).await
}

/// `begin` and the tenant for row-level security, in one message and so one round trip.
///
/// `set local` ends with the transaction, however that ends, so a pooled connection cannot carry
/// one tenant into another's request. The only value in the text is a UUID in hexadecimal.
fn begin_statement(begin: &str, tenant: TenantId) -> String {
    format!("{begin}; set local app.tenant_id = '{tenant}'")
}

/// Creates a pool that connects when it is first used. Each connection has time-outs for
/// statements, locks and idle transactions.
fn open_pool(url: &SecretString, settings: &settings::Database) -> Result<Arc<Pool>, UnfitDatabase> {
    let statement_timeout = settings.statement_timeout.as_millis().to_string();
    let options = PgConnectOptions::from_str(url.expose_secret())
        .map_err(UnfitDatabase::Url)?
        .application_name(package::name())
        .options([
            ("statement_timeout", statement_timeout.as_str()),
            ("lock_timeout", statement_timeout.as_str()),
            ("idle_in_transaction_session_timeout", statement_timeout.as_str()),
            // Planning a page for each set of arguments costs more than reading it. Each statement has
            // one good plan; a test plans them all without arguments.
            ("plan_cache_mode", "force_generic_plan"),
        ]);
    let pool = PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(settings.acquire_timeout)
        // A ping before each use would cost every request a round trip. A dead connection fails at
        // its first statement.
        .test_before_acquire(false)
        .connect_lazy_with(options);
    Ok(Pool::new(pool))
}

fn without_credentials(url: &SecretString) -> Result<Url, UnfitDatabase> {
    let malformed = || UnfitDatabase::Url(sqlx::Error::Configuration("not a database URL".into()));
    settings::without_credentials(url).ok_or_else(malformed)
}

/// Whether the server refuses the login or its password (SQLSTATE class 28).
fn is_login_refused(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().is_some_and(|code| code.starts_with("28")))
}

impl fmt::Debug for RotatingPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RotatingPool").field("role", &self.role).finish_non_exhaustive()
    }
}
