use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection, PgConnection, migrate::Migrator, postgres::PgConnectOptions};
use thiserror::Error;

use super::{StoreError, UnfitDatabase};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Why migrating failed. Each migration is a transaction: what is not mentioned as applied was not.
#[derive(Debug, Error)]
pub enum MigrateError {
    /// The owner's login could not connect.
    #[error("cannot connect as the owner")]
    Connect(#[source] sqlx::Error),
    /// A migration failed.
    #[error("a migration failed")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

/// Brings the schema up to date as the owner's login. Safe to run from several places at once.
pub async fn migrate(owner_url: &SecretString) -> Result<(), MigrateError> {
    let options = PgConnectOptions::from_str(owner_url.expose_secret()).map_err(MigrateError::Connect)?;
    let mut connection = PgConnection::connect_with(&options).await.map_err(MigrateError::Connect)?;
    MIGRATIONS.run(&mut connection).await?;
    Ok(())
}

/// The last migration this binary knows.
fn needed_version() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

pub(super) async fn check_version(connection: &mut PgConnection) -> Result<(), UnfitDatabase> {
    let needed = needed_version();
    let applied = "select coalesce(max(version), 0) from _sqlx_migrations where success";
    let found = match sqlx::query_scalar::<_, i64>(applied).fetch_one(connection).await {
        Ok(version) => version,
        // 42P01: there is no such table, so nothing was ever migrated. 42501: nor granted.
        Err(sqlx::Error::Database(e)) if matches!(e.code().as_deref(), Some("42P01" | "42501")) => 0,
        Err(error) => return Err(StoreError::from(error).into()),
    };
    if found == needed { Ok(()) } else { Err(UnfitDatabase::SchemaVersion { found, needed }) }
}
