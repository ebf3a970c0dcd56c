//! A database login of the service, whose password may change while it runs (SECRET-04).

use std::{fmt, str::FromStr as _, sync::Arc, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{
    PgPool, Postgres, Transaction,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::sync::watch;
use url::Url;

use super::{
    StoreError, UnfitDatabase, migrate,
    privileges::{self, Duty},
    tx,
};
use crate::{
    domain::TenantId,
    settings::{self, LoginSettings, Settings, Sources},
    telemetry::metrics,
};

/// How long who listens for revocations may take to notice that the password changed.
const LISTENER: Duration = Duration::from_secs(5);

/// Connections of a login. Cheap to clone; all clones change together.
#[derive(Clone)]
pub(super) struct Login {
    duty: Duty,
    settings: Arc<settings::Database>,
    /// All of the URL but login and password. It stays as it is.
    place: Url,
    current: watch::Sender<Connections>,
    sources: Sources,
}

/// Those of one password.
#[derive(Clone, Debug)]
struct Connections {
    pool: PgPool,
    /// Counts the passwords.
    generation: u64,
}

/// Tells when a password was changed.
#[derive(Debug)]
pub(super) struct Renewals(watch::Receiver<Connections>);

/// Connections with a password that is not used any more.
#[must_use = "they stay open until they are closed"]
#[derive(Debug)]
pub struct Retired(Vec<PgPool>);

impl Login {
    /// Connects when first used.
    pub(super) fn new(
        duty: Duty,
        url: &SecretString,
        settings: &settings::Database,
        sources: &Sources,
    ) -> Result<Self, UnfitDatabase> {
        let current = watch::Sender::new(Connections { pool: pool(url, settings)?, generation: 0 });
        Ok(Self { duty, settings: Arc::new(settings.clone()), place: place(url)?, current, sources: sources.clone() })
    }

    /// Checks that the login can do no more than it must, in a database of the expected schema that keeps tenants apart.
    pub(super) async fn check_fit(&self) -> Result<(), UnfitDatabase> {
        check_fit(&self.pool(), self.duty).await
    }

    /// The connections of now. Who takes none within the time for that may find them closed.
    pub(super) fn pool(&self) -> PgPool {
        self.current.borrow().pool.clone()
    }

    /// How long a statement may take, from when a connection is wanted for it.
    pub(super) fn longest_statement(&self) -> Duration {
        self.settings.acquire_timeout.saturating_add(self.settings.statement_timeout)
    }

    /// A connection.
    pub(super) async fn connection(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let now = self.current.borrow().clone();
        match now.pool.acquire().await {
            Err(error) if is_refused(&error) => self.after(now).await.ok_or(error)?.acquire().await,
            other => other,
        }
    }

    /// A transaction in a tenant, on a connection of its own.
    pub(super) async fn begin(
        &self,
        begin: &'static str,
        tenant: TenantId,
    ) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        let now = self.current.borrow().clone();
        match now.pool.begin_with(tx::begin(begin, tenant)).await {
            Err(error) if is_refused(&error) => {
                self.after(now).await.ok_or(error)?.begin_with(tx::begin(begin, tenant)).await
            }
            other => other,
        }
    }

    /// The connections after these, whose password is refused: the new one may be in its file already. They are waited
    /// for as long as for a connection.
    async fn after(&self, refused: Connections) -> Option<PgPool> {
        let mut renewed = self.current.subscribe();
        if !self.sources.are_followed() {
            return None;
        }
        self.sources.look_now();
        let newer = renewed.wait_for(|now| now.generation > refused.generation);
        let limit = refused.pool.options().get_acquire_timeout();
        let newer = tokio::time::timeout(limit, newer).await.ok()?.ok()?;
        Some(newer.pool.clone())
    }

    /// From now on.
    pub(super) fn renewals(&self) -> Renewals {
        Renewals(self.current.subscribe())
    }

    /// Connects as this URL says from now on, after the same checks as at the start.
    pub(super) async fn renew(&self, url: &SecretString) -> Result<Retired, UnfitDatabase> {
        let new = pool(url, &self.settings)?;
        if place(url)? != self.place {
            return Err(UnfitDatabase::Elsewhere);
        }
        if let Err(error) = check_fit(&new, self.duty).await {
            new.close().await;
            return Err(error);
        }
        Ok(self.replace(new))
    }

    /// The same without checks, for a URL that another login with the same duty was just renewed to.
    pub(super) fn follow(&self, url: &SecretString) -> Result<Retired, UnfitDatabase> {
        Ok(self.replace(pool(url, &self.settings)?))
    }

    fn replace(&self, pool: PgPool) -> Retired {
        let mut old = None;
        self.current.send_modify(|now| {
            let next = Connections { pool, generation: now.generation + 1 };
            old = Some(std::mem::replace(now, next).pool);
        });
        Retired(old.into_iter().collect())
    }

    /// Has the files of secrets looked at.
    pub(super) fn look_now(&self) {
        self.sources.look_now();
    }

    /// Says how many connections there are.
    pub(super) fn measure(&self) {
        let pool = self.pool();
        let login = match self.duty {
            Duty::Write => "writer",
            Duty::Read => "reader",
            Duty::Authenticate => "authn",
            Duty::KeepKeys => "keys",
            Duty::HandleIncidents => "incidents",
        };
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
        let (used, max) = (pool.size().saturating_sub(idle), pool.options().get_max_connections());
        metrics::connections(login, used.into(), idle.into(), max.into());
    }

    pub(super) async fn close(&self) {
        self.pool().close().await;
    }
}

impl Renewals {
    /// Waits for the next. After the last it is over.
    pub(super) async fn next(&mut self) {
        // Without a sender it is over too.
        let _ = self.0.changed().await;
    }
}

impl Retired {
    /// With others.
    pub(super) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Closes them when nobody can be about to take one, each after the work it does.
    pub async fn close(self) {
        for pool in self.0 {
            tokio::time::sleep(pool.options().get_acquire_timeout().max(LISTENER)).await;
            pool.close().await;
        }
    }
}

/// Checks that the login of incidents, if there is one, can do what it is for and nothing else.
pub async fn check_incidents_login(settings: &Settings) -> Result<(), UnfitDatabase> {
    let Some(LoginSettings { url, .. }) = &settings.incidents else { return Ok(()) };
    let login = Login::new(Duty::HandleIncidents, url, &settings.database, &settings.sources)?;
    let fit = login.check_fit().await;
    login.close().await;
    fit
}

/// On one connection: a pool would open one for nearly each check.
async fn check_fit(pool: &PgPool, duty: Duty) -> Result<(), UnfitDatabase> {
    let mut connection = pool.acquire().await.map_err(StoreError::from)?;
    privileges::check(&mut connection, duty).await?;
    privileges::check_tables(&mut connection, duty).await?;
    migrate::check_version(&mut connection).await?;
    privileges::check_powers(&mut connection, duty).await?;
    privileges::check_row_security(&mut connection).await?;
    privileges::check_append_only(&mut connection).await
}

fn pool(url: &SecretString, settings: &settings::Database) -> Result<PgPool, UnfitDatabase> {
    let statement_timeout = settings.statement_timeout.as_millis().to_string();
    let options = PgConnectOptions::from_str(url.expose_secret())
        .map_err(UnfitDatabase::Url)?
        .application_name(env!("CARGO_PKG_NAME"))
        .options([
            ("statement_timeout", statement_timeout.as_str()),
            ("lock_timeout", statement_timeout.as_str()),
            ("idle_in_transaction_session_timeout", statement_timeout.as_str()),
        ]);
    Ok(PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(settings.acquire_timeout)
        // A ping before each use would cost every request a round trip; a dead connection shows at `begin`.
        .test_before_acquire(false)
        .connect_lazy_with(options))
}

fn place(url: &SecretString) -> Result<Url, UnfitDatabase> {
    let malformed = || UnfitDatabase::Url(sqlx::Error::Configuration("no URL of a login".into()));
    settings::without_credentials(url).ok_or_else(malformed)
}

/// Whether the server refuses the login or its password (class 28).
fn is_refused(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().is_some_and(|code| code.starts_with("28")))
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("duty", &self.duty).finish_non_exhaustive()
    }
}
