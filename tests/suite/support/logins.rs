use secrecy::{ExposeSecret as _, SecretString};
use service::dev::database::Urls;
use sqlx::{AssertSqlSafe, PgConnection};
use url::Url;

use super::{postgres::now, query};

/// Logins of a test's own, with the rights of the service's.
pub struct Logins {
    suffix: String,
    pub password: String,
}

impl Logins {
    pub const ALL: [&str; 4] = ["writer", "reader", "authn", "keys"];

    pub fn new() -> Self {
        let suffix = format!("{}_{}", now(), Self::password());
        Self { password: Self::password(), suffix }
    }

    pub fn password() -> String {
        service::crypto::hex(&service::crypto::random::<16>().unwrap())
    }

    pub fn name(&self, login: &str) -> String {
        format!("test_{}_{login}", self.suffix)
    }

    pub fn url(&self, login: &str, url: &str) -> String {
        let mut url = Url::parse(url).unwrap();
        url.set_username(&self.name(login)).unwrap();
        url.set_password(Some(&self.password)).unwrap();
        url.into()
    }

    pub async fn create(self, admin: &mut PgConnection) -> Self {
        for login in Self::ALL {
            let Self { password, .. } = &self;
            let create = format!("create role {} login password '{password}' in role app_{login}", self.name(login));
            sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *admin).await.unwrap();
        }
        self
    }

    pub async fn drop(self, admin: &mut PgConnection) {
        for login in Self::ALL {
            let drop = AssertSqlSafe(format!("drop role {}", self.name(login)));
            sqlx::raw_sql(drop).execute(&mut *admin).await.unwrap();
        }
    }

    /// How many connections there are of them.
    pub async fn connections(&self, database: &Urls) -> String {
        let count = format!("select count(*)::text from pg_stat_activity where usename like 'test_{}_%'", self.suffix);
        query(&database.owner, &count).await.remove(0)
    }

    pub fn of(&self, database: Urls) -> Urls {
        let own = |login, url: &SecretString| SecretString::from(self.url(login, url.expose_secret()));
        let (writer, reader) = (own("writer", &database.writer), own("reader", &database.reader));
        let (authn, keys) = (own("authn", &database.authn), own("keys", &database.keys));
        Urls { writer, reader, authn, keys, ..database }
    }
}
