//! The database's side of backups: a snapshot that two dumps share, and the transaction of a
//! restore, which erases again what was erased after the backup (CRYPTO-08, CRYPTO-09).
//!
//! In: scripts of `pg_restore`, and what is known to be erased. `ops` calls all of it.

use std::{io::BufRead, str::FromStr as _};

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, postgres::PgConnectOptions};
use thiserror::Error;
use uuid::Uuid;

use crate::store::RegisteredTable;

/// Size of the pieces in which rows are copied.
const COPY_SIZE: usize = 64 * 1024;

/// Why the database took no part in a backup or a restore. A restore changed nothing.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The login could not connect.
    #[error("cannot connect to the database; check the URL of the login")]
    Connect(#[source] sqlx::Error),
    /// The database has tables.
    #[error("the database is not empty; restore into a new one")]
    NotEmpty,
    /// The database rejected a statement.
    #[error("the database refused; nothing was restored")]
    Refused(#[source] sqlx::Error),
    /// The first file of keys has row keys that do not decrypt the data.
    #[error("rows were re-encrypted after this backup: name the file of keys that was written with it first")]
    Reencrypted,
    /// The script could not be read.
    #[error("could not read the output of pg_restore; nothing was restored")]
    Script(#[source] std::io::Error),
}

async fn connect(url: &SecretString) -> Result<PgConnection, RestoreError> {
    let options = PgConnectOptions::from_str(url.expose_secret()).map_err(RestoreError::Connect)?;
    PgConnection::connect_with(&options).await.map_err(RestoreError::Connect)
}

/// A snapshot of the database, which dumps can read while this value lives.
#[derive(Debug)]
pub struct Snapshot {
    /// The name, for the option `--snapshot` of `pg_dump`.
    pub name: String,
    /// Its time.
    pub at: DateTime<Utc>,
    _connection: PgConnection,
}

impl Snapshot {
    /// Takes a snapshot with the backup login.
    pub async fn take(url: &SecretString) -> Result<Self, RestoreError> {
        let mut connection = connect(url).await?;
        let begin =
            "begin isolation level repeatable read read only; set local idle_in_transaction_session_timeout = 0";
        sqlx::raw_sql(begin).execute(&mut connection).await.map_err(RestoreError::Refused)?;
        let taken = sqlx::query_as("select pg_catalog.pg_export_snapshot(), pg_catalog.clock_timestamp()");
        let (name, at) = taken.fetch_one(&mut connection).await.map_err(RestoreError::Refused)?;
        Ok(Self { name, at, _connection: connection })
    }
}

/// What a restore erased again.
#[derive(Clone, Copy, Debug)]
pub struct ErasedAgain {
    /// Rows without a key.
    pub rows: i64,
    /// Rows with sealed fields in the backup.
    pub of_rows: i64,
    /// Tenants with destroyed data keys.
    pub tenants: i64,
}

/// A restore into an empty database. Without [`commit`](Self::commit) it changes nothing.
#[derive(Debug)]
pub struct RestoreTransaction {
    connection: PgConnection,
    has_keys: bool,
}

impl RestoreTransaction {
    /// Begins with the login of the owner.
    ///
    /// # Errors
    /// The database has tables, or the login cannot connect.
    pub async fn begin(url: &SecretString) -> Result<Self, RestoreError> {
        let mut restore = Self { connection: connect(url).await?, has_keys: false };
        restore.execute("begin").await?;
        let has_tables = sqlx::query_scalar(
            "select exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                            where n.nspname in ('palisade', 'public') and c.relkind in ('r', 'p'))",
        );
        if has_tables.fetch_one(&mut restore.connection).await.map_err(RestoreError::Refused)? {
            return Err(RestoreError::NotEmpty);
        }
        Ok(restore)
    }

    async fn execute(&mut self, sql: impl Into<String>) -> Result<(), RestoreError> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.into()));
        sql.execute(&mut self.connection).await.map(drop).map_err(RestoreError::Refused)
    }

    /// Runs a script of `pg_restore`: SQL, and the rows of each `COPY … FROM stdin`.
    pub async fn run_script(&mut self, mut script: impl BufRead) -> Result<(), RestoreError> {
        let mut sql = String::new();
        let mut line = String::new();
        while script.read_line(&mut line).map_err(RestoreError::Script)? > 0 {
            if line.starts_with("COPY ") && line.ends_with(" FROM stdin;\n") {
                self.execute(std::mem::take(&mut sql)).await?;
                self.copy(line.trim_end(), &mut script).await?;
            // For psql only.
            } else if !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict ") {
                sql.push_str(&line);
            }
            line.clear();
        }
        self.execute(sql).await
    }

    /// Copies the lines up to `\.` into a table.
    async fn copy(&mut self, statement: &str, lines: &mut impl BufRead) -> Result<(), RestoreError> {
        let mut copy = self.connection.copy_in_raw(statement).await.map_err(RestoreError::Refused)?;
        let mut rows = Vec::new();
        loop {
            let start = rows.len();
            let is_end = lines.read_until(b'\n', &mut rows).map_err(RestoreError::Script)? == 0;
            let is_end = is_end || rows.get(start..) == Some(b"\\.\n");
            if is_end {
                rows.truncate(start);
            }
            if is_end || rows.len() > COPY_SIZE {
                copy.send(std::mem::take(&mut rows)).await.map_err(RestoreError::Refused)?;
            }
            if is_end {
                return copy.finish().await.map(drop).map_err(RestoreError::Refused);
            }
        }
    }

    /// Adds a file of keys that a script has just restored. The keys of the first file are used. A
    /// row key that a later file lacks was erased, and a data key may be destroyed there.
    pub async fn add_keys(&mut self) -> Result<(), RestoreError> {
        let add = if std::mem::replace(&mut self.has_keys, true) {
            "delete from pg_temp.kept_keys k where not exists (
                 select from palisade.row_keys r
                 where r.tenant_id = k.tenant_id and r.sealed_table = k.sealed_table and r.row_id = k.row_id);"
        } else {
            "create temporary table kept_keys on commit drop as table palisade.row_keys;
             create temporary table kept_data_keys on commit drop as table palisade.data_keys;
             create temporary table destroyed (tenant uuid) on commit drop;"
        };
        self.execute(format!(
            "{add}
             insert into pg_temp.destroyed select distinct k.of_tenant from palisade.data_keys k where k.wrapped is null;
             truncate palisade.row_keys, palisade.data_keys"
        ))
        .await
    }

    /// Adds a row that was erased, or all rows of a tenant. Whether there is a key of it.
    pub async fn add_erased(&mut self, tenant: Uuid, row: Option<Uuid>) -> Result<bool, RestoreError> {
        let erase = match row {
            Some(_) => "delete from pg_temp.kept_keys k where k.tenant_id = $1 and k.row_id = $2",
            None => {
                "insert into pg_temp.destroyed select $1 where $2::uuid is null
                     and exists (select from pg_temp.kept_data_keys k where k.of_tenant = $1)"
            }
        };
        let erase = sqlx::query(erase).bind(tenant).bind(row);
        let done = erase.execute(&mut self.connection).await.map_err(RestoreError::Refused)?;
        Ok(done.rows_affected() > 0)
    }

    /// Checks that no row of the data has a key with a data key from after the backup: a rotation has
    /// re-encrypted it. Runs after [`erase`](Self::erase), which deletes the keys of newer rows.
    pub async fn check_not_reencrypted(&mut self, backup: DateTime<Utc>) -> Result<(), RestoreError> {
        let newer = sqlx::query_scalar(
            "select exists (select from palisade.row_keys k join palisade.data_keys d
                                on d.of_tenant = k.tenant_id and d.version = k.data_key
                            where d.created_at > $1)",
        );
        let newer = newer.bind(backup).fetch_one(&mut self.connection).await.map_err(RestoreError::Refused)?;
        if newer { Err(RestoreError::Reencrypted) } else { Ok(()) }
    }

    /// Puts the keys in place, and erases every row that has none. Runs before the script that
    /// creates indexes and triggers.
    pub async fn erase(&mut self, sealed: &[RegisteredTable]) -> Result<ErasedAgain, RestoreError> {
        self.execute("create temporary table sealed_tables (name text, erased_at text, cleared text[]) on commit drop")
            .await?;
        for table in sealed {
            let insert = sqlx::query("insert into pg_temp.sealed_tables values ($1, $2, $3)")
                .bind(table.name)
                .bind(table.erasure.map(|erasure| erasure.time))
                .bind(table.erasure.map_or(&[][..], |erasure| erasure.cleared));
            insert.execute(&mut self.connection).await.map_err(RestoreError::Refused)?;
        }
        self.execute(include_str!("restore.sql")).await?;
        let erased = sqlx::query_as(
            "select (select count(*) from pg_temp.erased_rows),
                    (select coalesce(sum(s.number), 0)::bigint from pg_temp.sealed_rows s),
                    (select count(distinct d.tenant) from pg_temp.destroyed d)",
        );
        let (rows, of_rows, tenants) = erased.fetch_one(&mut self.connection).await.map_err(RestoreError::Refused)?;
        Ok(ErasedAgain { rows, of_rows, tenants })
    }

    /// Commits the restore.
    pub async fn commit(mut self) -> Result<(), RestoreError> {
        self.execute("commit").await
    }
}
