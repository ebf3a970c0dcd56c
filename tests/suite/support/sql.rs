//! SQL of a test's own, as one of the service's logins or as the superuser.

use std::{cell::RefCell, collections::HashMap};

use secrecy::ExposeSecret;
use service::dev::database::Urls;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::{eventually, postgres::provider};

/// Runs SQL as one of the service's logins, all in one transaction.
pub async fn run(url: &secrecy::SecretString, sql: &str) -> Result<u64, sqlx::Error> {
    let mut connection = PgConnection::connect(url.expose_secret()).await?;
    let mut tx = connection.begin().await?;
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(done.rows_affected())
}

/// A connection that may do everything, to the database of these logins.
pub async fn superuser(urls: &Urls) -> PgConnection {
    let url = url::Url::parse(urls.owner.expose_secret()).unwrap();
    provider().cluster.connect_to(url.path().trim_start_matches('/')).await.unwrap()
}

/// Does it as somebody who may do everything, to the database of this app.
pub async fn as_superuser(app: &super::TestApp, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut superuser(&app.database).await).await.unwrap();
}

thread_local! {
    /// Connections that [`query`] made for this test, by URL: connecting costs ten times a query.
    static CONNECTIONS: RefCell<HashMap<String, PgConnection>> = RefCell::default();
}

/// The first column of a query about Acme's rows, as text.
pub async fn query(url: &secrecy::SecretString, sql: &str) -> Vec<String> {
    let url = url.expose_secret();
    let known = CONNECTIONS.with_borrow_mut(|connections| connections.remove(url));
    let known = match known {
        Some(mut connection) => first_column(&mut connection, sql).await.ok().map(|rows| (connection, rows)),
        None => None,
    };
    // There is none yet, or its server or its test is gone.
    let (connection, rows) = if let Some(answered) = known {
        answered
    } else {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let rows = first_column(&mut connection, sql).await.unwrap();
        (connection, rows)
    };
    CONNECTIONS.with_borrow_mut(|connections| connections.insert(url.to_owned(), connection));
    rows
}

async fn first_column(connection: &mut PgConnection, sql: &str) -> Result<Vec<String>, sqlx::Error> {
    let begin = AssertSqlSafe(format!("begin; set local app.tenant_id = '{}'", super::ACME.id));
    let mut tx = connection.begin_with(begin).await?;
    let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&mut *tx).await?;
    tx.rollback().await?;
    rows.iter().map(|row| row.try_get_unchecked(0)).collect()
}

/// Until some connection of the service waits for a lock.
pub async fn wait_for_a_waiter(urls: &Urls) {
    let waiting = "select exists (select from pg_locks l join pg_stat_activity a using (pid)
                                  where not l.granted and a.datname = current_database())";
    let mut owner = PgConnection::connect(urls.owner.expose_secret()).await.unwrap();
    eventually("a connection waits", async || sqlx::query_scalar(waiting).fetch_one(&mut owner).await.unwrap()).await;
}

/// Does `act` while somebody is in the middle of `first`, who does `then` once they are waited for, and ends.
pub fn in_the_middle<T>(urls: &Urls, first: &str, then: &str, act: impl Future<Output = T>) -> impl Future<Output = T> {
    // Large, most of them.
    let act = Box::pin(act);
    async move {
        let mut other = superuser(urls).await;
        sqlx::raw_sql(AssertSqlSafe(format!("begin; {first}"))).execute(&mut other).await.unwrap();
        let end = async {
            wait_for_a_waiter(urls).await;
            sqlx::raw_sql(AssertSqlSafe(format!("{then}; commit"))).execute(&mut other).await.unwrap();
        };
        tokio::join!(act, end).0
    }
}
