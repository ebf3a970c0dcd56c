//! `audit verify`, against somebody who owns the database.

use std::path::PathBuf;

use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;
use service::{
    authz::{matrix::Scope, policy::Role},
    dev::database::Urls,
    domain::Clock,
};
use sqlx::{AssertSqlSafe, Connection as _};
use uuid::Uuid;

use crate::support::{
    ACME, Actor, Serving, TestApp, binary, eventually, person, query, start_issuer, superuser, test_database,
};

/// Sealed almost at once.
pub(super) const SEALING: (&str, &str) = ("APP_AUDIT__SEAL_EVERY_MS", "20");

/// What `audit verify` finds, and what it says at the end.
pub(super) fn verify(urls: &Urls, anchors: Option<&PathBuf>) -> (Result<(), Vec<String>>, String) {
    let mut verify = binary();
    verify.args(["audit", "verify"]).env("APP_PROFILE", "development");
    verify.env("APP_DATABASE__BACKUP_URL", urls.backup.expose_secret());
    if let Some(anchors) = anchors {
        verify.arg("--anchors").arg(anchors);
    }
    let done = verify.output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    let told = String::from_utf8(done.stderr).unwrap();
    if done.status.success() {
        return (Ok(()), said);
    }
    assert!(told.contains("the audit trail was changed"), "{said}{told}");
    assert!(told.contains("audit_trail_invalid"), "{told}");
    (Err(said.lines().map(str::to_owned).collect()), told)
}

/// The position of the last line under a seal, and the events of the journal.
pub(super) async fn sealed(urls: &Urls) -> (i64, i64) {
    let number = async |sql: &str| query(&urls.owner, sql).await[0].parse::<i64>().unwrap();
    (
        number("select coalesce(max(upto), 0)::text from audit_seals").await,
        number("select coalesce(max(position), 0)::text from audit_journal").await,
    )
}

pub(super) async fn until_all_is_sealed(urls: &Urls) {
    eventually("all is sealed", async || {
        let (upto, last) = sealed(urls).await;
        upto == last
    })
    .await;
}

/// A trail of six events under three seals, and a file with what the log was told of them. Positions are 1 to 6.
async fn a_trail() -> (Urls, PathBuf) {
    let database = test_database().await;
    let issuer = start_issuer(Clock::system()).await;
    let mut variables = TestApp::variables(&database, issuer.url());
    variables.insert(SEALING.0.to_owned(), SEALING.1.to_owned());
    let serving = Serving::start(&variables).await;
    let admin = Actor::new(serving.address, Some(issuer.access_token(&person(&ACME, Role::Admin), &Scope::ALL)));
    for n in 0..3 {
        for m in 0..2 {
            let product = json!({ "name": "Ink", "price": { "amount": 500, "currency": "EUR" } });
            let put = admin.request(Method::PUT, &format!("/v1/products/INK-{n}{m}")).json(&product);
            admin.send(put).await.ok(201);
        }
        until_all_is_sealed(&database).await;
    }
    let (status, log) = serving.terminate().await;
    assert!(status.success());
    let anchors = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("anchors-{}", Uuid::now_v7()));
    std::fs::write(&anchors, log).unwrap();
    (database, anchors)
}

const UNPROTECTED: &str = "
    alter table audit_events disable trigger all;
    alter table audit_journal disable trigger all;
    alter table audit_seals disable trigger all;";

/// As whoever owns the database could.
pub(super) async fn tamper(urls: &Urls, sql: &str) {
    let mut superuser = superuser(urls).await;
    let mut tx = superuser.begin().await.unwrap();
    for sql in [UNPROTECTED, sql] {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
}

/// Writes all seals anew, as they would be of what is there now.
const SEALED_ANEW: &str = "
    do $$ declare s audit_seals; prev bytea := ''; since bigint := 0; begin
        for s in select * from audit_seals order by number loop
            update audit_seals t set (events, digest, lines) = (
                select count(*), sha256(prev || int8send(s.number) || int8send(s.upto)
                           || string_agg(int8send(position) || uuid_send(of_tenant) || uuid_send(event) || digest, ''
                                         order by position)),
                       string_agg(int8send(position) || substr(digest, 1, 8), '' order by position)
                from audit_journal where position > since and position <= s.upto)
            where t.number = s.number returning t.digest into prev;
            since := s.upto;
        end loop;
    end $$;";

#[tokio::test]
async fn log_05_verifying_finds_what_was_changed_and_says_where() {
    let (urls, anchors) = a_trail().await;
    let (found, said) = verify(&urls, Some(&anchors));
    assert_eq!(found, Ok(()));
    assert!(said.starts_with("6 events, 6 of them under "), "{said}");
    let seals: i64 = query(&urls.owner, "select count(*)::text from audit_seals").await[0].parse().unwrap();
    assert!(seals >= 3, "{seals}");
    let kept = "create table kept_e as select * from audit_events; create table kept_j as select * from audit_journal;
                create table kept_s as select * from audit_seals;";
    tamper(&urls, kept).await;
    let undone = "delete from audit_events; delete from audit_journal; delete from audit_seals;
                  insert into audit_events select * from kept_e;
                  insert into audit_journal overriding system value select * from kept_j;
                  insert into audit_seals select * from kept_s;";
    let macros = [
        ("EVENT", "(select event from audit_journal where position = 4)"),
        ("EDITED", "update audit_events set subject = 'somebody else' where id = EVENT;"),
        ("REDONE", "update audit_journal j set digest = audit_digest(e) from audit_events e where e.id = j.event;"),
        ("RESEALED", SEALED_ANEW),
        ("ORPHANS", "(select id from audit_events where id not in (select event from audit_journal))"),
        ("LAST", "(select max(number) from audit_seals)"),
    ];
    let spelt = |sql: &str| macros.iter().rev().fold(sql.to_owned(), |sql, (name, text)| sql.replace(name, text));
    // What is done, whether it takes the log to notice, and what is found.
    for (sql, by_log, expected) in [
        ("EDITED", false, &["(position 4) was changed"][..]),
        (
            "update audit_events set at = at + interval '1 microsecond' where id = EVENT",
            false,
            &["(position 4) was changed"],
        ),
        // The same text, of which a part is in the next field.
        (
            "update audit_events set action = 'product', object = '_put' || object where id = EVENT",
            false,
            &["(position 4) was changed"],
        ),
        ("delete from audit_events where id = EVENT", false, &["(position 4) was removed"]),
        (
            "update audit_events set tenant_id = gen_random_uuid() where id = EVENT",
            false,
            &["(position 4) was removed", "was inserted"],
        ),
        (
            "insert into audit_events select tenant_id, gen_random_uuid(), at, subject, client, action, 'LIE', trace_id, ''
             from audit_events limit 1",
            false,
            &["was inserted"],
        ),
        ("EDITED REDONE", false, &["line 4 of the journal", "is another"]),
        (
            "delete from audit_journal where position = 4; delete from audit_events where id in ORPHANS",
            false,
            &["line 4 of the journal", "is gone"],
        ),
        (
            "insert into audit_journal overriding system value
             select -1, gen_random_uuid(), event, digest from audit_journal where position = 1",
            false,
            &["line -1 of the journal", "was put there later", "(position -1) was removed"],
        ),
        (
            "update audit_journal j set (of_tenant, event, digest) =
                 (select of_tenant, event, digest from kept_j k where k.position = 3 - j.position)
             where position in (1, 2)",
            false,
            &["line 1 of the journal", "line 2 of the journal"],
        ),
        (
            "update audit_seals set digest = sha256('x') where number = 2",
            false,
            &["seal 2 does not fit", "seal 3 does not fit"],
        ),
        ("update audit_seals set upto = upto + 1 where number = LAST", false, &["does not fit"]),
        ("alter table audit_seals drop constraint audit_seals_check; update audit_seals set events = 9 where number = 2", false, &["seal 2 does not fit"]),
        ("update audit_seals set lines = decode(repeat('00', length(lines)), 'hex') where number = 2", false, &["is gone"]),
        ("delete from audit_seals where number = 2", false, &["seal 2 was removed"]),
        ("EDITED REDONE RESEALED", true, &["is another in the log"]),
        (
            "delete from audit_seals where number = LAST;
             delete from audit_journal where position > (select max(upto) from audit_seals);
             delete from audit_events where id in ORPHANS",
            true,
            &["is in the log and not in the database"],
        ),
    ] {
        tamper(&urls, &spelt(sql)).await;
        if by_log {
            assert_eq!(verify(&urls, None).0, Ok(()), "{sql}");
        }
        let found = verify(&urls, Some(&anchors)).0.expect_err(sql).join("\n");
        for expected in expected {
            assert!(found.contains(expected), "{sql}: {found}");
        }
        tamper(&urls, undone).await;
        assert_eq!(verify(&urls, Some(&anchors)).0, Ok(()), "{sql}");
    }
}

#[tokio::test]
async fn log_05_a_verification_without_anchors_in_its_file_fails() {
    let urls = test_database().await;
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("anchors-{}", Uuid::now_v7()));
    std::fs::write(&file, "{\"event\":\"data_changed\"}\nno JSON\n").unwrap();
    let mut verify = binary();
    verify.args(["audit", "verify", "--anchors"]).arg(&file).env("APP_PROFILE", "development");
    let done = verify.env("APP_DATABASE__BACKUP_URL", urls.backup.expose_secret()).output().unwrap();
    assert!(!done.status.success());
    assert!(String::from_utf8(done.stderr).unwrap().contains("has no line `audit_sealed`"));
}

/// The service seals what it finds, so it would seal what was forged. It has told the log of the first, though.
#[tokio::test]
async fn log_05_what_the_service_was_made_to_seal_anew_is_told() {
    let (urls, anchors) = a_trail().await;
    let last = query(&urls.owner, "select max(number)::text from audit_seals").await[0].parse::<i64>().unwrap();
    let kept = std::fs::read_to_string(&anchors).unwrap();
    let of = |number: i64| format!("\"number\":{number},");
    // Another digest under a number that was told before; and a log that ends too early.
    let line = kept.lines().find(|line| line.contains("audit_sealed") && line.contains(&of(last))).unwrap();
    let digest = query(&urls.owner, "select encode(digest, 'hex') from audit_seals order by number desc limit 1").await;
    let forged = line.replace(&digest[0], &"0".repeat(64));
    for (text, expected) in [
        (format!("{forged}\n{kept}"), Some("with two digests")),
        (format!("{kept}{forged}\n"), Some("with two digests")),
        (
            kept.lines()
                .filter(|line| (last - 1..=last).all(|n| !line.contains(&of(n))))
                .collect::<Vec<_>>()
                .join("\n"),
            Some("is the last that the log knows"),
        ),
        (kept.lines().filter(|line| !line.contains(&of(last))).collect::<Vec<_>>().join("\n"), None),
        (format!("{kept}{}\n", forged.replace("security", "elsewhere")), None),
    ] {
        std::fs::write(&anchors, text).unwrap();
        let found = verify(&urls, Some(&anchors)).0;
        match expected {
            Some(expected) => assert!(found.unwrap_err().join("\n").contains(expected), "{expected}"),
            None => assert_eq!(found, Ok(())),
        }
    }
}
