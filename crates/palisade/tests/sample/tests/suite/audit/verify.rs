//! `audit verify` (LOG-05) against an attacker that owns the database: every change of events,
//! journal or seals is found, with the log lines as anchors also a complete rewrite.

use secrecy::ExposeSecret as _;
use uuid::Uuid;

use super::{sealed_trail, sealing::add_event};
use crate::support::{
    SERVICE,
    audit_trail::{seal_all, tamper, verify, verify_with},
    query, scratch_folder,
};

/// Recomputes all seals from the current journal.
const RECOMPUTE_SEALS: &str = "
    do $$ declare s palisade.audit_seals; prev bytea := ''; since bigint := 0; begin
        for s in select * from palisade.audit_seals order by number loop
            update palisade.audit_seals t set (events, digest, lines) = (
                select count(*), sha256(prev || int8send(s.number) || int8send(s.upto)
                           || string_agg(int8send(position) || uuid_send(of_tenant) || uuid_send(event) || digest, ''
                                         order by position)),
                       string_agg(int8send(position) || substr(digest, 1, 8), '' order by position)
                from palisade.audit_journal where position > since and position <= s.upto)
            where t.number = s.number returning t.digest into prev;
            since := s.upto;
        end loop;
    end $$;";

/// Changes of the trail: SQL with the macros of the test, whether only the anchors reveal it, and the
/// findings.
const CHANGES: &[(&str, bool, &[&str])] = &[
    ("EDITED", false, &["(position 4) was changed"]),
    (
        "update palisade.audit_events set at = at + interval '1 microsecond' where id = EVENT",
        false,
        &["(position 4) was changed"],
    ),
    (
        r#"update palisade.audit_events set changes = '[{"table":"notes","key":"1","column":"status"}]'
           where id = EVENT"#,
        false,
        &["(position 4) was changed"],
    ),
    // The concatenated text is the same; a part of it moves to the next field.
    (
        "update palisade.audit_events set action = 'note', object = '_created' || object where id = EVENT",
        false,
        &["(position 4) was changed"],
    ),
    ("delete from palisade.audit_events where id = EVENT", false, &["(position 4) was removed"]),
    (
        "update palisade.audit_events set tenant_id = gen_random_uuid() where id = EVENT",
        false,
        &["(position 4) was removed", "was inserted"],
    ),
    (
        "insert into palisade.audit_events
         select tenant_id, gen_random_uuid(), at, subject, client, action, 'LIE', trace_id, ''
         from palisade.audit_events limit 1",
        false,
        &["was inserted"],
    ),
    ("EDITED REDONE", false, &["line 4 of the journal", "was changed"]),
    (
        "delete from palisade.audit_journal where position = 4; delete from palisade.audit_events
         where id in ORPHANS",
        false,
        &["line 4 of the journal", "was removed"],
    ),
    (
        "insert into palisade.audit_journal overriding system value
         select -1, gen_random_uuid(), event, digest from palisade.audit_journal where position = 1",
        false,
        &["line -1 of the journal", "was added after sealing", "(position -1) was removed"],
    ),
    (
        "update palisade.audit_journal j set (of_tenant, event, digest) =
             (select of_tenant, event, digest from kept_j k where k.position = 3 - j.position)
         where position in (1, 2)",
        false,
        &["line 1 of the journal", "line 2 of the journal"],
    ),
    (
        "update palisade.audit_seals set digest = sha256('x') where number = 2",
        false,
        &["seal 2 does not match", "seal 3 does not match"],
    ),
    ("update palisade.audit_seals set upto = upto + 1 where number = LAST", false, &["does not match"]),
    (
        "alter table palisade.audit_seals drop constraint audit_seals_check; update palisade.audit_seals
      set events = 9 where number = 2",
        false,
        &["seal 2 does not match"],
    ),
    (
        "update palisade.audit_seals set lines = decode(repeat('00', length(lines)), 'hex')
      where number = 2",
        false,
        &["of the journal (seal 2) was removed"],
    ),
    ("delete from palisade.audit_seals where number = 2", false, &["seal 2 was removed"]),
    ("EDITED REDONE RESEALED", true, &["has another digest in the log"]),
    (
        "delete from palisade.audit_seals where number = LAST;
         delete from palisade.audit_journal where position > (select max(upto) from palisade.audit_seals);
         delete from palisade.audit_events where id in ORPHANS",
        true,
        &["is in the log but not in the database"],
    ),
];

#[tokio::test]
async fn log_05_verification_finds_every_change_and_its_position() {
    let (urls, anchors) = sealed_trail().await;
    let (found, summary) = verify(&SERVICE, &urls, Some(&anchors));
    assert_eq!(found, Ok(()));
    assert!(summary.starts_with("6 events, 6 of them under "), "{summary}");
    let seals: i64 = query(&urls.owner, "select count(*)::text from palisade.audit_seals").await[0].parse().unwrap();
    assert!(seals >= 3, "{seals}");
    let save = "create table kept_e as select * from palisade.audit_events; create table kept_j as select *
                from palisade.audit_journal;
                create table kept_s as select * from palisade.audit_seals;";
    tamper(&urls, save).await;
    let restore =
        "delete from palisade.audit_events; delete from palisade.audit_journal; delete from palisade.audit_seals;
                  insert into palisade.audit_events select * from kept_e;
                  insert into palisade.audit_journal overriding system value select * from kept_j;
                  insert into palisade.audit_seals select * from kept_s;";
    let macros = [
        ("EVENT", "(select event from palisade.audit_journal where position = 4)"),
        ("EDITED", "update palisade.audit_events set subject = 'another subject' where id = EVENT;"),
        (
            "REDONE",
            "update palisade.audit_journal j set digest = palisade.audit_digest(e) from palisade.audit_events e
             where e.id = j.event;",
        ),
        ("RESEALED", RECOMPUTE_SEALS),
        (
            "ORPHANS",
            "(select id from palisade.audit_events where id not in (select event from palisade.audit_journal))",
        ),
        ("LAST", "(select max(number) from palisade.audit_seals)"),
    ];
    let expand = |sql: &str| macros.iter().rev().fold(sql.to_owned(), |sql, (name, text)| sql.replace(name, text));
    for (sql, needs_anchors, expected) in CHANGES {
        tamper(&urls, &expand(sql)).await;
        if *needs_anchors {
            assert_eq!(verify(&SERVICE, &urls, None).0, Ok(()), "{sql}");
        }
        let found = verify(&SERVICE, &urls, Some(&anchors)).0.expect_err(sql).join("\n");
        for expected in *expected {
            assert!(found.contains(expected), "{sql}: {found}");
        }
        tamper(&urls, restore).await;
        assert_eq!(verify(&SERVICE, &urls, Some(&anchors)).0, Ok(()), "{sql}");
    }
}

#[tokio::test]
async fn log_05_verification_fails_without_anchors_in_the_file() {
    let urls = SERVICE.database().await;
    let file = scratch_folder().join(format!("anchors-{}", Uuid::now_v7()));
    std::fs::write(&file, "{\"event\":\"data_changed\"}\nno JSON\n").unwrap();
    let mut verify = SERVICE.binary();
    verify.args(["audit", "verify", "--anchors"]).arg(&file).env("APP_PROFILE", "development");
    let done = verify.env("APP_DATABASE__BACKUP_URL", urls.backup.expose_secret()).output().unwrap();
    assert!(!done.status.success());
    assert!(String::from_utf8(done.stderr).unwrap().contains("contains no `audit_sealed` event"));
}

/// The service would seal a forged journal too, but the log has the original seals.
#[tokio::test]
async fn log_05_verification_finds_seals_that_differ_from_the_log() {
    let (urls, anchors) = sealed_trail().await;
    let last =
        query(&urls.owner, "select max(number)::text from palisade.audit_seals").await[0].parse::<i64>().unwrap();
    let log = std::fs::read_to_string(&anchors).unwrap();
    let number_field = |number: i64| format!("\"number\":{number},");
    // A second digest with a logged number, and a log that ends too early.
    let line = log.lines().find(|line| line.contains("audit_sealed") && line.contains(&number_field(last))).unwrap();
    let digest =
        query(&urls.owner, "select encode(digest, 'hex') from palisade.audit_seals order by number desc limit 1").await;
    let forged = line.replace(&digest[0], &"0".repeat(64));
    for (text, expected) in [
        (format!("{forged}\n{log}"), Some("has two digests in the log")),
        (format!("{log}{forged}\n"), Some("has two digests in the log")),
        (
            log.lines()
                .filter(|line| (last - 1..=last).all(|n| !line.contains(&number_field(n))))
                .collect::<Vec<_>>()
                .join("\n"),
            Some("is the last one in the log"),
        ),
        (log.lines().filter(|line| !line.contains(&number_field(last))).collect::<Vec<_>>().join("\n"), None),
        (format!("{log}{}\n", forged.replace("security", "elsewhere")), None),
    ] {
        std::fs::write(&anchors, text).unwrap();
        let found = verify(&SERVICE, &urls, Some(&anchors)).0;
        match expected {
            Some(expected) => assert!(found.unwrap_err().join("\n").contains(expected), "{expected}"),
            None => assert_eq!(found, Ok(())),
        }
    }
}

/// A checkpoint is a seal that an earlier run verified.
#[tokio::test]
async fn log_05_verification_from_a_checkpoint_covers_what_follows() {
    let (urls, anchors) = sealed_trail().await;
    let (found, summary) = verify(&SERVICE, &urls, None);
    assert_eq!(found, Ok(()));
    let checkpoint = summary.lines().find_map(|line| line.strip_prefix("checkpoint ")).unwrap().to_owned();
    add_event(&urls.writer, "since then").await;
    seal_all(&urls).await;
    let anchors = anchors.to_str().unwrap();
    let arguments = ["--checkpoint", &checkpoint, "--anchors", anchors];
    let (found, summary) = verify_with(&SERVICE, &urls, &arguments);
    assert_eq!(found, Ok(()));
    let number = checkpoint.split_once(':').unwrap().0;
    assert!(summary.starts_with("1 events, 1 of them under 1 seals"), "{summary}");
    assert!(summary.contains(&format!("verified after seal {number}")), "{summary}");
    let forged = format!("{number}:{}", "0".repeat(64));
    let beyond = format!("99{number}:{}", "0".repeat(64));
    for (checkpoint, change, expected) in [
        (&forged, "", "has another digest than the root or checkpoint"),
        (&beyond, "", "is the root or checkpoint, and is not in the database"),
        (
            &checkpoint,
            "update palisade.audit_events set subject = 'another subject' where object = 'since then'",
            "was changed",
        ),
        (
            &checkpoint,
            "insert into palisade.audit_events
             select tenant_id, gen_random_uuid(), clock_timestamp(), subject, client, action, 'LIE', trace_id, ''
             from palisade.audit_events limit 1",
            "was inserted",
        ),
        (
            &checkpoint,
            "delete from palisade.audit_seals where number = (select max(number) from palisade.audit_seals)
                       - 1",
            "is not in the database",
        ),
    ] {
        tamper(&urls, change).await;
        let found = verify_with(&SERVICE, &urls, &["--checkpoint", checkpoint]).0.expect_err(change).join("\n");
        assert!(found.contains(expected), "{change}: {found}");
    }
}
