//! Database logins of a single test ([`Logins`]), with the rights of the service's logins.
//!
//! Tests of password rotation change or drop them, which they cannot do with the logins that all
//! databases of the server share.

use palisade::dev::database::Urls;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{AssertSqlSafe, PgConnection};
use url::Url;

use crate::{postgres::now, query};

/// One login for each of [`Logins::ALL`], with a unique name and a common password.
pub struct Logins {
    suffix: String,
    /// The password of all four.
    pub password: String,
}

impl Logins {
    /// The service's logins, without the prefix of their names.
    pub const ALL: [&str; 4] = ["writer", "reader", "authn", "keys"];

    /// New names and a new password; creates nothing yet.
    pub fn new() -> Self {
        let suffix = format!("{}_{}", now(), Self::random_password());
        Self { password: Self::random_password(), suffix }
    }

    /// A password of 32 hexadecimal digits.
    pub fn random_password() -> String {
        palisade::crypto::hex(&palisade::crypto::random::<16>().unwrap())
    }

    /// The name of the login that takes the place of this one.
    pub fn name(&self, login: &str) -> String {
        format!("test_{}_{login}", self.suffix)
    }

    /// The URL with the user and password of this login.
    pub fn url(&self, login: &str, url: &str) -> String {
        let mut url = Url::parse(url).unwrap();
        url.set_username(&self.name(login)).unwrap();
        url.set_password(Some(&self.password)).unwrap();
        url.into()
    }

    /// Creates the logins as members of those that they replace.
    pub async fn create(self, admin: &mut PgConnection) -> Self {
        for login in Self::ALL {
            let Self { password, .. } = &self;
            let name = self.name(login);
            let create = format!(
                "create role {name} login password '{password}' in role app_{login};
                 alter role {name} set statement_timeout = '5s'; alter role {name} set lock_timeout = '5s';
                 alter role {name} set idle_in_transaction_session_timeout = '5s'"
            );
            sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *admin).await.unwrap();
        }
        self
    }

    /// Drops the logins.
    pub async fn drop_roles(self, admin: &mut PgConnection) {
        for login in Self::ALL {
            let drop = AssertSqlSafe(format!("drop role {}", self.name(login)));
            sqlx::raw_sql(drop).execute(&mut *admin).await.unwrap();
        }
    }

    /// The number of open connections of these logins, as text.
    pub async fn connection_count(&self, database: &Urls) -> String {
        let count = format!("select count(*)::text from pg_stat_activity where usename like 'test_{}_%'", self.suffix);
        query(&database.owner, &count).await.remove(0)
    }

    /// The URLs of a database with these logins in place of the service's.
    pub fn urls(&self, database: Urls) -> Urls {
        let url = |login, url: &SecretString| SecretString::from(self.url(login, url.expose_secret()));
        Urls {
            writer: url("writer", &database.writer),
            reader: url("reader", &database.reader),
            authn: url("authn", &database.authn),
            keys: url("keys", &database.keys),
            ..database
        }
    }
}
