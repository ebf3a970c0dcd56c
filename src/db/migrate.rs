//! Migrations of the schema, and the check that the schema has the version of this binary.
//!
//! The command `migrate` calls [`migrate`] with the URL of the owner's login. `rotating_pool` calls
//! [`check_version`] at startup and before each reload of a password.

use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection, PgConnection, migrate::Migrator, postgres::PgConnectOptions};
use thiserror::Error;

use super::{DbError, UnfitDatabase};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Why `migrate` failed. Each migration is one transaction, so a failed one changes nothing.
#[derive(Debug, Error)]
pub enum MigrateError {
    /// The owner's login could not connect.
    #[error("cannot connect as the owner; check APP_DATABASE__OWNER_URL")]
    Connect(#[source] sqlx::Error),
    /// A migration failed.
    #[error("could not migrate the schema; correct the cause and run `migrate` again")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

/// Applies all pending migrations with the owner's login. Concurrent runs wait for each other.
pub async fn migrate(owner_url: &SecretString) -> Result<(), MigrateError> {
    let options = PgConnectOptions::from_str(owner_url.expose_secret()).map_err(MigrateError::Connect)?;
    let mut connection = PgConnection::connect_with(&options).await.map_err(MigrateError::Connect)?;
    MIGRATIONS.run(&mut connection).await?;
    Ok(())
}

/// Version of the last migration in this binary.
fn needed_version() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Rejects a database whose last applied migration is not the last one of this binary.
pub(crate) async fn check_version(connection: &mut PgConnection) -> Result<(), UnfitDatabase> {
    let needed = needed_version();
    let applied = "select coalesce(max(version), 0) from _sqlx_migrations where success";
    let found = match sqlx::query_scalar::<_, i64>(applied).fetch_one(connection).await {
        Ok(version) => version,
        // 42P01 (undefined_table): no migration ran yet.
        Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some("42P01") => 0,
        // 42501 (insufficient_privilege): the check of rights follows, and says more.
        Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some("42501") => return Ok(()),
        Err(error) => return Err(DbError::from(error).into()),
    };
    if found == needed { Ok(()) } else { Err(UnfitDatabase::SchemaVersion { found, needed }) }
}
