//! Migrations of the schemas, and the check that this binary suits both.
//!
//! The kernel's tables are in the schema `palisade`, the service's in `public`; each schema has a
//! table of its own of applied migrations. The command `migrate` calls [`migrate`] with the URL of
//! the owner's login. `rotating_pool` calls [`check_version`] at startup and before each reload of
//! a password.
//!
//! During a rolling upgrade the database is ahead of the older replicas. A file named
//! `<version>_expand_….sql` declares that everything that worked before it works after it. So a
//! binary accepts migrations that it does not contain if all of them are named so (FAIL-03).

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

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
pub(super) static KERNEL: [Folder; 3] = [
    Folder { migrations: sqlx::migrate!("migrations/core"), rights: include_str!("../../rights.txt"), is_on: true },
    Folder {
        migrations: sqlx::migrate!("migrations/api_keys"),
        rights: include_str!("../../migrations/api_keys/rights.txt"),
        is_on: cfg!(feature = "api_keys"),
    },
    Folder {
        migrations: sqlx::migrate!("migrations/sessions"),
        rights: include_str!("../../migrations/sessions/rights.txt"),
        is_on: cfg!(feature = "sessions"),
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
    /// A later version has migrated the database, and this one does not suit the result.
    #[error(transparent)]
    Unfit(#[from] UnfitDatabase),
}

/// Applies all pending migrations with the owner's login, those of the kernel first. Concurrent
/// runs wait for each other. Changes nothing if a later version has migrated the database: after a
/// rollback, that is no error as long as this version suits the schema.
pub async fn migrate(owner_url: &SecretString) -> Result<(), MigrateError> {
    let options = PgConnectOptions::from_str(owner_url.expose_secret()).map_err(MigrateError::Connect)?;
    let mut connection = PgConnection::connect_with(&options).await.map_err(MigrateError::Connect)?;
    for schema in Schema::ALL {
        if let Some(applied) = schema.applied(&mut connection).await? {
            find_unknown(schema, &schema.folders(), &applied)?;
        }
    }
    let mut service = Migrator::with_migrations(package::migrations().iter().cloned().collect());
    service.set_ignore_missing(true);
    for (schema, migrations) in [("palisade", kernel_migrations()), ("public", service)] {
        migrations.run(&mut connection).await.map_err(|error| MigrateError::Migrate(schema, error))?;
    }
    Ok(())
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

/// A schema with its table of applied migrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Schema {
    /// `palisade`, of the kernel.
    Kernel,
    /// `public`, of the service.
    Service,
}

/// Descriptions of migrations by version. sqlx makes them from the names of the files.
type Applied = BTreeMap<i64, String>;

impl Schema {
    const ALL: [Self; 2] = [Self::Kernel, Self::Service];

    fn name(self) -> &'static str {
        match self {
            Self::Kernel => "palisade",
            Self::Service => "public",
        }
    }

    /// The versions that this binary contains, by folder.
    fn folders(self) -> Vec<BTreeSet<i64>> {
        let versions = |migrator: &Migrator| migrator.iter().map(|migration| migration.version).collect();
        match self {
            Self::Kernel => folders().map(versions).collect(),
            Self::Service => vec![versions(package::migrations())],
        }
    }

    /// The applied migrations. `None`: the login cannot read them, and the check of rights says
    /// more.
    async fn applied(self, connection: &mut PgConnection) -> Result<Option<Applied>, UnfitDatabase> {
        let query = match self {
            Self::Kernel => "select version, description from palisade._sqlx_migrations where success",
            Self::Service => "select version, description from public._sqlx_migrations where success",
        };
        match sqlx::query_as(query).fetch_all(connection).await {
            Ok(migrations) => Ok(Some(migrations.into_iter().collect())),
            // 42P01 (undefined_table): no migration ran yet. 42501: insufficient_privilege.
            Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some("42P01") => Ok(Some(Applied::new())),
            Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some("42501") => Ok(None),
            Err(error) => Err(DbError::from(error).into()),
        }
    }
}

/// Rejects a database that this binary does not suit. Returns whether it is ahead of this binary.
/// Only the logins of operations see the schema of the service.
pub(crate) async fn check_version(connection: &mut PgConnection, role: DbRole) -> Result<bool, UnfitDatabase> {
    let mut is_ahead = false;
    for schema in Schema::ALL {
        if schema == Schema::Service && !matches!(role, DbRole::Reader | DbRole::Writer) {
            continue;
        }
        if let Some(applied) = schema.applied(connection).await? {
            let folders = schema.folders();
            find_missing(schema, &folders, &applied)?;
            is_ahead |= find_unknown(schema, &folders, &applied)?;
        }
    }
    Ok(is_ahead)
}

fn find_missing(schema: Schema, folders: &[BTreeSet<i64>], applied: &Applied) -> Result<(), UnfitDatabase> {
    let missing = folders.iter().flatten().find(|version| !applied.contains_key(version));
    missing.map_or(Ok(()), |missing| Err(UnfitDatabase::OlderSchema { schema: schema.name(), missing: *missing }))
}

/// Whether there are applied migrations that the folders do not contain. All of them must be
/// declared as expanding. Those of other folders do not count: another binary has one more feature.
fn find_unknown(schema: Schema, folders: &[BTreeSet<i64>], applied: &Applied) -> Result<bool, UnfitDatabase> {
    let mut is_ahead = false;
    for embedded in folders {
        let range = match (schema, embedded.first()) {
            // The service has one folder, with any versions.
            (Schema::Service, _) => 0..i64::MAX,
            (Schema::Kernel, Some(first)) => {
                let start = first / VERSIONS_PER_FOLDER * VERSIONS_PER_FOLDER;
                start..start + VERSIONS_PER_FOLDER
            }
            (Schema::Kernel, None) => continue,
        };
        for (version, description) in applied.range(range).filter(|(version, _)| !embedded.contains(version)) {
            if !description.starts_with("expand ") {
                return Err(UnfitDatabase::NewerSchema { schema: schema.name(), found: *version });
            }
            is_ahead = true;
        }
    }
    Ok(is_ahead)
}

/// Whether the migrations of this binary may have created this object: a statement of theirs names
/// its table or function, and its column if it has one, outside of comments and quoted values.
/// `table public.notes (status)`.
pub(super) fn may_contain(object: &str) -> bool {
    let is_separator = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let words = |text: &str| -> BTreeSet<String> { text.split(is_separator).map(str::to_owned).collect() };
    // Without the kind and the schema.
    let mut names = words(object.split_once('.').map_or(object, |(_, names)| names));
    names.remove("");
    let migrations = KERNEL.iter().flat_map(|folder| folder.migrations.iter()).chain(package::migrations().iter());
    let code = |sql: &str| -> String {
        let lines: Vec<&str> = sql.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
        lines.join("\n").split('\'').step_by(2).collect()
    };
    migrations
        .map(|migration| code(migration.sql.as_str()))
        .any(|code| code.split(';').any(|statement| names.is_subset(&words(statement))))
}

#[cfg(test)]
mod tests {
    use super::{Applied, BTreeSet, KERNEL, Schema, find_missing, find_unknown, may_contain};

    #[test]
    fn authz_08_versions_of_kernel_folders_do_not_collide() {
        let all: Vec<i64> = KERNEL.iter().flat_map(|folder| folder.migrations.iter()).map(|one| one.version).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn authz_08_version_check_distinguishes_older_and_newer_schemas() {
        let compare = |folders: &[&[i64]], applied: &[(i64, &str)]| {
            let folders: Vec<BTreeSet<i64>> = folders.iter().map(|folder| folder.iter().copied().collect()).collect();
            let applied: Applied = applied.iter().map(|(version, name)| (*version, (*name).to_owned())).collect();
            let found = find_missing(Schema::Kernel, &folders, &applied)
                .and_then(|()| find_unknown(Schema::Kernel, &folders, &applied));
            found.map_err(|error| error.to_string())
        };
        let two = [(1, "a"), (2, "b")];
        assert_eq!(compare(&[&[1, 2], &[1001]], &[&two[..], &[(1001, "c")]].concat()), Ok(false));
        // A feature that this binary does not have.
        assert_eq!(compare(&[&[1, 2]], &[&two[..], &[(1001, "c"), (1002, "d")]].concat()), Ok(false));
        let older = compare(&[&[1, 2], &[1001]], &[&two[..], &[(2001, "c")]].concat()).unwrap_err();
        assert!(older.contains("schema palisade is older") && older.contains("migration 1001"), "{older}");
        let ahead = |later: &[(i64, &str)]| compare(&[&[1, 2]], &[&two[..], later].concat());
        assert_eq!(ahead(&[(3, "expand notes"), (4, "expand more")]), Ok(true));
        // A step that is not declared ends what this binary suits, and a similar word declares none.
        for later in [&[(3, "notes")][..], &[(3, "expand notes"), (4, "contract notes")], &[(3, "expands")]] {
            let newer = ahead(later).unwrap_err();
            assert!(newer.contains("schema palisade is newer"), "{newer}");
        }
        // A gap is as unknown as a later version.
        let gap = compare(&[&[1, 3]], &[(1, "a"), (2, "b"), (3, "c")]).unwrap_err();
        assert!(gap.contains("migration 2"), "{gap}");
    }

    #[test]
    fn authz_08_objects_of_this_version_are_known() {
        for known in
            ["table palisade.revocations", "table palisade.revocations (reason)", "function palisade.set_override"]
        {
            assert!(may_contain(known), "{known}");
        }
        for unknown in [
            "table palisade.shelves",
            "table palisade.revocations (colour)",
            // A value of a check and a word of a comment, in statements that name the table.
            "table palisade.revocations (everything)",
            "function palisade.paint",
        ] {
            assert!(!may_contain(unknown), "{unknown}");
        }
    }
}
