//! Scripts of the benchmark against other stacks (benches/product). They name settings and tables
//! of this service: the settings must exist, and the SQL must run on the current schema.

use palisade::{db, settings::Row};

use crate::support::{empty_database, superuser};

#[tokio::test]
async fn benchmark_scripts_match_the_settings_and_tables() {
    let read = |name: &str| std::fs::read_to_string(format!("benches/product/{name}")).unwrap();
    let rows = service::app().sections().all().flat_map(|section| section.rows);
    let variables: Vec<String> = rows.flat_map(Row::variables).collect();
    for line in read("start.sh").lines().filter(|line| line.starts_with("APP_")) {
        let (variable, _) = line.split_once('=').unwrap();
        assert!(variables.iter().any(|known| known == variable), "there is no setting {variable}");
    }
    let database = empty_database().await;
    db::migrate(&database.owner).await.unwrap();
    // Fewer orders, and no commands and variables of psql.
    let seed = read("seed.sql").replace("generate_series(1, 100000)", "generate_series(1, 100)");
    let seed = seed.replace("vacuum analyze;", "").replace(":'tenant_a'", "'0190a000-0000-7000-8000-00000000aaaa'");
    let seed = seed.replace(":'tenant_b'", "'0190a000-0000-7000-8000-00000000bbbb'");
    let mut superuser = superuser(&database).await;
    for script in [seed, read("reset.sql")] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(script)).execute(&mut superuser).await.unwrap();
    }
    let orders = "select count(*)::text || ' of ' || count(*) filter (where created_by = 'seed') from orders";
    let counted: String = sqlx::query_scalar(orders).fetch_one(&mut superuser).await.unwrap();
    assert_eq!(counted, "100 of 100");
}
