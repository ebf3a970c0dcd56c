//! `audit restored` (LOG-05): a declared restore explains the seals that the log has twice, and those
//! only.

use std::path::Path;

use palisade::dev::database::Urls;
use secrecy::ExposeSecret as _;

use super::{
    pruning::{age, prune},
    sealed_trail,
    sealing::add_event,
};
use crate::support::{
    SERVICE,
    audit_trail::{seal_all, tamper, verify},
    query,
};

/// Runs `audit restored`, and adds its lines to the log: its output.
fn declare(urls: &Urls, anchors: &Path) -> Result<String, String> {
    let mut restored = SERVICE.binary();
    restored.args(["audit", "restored", "--to", "2026-01-02T03:04:05Z", "--reason", "disk failure", "--anchors"]);
    restored.arg(anchors).env("APP_PROFILE", "development").env("APP_LOG__FORMAT", "json");
    restored.env("APP_DATABASE__OWNER_URL", urls.owner.expose_secret());
    let output = restored.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if !output.status.success() {
        return Err(text(output.stderr));
    }
    log(anchors, &text(output.stderr));
    Ok(text(output.stdout))
}

/// Adds lines to the log.
fn log(anchors: &Path, lines: &str) {
    let before = std::fs::read_to_string(anchors).unwrap();
    std::fs::write(anchors, format!("{before}\n{lines}\n")).unwrap();
}

/// Returns the trail to the state before its last seal, as a restored backup has it.
async fn rewind(urls: &Urls) {
    tamper(
        urls,
        "delete from palisade.audit_seals where number = (select max(number) from palisade.audit_seals);
         delete from palisade.audit_journal where position > (select max(upto) from palisade.audit_seals);
         delete from palisade.audit_events where id not in (select event from palisade.audit_journal)",
    )
    .await;
}

/// Adds the stored seals to the log, as the service logs them.
async fn log_seals(urls: &Urls, anchors: &Path) {
    let lines = "select jsonb_build_object('event', 'audit_sealed', 'target', 'security', 'number', number,
                                           'digest', encode(digest, 'hex'))::text from palisade.audit_seals";
    log(anchors, &query(&urls.owner, lines).await.join("\n"));
}

#[tokio::test]
async fn log_05_declared_restore_explains_lost_seals_only() {
    let (urls, anchors) = sealed_trail().await;
    let nothing = declare(&urls, &anchors).unwrap_err();
    assert!(nothing.contains("there is nothing to declare"), "{nothing}");
    rewind(&urls).await;
    add_event(&urls.writer, "after the restore").await;
    seal_all(&urls).await;
    log_seals(&urls, &anchors).await;
    let found = verify(&SERVICE, &urls, Some(&anchors)).0.unwrap_err().join("\n");
    assert!(found.contains("has two digests in the log"), "{found}");
    assert!(declare(&urls, &anchors).unwrap().starts_with("1 seals of the log are declared lost"));
    seal_all(&urls).await;
    log_seals(&urls, &anchors).await;
    let (found, summary) = verify(&SERVICE, &urls, Some(&anchors));
    assert_eq!(found, Ok(()));
    assert!(summary.contains("by operator:app_owner: 1 digests of seals "), "{summary}");
    // The owner of the database cannot write the log: a declaration that the log lacks does not count.
    let logged = std::fs::read_to_string(&anchors).unwrap();
    let without = logged.lines().filter(|line| !line.contains("\"audit_restored\"")).collect::<Vec<_>>().join("\n");
    assert_ne!(logged.len(), without.len() + 1);
    std::fs::write(&anchors, without).unwrap();
    let found = verify(&SERVICE, &urls, Some(&anchors)).0.unwrap_err().join("\n");
    assert!(found.contains("has two digests in the log"), "{found}");
    std::fs::write(&anchors, logged).unwrap();
    let event =
        "select concat_ws(' ', subject, reason, object) from palisade.audit_events where action = 'audit_restored'";
    let event = query(&urls.backup, event).await;
    assert!(event[0].starts_with("operator:app_owner disk failure to 2026-01-02 03:04:05"), "{event:?}");

    // A restore that no operator declared is a finding still: the log has a third digest.
    rewind(&urls).await;
    let found = verify(&SERVICE, &urls, Some(&anchors)).0.unwrap_err().join("\n");
    assert!(found.contains("is in the log but not in the database"), "{found}");
    // The declaration was in the removed seal. The second one covers both restores.
    add_event(&urls.writer, "after another restore").await;
    seal_all(&urls).await;
    log_seals(&urls, &anchors).await;
    assert!(declare(&urls, &anchors).unwrap().starts_with("2 seals of the log are declared lost"));
    seal_all(&urls).await;
    log_seals(&urls, &anchors).await;
    assert_eq!(verify(&SERVICE, &urls, Some(&anchors)).0, Ok(()));

    // A declaration that was changed explains nothing.
    tamper(&urls, "update palisade.audit_events set changes = null where action = 'audit_restored'").await;
    let found = verify(&SERVICE, &urls, Some(&anchors)).0.unwrap_err().join("\n");
    assert!(found.contains("was changed") && found.contains("has two digests in the log"), "{found}");
}

/// The log still has the lost seals after the root, and the pruning deletes what explained them.
#[tokio::test]
async fn log_05_restore_stays_declared_after_a_pruning() {
    let (urls, anchors) = sealed_trail().await;
    for _ in 0..2 {
        rewind(&urls).await;
    }
    add_event(&urls.writer, "after the restore").await;
    seal_all(&urls).await;
    assert!(declare(&urls, &anchors).unwrap().starts_with("2 seals of the log are declared lost"));
    seal_all(&urls).await;
    log_seals(&urls, &anchors).await;
    assert_eq!(verify(&SERVICE, &urls, Some(&anchors)).0, Ok(()));
    age(&urls, "true").await;
    log(&anchors, &prune(&urls, 40).unwrap().1);
    seal_all(&urls).await;
    log_seals(&urls, &anchors).await;
    assert_eq!(verify(&SERVICE, &urls, Some(&anchors)).0, Ok(()));
}
