//! Sets up a database for the service on a server whose superuser is known: logins, database, schema.

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
    store::{self, MigrateError},
};

const ROLES: &str = include_str!("../../deploy/roles.sql");
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
/// Any number, the same in every process: one at a time sets up a server.
const LOCK: i64 = 0x5e7_0b5e;

/// Why a database could not be set up.
#[derive(Debug, Error)]
pub enum DatabaseError {
    /// The server refused.
    #[error("the development database refused: {0}")]
    Sql(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// What is sealed there was sealed with other keys, or cannot be sealed.
    #[error("the keys of the development database do not fit its data; start afresh with --fresh")]
    Keys,
    /// There is no randomness.
    #[error("nothing could be made at random")]
    Random,
    /// The server's URL cannot be used.
    #[error("not a database URL with a user and a password")]
    Url,
}

/// A PostgreSQL server, by a URL of its superuser.
#[derive(Clone, Debug)]
pub struct Cluster {
    superuser: Url,
}

/// The URLs of a database, one per login, and the keys of what is sealed there.
#[derive(Clone, Debug)]
pub struct Urls {
    /// For migrations.
    pub owner: SecretString,
    /// For the service.
    pub writer: SecretString,
    /// For the service.
    pub reader: SecretString,
    /// For the service, to look up credentials.
    pub authn: SecretString,
    /// For the service, to keep data keys.
    pub keys: SecretString,
    /// For whoever revokes credentials.
    pub operator: SecretString,
    /// For the service, where others may order it to handle incidents.
    pub incidents: SecretString,
    /// For whoever audits the books.
    pub auditor: SecretString,
    /// For backups.
    pub backup: SecretString,
    /// Master keys of what is sealed there.
    pub master_keys: SecretString,
    /// Keys of blind indexes there.
    pub index_keys: SecretString,
}

impl Cluster {
    /// The server of a superuser's URL, `postgres://user:password@host:port/database`.
    pub fn new(superuser: &str) -> Result<Self, DatabaseError> {
        let superuser = Url::parse(superuser).map_err(|_| DatabaseError::Url)?;
        if superuser.username().is_empty() || superuser.password().is_none() {
            return Err(DatabaseError::Url);
        }
        Ok(Self { superuser })
    }

    /// A connection of the superuser.
    pub async fn connect(&self) -> Result<PgConnection, DatabaseError> {
        Ok(PgConnection::connect(self.superuser.as_str()).await?)
    }

    /// Makes connecting as the superuser as cheap as it is for the logins. For a server that is the
    /// caller's alone.
    pub async fn cheapen_superuser(&self) -> Result<(), DatabaseError> {
        let alter =
            format!("alter role current_user password '{}'", verifier(self.superuser.password().unwrap_or(""))?);
        sqlx::raw_sql(AssertSqlSafe(alter)).execute(&mut self.connect().await?).await?;
        Ok(())
    }

    /// A connection of the superuser to the database `name`.
    pub async fn connect_to(&self, name: &str) -> Result<PgConnection, DatabaseError> {
        let mut url = self.superuser.clone();
        url.set_path(name);
        Ok(PgConnection::connect(url.as_str()).await?)
    }

    /// Creates the logins, and the database `name` with the current schema, unless they are there.
    pub async fn provision(&self, name: &str) -> Result<Urls, DatabaseError> {
        let urls = self.urls(name);
        let mut admin = self.connect().await?;
        sqlx::query("select pg_advisory_lock($1)").bind(LOCK).execute(&mut admin).await?;
        sqlx::raw_sql(ROLES).execute(&mut admin).await?;
        for role in LOGINS {
            // It has no quote in it: letters and digits of base64, and `$:+/=`.
            let alter = format!("alter role {role} with login password '{}'", verifier(&self.password(role))?);
            sqlx::raw_sql(AssertSqlSafe(alter)).execute(&mut admin).await?;
        }
        let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(name)
            .fetch_one(&mut admin)
            .await?;
        if !exists {
            self.create_database(&mut admin, name, None).await?;
        }
        store::migrate(&urls.owner).await?;
        // Closing the connection releases the lock.
        admin.close().await?;
        Ok(urls)
    }

    /// Creates the database `name` as a copy of `template`, which nobody may be connected to.
    pub async fn clone_database(&self, template: &str, name: &str) -> Result<Urls, DatabaseError> {
        let mut admin = self.connect().await?;
        self.create_database(&mut admin, name, Some(template)).await?;
        admin.close().await?;
        Ok(self.urls(name))
    }

    /// Creates the database `name`, without a schema.
    pub async fn create_empty(&self, name: &str) -> Result<Urls, DatabaseError> {
        let mut admin = self.connect().await?;
        self.create_database(&mut admin, name, None).await?;
        admin.close().await?;
        Ok(self.urls(name))
    }

    async fn create_database(
        &self,
        admin: &mut PgConnection,
        name: &str,
        template: Option<&str>,
    ) -> Result<(), DatabaseError> {
        let copy = template.map(|template| format!(" template \"{template}\"")).unwrap_or_default();
        let create = format!("create database \"{name}\" owner app_owner{copy}");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *admin).await?;
        let close = format!(
            "revoke all on database \"{name}\" from public;
             grant connect on database \"{name}\" to app_writer, app_reader, app_authn, app_keys, app_operator,
                                                  app_incidents, app_auditor, app_backup"
        );
        sqlx::raw_sql(AssertSqlSafe(close)).execute(&mut *admin).await?;
        Ok(())
    }

    /// The URLs of the database `name`.
    #[must_use]
    pub fn urls(&self, name: &str) -> Urls {
        let url = |role: &str| {
            let mut url = self.superuser.clone();
            url.set_path(name);
            // Both setters fail only for URLs without a host, and `connect` has used this one.
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

    /// The same for every process that knows the superuser's, so that several can share a server.
    fn password(&self, role: &str) -> String {
        crypto::hex(&self.derived(role)).chars().take(40).collect()
    }

    fn keyset(&self, purpose: &str) -> SecretString {
        format!("1:{}", STANDARD.encode(self.derived(purpose))).into()
    }

    /// 32 bytes that stay the same as long as the server's data: a restart changes no key.
    #[must_use]
    pub fn derived(&self, purpose: &str) -> [u8; 32] {
        crypto::sha256(format!("{purpose} {}", self.superuser.password().unwrap_or_default()).as_bytes())
    }
}

/// What the server stores of a password (RFC 5803), after one round of PBKDF2 and not the usual 4096.
/// Rounds slow guessing down, and 160 random bits are not guessed; in a debug build they are most of
/// the time that connecting takes.
fn verifier(password: &str) -> Result<String, DatabaseError> {
    let salt = crypto::random::<16>().map_err(|_| DatabaseError::Random)?;
    let mut salted = [0; 32];
    pbkdf2::derive(PBKDF2_HMAC_SHA256, NonZeroU32::MIN, &salt, password.as_bytes(), &mut salted);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let (client, server) = (hmac::sign(&key, b"Client Key"), hmac::sign(&key, b"Server Key"));
    let [salt, stored, server] =
        [&salt[..], &crypto::sha256(client.as_ref()), server.as_ref()].map(|bytes| STANDARD.encode(bytes));
    Ok(format!("SCRAM-SHA-256$1:{salt}${stored}:{server}"))
}

impl Urls {
    /// The settings of the service for this database.
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
