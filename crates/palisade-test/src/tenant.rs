//! The command `tenant`, run in a process as an operator does.

use palisade::dev::database::Urls;
use secrecy::ExposeSecret as _;
use uuid::Uuid;

use crate::{Actor, Forge, TestApp, superuser};

/// Runs `tenant` with these arguments, and with a reason if they have none. Returns standard output, or
/// standard error if the command fails.
pub async fn run_tenant(app: &TestApp, arguments: &[&str]) -> Result<String, String> {
    let mut command = app.service.binary();
    command.arg("tenant").args(arguments).envs(TestApp::variables(&app.database, app.issuer.url()));
    if arguments.first() != Some(&"list") && !arguments.contains(&"--reason") && !arguments.contains(&"--dry-run") {
        command.args(["--reason", "a test"]);
    }
    command.env("APP_DATABASE__OPERATOR_URL", app.database.operator.expose_secret());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    if output.status.success() { Ok(stdout) } else { Err(stderr) }
}

/// An administrator of any tenant.
pub fn admin_of(app: &TestApp, tenant: Uuid) -> Actor {
    app.bearer(Forge::new(app.service, &app.issuer).claim("tenant_id", tenant.to_string()).token())
}

/// Lets a suspended tenant pass for suspended for longer than a day.
pub async fn suspended_long_ago(database: &Urls, tenant: Uuid) {
    let backdate = "update palisade.tenants set suspended_at = suspended_at - interval '25 hours' where of_tenant = $1";
    sqlx::query(backdate).bind(tenant).execute(&mut superuser(database).await).await.unwrap();
}

/// Every table with rows of the tenant, as `table: rows`, whatever column names the tenant.
pub async fn rows_of_tenant(app: &TestApp, tenant: Uuid) -> Vec<String> {
    let mut superuser = superuser(&app.database).await;
    let tables = "select format('%I.%I', c.relnamespace::regnamespace, c.relname) from pg_class c
                  where c.relkind = 'r' and c.relnamespace in ('palisade'::regnamespace, 'public'::regnamespace)
                  order by 1";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut superuser).await.unwrap();
    let mut found = Vec::new();
    for table in tables {
        // As text: no column is forgotten.
        let count = format!("select count(*) from {table} t where strpos(t::text, '{tenant}') > 0");
        let rows: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&mut superuser).await.unwrap();
        if rows > 0 {
            found.push(format!("{table}: {rows}"));
        }
    }
    found
}
