//! All SQL. A transaction is opened for a [`Permit`] and confined to its tenant; there is no other way in.
//!
//! Three lines of defence hold tenants apart, each sufficient alone: every query names the
//! tenant, row-level security hides other tenants' rows from every query, and every key and
//! foreign key begins with the tenant (controls AUTHZ-03 and AUTHZ-07).
//!
//! The reader and the writer are different logins, so what reads cannot write (AUTHZ-08). What authentication looks
//! up has a third, [`Credentials`].
//!
//! There are two shapes. [`ReadTx`] and [`WriteTx`] are transactions of several statements. What is read or
//! created most often is a method of [`Database`] or [`Statements`] instead: one statement that is a
//! transaction of its own, and one message (`migrations/0005_one_message.sql` says why that is as safe).

mod api_keys;
mod audit;
mod credentials;
mod customers;
mod data_keys;
mod erasure;
mod exports;
mod idempotency;
mod invoices;
mod keyring;
mod login;
mod migrate;
mod operator;
mod orders;
mod payments;
mod position;
mod privileges;
mod products;
mod rotation;
mod traced;
mod trail;
mod tx;

pub use audit::AuditFilter;
pub use credentials::{Credentials, Notice, RevocationFeed, StoredApiKey};
pub use customers::CustomerFilter;
pub use exports::{ExportedInvoice, Period};
pub use idempotency::{Answer, Earlier, KeyedRequest};
pub use keyring::DataKeyState;
pub use login::{Retired, check_incidents_login};
pub use migrate::{MigrateError, migrate};
pub use operator::{Operator, OperatorError, Rewrapped};
pub use orders::{OrderFilter, OrderInputs};
pub use position::Position;
pub use rotation::{Batch, Use};
pub use trail::{JournalLine, StoredSeal, Trail};
pub use tx::{ReadTx, Statements, WriteTx};

use std::{sync::Arc, time::Duration};

use secrecy::SecretString;
use thiserror::Error;

use crate::{
    crypto::{IndexKeyError, IndexKeys, MasterKeyError, SealError},
    domain::Clock,
    settings::{self, Settings},
};
use keyring::Keyring;
use login::Login;
use privileges::Duty;
use traced::Traced;

/// The database, seen with the two logins that serve operations, and what opens sealed fields. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    writer: Login,
    reader: Login,
    keyring: Arc<Keyring>,
}

/// Why the store could not do something.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database is down, overloaded or too slow.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// Another request with the same idempotency key was being served; nothing was done for this one.
    #[error("a request with the same idempotency key is in flight")]
    InFlight,
    /// The customer was erased while an order for it was being placed.
    #[error("no such customer")]
    UnknownCustomer,
    /// Whoever asks for an API key has as many live ones as one may.
    #[error("as many live API keys as one may have")]
    TooManyApiKeys,
    /// A row that was just written is not there, or a change is of another object than its permit.
    #[error("what was read or is to be stored does not belong together")]
    Inconsistent,
    /// A data key was dropped after a row was read that had it; the row has another by now.
    #[error("the data key was dropped meanwhile")]
    KeyDropped,
    /// A data key is not there any more, and what it sealed is gone.
    #[error("the data key of the tenant was destroyed")]
    KeyDestroyed,
    /// A data key does not open: the service lacks its master key.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// Something sealed does not open.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// The database refused the statement, or a row does not hold what it must.
    #[error("the database and the code disagree")]
    Broken(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

/// Why the service must not serve with this database.
#[derive(Debug, Error)]
pub enum UnfitDatabase {
    /// A URL cannot be read.
    #[error("a database URL is malformed")]
    Url(#[source] sqlx::Error),
    /// It could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A login could do more than the service may (AUTHZ-08).
    #[error("login {login}: {excess}; serve with the logins of deploy/roles.sql")]
    Privileged {
        /// The login.
        login: String,
        /// What it could do.
        excess: &'static str,
    },
    /// A tenant's rows are not kept apart (AUTHZ-07).
    #[error(
        "table {table} does not keep tenants apart by forced row-level security and its one policy; find out who changed it"
    )]
    RowSecurity {
        /// The table.
        table: String,
    },
    /// The audit trail can be changed (LOG-05).
    #[error("table {table} is not append-only; find out who changed it, and whether the audit trail is whole")]
    AppendOnly {
        /// The table.
        table: String,
    },
    /// A master key is missing.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// A key of blind indexes is missing.
    #[error(transparent)]
    IndexKey(#[from] IndexKeyError),
    /// A login lacks what it is for.
    #[error("login {login} {lacks}; was it granted its role of deploy/roles.sql?")]
    Powerless {
        /// The login.
        login: String,
        /// What it cannot do.
        lacks: &'static str,
    },
    /// The settings have no such provider, or the service was started without.
    #[error("is of another provider of master keys than at the start; that needs a restart")]
    OtherProvider,
    /// A password may change while the service runs, and nothing else of a URL but the login's name.
    #[error("names another database, or another way there; that needs a restart")]
    Elsewhere,
    /// The schema is not the one this binary was built for.
    #[error("the database has schema version {found}, this binary needs {needed}; run `migrate`")]
    SchemaVersion {
        /// The last migration applied; 0 if none.
        found: i64,
        /// The last migration known.
        needed: i64,
    },
}

impl Database {
    /// The logins connect when first used.
    pub fn new(settings: &Settings, clock: Clock) -> Result<Self, UnfitDatabase> {
        let login = |duty, url| Login::new(duty, url, &settings.database, &settings.sources);
        Ok(Self {
            writer: login(Duty::Write, &settings.database.writer_url)?,
            reader: login(Duty::Read, &settings.database.reader_url)?,
            keyring: Arc::new(Keyring::new(
                login(Duty::KeepKeys, &settings.database.keys_url)?,
                &settings.keys,
                clock,
            )?),
        })
    }

    /// Checks that the logins can do no more than they must, that the schema is the expected one, and that there is every
    /// master key that is needed.
    pub async fn check_fit(&self) -> Result<(), UnfitDatabase> {
        // Each on its own: nothing says that all URLs name one database.
        self.writer.check_fit().await?;
        self.reader.check_fit().await?;
        self.keyring.check_fit().await
    }

    /// Connects the writer as this URL says, once that is found to be fit (SECRET-04).
    pub async fn renew_writer(&self, url: &SecretString) -> Result<Retired, UnfitDatabase> {
        self.writer.renew(url).await
    }

    /// The same of the reader.
    pub async fn renew_reader(&self, url: &SecretString) -> Result<Retired, UnfitDatabase> {
        self.reader.renew(url).await
    }

    /// The same of the login that keeps keys.
    pub async fn renew_keeper(&self, url: &SecretString) -> Result<Retired, UnfitDatabase> {
        self.keyring.renew_login(url).await
    }

    /// Goes by the master keys of these settings, if they open every data key that they should.
    pub async fn renew_master_keys(&self, keys: &settings::Keys) -> Result<(), UnfitDatabase> {
        self.keyring.renew_master(keys).await
    }

    /// Goes by the token of these settings, if the vault lets it.
    pub async fn renew_vault_token(&self, keys: &settings::Keys) -> Result<(), UnfitDatabase> {
        self.keyring.renew_token(keys).await
    }

    /// Goes by other keys of blind indexes, if every key that rows have is among them.
    pub async fn renew_index_keys(&self, keys: Arc<IndexKeys>) -> Result<(), UnfitDatabase> {
        self.keyring.renew_index(keys).await
    }

    /// By which sealed fields are found.
    #[must_use]
    pub fn indexes(&self) -> Arc<IndexKeys> {
        self.keyring.indexes()
    }

    /// Whether both logins of operations are answered, within `limit`.
    pub async fn is_ready(&self, limit: Duration) -> bool {
        let ask = async |login: &Login| {
            let ask = async { sqlx::query("select 1").execute(Traced(&mut *login.connection().await?)).await };
            ask.await.is_ok()
        };
        let both = async { tokio::join!(ask(&self.writer), ask(&self.reader)) };
        matches!(tokio::time::timeout(limit, both).await, Ok((true, true)))
    }

    /// Keeps data keys no longer in memory than they may be. Never ends.
    pub async fn forget_keys(&self) {
        self.keyring.forget().await;
    }

    /// Says how many connections there are.
    pub fn measure(&self) {
        self.writer.measure();
        self.reader.measure();
        self.keyring.measure();
    }

    /// Closes all connections, after the work they are doing.
    pub async fn close(&self) {
        tokio::join!(self.writer.close(), self.reader.close(), self.keyring.close());
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            // The last two: whoever answers is no database, such as a balancer that has none left and hangs up.
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::BeginFailed => Self::Unavailable(error),
            // Class 08: connection; 28: the login is refused; 40: deadlock, tried again it may work; 53: resources; 57: cancelled or shutting down; 25P03 and 55P03: timeouts.
            sqlx::Error::Database(db)
                if db.code().is_some_and(|c| {
                    ["08", "25P03", "28", "40", "53", "57", "55P03"].iter().any(|p| c.starts_with(p))
                }) =>
            {
                Self::Unavailable(error)
            }
            sqlx::Error::Database(db) if db.constraint() == Some("customer_is_known") => Self::UnknownCustomer,
            sqlx::Error::Database(db) if db.constraint() == Some("live_api_keys") => Self::TooManyApiKeys,
            // The tenant's data key was dropped while this was being sealed with it: tried again it gets the next.
            sqlx::Error::Database(db) if db.constraint() == Some("data_key_is_there") => Self::Unavailable(error),
            // This replica goes by an index key that was forgotten: others do not.
            sqlx::Error::Database(db) if db.constraint() == Some("index_key_is_there") => Self::Unavailable(error),
            sqlx::Error::Database(db) if db.constraint() == Some("data_keys_are_destroyed") => Self::KeyDestroyed,
            // Two requests with one key raced to store their answer: this is the loser.
            sqlx::Error::Database(db) if db.constraint() == Some("idempotency_keys_pkey") => Self::InFlight,
            _ => Self::Broken(Arc::new(error)),
        }
    }
}

impl StoreError {
    /// An error unless what is to be stored belongs to the permitted object.
    fn unless(belongs: bool) -> Result<(), Self> {
        if belongs { Ok(()) } else { Err(Self::Inconsistent) }
    }

    /// A row that breaks a rule of the domain: someone wrote past it.
    fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Broken(Arc::new(error))
    }
}
