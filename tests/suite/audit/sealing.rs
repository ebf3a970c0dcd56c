//! When what is sealed, by the function that the service calls.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use service::{dev::database::Urls, domain::Clock};
use sqlx::{AssertSqlSafe, Connection as _};

use super::verify::{SEALING, sealed, tamper, until_all_is_sealed, verify};
use crate::support::{ACME, Serving, TestApp, eventually, query, run, start_issuer, test_database};

/// The time-out of the login would end a session that a test keeps idle.
const NO_LIMIT: &str = "set idle_in_transaction_session_timeout = 0";

/// Seals as the service does, in a transaction of its own. It may have to wait: transactions of all databases of the server
/// count, those of other tests too.
async fn seal(urls: &Urls) {
    // Said by the function if it has waited long.
    let _ = run(&urls.writer, "select seal_audit_journal()").await;
}

async fn seal_all(urls: &Urls) {
    eventually("all is sealed", async || {
        seal(urls).await;
        let (upto, last) = sealed(urls).await;
        upto == last
    })
    .await;
}

fn an_event(object: &str) -> String {
    format!(
        "select note_audit_event('{}', gen_random_uuid(), 'somebody', 'a client', 'product_put', '{object}', '')",
        ACME.id
    )
}

async fn note(writer: &SecretString, object: &str) {
    run(writer, &format!("set local app.tenant_id = '{}'; {}", ACME.id, an_event(object))).await.unwrap();
}

#[tokio::test]
async fn log_05_what_is_under_way_is_sealed_when_it_is_over() {
    let urls = test_database().await;
    let mut slow = sqlx::PgConnection::connect(urls.writer.expose_secret()).await.unwrap();
    let begin = format!("{NO_LIMIT}; begin; set local app.tenant_id = '{}'; {}", ACME.id, an_event("slow"));
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut slow).await.unwrap();
    // It has the first position, and is not committed.
    for n in 0..3 {
        note(&urls.writer, &format!("quick {n}")).await;
        seal(&urls).await;
    }
    assert_eq!(sealed(&urls).await, (0, 4));
    sqlx::raw_sql("commit").execute(&mut slow).await.unwrap();
    seal_all(&urls).await;
    assert_eq!(sealed(&urls).await, (4, 4));
    assert_eq!(verify(&urls, None).0, Ok(()));
    // What is rolled back leaves a gap, and nothing else.
    let begin = format!("begin; set local app.tenant_id = '{}'; {}; rollback", ACME.id, an_event("never"));
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut slow).await.unwrap();
    note(&urls.writer, "after").await;
    seal_all(&urls).await;
    assert_eq!(sealed(&urls).await, (6, 6));
    assert!(verify(&urls, None).1.starts_with("5 events, 5 of them under "));
    // In a transaction that wrote before, it could not know what is over.
    let sql = format!("set local app.tenant_id = '{}'; {}; select seal_audit_journal()", ACME.id, an_event("mine"));
    assert!(run(&urls.writer, &sql).await.unwrap_err().to_string().contains("a transaction of its own"));
}

#[tokio::test]
async fn log_05_two_replicas_seal_one_chain_and_a_restored_database_goes_on() {
    let urls = test_database().await;
    let stop = tokio::time::Instant::now() + Duration::from_secs(3);
    let sealing = || async {
        while tokio::time::Instant::now() < stop {
            seal(&urls).await;
        }
    };
    let writing = || async {
        for n in 0..200 {
            note(&urls.writer, &format!("object {n}")).await;
        }
    };
    tokio::join!(sealing(), sealing(), sealing(), writing(), writing());
    seal_all(&urls).await;
    let (found, said) = verify(&urls, None);
    assert_eq!(found, Ok(()));
    assert!(said.starts_with("400 events, 400 of them under "), "{said}");
    // A cluster that it was restored to counts its transactions from the beginning.
    tamper(&urls, "update audit_horizon set noted_by = '9000000000000000000'").await;
    note(&urls.writer, "after").await;
    seal_all(&urls).await;
    assert!(verify(&urls, None).1.starts_with("401 events, 401 of them under "));
}

#[tokio::test]
async fn log_05_the_service_tells_if_seals_were_taken_back_or_cannot_be_made() {
    let (urls, issuer) = (test_database().await, start_issuer(Clock::system()).await);
    let mut variables = TestApp::variables(&urls, issuer.url());
    variables.insert(SEALING.0.to_owned(), SEALING.1.to_owned());
    let mut serving = Serving::start(&variables).await;
    note(&urls.writer, "first").await;
    until_all_is_sealed(&urls).await;
    tamper(&urls, "delete from audit_seals; delete from audit_journal; delete from audit_events").await;
    note(&urls.writer, "instead of it").await;
    serving.line("a number again", |line| line["event"] == "audit_trail_invalid").await;
    let mut idle = sqlx::PgConnection::connect(urls.reader.expose_secret()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("{NO_LIMIT}; begin"))).execute(&mut idle).await.unwrap();
    let held = sqlx::query_scalar::<_, String>("select pg_current_xact_id()::text").fetch_one(&mut idle).await.unwrap();
    // From now on nothing is sealed; what was under way would note another horizon after this one.
    let held_up = format!("select (noted_by > '{held}')::text from audit_horizon");
    eventually("it is held up", async || query(&urls.owner, &held_up).await == ["true"]).await;
    // It had to be sealed a minute ago.
    let waiting = "update audit_horizon set noted_at = now() - interval '2 minutes',
                                            noted_by = pg_snapshot_xmax(pg_current_snapshot())";
    tamper(&urls, waiting).await;
    serving.line("that it cannot", |line| line["event"] == "audit_not_sealed").await;
}

#[tokio::test]
async fn log_05_a_trail_that_cannot_be_sealed_is_told_and_a_long_one_is_sealed_in_stretches() {
    let urls = test_database().await;
    let mut idle = sqlx::PgConnection::connect(urls.reader.expose_secret()).await.unwrap();
    let begin = format!("{NO_LIMIT}; begin; select pg_current_xact_id()");
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut idle).await.unwrap();
    seal(&urls).await;
    note(&urls.writer, "waits").await;
    seal(&urls).await;
    tamper(&urls, "update audit_horizon set noted_at = now() - interval '2 minutes'").await;
    let told = run(&urls.writer, "select seal_audit_journal()").await.unwrap_err().to_string();
    assert!(told.contains("keeps the audit trail from being sealed"), "{told}");
    sqlx::raw_sql("rollback").execute(&mut idle).await.unwrap();
    let many = format!(
        "set local app.tenant_id = '{0}';
         set local statement_timeout = 0;
         select note_audit_event('{0}', gen_random_uuid(), 'somebody', 'a client', 'product_put', n::text, '')
         from generate_series(1, 25000) n",
        ACME.id
    );
    run(&urls.writer, &many).await.unwrap();
    seal_all(&urls).await;
    let (found, said) = verify(&urls, None);
    assert_eq!(found, Ok(()));
    assert!(said.starts_with("25001 events, 25001 of them under "), "{said}");
    let largest = query(&urls.owner, "select max(events)::text from audit_seals").await;
    assert_eq!(largest, ["10000"]);
    // The service's own function is for what requests did.
    for (subject, client) in [("Operator:me", "x"), ("me", "")] {
        let lie = format!(
            "set local app.tenant_id = '{0}';
             select note_audit_event('{0}', gen_random_uuid(), '{subject}', '{client}', 'product_put', 'x', '')",
            ACME.id
        );
        assert!(run(&urls.writer, &lie).await.unwrap_err().to_string().contains("no act of an operator"));
    }
}
