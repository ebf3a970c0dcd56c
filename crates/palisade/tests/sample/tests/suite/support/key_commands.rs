//! Runs `keys` commands against a running service, and checks their effect on notes.
//!
//! Tests of CRYPTO-04 to CRYPTO-08 add notes through the API and run a command in this process
//! ([`run_keys`]) or as the binary ([`run_keys_binary`]). Then they assert which keys the rows use,
//! and that every note is still readable and found.

use std::collections::BTreeMap;

use palisade::{model::Clock, ops::Keys, settings::LoginSettings, store::SealedTable as _};
use sample::{access::roles, store::NoteTable};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::{ACME, SERVICE, TestApp, UNTHROTTLED, Vault, note_body, query, search, vault::TOKEN};

/// Timeouts that keep a rotation short: it waits until no request can still use an older data key.
pub const SHORT_TIMEOUTS: [(&str, &str); 2] =
    [("APP_DATABASE__STATEMENT_TIMEOUT_MS", "1000"), ("APP_DATABASE__ACQUIRE_TIMEOUT_MS", "1000")];

/// The expressions by which [`notes_by_key`] can count.
pub const DATA_KEY: &str = "k.data_key";
pub const INDEX_KEY: &str = "k.index_key";

/// Counts the notes of Acme that are in the blind index.
pub const COUNT_INDEXED: &str = "select count(*)::text from notes where email_index is not null";

/// The environment of a service or command on the database of this app, with these changes. An
/// empty value removes the variable.
pub fn variables(app: &TestApp, changes: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut variables = TestApp::variables(&app.database, app.issuer.url());
    variables.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    variables.retain(|_, value| !value.is_empty());
    variables
}

/// Runs a command in this process, as `main` does; returns its output lines, or its error.
pub async fn run_keys(app: &TestApp, command: Keys, changes: &[(&str, &str)]) -> Result<Vec<String>, String> {
    let settings = SERVICE.read_settings(variables(app, changes)).unwrap();
    let operator = LoginSettings { url: app.database.operator.clone(), secrets_read: Vec::new() };
    let mut lines = Vec::new();
    let report = |line| lines.push(line);
    let result = command.run(&settings, SERVICE.sealed_tables(), Some(&operator), &Clock::system(), report).await;
    result.map(|()| lines).map_err(|error| error.to_string())
}

/// Runs the binary's `keys` with these arguments and the operator's login alone; returns standard
/// output, or standard error if the command fails.
pub async fn run_keys_binary(app: &TestApp, arguments: &[&str]) -> Result<String, String> {
    run_keys_binary_with(app, arguments, None).await
}

/// The same with a value of `APP_KEYS__INDEX`.
pub async fn run_keys_binary_with(
    app: &TestApp,
    arguments: &[&str],
    index_keys: Option<&str>,
) -> Result<String, String> {
    let mut command = SERVICE.binary();
    command.arg("keys").args(arguments).env("APP_PROFILE", "development");
    command.env("APP_DATABASE__OPERATOR_URL", app.database.operator.expose_secret());
    // A setting of the server. These commands do not read it, so its value may be wrong.
    command.env("APP_HTTP__LISTEN", "nonsense").envs(index_keys.map(|keys| ("APP_KEYS__INDEX", keys)));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    if output.status.success() { Ok(stdout) } else { Err(stderr) }
}

/// Starts a replica on the database of this app with these changes, and drops it; returns the error
/// if startup fails.
pub async fn try_start(app: &TestApp, changes: &[(&str, &str)]) -> Result<(), String> {
    SERVICE.try_start(variables(app, changes)).await
}

/// The error of a startup that must fail.
pub async fn start_error(app: &TestApp, changes: &[(&str, &str)]) -> String {
    try_start(app, changes).await.expect_err("startup fails")
}

/// A note with a value in every sealed field; `n` makes the values unique.
pub fn note(n: usize) -> Value {
    let mut note = note_body("PAPER-A4", 1);
    note["remark"] = json!(format!("Note {n}"));
    note["email"] = json!(format!("person-{n}@example.com"));
    note["phone"] = json!(format!("+49177{n:07}"));
    note
}

/// Adds the notes 0 to `count` - 1 to Acme; returns their paths.
pub async fn add_notes(app: &TestApp, count: usize) -> Vec<String> {
    let writer = app.user(roles::WRITER);
    let mut paths = Vec::new();
    for n in 0..count {
        let created = writer.post("/v1/notes", &note(n)).await.ok(201);
        paths.push(format!("/v1/notes/{}", created["id"].as_str().unwrap()));
    }
    paths
}

/// Asserts that each of the added notes can be read, and found by its e-mail address.
pub async fn assert_notes_readable(app: &TestApp, paths: &[String]) {
    let admin = app.user(roles::ADMIN);
    for (n, path) in paths.iter().enumerate() {
        let read = admin.get(path).await.ok(200);
        let written = note(n);
        let fields = written.as_object().unwrap();
        assert_eq!(fields.len(), NoteTable::COLUMNS.len() + 3, "every sealed field, items, priority and remark");
        for (field, value) in fields {
            // Callers of the test under load change the phone.
            let is_intact =
                read[field] == *value || field == "phone" && read[field].as_str().unwrap().starts_with("+4930");
            assert!(is_intact, "{field} of {path}: {}", read[field]);
        }
    }
    assert_eq!(search(&admin, "person-1@example.com").await[0]["email"], "****.com");
}

/// The number of Acme's notes by the version of a key, each as `version: notes`.
pub async fn notes_by_key(app: &TestApp, version: &str) -> Vec<String> {
    let counts = format!(
        "select concat({version}, ': ', count(*)) from palisade.row_keys k join notes n on n.id = k.row_id
         group by {version} order by {version}"
    );
    query(&app.database.owner, &counts).await
}

/// SQL that saves a note's row and row key, and all data keys, in a new schema.
pub fn save_note(schema: &str, id: &str) -> String {
    format!(
        "create schema {schema}; create table {schema}.notes as select * from notes where id = '{id}';
         create table {schema}.keys as select * from palisade.row_keys where row_id = '{id}';
         create table {schema}.data_keys as select * from palisade.data_keys"
    )
}

/// SQL that restores what [`save_note`] has saved in this schema.
pub fn restore_note(schema: &str) -> String {
    format!(
        "insert into palisade.data_keys select * from {schema}.data_keys on conflict do nothing;
         update palisade.row_keys k set data_key = s.data_key, wrapped = s.wrapped, index_key = s.index_key
         from {schema}.keys s
         where k.row_id = s.row_id;
         update notes n set email = s.email, phone = s.phone from {schema}.notes s where n.id = s.id"
    )
}

/// SQL that stores this number of copies of one of Acme's notes and of its row key. Their sealed
/// fields cannot be decrypted.
pub fn copy_notes(count: usize) -> String {
    format!(
        "with copies as (
             insert into notes (tenant_id, id, status, items, priority, email, email_index, created_by, created_at,
                                updated_at)
             select tenant_id, gen_random_uuid(), status, items, priority, email, email_index, created_by, created_at,
                    updated_at
             from (select * from notes where tenant_id = '{}' limit 1) n, generate_series(1, {count})
             returning tenant_id, id
         )
         insert into palisade.row_keys (tenant_id, sealed_table, row_id, data_key, wrapped, index_key)
         select c.tenant_id, k.sealed_table, c.id, k.data_key, k.wrapped, k.index_key
         from copies c, lateral (select * from palisade.row_keys k where k.tenant_id = c.tenant_id limit 1) k",
        ACME.id
    )
}

/// Settings with the master keys of a vault, beside the keyset that wraps the demo data's keys.
pub fn vault_and_keyset(url: &str) -> Vec<(&str, &str)> {
    let vault = [("APP_KEYS__PROVIDER", "vault"), ("APP_KEYS__VAULT__URL", url), ("APP_KEYS__VAULT__TOKEN", TOKEN)];
    UNTHROTTLED.into_iter().chain(vault).collect()
}

/// Settings with the master keys of a vault alone.
pub fn vault_only(url: &str) -> Vec<(&str, &str)> {
    [&vault_and_keyset(url)[..], &[("APP_KEYS__MASTER", "")]].concat()
}

/// Starts an app whose data keys are all wrapped by the vault.
pub async fn start_with_vault(vault: &Vault) -> TestApp {
    let url = vault.url();
    let before = SERVICE.start_with(&vault_and_keyset(&url)).await;
    let lines = run_keys(&before, Keys::Rewrap, &vault_and_keyset(&url)).await.unwrap();
    assert_eq!(lines, [format!("2 data keys are now wrapped by {}", vault_key(1))]);
    let long_timeout = [&vault_only(&url)[..], &[("APP_KEYS__VAULT__TIMEOUT_MS", "4900")]].concat();
    SERVICE.start_on(before.database, &long_timeout).await
}

/// The name of a version of the vault's master key.
pub fn vault_key(version: u32) -> String {
    format!("vault:transit/{}:v{version}", env!("CARGO_PKG_NAME"))
}

/// The names of the master keys that wrap data keys.
pub async fn wrapping_keys(app: &TestApp) -> Vec<String> {
    query(&app.database.owner, "select distinct wrapped_by from palisade.data_keys order by 1").await
}
