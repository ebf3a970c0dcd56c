//! [`assert_not_in_database`]: proof that texts are in no dump of the database, in any encoding
//! (CRYPTO-02).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::ExposeSecret as _;
use sqlx::{AssertSqlSafe, Row as _};

use crate::{TestApp, superuser};

/// All rows of all tables as text; bytes are hexadecimal.
async fn dump_tables(app: &TestApp) -> String {
    let mut superuser = superuser(&app.database).await;
    let tables = "select c.oid::regclass::text from pg_class c
                  join pg_namespace n on n.oid = c.relnamespace
                  where c.relkind = 'r' and n.nspname in ('palisade', 'public')";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut superuser).await.unwrap();
    assert!(tables.len() > 10, "{tables:?}");
    let mut dump = String::new();
    for table in tables {
        let rows = format!("select coalesce(string_agg(t::text, e'\\n'), '') from {table} t");
        dump += &sqlx::query(AssertSqlSafe(rows)).fetch_one(&mut superuser).await.unwrap().get::<String, _>(0);
    }
    dump
}

/// The output of `pg_dump`; empty if the program is not installed.
fn pg_dump(app: &TestApp) -> String {
    let mut command = std::process::Command::new("pg_dump");
    let output = command.arg(app.database.owner.expose_secret()).arg("--role=app_owner").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// Asserts that no dump of the database contains one of these texts: as it is, in lower case, in
/// hexadecimal or in Base64. `present` is a text that is stored in plain.
pub async fn assert_not_in_database(app: &TestApp, present: &str, texts: &[&str]) {
    let dump = dump_tables(app).await + &pg_dump(app);
    assert!(dump.contains(present), "the dump has the rows");
    for text in texts {
        let hex = palisade::crypto::hex(text.as_bytes());
        // The base64 of a text depends on the text's offset modulo 3.
        let encoded = (0..3).map(|offset| {
            let padded = STANDARD.encode([&vec![b' '; offset], text.as_bytes()].concat());
            padded[4..padded.len() - 4].to_owned()
        });
        assert!(text.len() > 8, "too short: nothing is left of the base64 between the ends");
        for form in [(*text).to_owned(), text.to_lowercase(), hex].into_iter().chain(encoded) {
            assert!(!dump.contains(&form), "the dump contains {text} as {form}");
        }
    }
}
