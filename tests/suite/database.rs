//! Rights of the logins on orders, products and billing (AUTHZ-08), keys between their tables that
//! include the tenant, and the check that code of the service sends checked statements only (AUTHZ-07).

use palisade::{
    db,
    dev::{
        database::{Cluster, Urls},
        postgres::{Binaries, Data, Server},
    },
};
use secrecy::ExposeSecret as _;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, error::DatabaseError};
use url::Url;

use crate::support::{ACME, SERVICE, TestApp, run, scratch_folder, source_check};

/// The SQLSTATE with which the writer's statement for Acme fails.
async fn writer_error(database: &Urls, statement: &str) -> String {
    let sql = format!("set local app.tenant_id = '{}'; {statement}", ACME.id);
    let error = run(&database.writer, &sql).await.unwrap_err();
    error.as_database_error().and_then(DatabaseError::code).unwrap_or_default().into_owned()
}

/// Demo data is written by the owner of the tables, in the development stack only.
#[test]
fn authz_07_service_code_sends_checked_statements_only() {
    assert_eq!(source_check::faults_below("src", "src/demo"), Vec::<String>::new());
}

#[tokio::test]
async fn authz_07_order_line_of_another_tenants_order_is_rejected() {
    let line = format!(
        "insert into order_lines values ('{}', '0190a002-0000-7000-8000-000000000001', 9, 'PEN-BLUE', 1, 1)",
        ACME.id
    );
    // The composite foreign key.
    assert_eq!(writer_error(&SERVICE.database().await, &line).await, "23503");
}

#[tokio::test]
async fn authz_08_writer_cannot_change_amounts_or_delete_rows() {
    let database = SERVICE.database().await;
    for denied in [
        "delete from orders",
        "truncate orders",
        "update orders set total_amount = 1",
        "update order_lines set quantity = 1",
        "delete from products",
        "update products set sku = 'X-1'",
        "update invoice_lines set quantity = 1",
        "update invoices set total_amount = 1",
        "update payments set amount = 1",
    ] {
        assert_eq!(writer_error(&database, denied).await, "42501", "{denied}");
    }
}

/// The SQL of an administrator, without comments and with the variable of psql set, one statement
/// at a time.
fn administration(file: &str) -> Vec<String> {
    let read = |folder: &str| std::fs::read_to_string(format!("{folder}/{file}"));
    // In a project with the kernel as a dependency, all of it is in `deploy`.
    let text = read("deploy").or_else(|_| read("crates/palisade")).unwrap();
    let code: Vec<&str> = text.lines().filter(|line| !line.starts_with("--")).collect();
    let code = code.join("\n").replace(":\"name\"", "orders");
    if file == "roles.sql" { vec![code] } else { code.split_inclusive(';').map(str::to_owned).collect() }
}

/// As an administrator of managed PostgreSQL, which has no superuser.
#[tokio::test]
async fn authz_08_logins_and_database_are_created_without_a_superuser() {
    let scratch = scratch_folder();
    let binaries = Binaries::find_or_fetch(&scratch.join("postgres-binaries"), |_| {}).await.unwrap();
    let folder = scratch.join(format!("administered-{}", uuid::Uuid::now_v7()));
    let server = Server::start(&folder, &binaries, Data::Disposable).await.unwrap();
    let mut superuser = PgConnection::connect(server.url()).await.unwrap();
    let create = "create role admin login createrole createdb password 'x'";
    sqlx::raw_sql(create).execute(&mut superuser).await.unwrap();
    let mut url = Url::parse(server.url()).unwrap();
    url.set_username("admin").unwrap();
    url.set_password(Some("x")).unwrap();
    let mut admin = PgConnection::connect(url.as_str()).await.unwrap();
    let urls = Cluster::new(server.url()).unwrap().urls("orders");
    let logins = [&urls.owner, &urls.writer, &urls.reader, &urls.authn, &urls.keys].map(|login| {
        let login = Url::parse(login.expose_secret()).unwrap();
        format!("alter role {} password '{}'", login.username(), login.password().unwrap())
    });
    // Running it again changes nothing.
    let roles = [administration("roles.sql"), administration("roles.sql")].concat();
    for statement in roles.into_iter().chain(administration("database.sql")).chain(logins) {
        let done = sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut admin).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    db::migrate(&urls.owner).await.unwrap();
    SERVICE.try_start(TestApp::variables(&urls, "http://127.0.0.1:9")).await.unwrap();
    // The administrator keeps no right to the data.
    let member = "select pg_has_role('admin', 'app_owner', 'usage')";
    assert!(!sqlx::query_scalar::<_, bool>(member).fetch_one(&mut superuser).await.unwrap());
    server.stop().await;
    let _ = std::fs::remove_dir_all(&folder);
}
