//! A private PostgreSQL server: real, but started and stopped with this program.

mod account;
mod binaries;
mod server;

pub use binaries::Binaries;
pub use server::{Data, Durability, Server};

use std::{io, path::PathBuf, process::ExitStatus};

use thiserror::Error;

/// Why there is no private server.
#[derive(Debug, Error)]
pub enum PostgresError {
    /// Neither found nor downloaded.
    #[error(
        "no PostgreSQL binaries were found (initdb, postgres), and downloading them failed: {0}\n\
         Install PostgreSQL 15 or later, or name the folder of its binaries in APP_PG_BIN."
    )]
    NoBinaries(String),
    /// PostgreSQL refuses to run as root, and there is nobody else.
    #[error("PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as")]
    NoAccount,
    /// Another process uses the same data.
    #[error("{0} is in use by another run; stop that first")]
    InUse(PathBuf),
    /// `initdb` failed.
    #[error("initdb failed: {0}")]
    Initdb(String),
    /// The server stopped while starting.
    #[error("PostgreSQL stopped at once ({status}); see {log}")]
    Stopped {
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
    },
    /// The server does not answer.
    #[error("PostgreSQL does not answer; see {log}")]
    Silent {
        /// Its log.
        log: PathBuf,
        /// The last attempt.
        #[source]
        source: sqlx::Error,
    },
    /// A file or process could not be handled.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// No password could be made.
    #[error(transparent)]
    Random(#[from] crate::crypto::RandomError),
}

/// Says what was tried when a file or process could not be handled.
fn while_trying(what: impl Into<String>) -> impl FnOnce(io::Error) -> PostgresError {
    let what = what.into();
    move |source| PostgresError::Io { what, source }
}
