//! The benchmarks `benches/price` and `benches/product`. They name settings and tables of this
//! service: the settings must exist, the SQL must run on the current schema, and the patches that
//! take out a control must apply to the current sources.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use palisade::{db, settings::Row};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::support::{SERVICE, empty_database, superuser};

fn read(path: &str) -> String {
    fs::read_to_string(format!("benches/{path}")).unwrap()
}

#[test]
fn benchmarks_name_existing_settings() {
    let sections = service::app().sections();
    let variables: BTreeSet<String> =
        sections.all().flat_map(|section| section.rows).flat_map(Row::variables).collect();
    let script = read("product/start.sh");
    let in_script = script.lines().filter(|line| line.starts_with("APP_")).filter_map(|line| line.split('=').next());
    let sources = [read("price/stack.rs"), read("price/main.rs")].concat();
    let in_sources = sources.split('"').filter(|text| text.starts_with("APP_") && !text.ends_with('_'));
    let named: BTreeSet<&str> = in_script.chain(in_sources).filter(|name| !name.ends_with("OWNER_URL")).collect();
    assert!(named.len() > 10, "{named:?}");
    for variable in named {
        assert!(variables.contains(variable), "there is no setting {variable}");
    }
}

async fn run(connection: &mut PgConnection, script: String) {
    sqlx::raw_sql(AssertSqlSafe(script)).execute(connection).await.unwrap();
}

async fn count_orders(connection: &mut PgConnection) -> String {
    let orders = "select count(*)::text || ' of ' || count(*) filter (where created_by = 'seed') from orders";
    sqlx::query_scalar(orders).fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn benchmark_scripts_match_the_tables() {
    // Creates the logins, unless another test has.
    SERVICE.shared();
    // Fewer orders, and no commands and variables of psql.
    let seed = read("product/seed.sql").replace("generate_series(1, 100000)", "generate_series(1, 100)");
    let seed = seed.replace("vacuum analyze;", "").replace(":'tenant_a'", "'0190a000-0000-7000-8000-00000000aaaa'");
    let product = seed.replace(":'tenant_b'", "'0190a000-0000-7000-8000-00000000bbbb'");
    let price = read("price/seed.sql").replace("{orders}", "100").replace("{tenants}", "2");
    for (seed, reset) in [(product, read("product/reset.sql")), (price.clone(), read("price/reset.sql"))] {
        let database = empty_database().await;
        db::migrate(&database.owner).await.unwrap();
        let mut superuser = superuser(&database).await;
        run(&mut superuser, seed).await;
        run(&mut superuser, reset).await;
        assert_eq!(count_orders(&mut superuser).await, "100 of 100");
    }
    // The service without security has the same data in tables of its own.
    let mut bare = superuser(&empty_database().await).await;
    run(&mut bare, read("price/bare.sql")).await;
    run(&mut bare, [price, read("price/bare_customers.sql"), read("price/reset.sql")].concat()).await;
    assert_eq!(count_orders(&mut bare).await, "100 of 100");
}

#[test]
fn benchmark_patches_apply_to_the_sources() {
    // A project may take the kernel from its repository.
    if !Path::new("crates/palisade").is_dir() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let measured = read("price/without.rs");
    for entry in fs::read_dir("benches/price/without").unwrap() {
        let patch = entry.unwrap().path();
        let name = patch.file_stem().unwrap().to_str().unwrap();
        assert!(measured.contains(&format!("\"{name}\"")), "{name} is not in NAMES of benches/price/without.rs");
        let mut check = Command::new("git");
        check.args(["apply", "--check", "-C1"]).arg(&patch).env("GIT_CEILING_DIRECTORIES", root.parent().unwrap());
        let output = check.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} does not take its control out any more; make it again: {error}");
    }
}
