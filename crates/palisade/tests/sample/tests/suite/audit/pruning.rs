//! `audit prune` (LOG-05): old events go, and what stays is verifiable from the last pruned seal.

use palisade::{dev::database::Urls, model::Clock};
use secrecy::ExposeSecret as _;

use super::{sealed_trail, sealing::add_event};
use crate::support::{
    SERVICE,
    audit_trail::{seal_all, tamper, verify, verify_with},
    query, run,
};

/// Runs `audit prune` for seals of at least so many days: its output and its log.
fn prune_with(urls: &Urls, days: i64, arguments: &[&str]) -> Result<(String, String), String> {
    let before = Clock::system().now() - chrono::Duration::days(days);
    let mut prune = SERVICE.binary();
    prune.args(["audit", "prune", "--before", &before.to_rfc3339()]).args(arguments);
    prune.env("APP_PROFILE", "development").env("APP_LOG__FORMAT", "json");
    prune.env("APP_DATABASE__OWNER_URL", urls.owner.expose_secret());
    let output = prune.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let log = text(output.stderr);
    if output.status.success() { Ok((text(output.stdout), log)) } else { Err(log) }
}

/// The same, with the seal that `--dry-run` shows as confirmation.
pub(super) fn prune(urls: &Urls, days: i64) -> Result<(String, String), String> {
    let plan = prune_with(urls, days, &["--dry-run"])?.0;
    let seal = plan.split(' ').nth(3).unwrap();
    prune_with(urls, days, &["--reason", "retention", "--confirm", seal])
}

/// Makes these seals 50 days old.
pub(super) async fn age(urls: &Urls, condition: &str) {
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
    let plan = prune_with(&urls, 40, &["--dry-run"]).unwrap().0;
    assert!(plan.starts_with(&format!("up to seal {root} of ")) && plan.ends_with(": 6 events\n"), "{plan}");
    for (confirm, expected) in [(&[][..], "give `--confirm`"), (&["--confirm", "1"], "the confirmation differs")] {
        let refused = prune_with(&urls, 40, &[&["--reason", "retention"], confirm].concat()).unwrap_err();
        assert!(refused.contains(expected), "{refused}");
    }
    assert_eq!(count(&urls, "audit_journal").await, 7);
    let (done, log) = prune(&urls, 40).unwrap();
    assert!(done.contains(&format!("6 events deleted; the trail begins after seal {root}")), "{done}");
    // The unsealed event, and that of the pruning.
    assert_eq!((count(&urls, "audit_events").await, count(&urls, "audit_journal").await), (2, 2));
    assert_eq!(count(&urls, "audit_seals").await, 1);
    seal_all(&urls).await;
    let (found, summary) = verify(&SERVICE, &urls, None);
    assert_eq!(found, Ok(()));
    assert!(summary.starts_with("2 events, 2 of them under ") && summary.contains("verified after seal"), "{summary}");
    assert!(summary.contains(&format!("by operator:app_owner: pruned up to seal {root}")), "{summary}");
    // A root does not replace a checkpoint.
    let found = verify_with(&SERVICE, &urls, &["--checkpoint", "1:00"]).0.unwrap_err().join("\n");
    assert!(found.contains("seal 1 is the checkpoint, and was pruned"), "{found}");
    let pruned =
        "select concat_ws(' ', subject, reason, object) from palisade.audit_events where action = 'audit_pruned'";
    assert!(
        query(&urls.backup, pruned).await[0].starts_with(&format!("operator:app_owner retention up to seal {root} "))
    );
    // Seals of the log before the root are no finding. The log must have the pruning, and the root for
    // 30 days. The file ends before the newest seals.
    let logged = std::fs::read_to_string(&anchors).unwrap();
    let old = logged.replace("\"timestamp\":\"20", "\"timestamp\":\"19");
    for (text, expected) in [
        (logged.clone(), Some("the log has no line of that pruning")),
        (format!("{logged}\n{log}"), Some("for less than 30 days before the pruning")),
        (format!("{old}\n{log}"), None),
    ] {
        std::fs::write(&anchors, text).unwrap();
        let mut found = verify(&SERVICE, &urls, Some(&anchors)).0.err().unwrap_or_default();
        found.retain(|line| !line.contains("is the last one in the log") && !line.starts_with("declared at"));
        assert_eq!(found.len(), usize::from(expected.is_some()), "{found:?}");
        assert!(found.concat().contains(expected.unwrap_or_default()), "{found:?}");
    }
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
    // No login of the service can declare one, and a declaration in its name would not count.
    for login in [&urls.operator, &urls.incidents] {
        for action in ["audit_pruned", "Audit_restored", "row_changed"] {
            let call = format!("select palisade.record_operator_act(null, '{action}', 'up to seal 9 x', '')");
            let error = run(login, &call).await.unwrap_err().to_string();
            assert!(error.contains("only the owner can record acts on the audit trail"), "{error}");
        }
    }
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
        (
            "update palisade.audit_seals set sealed_at = '2100-01-01';
             insert into palisade.audit_events select tenant_id, gen_random_uuid(), '2000-01-01', subject, client, action,
                                                      'LIE', trace_id, '' from palisade.audit_events limit 1",
            "was inserted",
        ),
        (
            "delete from palisade.audit_seals where number < 3; delete from palisade.audit_events where action = 'audit_pruned';
             do $$ begin perform palisade.insert_audit_event(
                 row ('00000000-0000-0000-0000-000000000000', gen_random_uuid(), now(), 'operator:app_incidents', '',
                      'audit_pruned', (select 'up to seal 3 ' || encode(digest, 'hex') from palisade.audit_seals
                                       where number = 3), '', '', null)::palisade.audit_events); end $$",
            "seals 1 to 2 were removed",
        ),
        ("delete from palisade.audit_seals where number = 2", "is the root or checkpoint, and is not in the database"),
    ] {
        tamper(
            &urls,
            &format!(
                "create table kept_e as table palisade.audit_events;
                                create table kept_j as table palisade.audit_journal;
                                create table kept_s as table palisade.audit_seals; {change}"
            ),
        )
        .await;
        let found = verify(&SERVICE, &urls, None).0.expect_err(change).join("\n");
        assert!(found.contains(expected), "{change}: {found}");
        tamper(
            &urls,
            "delete from palisade.audit_events; delete from palisade.audit_seals; delete from palisade.audit_journal;
                       insert into palisade.audit_events table kept_e; insert into palisade.audit_seals table kept_s;
                       insert into palisade.audit_journal overriding system value table kept_j;
                       drop table kept_e, kept_j, kept_s",
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
