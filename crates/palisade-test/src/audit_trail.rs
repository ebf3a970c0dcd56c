//! Helpers for tests of the audit trail: reading it, sealing, tampering as the owner of the database
//! can, and `audit verify`.

use std::path::Path;

use palisade::dev::database::Urls;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _};

use crate::{TestApp, TestService, eventually, query, run, superuser};

/// Seals almost at once.
pub const SEAL_OFTEN: (&str, &str) = ("APP_AUDIT__SEAL_INTERVAL_MS", "20");

/// The events of Acme, newest first. The filter begins with `&`, or is empty.
pub async fn read_trail(app: &TestApp, filter: &str) -> Vec<Value> {
    let page = app.admin().get(&format!("/v1/audit-events?limit=100{filter}")).await.ok(200);
    page["items"].as_array().unwrap().clone()
}

const TRIGGERS_OFF: &str = "
    alter table palisade.audit_events disable trigger all;
    alter table palisade.audit_journal disable trigger all;
    alter table palisade.audit_seals disable trigger all;";

const TRIGGERS_ON: &str = "
    alter table palisade.audit_events enable trigger all;
    alter table palisade.audit_journal enable trigger all;
    alter table palisade.audit_seals enable trigger all;";

/// Runs `audit verify`: its findings, and its last output.
pub fn verify(service: &TestService, urls: &Urls, anchors: Option<&Path>) -> (Result<(), Vec<String>>, String) {
    let anchors = anchors.map(|path| path.to_str().unwrap());
    verify_with(service, urls, &anchors.map_or_else(Vec::new, |path| vec!["--anchors", path]))
}

/// Runs `audit verify` with arguments.
pub fn verify_with(service: &TestService, urls: &Urls, arguments: &[&str]) -> (Result<(), Vec<String>>, String) {
    let mut verify = service.binary();
    verify.args(["audit", "verify"]).args(arguments).env("APP_PROFILE", "development");
    verify.env("APP_DATABASE__BACKUP_URL", urls.backup.expose_secret());
    let output = verify.output().unwrap();
    let findings = String::from_utf8(output.stdout).unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    if output.status.success() {
        return (Ok(()), findings);
    }
    assert!(log.contains("the audit trail was changed"), "{findings}{log}");
    assert!(log.contains("audit_trail_invalid"), "{log}");
    (Err(findings.lines().map(str::to_owned).collect()), log)
}

/// Seals once, in a separate transaction, as the service does. Open transactions of any database of
/// the server delay a seal, also those of other tests.
pub async fn seal(urls: &Urls) {
    // The function fails if it was delayed for too long.
    let _ = run(&urls.writer, "select palisade.seal_audit_journal()").await;
}

/// Seals until no event is unsealed.
pub async fn seal_all(urls: &Urls) {
    eventually("all is sealed", async || {
        seal(urls).await;
        let (sealed, last) = seal_progress(urls).await;
        sealed == last
    })
    .await;
}

/// The position of the last sealed line of the journal, and of its last line.
pub async fn seal_progress(urls: &Urls) -> (i64, i64) {
    let number = async |sql: &str| query(&urls.owner, sql).await[0].parse::<i64>().unwrap();
    (
        number("select coalesce(max(upto), 0)::text from palisade.audit_seals").await,
        number("select coalesce(max(position), 0)::text from palisade.audit_journal").await,
    )
}

/// Waits until no event is unsealed.
pub async fn until_all_is_sealed(urls: &Urls) {
    eventually("all is sealed", async || {
        let (sealed, last) = seal_progress(urls).await;
        sealed == last
    })
    .await;
}

/// Changes the trail with its triggers off, and switches them on again.
pub async fn tamper(urls: &Urls, sql: &str) {
    let mut superuser = superuser(urls).await;
    let mut tx = superuser.begin().await.unwrap();
    for sql in [TRIGGERS_OFF, sql, TRIGGERS_ON] {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
}
