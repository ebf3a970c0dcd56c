//! SQL that a test runs itself, as one of the service's logins or as the superuser, and
//! transactions that make the service wait for a lock at a chosen point.

use std::{cell::RefCell, collections::HashMap};

use palisade::dev::database::Urls;
use secrecy::ExposeSecret;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use crate::{eventually, postgres::provider};

/// Runs SQL in one transaction as the login of this URL.
pub async fn run(url: &secrecy::SecretString, sql: &str) -> Result<u64, sqlx::Error> {
    let mut connection = PgConnection::connect(url.expose_secret()).await?;
    let mut tx = connection.begin().await?;
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(done.rows_affected())
}

/// A superuser's connection to the database of these URLs.
pub async fn superuser(urls: &Urls) -> PgConnection {
    let url = url::Url::parse(urls.owner.expose_secret()).unwrap();
    provider().cluster.connect_to(url.path().trim_start_matches('/')).await.unwrap()
}

/// Runs SQL as the superuser on the database of this app.
pub async fn run_as_superuser(app: &crate::TestApp, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut superuser(&app.database).await).await.unwrap();
}

thread_local! {
    /// Connections that [`query`] has opened for this test, by URL. Connecting costs ten times as
    /// much as a query.
    static CONNECTIONS: RefCell<HashMap<String, PgConnection>> = RefCell::default();
}

/// Runs a query with Acme as the tenant; returns the first column, which must be text.
pub async fn query(url: &secrecy::SecretString, sql: &str) -> Vec<String> {
    let url = url.expose_secret();
    let cached = CONNECTIONS.with_borrow_mut(|connections| connections.remove(url));
    let result = match cached {
        Some(mut connection) => first_column(&mut connection, sql).await.ok().map(|rows| (connection, rows)),
        None => None,
    };
    // No connection yet, or its server or the runtime of its test has ended.
    let (connection, rows) = if let Some(result) = result {
        result
    } else {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let rows = first_column(&mut connection, sql).await.unwrap();
        (connection, rows)
    };
    CONNECTIONS.with_borrow_mut(|connections| connections.insert(url.to_owned(), connection));
    rows
}

async fn first_column(connection: &mut PgConnection, sql: &str) -> Result<Vec<String>, sqlx::Error> {
    let begin = AssertSqlSafe(format!("begin; set local app.tenant_id = '{}'", crate::ACME.id));
    let mut tx = connection.begin_with(begin).await?;
    let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&mut *tx).await?;
    tx.rollback().await?;
    rows.iter().map(|row| row.try_get_unchecked(0)).collect()
}

/// Waits until some connection to this database waits for a lock.
pub async fn wait_for_lock_wait(urls: &Urls) {
    let waiting = "select exists (select from pg_locks l join pg_stat_activity a using (pid)
                                  where not l.granted and a.datname = current_database())";
    let mut owner = PgConnection::connect(urls.owner.expose_secret()).await.unwrap();
    eventually("a connection waits", async || sqlx::query_scalar(waiting).fetch_one(&mut owner).await.unwrap()).await;
}

/// Runs `act` beside an open transaction that has run `first`. As soon as a connection waits for a
/// lock, the transaction runs `then` and commits. Returns the result of `act`.
pub fn during_transaction<T>(
    urls: &Urls,
    first: &str,
    then: &str,
    act: impl Future<Output = T>,
) -> impl Future<Output = T> {
    // Boxed, since most of these futures are large.
    let act = Box::pin(act);
    async move {
        let mut other = superuser(urls).await;
        sqlx::raw_sql(AssertSqlSafe(format!("begin; {first}"))).execute(&mut other).await.unwrap();
        let end = async {
            wait_for_lock_wait(urls).await;
            sqlx::raw_sql(AssertSqlSafe(format!("{then}; commit"))).execute(&mut other).await.unwrap();
        };
        tokio::join!(act, end).0
    }
}
