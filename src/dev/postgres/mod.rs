//! A private PostgreSQL server: an unmodified server that this program starts and stops.
//!
//! `dev` keeps its data between runs; tests use disposable servers. Runs on Linux and macOS.

mod account;
mod binaries;
mod server;

pub use binaries::Binaries;
pub use server::{Durability, ExistingData, Server};

use std::{io, path::PathBuf, process::ExitStatus};

use thiserror::Error;

/// Why the private server does not start.
#[derive(Debug, Error)]
pub enum PostgresError {
    /// The server programs are not installed, and the download failed.
    #[error(
        "no PostgreSQL binaries were found (initdb, postgres), and downloading them failed: {0}\n\
         Install PostgreSQL 15 or later, or set APP_PG_BIN to the folder of its binaries."
    )]
    NoBinaries(String),
    /// This program runs as root, and no account exists to run PostgreSQL as.
    #[error("PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as")]
    NoAccount,
    /// Another process uses the same data.
    #[error("{0} is in use by another run; stop that first")]
    InUse(PathBuf),
    /// `initdb` failed.
    #[error("initdb failed: {0}")]
    Initdb(String),
    /// The server ended during its start.
    #[error("PostgreSQL ended during its start ({status}); see {log}")]
    Stopped {
        /// Exit status of the supervisor, which is the server's.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
    },
    /// The server accepts no connection within a minute of its start.
    #[error("PostgreSQL accepts no connection; see {log}")]
    NoConnection {
        /// Its log.
        log: PathBuf,
        /// Error of the last attempt.
        #[source]
        source: sqlx::Error,
    },
    /// An operation on a file or process failed.
    #[error("{message}")]
    Io {
        /// The operation, as an error message.
        message: String,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The random number generator failed.
    #[error(transparent)]
    Random(#[from] crate::crypto::RandomError),
}

/// Adds a message to an I/O error, for `map_err`.
fn io_error(message: impl Into<String>) -> impl FnOnce(io::Error) -> PostgresError {
    let message = message.into();
    move |source| PostgresError::Io { message, source }
}
