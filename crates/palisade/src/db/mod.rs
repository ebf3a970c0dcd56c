//! Connections to PostgreSQL, and the tables that hold no tenant's business data.
//!
//! In: settings with one URL per login. Out: pools whose password can change while the service
//! runs, checked to have exactly the rights of their role (AUTHZ-08); credentials and revocations
//! for [`crate::authn`]; unwrapped data keys for [`crate::store`].

#[cfg(feature = "api_keys")]
pub(crate) mod api_keys;
mod checked_executor;
mod credentials;
mod data_keys;
mod keyring;
mod migrate;
mod pooled;
mod revocation_feed;
mod role_check;
mod rotating_pool;
#[cfg(feature = "sessions")]
pub(crate) mod sessions;
mod tenants;
mod tracing_executor;

pub(crate) use checked_executor::CheckedExecutor;
pub use credentials::Credentials;
pub use keyring::DataKeyState;
pub(crate) use keyring::Keyring;
pub use migrate::{MigrateError, kernel_migrations, migrate};
pub(crate) use pooled::{PooledConnection, PooledTransaction};
pub use revocation_feed::{Notification, RevocationFeed};
pub(crate) use role_check::{DbRole, check_sealed_columns};
pub(crate) use rotating_pool::RotatingPool;
pub use rotating_pool::{RetiredPools, check_incidents_login};
pub(crate) use tenants::parse_limits;
pub(crate) use tracing_executor::TracingExecutor;

use std::{str::FromStr, sync::Arc};

use thiserror::Error;

use crate::crypto::{IndexKeyError, MasterKeyError, SealError};

/// Why a query failed.
#[derive(Debug, Error)]
pub enum DbError {
    /// The database is down, overloaded or too slow. A later attempt may succeed.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// A concurrent request uses the same idempotency key. This one changed nothing.
    #[error("a request with the same idempotency key is in flight")]
    InFlight,
    /// A statement violates a constraint. The service says which problem that is.
    #[error("a statement violates the constraint {name}")]
    Constraint {
        /// The name of the constraint.
        name: String,
        /// The error of the database.
        #[source]
        source: sqlx::Error,
    },
    /// A row that was just written is missing, or a change is for another object than its permit.
    #[error("a row is missing, or the object to store is not the one of the permit")]
    Inconsistent,
    /// The state of the object does not allow the change.
    #[error("the state of the object does not allow this")]
    State,
    /// The object belongs to another tenant. The answer is the same as for a missing object.
    #[error("the object belongs to another tenant")]
    OtherTenant,
    /// The code uses the store wrongly: a permit, an object or a statement of another transaction,
    /// an object that is not locked, or a state without a transition.
    #[error("the store is used wrongly: {0}")]
    Misuse(&'static str),
    /// A data key was dropped after a row was read that used it. The row has a newer one by now.
    #[error("the data key was dropped after the row was read; a retry uses the newer one")]
    KeyDropped,
    /// A data key was destroyed, and with it everything that it sealed.
    #[error("the data key of the tenant was destroyed")]
    KeyDestroyed,
    /// A data key cannot be unwrapped: the service lacks its master key.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// A sealed field cannot be opened, or a wrapped key cannot be unwrapped.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// The database rejected the statement, or a stored row breaks a rule of the domain.
    #[error("the database rejected a statement, or a stored row is invalid")]
    Broken(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

/// Why the service must not serve with this database.
#[derive(Debug, Error)]
pub enum UnfitDatabase {
    /// A URL cannot be parsed.
    #[error("a database URL is malformed; expected `postgres://login:password@host/database`")]
    Url(#[source] sqlx::Error),
    /// A check could not run.
    #[error(transparent)]
    Store(#[from] DbError),
    /// A login has more privileges than its role (AUTHZ-08).
    #[error("login {login} has rights that rights.txt does not list: {excess}; use the logins of roles.sql")]
    Privileged {
        /// The name of the login.
        login: String,
        /// The first rights that the login must not have.
        excess: String,
    },
    /// A table does not isolate tenants (AUTHZ-07).
    #[error(
        "table {table} lacks forced row-level security, or has another policy than the migrations create; restore \
         both, and find out how they changed"
    )]
    RowSecurity {
        /// The name of the table.
        table: String,
    },
    /// A table of the audit trail can be changed (LOG-05).
    #[error("table {table} is not append-only; run `audit verify`, restore its trigger, and find out how it changed")]
    AppendOnly {
        /// The name of the table.
        table: String,
    },
    /// Changes of a table of the service leave no audit event (LOG-05).
    #[error("changes of table {table} are not tracked; as its owner, run `select palisade.track_changes('{table}')`")]
    UntrackedChanges {
        /// The name of the table.
        table: String,
    },
    /// A master key is missing or does not fit.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// An index key is missing or does not fit.
    #[error(transparent)]
    IndexKey(#[from] IndexKeyError),
    /// A login lacks a privilege of its role.
    #[error("login {login} lacks rights of rights.txt: {missing}; grant it its role of roles.sql, and run `migrate`")]
    MissingPrivilege {
        /// The name of the login.
        login: String,
        /// The first rights that the login lacks.
        missing: String,
    },
    /// A pooler does not keep what the login needs of a session.
    #[error("login {login} connects through a pooler: {need}; see docs/pgbouncer.md")]
    Pooler {
        /// The name of the login.
        login: String,
        /// What the login needs.
        need: &'static str,
    },
    /// The settings name another provider of master keys than at startup.
    #[error("the provider of master keys changed; restart the service")]
    OtherProvider,
    /// A reload may change login and password, and no other part of the URL.
    #[error("host, port, database name or a parameter of the URL changed; restart the service")]
    DifferentDatabase,
    /// A migration of this binary was not applied.
    #[error("the schema {schema} is older than this binary: migration {missing} is missing; run `migrate`")]
    OlderSchema {
        /// The name of the schema.
        schema: &'static str,
        /// Version of the first missing migration.
        missing: i64,
    },
    /// A later version of the service has migrated the database, by more than expanding it.
    #[error("the schema {schema} is newer than this binary, which lacks migration {found}; start a newer version")]
    NewerSchema {
        /// The name of the schema.
        schema: &'static str,
        /// Version of the first migration that this binary lacks.
        found: i64,
    },
    /// The sealed tables of the database are not those of the service: a rotation would lose columns
    /// that no one registered (CRYPTO-05), or a table lacks the trigger that deletes row keys.
    #[error("the sealed columns and triggers of the database differ from those of `App::sealed`: {0}")]
    SealedColumns(String),
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            // The last two: the peer does not answer as a database, such as a load balancer without
            // a backend that closes the connection.
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::BeginFailed => Self::Unavailable(error),
            // SQLSTATE classes 08 (connection), 28 (login refused), 40 (deadlock; a retry may
            // succeed), 53 (resources) and 57 (cancelled or shutting down), and the time-outs 25P03
            // (idle in transaction) and 55P03 (lock).
            sqlx::Error::Database(db)
                if db.code().is_some_and(|code| {
                    ["08", "25P03", "28", "40", "53", "57", "55P03"].iter().any(|prefix| code.starts_with(prefix))
                }) =>
            {
                Self::Unavailable(error)
            }
            // The data key was dropped while the fields were sealed. A retry uses the next one.
            sqlx::Error::Database(db) if db.constraint() == Some("data_key_exists") => Self::Unavailable(error),
            // This replica uses an index key that was forgotten. Other replicas may not.
            sqlx::Error::Database(db) if db.constraint() == Some("index_key_in_use") => Self::Unavailable(error),
            sqlx::Error::Database(db) if db.constraint() == Some("data_keys_not_destroyed") => Self::KeyDestroyed,
            // A concurrent request with the same idempotency key stored its response first.
            sqlx::Error::Database(db) if db.constraint() == Some("idempotency_keys_pkey") => Self::InFlight,
            sqlx::Error::Database(db) => match db.constraint().map(str::to_owned) {
                Some(name) => Self::Constraint { name, source: error },
                None => Self::Broken(Arc::new(error)),
            },
            _ => Self::Broken(Arc::new(error)),
        }
    }
}

impl DbError {
    /// An error unless the object to store belongs to the permitted one.
    pub(crate) fn unless(belongs: bool) -> Result<(), Self> {
        if belongs { Ok(()) } else { Err(Self::Inconsistent) }
    }

    /// The error for a stored row that breaks a rule of the domain.
    pub fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Broken(Arc::new(error))
    }
}

/// Parses text that was valid when it was stored.
pub fn parse_stored<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(text: &str) -> Result<T, DbError> {
    text.parse().map_err(DbError::broken)
}
