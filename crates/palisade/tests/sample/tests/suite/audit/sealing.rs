//! Sealing of the audit trail (LOG-05) by `seal_audit_journal`: open transactions, several
//! replicas, long trails, and seals that were removed.

use std::time::Duration;

use palisade::model::Clock;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{AssertSqlSafe, Connection as _};

use crate::support::{
    ACME, SERVICE, ServiceProcess, TestApp,
    audit_trail::{SEAL_OFTEN, seal, seal_all, seal_progress, tamper, until_all_is_sealed, verify},
    eventually, query, run, start_issuer,
};

/// Without it, the timeout of the login ends the idle session of a test.
const NO_TIMEOUT: &str = "set idle_in_transaction_session_timeout = 0";

fn event_sql(object: &str) -> String {
    format!(
        "select palisade.record_audit_event('{}', gen_random_uuid(), 'a user', 'a client', 'note_created',
                                            '{object}', '')",
        ACME.id
    )
}

pub(super) async fn add_event(writer: &SecretString, object: &str) {
    run(writer, &format!("set local app.tenant_id = '{}'; {}", ACME.id, event_sql(object))).await.unwrap();
}

#[tokio::test]
async fn log_05_open_transactions_are_sealed_after_their_end() {
    let urls = SERVICE.database().await;
    let mut slow = sqlx::PgConnection::connect(urls.writer.expose_secret()).await.unwrap();
    let begin = format!("{NO_TIMEOUT}; begin; set local app.tenant_id = '{}'; {}", ACME.id, event_sql("slow"));
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut slow).await.unwrap();
    // It has the first position and is not committed.
    for n in 0..3 {
        add_event(&urls.writer, &format!("quick {n}")).await;
        seal(&urls).await;
    }
    assert_eq!(seal_progress(&urls).await, (0, 4));
    sqlx::raw_sql("commit").execute(&mut slow).await.unwrap();
    seal_all(&urls).await;
    assert_eq!(seal_progress(&urls).await, (4, 4));
    assert_eq!(verify(&SERVICE, &urls, None).0, Ok(()));
    // A rollback leaves a gap in the positions.
    let begin = format!("begin; set local app.tenant_id = '{}'; {}; rollback", ACME.id, event_sql("never"));
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut slow).await.unwrap();
    add_event(&urls.writer, "after").await;
    seal_all(&urls).await;
    assert_eq!(seal_progress(&urls).await, (6, 6));
    assert!(verify(&SERVICE, &urls, None).1.starts_with("5 events, 5 of them under "));
    // In a transaction that has written, the function could not tell which others have ended.
    let sql =
        format!("set local app.tenant_id = '{}'; {}; select palisade.seal_audit_journal()", ACME.id, event_sql("mine"));
    assert!(run(&urls.writer, &sql).await.unwrap_err().to_string().contains("a transaction of its own"));
}

#[tokio::test]
async fn log_05_replicas_seal_one_chain_that_continues_after_a_restore() {
    let urls = SERVICE.database().await;
    let stop = tokio::time::Instant::now() + Duration::from_secs(3);
    let sealing = || async {
        while tokio::time::Instant::now() < stop {
            seal(&urls).await;
        }
    };
    let writing = || async {
        for n in 0..200 {
            add_event(&urls.writer, &format!("object {n}")).await;
        }
    };
    tokio::join!(sealing(), sealing(), sealing(), writing(), writing());
    seal_all(&urls).await;
    let (found, summary) = verify(&SERVICE, &urls, None);
    assert_eq!(found, Ok(()));
    assert!(summary.starts_with("400 events, 400 of them under "), "{summary}");
    // In a restored cluster, transaction ids begin again from a lower number.
    tamper(&urls, "update palisade.audit_horizon set recorded_by = '9000000000000000000'").await;
    add_event(&urls.writer, "after").await;
    seal_all(&urls).await;
    assert!(verify(&SERVICE, &urls, None).1.starts_with("401 events, 401 of them under "));
}

#[tokio::test]
async fn log_05_removed_seals_and_delayed_sealing_are_logged() {
    let urls = SERVICE.database().await;
    let issuer = start_issuer(Clock::system()).await;
    let mut variables = TestApp::variables(&urls, issuer.url());
    variables.insert(SEAL_OFTEN.0.to_owned(), SEAL_OFTEN.1.to_owned());
    let mut serving = ServiceProcess::start(&SERVICE, &variables).await;
    add_event(&urls.writer, "first").await;
    until_all_is_sealed(&urls).await;
    tamper(
        &urls,
        "delete from palisade.audit_seals; delete from palisade.audit_journal; delete from palisade.audit_events",
    )
    .await;
    add_event(&urls.writer, "replacement").await;
    serving.wait_for_line("a repeated number", |line| line["event"] == "audit_trail_invalid").await;
    let mut idle = sqlx::PgConnection::connect(urls.reader.expose_secret()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("{NO_TIMEOUT}; begin"))).execute(&mut idle).await.unwrap();
    let held = sqlx::query_scalar::<_, String>("select pg_current_xact_id()::text").fetch_one(&mut idle).await.unwrap();
    // From now on nothing is sealed. A seal in progress may still record another horizon.
    let is_delayed = format!("select (recorded_by > '{held}')::text from palisade.audit_horizon");
    eventually("sealing is delayed", async || query(&urls.owner, &is_delayed).await == ["true"]).await;
    // The delay is longer than a minute.
    let delay = "update palisade.audit_horizon set recorded_at = now() - interval '2 minutes',
                                            recorded_by = pg_snapshot_xmax(pg_current_snapshot())";
    tamper(&urls, delay).await;
    serving.wait_for_line("a delay", |line| line["event"] == "audit_not_sealed").await;
}

#[tokio::test]
async fn log_05_delayed_sealing_fails_and_long_trails_are_sealed_in_parts() {
    let urls = SERVICE.database().await;
    let mut idle = sqlx::PgConnection::connect(urls.reader.expose_secret()).await.unwrap();
    let begin = format!("{NO_TIMEOUT}; begin; select pg_current_xact_id()");
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut idle).await.unwrap();
    seal(&urls).await;
    add_event(&urls.writer, "waits").await;
    seal(&urls).await;
    tamper(&urls, "update palisade.audit_horizon set recorded_at = now() - interval '2 minutes'").await;
    let error = run(&urls.writer, "select palisade.seal_audit_journal()").await.unwrap_err().to_string();
    assert!(error.contains("keeps the audit trail from being sealed"), "{error}");
    sqlx::raw_sql("rollback").execute(&mut idle).await.unwrap();
    // In parts: each transaction delays the seals of the tests beside this one.
    let many = format!(
        "set local app.tenant_id = '{0}';
         select palisade.record_audit_event('{0}', gen_random_uuid(), 'a user', 'a client', 'note_created', n::text, '')
         from generate_series(1, 1000) n",
        ACME.id
    );
    for _ in 0..11 {
        run(&urls.writer, &many).await.unwrap();
    }
    // Records the horizon. Then one interval seals all stretches, so the unsealed part cannot grow.
    eventually("the horizon includes them", async || {
        seal(&urls).await;
        query(&urls.owner, "select (upto = 11001)::text from palisade.audit_horizon").await == ["true"]
    })
    .await;
    let issuer = start_issuer(Clock::system()).await;
    let mut variables = TestApp::variables(&urls, issuer.url());
    variables.insert(SEAL_OFTEN.0.to_owned(), "10000".to_owned());
    let _serving = ServiceProcess::start(&SERVICE, &variables).await;
    until_all_is_sealed(&urls).await;
    let interval = "select (max(sealed_at) - min(sealed_at) < interval '10 s')::text from palisade.audit_seals
                    where events > 1";
    assert_eq!(query(&urls.owner, interval).await, ["true"]);
    let (found, summary) = verify(&SERVICE, &urls, None);
    assert_eq!(found, Ok(()));
    assert!(summary.starts_with("11001 events, 11001 of them under "), "{summary}");
    let largest = query(&urls.owner, "select max(events)::text from palisade.audit_seals").await;
    assert_eq!(largest, ["10000"]);
    // `record_audit_event` rejects subjects of operators and events without a client.
    for (subject, client) in [("Operator:me", "x"), ("me", "")] {
        let forged = format!(
            "set local app.tenant_id = '{0}';
             select palisade.record_audit_event('{0}', gen_random_uuid(), '{subject}', '{client}', 'note_created',
                                                'x', '')",
            ACME.id
        );
        let error = run(&urls.writer, &forged).await.unwrap_err().to_string();
        assert!(error.contains("cannot record an act of an operator"), "{error}");
    }
}
