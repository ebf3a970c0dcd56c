//! Provisions databases on a PostgreSQL server, given a superuser URL: logins, database, schema.
//!
//! Used by `dev` and by the tests. Passwords and keys are derived from the superuser's password, so
//! that every process with the same superuser URL computes the same ones.

use std::{collections::BTreeMap, num::NonZeroU32};

use aws_lc_rs::{
    hmac,
    pbkdf2::{self, PBKDF2_HMAC_SHA256},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use thiserror::Error;
use url::Url;

use crate::{
    crypto,
    db::{self, MigrateError},
};

const ROLES: [&str; 2] = [include_str!("../../roles.sql"), include_str!("../../backup_role.sql")];
const LOGINS: [&str; 9] = [
    "app_owner",
    "app_writer",
    "app_reader",
    "app_authn",
    "app_keys",
    "app_operator",
    "app_incidents",
    "app_auditor",
    "app_backup",
];
/// Advisory lock: one process at a time provisions a server. The number is arbitrary but fixed.
const PROVISION_LOCK: i64 = 0x5e7_0b5e;

/// Why a database could not be set up.
#[derive(Debug, Error)]
pub enum DatabaseError {
    /// PostgreSQL returned an error.
    #[error("PostgreSQL error in the development database: {0}")]
    Sql(#[from] sqlx::Error),
    /// A migration failed.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// Existing fields are sealed with other keys, or the demo data cannot be sealed.
    #[error("the keys of the development database do not match its data; delete it with --fresh")]
    Keys,
    /// The service could not add its demo data.
    #[error("could not add the demo data: {0}")]
    Demo(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The random number generator failed.
    #[error("could not generate random bytes")]
    Random,
    /// The superuser URL has no user or no password.
    #[error("not a database URL with a user and a password")]
    Url,
}

/// A PostgreSQL server, identified by its superuser URL.
#[derive(Clone, Debug)]
pub struct Cluster {
    superuser: Url,
}

/// Connection URLs of one database, one per login, and the keys of its sealed fields.
#[derive(Clone, Debug)]
pub struct Urls {
    /// Login `app_owner`: runs migrations.
    pub owner: SecretString,
    /// Login `app_writer`: the service's changes.
    pub writer: SecretString,
    /// Login `app_reader`: the service's reads.
    pub reader: SecretString,
    /// Login `app_authn`: the service's lookups of credentials.
    pub authn: SecretString,
    /// Login `app_keys`: the service's data keys.
    pub keys: SecretString,
    /// Login `app_operator`: `incident` commands of operators.
    pub operator: SecretString,
    /// Login `app_incidents`: incident commands that arrive at the internal listener.
    pub incidents: SecretString,
    /// Login `app_auditor`: verifies the audit trail.
    pub auditor: SecretString,
    /// Login `app_backup`: backups.
    pub backup: SecretString,
    /// Master keys that wrap the data keys of this database.
    pub master_keys: SecretString,
    /// Index keys of the blind indexes in this database.
    pub index_keys: SecretString,
}

impl Cluster {
    /// Parses a superuser URL, `postgres://user:password@host:port/database`.
    pub fn new(superuser: &str) -> Result<Self, DatabaseError> {
        let superuser = Url::parse(superuser).map_err(|_| DatabaseError::Url)?;
        if superuser.username().is_empty() || superuser.password().is_none() {
            return Err(DatabaseError::Url);
        }
        Ok(Self { superuser })
    }

    /// Connects as the superuser.
    pub async fn connect(&self) -> Result<PgConnection, DatabaseError> {
        Ok(PgConnection::connect(self.superuser.as_str()).await?)
    }

    /// Stores the superuser's password with one SCRAM iteration, as [`verifier`] does for the
    /// logins.
    ///
    /// Only for a server that no other program uses.
    pub async fn lower_superuser_iterations(&self) -> Result<(), DatabaseError> {
        let verifier = verifier(self.superuser.password().unwrap_or_default())?;
        let alter = format!("alter role current_user password '{verifier}'");
        sqlx::raw_sql(AssertSqlSafe(alter)).execute(&mut self.connect().await?).await?;
        Ok(())
    }

    /// Connects as the superuser to the database `name`.
    pub async fn connect_to(&self, name: &str) -> Result<PgConnection, DatabaseError> {
        let mut url = self.superuser.clone();
        url.set_path(name);
        Ok(PgConnection::connect(url.as_str()).await?)
    }

    /// Creates the logins and the database `name` unless they exist, and migrates it to the current
    /// schema.
    pub async fn provision(&self, name: &str) -> Result<Urls, DatabaseError> {
        let urls = self.urls(name);
        let mut admin = self.connect().await?;
        sqlx::query("select pg_advisory_lock($1)").bind(PROVISION_LOCK).execute(&mut admin).await?;
        for roles in ROLES {
            sqlx::raw_sql(roles).execute(&mut admin).await?;
        }
        for role in LOGINS {
            // The verifier contains no quote: only the base64 alphabet, `$`, `:` and `-`.
            let alter = format!("alter role {role} with login password '{}'", verifier(&self.password(role))?);
            sqlx::raw_sql(AssertSqlSafe(alter)).execute(&mut admin).await?;
        }
        let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(name)
            .fetch_one(&mut admin)
            .await?;
        if !exists {
            self.create(name, None).await?;
        }
        db::migrate(&urls.owner).await?;
        // Closing the connection releases the lock.
        admin.close().await?;
        Ok(urls)
    }

    /// Creates the database `name`: without a schema, or as a copy of `template`, which must have
    /// no open connections.
    pub async fn create(&self, name: &str, template: Option<&str>) -> Result<Urls, DatabaseError> {
        let mut admin = self.connect().await?;
        let copy = template.map(|template| format!(" template \"{template}\"")).unwrap_or_default();
        let create = format!("create database \"{name}\" owner app_owner{copy}");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut admin).await?;
        let logins = LOGINS.join(", ");
        let restrict =
            format!("revoke all on database \"{name}\" from public; grant connect on database \"{name}\" to {logins}");
        sqlx::raw_sql(AssertSqlSafe(restrict)).execute(&mut admin).await?;
        admin.close().await?;
        Ok(self.urls(name))
    }

    /// The connection URLs and keys of the database `name`.
    #[must_use]
    pub fn urls(&self, name: &str) -> Urls {
        let url = |role: &str| {
            let mut url = self.superuser.clone();
            url.set_path(name);
            // Both setters fail only for URLs without a host, and `connect` used this URL.
            let _ = url.set_username(role);
            let _ = url.set_password(Some(&self.password(role)));
            SecretString::from(url.to_string())
        };
        Urls {
            owner: url("app_owner"),
            writer: url("app_writer"),
            reader: url("app_reader"),
            authn: url("app_authn"),
            keys: url("app_keys"),
            operator: url("app_operator"),
            incidents: url("app_incidents"),
            auditor: url("app_auditor"),
            backup: url("app_backup"),
            master_keys: self.keyset("master key"),
            index_keys: self.keyset("index key"),
        }
    }

    /// The password of a login. Derived, so that several processes can share a server.
    fn password(&self, role: &str) -> String {
        crypto::hex(&self.derived(role)).chars().take(40).collect()
    }

    fn keyset(&self, purpose: &str) -> SecretString {
        format!("1:{}", STANDARD.encode(self.derived(purpose))).into()
    }

    /// Derives 32 bytes from the superuser's password: they change only when the server's data is
    /// deleted.
    #[must_use]
    pub fn derived(&self, purpose: &str) -> [u8; 32] {
        crypto::sha256(format!("{purpose} {}", self.superuser.password().unwrap_or_default()).as_bytes())
    }
}

/// The SCRAM verifier of a password (RFC 5803), with one PBKDF2 iteration instead of the usual
/// 4096.
///
/// Iterations slow down guessing, but 160 random bits cannot be guessed. In a debug build they take
/// most of the time of a connection.
fn verifier(password: &str) -> Result<String, DatabaseError> {
    let salt = crypto::random::<16>().map_err(|_| DatabaseError::Random)?;
    let mut salted = [0; 32];
    pbkdf2::derive(PBKDF2_HMAC_SHA256, NonZeroU32::MIN, &salt, password.as_bytes(), &mut salted);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let stored_key = crypto::sha256(hmac::sign(&key, b"Client Key").as_ref());
    let server_key = hmac::sign(&key, b"Server Key");
    let [salt, stored_key, server_key] =
        [&salt[..], &stored_key, server_key.as_ref()].map(|bytes| STANDARD.encode(bytes));
    Ok(format!("SCRAM-SHA-256$1:{salt}${stored_key}:{server_key}"))
}

impl Urls {
    /// Settings of the service for this database, as environment variables.
    #[must_use]
    pub fn variables(&self) -> BTreeMap<String, String> {
        let pair = |name: &str, url: &SecretString| (name.to_owned(), url.expose_secret().to_owned());
        BTreeMap::from([
            pair("APP_DATABASE__WRITER_URL", &self.writer),
            pair("APP_DATABASE__READER_URL", &self.reader),
            pair("APP_DATABASE__AUTHN_URL", &self.authn),
            pair("APP_DATABASE__KEYS_URL", &self.keys),
            pair("APP_KEYS__MASTER", &self.master_keys),
            pair("APP_KEYS__INDEX", &self.index_keys),
        ])
    }
}
