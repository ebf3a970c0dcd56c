//! `audit prune` (LOG-05): old events go, and what stays is verifiable from the last pruned seal.

use palisade::{dev::database::Urls, model::Clock};
use secrecy::ExposeSecret as _;

use super::{sealed_trail, sealing::add_event};
use crate::support::{
    SERVICE,
    audit_trail::{seal_all, tamper, verify},
    query, run,
};

/// Runs `audit prune` for seals of at least so many days: its output.
fn prune(urls: &Urls, days: i64) -> Result<String, String> {
    let before = Clock::system().now() - chrono::Duration::days(days);
    let mut prune = SERVICE.binary();
    prune.args(["audit", "prune", "--reason", "retention", "--before", &before.to_rfc3339()]);
    prune.env("APP_PROFILE", "development").env("APP_DATABASE__OWNER_URL", urls.owner.expose_secret());
    let output = prune.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Makes these seals 50 days old.
async fn age(urls: &Urls, condition: &str) {
    tamper(
        urls,
        &format!("update palisade.audit_seals set sealed_at = sealed_at - interval '50 days' where {condition}"),
    )
    .await;
}

async fn count(urls: &Urls, table: &str) -> i64 {
    query(&urls.backup, &format!("select count(*)::text from palisade.{table}")).await[0].parse().unwrap()
}

#[tokio::test]
async fn log_05_pruned_trail_is_verifiable_from_the_last_pruned_seal() {
    let (urls, anchors) = sealed_trail().await;
    let too_young = prune(&urls, 29).unwrap_err();
    assert!(too_young.contains("younger than 30 days cannot be pruned"), "{too_young}");
    let none = prune(&urls, 40).unwrap_err();
    assert!(none.contains("no event was sealed before"), "{none}");
    let root: i64 = query(&urls.owner, "select max(number)::text from palisade.audit_seals").await[0].parse().unwrap();
    age(&urls, "true").await;
    add_event(&urls.writer, "unsealed").await;
    let done = prune(&urls, 40).unwrap();
    assert!(done.starts_with(&format!("6 events deleted; the trail begins after seal {root}")), "{done}");
    // The unsealed event, and that of the pruning.
    assert_eq!((count(&urls, "audit_events").await, count(&urls, "audit_journal").await), (2, 2));
    assert_eq!(count(&urls, "audit_seals").await, 1);
    seal_all(&urls).await;
    let (found, summary) = verify(&SERVICE, &urls, None);
    assert_eq!(found, Ok(()));
    assert!(summary.starts_with("2 events, 2 of them under ") && summary.contains("verified after seal"), "{summary}");
    let pruned =
        "select concat_ws(' ', subject, reason, object) from palisade.audit_events where action = 'audit_pruned'";
    assert!(
        query(&urls.backup, pruned).await[0].starts_with(&format!("operator:app_owner retention up to seal {root} "))
    );
    // Seals of the log before the root are no finding. The file ends before the newest seals.
    let found = verify(&SERVICE, &urls, Some(&anchors)).0.err().unwrap_or_default();
    assert!(found.iter().all(|line| line.contains("is the last one in the log")), "{found:?}");
    // The next pruning moves the root.
    age(&urls, &format!("number = {}", root + 1)).await;
    prune(&urls, 40).unwrap();
    seal_all(&urls).await;
    assert_eq!(verify(&SERVICE, &urls, None).0, Ok(()));
    assert_eq!(
        query(&urls.owner, "select min(number)::text from palisade.audit_seals").await,
        [(root + 1).to_string()]
    );
}

/// Deleting without the event of a pruning, or more than it says, is a finding.
#[tokio::test]
async fn log_05_undeclared_pruning_is_found() {
    let (urls, _) = sealed_trail().await;
    age(&urls, "number <= 2").await;
    // The owner calls the function that deletes, and not the one that records.
    run(&urls.owner, "select palisade.prune_audit_seal(2)").await.unwrap();
    let found = verify(&SERVICE, &urls, None).0.unwrap_err().join("\n");
    assert!(found.contains("seal 1 was removed") && found.contains("seal 2 does not match"), "{found}");
    prune(&urls, 40).unwrap();
    assert_eq!(verify(&SERVICE, &urls, None).0, Ok(()));
    for (change, expected) in [
        ("update palisade.audit_events set object = replace(object, 'seal 2', 'seal 3')", "was changed"),
        ("update palisade.audit_seals set digest = sha256('x') where number = 2", "has another digest than the root"),
        ("delete from palisade.audit_seals where number = 2", "is the root or checkpoint, and is not in the database"),
    ] {
        tamper(
            &urls,
            &format!(
                "create table kept_e as table palisade.audit_events;
                                create table kept_s as table palisade.audit_seals; {change}"
            ),
        )
        .await;
        let found = verify(&SERVICE, &urls, None).0.expect_err(change).join("\n");
        assert!(found.contains(expected), "{change}: {found}");
        tamper(
            &urls,
            "delete from palisade.audit_events; delete from palisade.audit_seals;
                       insert into palisade.audit_events table kept_e; insert into palisade.audit_seals table kept_s;
                       drop table kept_e, kept_s",
        )
        .await;
    }
    for login in [&urls.writer, &urls.operator, &urls.incidents, &urls.auditor, &urls.backup] {
        for call in [
            "prune_audit_seal(3)",
            "record_audit_pruning(now() - interval '1 year', 'x')",
            "record_audit_restore(now(), 'x', '[]')",
            "record_act(null, 'x', 'x', 'x', null)",
        ] {
            let error = run(login, &format!("select palisade.{call}")).await.unwrap_err().to_string();
            assert!(error.contains("permission denied"), "{call}: {error}");
        }
    }
}
