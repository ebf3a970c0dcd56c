//! Migrations of the schemas, and the check that both have the version of this binary.
//!
//! The kernel's tables are in the schema `palisade`, the service's in `public`; each schema has a
//! table of its own of applied migrations. The command `migrate` calls [`migrate`] with the URL of
//! the owner's login. `rotating_pool` calls [`check_version`] at startup and before each reload of
//! a password.

use std::{collections::BTreeSet, str::FromStr};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection, PgConnection, migrate::Migrator, postgres::PgConnectOptions};
use thiserror::Error;

use super::{DbError, UnfitDatabase, role_check::DbRole};
use crate::package;

/// Migrations of the kernel, or of one of its features, and the rights that they grant.
pub(super) struct Folder {
    migrations: Migrator,
    /// The reviewed rights of every role on the tables and functions of this folder. Those on the
    /// service's are in its package. A test compares both with the migrations; the start compares
    /// each login with them.
    pub(super) rights: &'static str,
    /// Whether this build has the feature.
    pub(super) is_on: bool,
}

/// The kernel's folders. Versions begin at 1, 1001, …, so that a feature can be switched on later.
pub(super) static KERNEL: [Folder; 2] = [
    Folder { migrations: sqlx::migrate!("migrations/core"), rights: include_str!("../../rights.txt"), is_on: true },
    Folder {
        migrations: sqlx::migrate!("migrations/api_keys"),
        rights: include_str!("../../migrations/api_keys/rights.txt"),
        is_on: cfg!(feature = "api_keys"),
    },
];

/// Size of the range of versions of a kernel folder.
const VERSIONS_PER_FOLDER: i64 = 1000;

/// Why `migrate` failed. Each migration is one transaction, so a failed one changes nothing.
#[derive(Debug, Error)]
pub enum MigrateError {
    /// The owner's login could not connect.
    #[error("cannot connect as the owner; check APP_DATABASE__OWNER_URL")]
    Connect(#[source] sqlx::Error),
    /// A migration failed.
    #[error("could not migrate the schema {0}; correct the cause and run `migrate` again")]
    Migrate(&'static str, #[source] sqlx::migrate::MigrateError),
}

/// Applies all pending migrations with the owner's login, those of the kernel first. Concurrent
/// runs wait for each other.
pub async fn migrate(owner_url: &SecretString) -> Result<(), MigrateError> {
    let options = PgConnectOptions::from_str(owner_url.expose_secret()).map_err(MigrateError::Connect)?;
    let mut connection = PgConnection::connect_with(&options).await.map_err(MigrateError::Connect)?;
    let kernel = kernel_migrations().run(&mut connection).await;
    kernel.map_err(|error| MigrateError::Migrate("palisade", error))?;
    package::migrations().run(&mut connection).await.map_err(|error| MigrateError::Migrate("public", error))
}

/// The migrations of the kernel, of all features of this build.
#[must_use]
pub fn kernel_migrations() -> Migrator {
    let mut migrator = Migrator::with_migrations(folders().flat_map(Migrator::iter).cloned().collect());
    // Those of other features may have been applied before.
    migrator.set_ignore_missing(true);
    migrator.create_schema("palisade");
    migrator.dangerous_set_table_name("palisade._sqlx_migrations");
    migrator
}

/// The folders of this build.
fn folders() -> impl Iterator<Item = &'static Migrator> {
    KERNEL.iter().filter(|folder| folder.is_on).map(|folder| &folder.migrations)
}

/// Rejects a database with an older or newer schema than this binary. Only the logins of
/// operations see the schema of the service.
pub(crate) async fn check_version(connection: &mut PgConnection, role: DbRole) -> Result<(), UnfitDatabase> {
    let applied = "select version from palisade._sqlx_migrations where success";
    if let Some(applied) = applied_versions(connection, applied).await? {
        let folders: Vec<_> = folders().map(versions).collect();
        compare_versions("palisade", &folders, &applied)?;
    }
    if matches!(role, DbRole::Reader | DbRole::Writer) {
        let applied = "select version from public._sqlx_migrations where success";
        if let Some(applied) = applied_versions(connection, applied).await? {
            compare_versions("public", &[versions(package::migrations())], &applied)?;
        }
    }
    Ok(())
}

fn versions(migrator: &Migrator) -> BTreeSet<i64> {
    migrator.iter().map(|migration| migration.version).collect()
}

/// The versions of the applied migrations. `None`: the login cannot read them, and the check of
/// rights says more.
async fn applied_versions(
    connection: &mut PgConnection,
    query: &'static str,
) -> Result<Option<BTreeSet<i64>>, UnfitDatabase> {
    match sqlx::query_scalar(query).fetch_all(connection).await {
        Ok(versions) => Ok(Some(versions.into_iter().collect())),
        // 42P01 (undefined_table): no migration ran yet. 42501: insufficient_privilege.
        Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some("42P01") => Ok(Some(BTreeSet::new())),
        Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some("42501") => Ok(None),
        Err(error) => Err(DbError::from(error).into()),
    }
}

/// Compares folders of embedded migrations with the applied ones. Applied migrations of other
/// folders are no fault: another binary has one more feature.
fn compare_versions(
    schema: &'static str,
    folders: &[BTreeSet<i64>],
    applied: &BTreeSet<i64>,
) -> Result<(), UnfitDatabase> {
    for embedded in folders {
        if let Some(missing) = embedded.difference(applied).next() {
            return Err(UnfitDatabase::OlderSchema { schema, missing: *missing });
        }
        let Some(newest) = embedded.last() else { continue };
        // The service has one folder, with any versions.
        let end = if schema == "public" { i64::MAX } else { (newest / VERSIONS_PER_FOLDER + 1) * VERSIONS_PER_FOLDER };
        if let Some(newer) = applied.range(newest + 1..end).next() {
            return Err(UnfitDatabase::NewerSchema { schema, found: *newer });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{BTreeSet, KERNEL, compare_versions};

    #[test]
    fn authz_08_versions_of_kernel_folders_do_not_collide() {
        let all: Vec<i64> = KERNEL.iter().flat_map(|folder| folder.migrations.iter()).map(|one| one.version).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn authz_08_version_check_distinguishes_older_and_newer_schemas() {
        let compare = |folders: &[&[i64]], applied: &[i64]| {
            let folders: Vec<BTreeSet<i64>> = folders.iter().map(|folder| folder.iter().copied().collect()).collect();
            compare_versions("palisade", &folders, &applied.iter().copied().collect()).err().map(|e| e.to_string())
        };
        assert_eq!(compare(&[&[1, 2], &[1001]], &[1, 2, 1001]), None);
        // A feature that this binary does not have.
        assert_eq!(compare(&[&[1, 2]], &[1, 2, 1001, 1002]), None);
        let older = compare(&[&[1, 2], &[1001]], &[1, 2, 2001]).unwrap();
        assert!(older.contains("schema palisade is older") && older.contains("migration 1001"), "{older}");
        let newer = compare(&[&[1, 2], &[1001]], &[1, 2, 3, 1001]).unwrap();
        assert!(newer.contains("schema palisade is newer") && newer.contains("migration 3"), "{newer}");
    }
}
