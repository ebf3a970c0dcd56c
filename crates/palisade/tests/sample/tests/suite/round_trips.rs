//! Round trips to the database: how many a request takes, that tenants on a shared connection stay
//! apart (AUTHZ-07), and that no acknowledged change is lost or applied twice if the service stops
//! or is killed (FAIL-03).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Method;
use sample::{
    access::{roles, scopes},
    demo,
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::Connection;
use uuid::Uuid;

use crate::support::{
    ACME, Actor, GLOBEX, PgProxy, ProxiedApp, SERVICE, ServiceProcess, TestApp, eventually, id, note_body, person,
    query, search, start_issuer, wait_for_lock_wait,
};

/// A note with two items. No demo note lists either.
fn two_items() -> Value {
    let items = json!([{ "code": "PEN-BLUE", "count": 2 }, { "code": "PEN-RED", "count": 1 }]);
    json!({ "items": items, "priority": "standard", "email": "ann@example.com" })
}

#[tokio::test]
async fn reads_and_lists_take_one_round_trip_and_creates_two() {
    let proxied = ProxiedApp::start(&SERVICE).await;
    let admin = proxied.app.user(roles::ADMIN);
    let get = |path: &str| admin.request(Method::GET, path);
    let create = || admin.request(Method::POST, "/v1/notes").json(&two_items());
    let first = format!("/v1/notes/{}", demo::FIRST_NOTE);
    proxied
        .assert_messages(&admin, || {
            vec![
                ("getNote", get(&first), &["statement"]),
                ("getItem", get("/v1/items/PAPER-A4"), &["statement"]),
                // The response does not wait for the rollback (see the next test).
                ("listNotes", get("/v1/notes"), &["statement"]),
                (
                    "searchNotes",
                    admin.request(Method::POST, "/v1/notes/search").json(&json!({ "email": "ann@example.com" })),
                    &["begin", "statement", "rollback"],
                ),
                ("createNote", create(), &["statement", "statement"]),
                (
                    "createNote with a key",
                    create().header("idempotency-key", Uuid::now_v7().to_string()),
                    &["statement", "statement"],
                ),
            ]
        })
        .await;
}

#[tokio::test]
async fn searches_do_not_wait_for_their_rollback() {
    let proxied = ProxiedApp::start(&SERVICE).await;
    proxied.reader.lose_answer_to("rollback", 0);
    search(&proxied.app.user(roles::ADMIN), "ann@example.com").await;
    proxied.reader.wait_until_lost().await;
}

#[tokio::test]
async fn authz_07_tenants_on_a_shared_connection_stay_apart() {
    let ProxiedApp { app, .. } = &ProxiedApp::start(&SERVICE).await;
    let actors = [app.user(roles::ADMIN), app.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL)];
    let notes = ["0190a001-0000-7000-8000-000000000001", "0190a002-0000-7000-8000-000000000001"];
    let visit = async |round: usize| {
        let actor: &Actor = &actors[round % 2];
        let own = notes[round % 2];
        let foreign = notes[(round + 1) % 2];
        match round % 8 {
            0 => assert_eq!(actor.get(&format!("/v1/notes/{own}")).await.ok(200)["id"], own),
            1 => assert_eq!(actor.get(&format!("/v1/notes/{foreign}")).await.problem(404), "not_found"),
            2 => {
                let page = actor.get("/v1/notes?limit=100").await;
                assert!(page.text.contains(own) && !page.text.contains(foreign));
            }
            3 => assert_eq!(actor.post("/v1/notes", &two_items()).await.status, 201),
            // A failing statement, and a transaction that is rolled back.
            4 => {
                let archive = actor.request(Method::POST, &format!("/v1/notes/{foreign}/archive"));
                let archive = archive.header("idempotency-key", Uuid::now_v7().to_string());
                assert_eq!(actor.send(archive).await.problem(404), "not_found");
            }
            // A transaction that is committed: its tenant must not stay set on the connection.
            5 => {
                let change = actor.request(Method::PATCH, &format!("/v1/notes/{own}"));
                actor.send(change.json(&json!({ "remark": "changed" }))).await.ok(200);
            }
            6 => {
                let reserved = note_body("RESERVED", 1);
                assert_eq!(actor.post("/v1/notes", &reserved).await.problem(422), "unprocessable");
            }
            _ => assert_eq!(actor.get("/v1/items/PAPER-A4").await.ok(200)["notes"], 3),
        }
    };
    // In sequence with every pair of requests, then concurrently.
    for round in 0..16 {
        visit(round).await;
        visit(round * 3 + 1).await;
    }
    futures_util::future::join_all((0..42).map(visit)).await;
}

#[tokio::test]
async fn fail_03_stop_signal_lets_open_requests_finish() {
    let database = SERVICE.database().await;
    let issuer = start_issuer(palisade::model::Clock::system()).await;
    let admin = issuer.access_token(&person(&ACME, roles::ADMIN), &scopes::ALL);
    let process = ServiceProcess::start(&SERVICE, &TestApp::variables(&database, issuer.url())).await;
    let admin = Actor::new(process.address, Some(admin));
    let mut holder = sqlx::PgConnection::connect(database.owner.expose_secret()).await.unwrap();
    let begin = sqlx::AssertSqlSafe(format!("begin; set local app.tenant_id = '{}'", ACME.id));
    let mut tx = holder.begin_with(begin).await.unwrap();
    sqlx::query("select id from notes for update").execute(&mut *tx).await.unwrap();
    let change = admin.request(Method::PATCH, &format!("/v1/notes/{}", demo::FIRST_NOTE));
    let changed = admin.send(change.json(&json!({ "remark": "changed" })));
    let stop = async {
        wait_for_lock_wait(&database).await;
        let address = process.address;
        let stopping = tokio::spawn(process.terminate());
        // A stopping service accepts no new connections. The open request still waits for the lock.
        eventually("no new connections", async || tokio::net::TcpStream::connect(address).await.is_err()).await;
        tx.rollback().await.unwrap();
        stopping.await.unwrap()
    };
    let (changed, (status, log)) = tokio::join!(changed, stop);
    changed.ok(200);
    assert!(status.success(), "{status} {log}");
}

#[tokio::test]
async fn fail_03_retry_after_a_kill_between_commit_and_response_repeats_nothing() {
    let database = SERVICE.database().await;
    let issuer = start_issuer(palisade::model::Clock::system()).await;
    let admin = issuer.access_token(&person(&ACME, roles::ADMIN), &scopes::ALL);
    let mut variables = TestApp::variables(&database, issuer.url());
    let archive = format!("/v1/notes/{}/archive", demo::FIRST_NOTE);
    // A create is committed by its last statement, a transition by its commit.
    for (path, body, committed_by, count) in [
        ("/v1/notes", two_items(), "statement", "select count(*)::text from notes where created_by <> 'demo'"),
        (&archive, Value::Null, "commit", "select count(*)::text from notes where status = 'archived'"),
    ] {
        let proxy = PgProxy::start(&database.writer).await;
        variables.insert("APP_DATABASE__WRITER_URL".to_owned(), proxy.url().to_owned());
        variables.insert("APP_DATABASE__MAX_CONNECTIONS".to_owned(), "1".to_owned());
        let process = ServiceProcess::start(&SERVICE, &variables).await;
        let actor = Actor::new(process.address, Some(admin.clone()));
        let request = |actor: &Actor| {
            let request = actor.request(Method::POST, path).header("idempotency-key", "kill");
            if body.is_null() { request } else { request.json(&body) }
        };
        if committed_by == "statement" {
            // This request prepares the statements, which takes further messages. Of the two
            // statements the first only reads.
            actor.post(path, &body).await.ok(201);
            proxy.lose_answer_to(committed_by, 1);
        } else {
            proxy.lose_answer_to(committed_by, 0);
        }
        let before: usize = query(&database.owner, count).await[0].parse().unwrap();
        let unanswered = tokio::spawn(request(&actor).send());
        proxy.wait_until_lost().await;
        process.kill();
        assert!(unanswered.await.unwrap().is_err(), "the killed process sent a response");
        let after: usize = query(&database.owner, count).await[0].parse().unwrap();
        assert_eq!(after, before + 1, "{path}: the work was committed");

        variables.insert("APP_DATABASE__WRITER_URL".to_owned(), database.writer.expose_secret().to_owned());
        let process = ServiceProcess::start(&SERVICE, &variables).await;
        let actor = Actor::new(process.address, Some(admin.clone()));
        let retry = actor.send(request(&actor)).await;
        assert_eq!(retry.header("idempotent-replayed"), Some("true"), "{retry:?}");
        let created = id(&retry.ok(201));
        let stored = format!("select body from palisade.idempotency_keys where body like '%{created}%'");
        assert_eq!(query(&database.owner, &stored).await.len(), 1);
        assert_eq!(query(&database.owner, count).await, [after.to_string()], "{path}: the work was done twice");
    }
}

#[tokio::test]
async fn fail_03_acknowledged_notes_survive_kills_under_load_exactly_once() {
    let database = SERVICE.database().await;
    let issuer = start_issuer(palisade::model::Clock::system()).await;
    let admin = issuer.access_token(&person(&ACME, roles::ADMIN), &scopes::ALL);
    let variables = TestApp::variables(&database, issuer.url());
    let mut process = ServiceProcess::start(&SERVICE, &variables).await;
    let mut acknowledged = std::collections::BTreeMap::new();
    let created_count = Arc::new(AtomicUsize::new(0));
    for round in 0..3 {
        let mut clients = Vec::new();
        for client in 0..8 {
            let actor = Actor::new(process.address, Some(admin.clone()));
            let created_count = Arc::clone(&created_count);
            clients.push(tokio::spawn(async move {
                let mut created = Vec::new();
                for n in 0..1000 {
                    let key = format!("load-{round}-{client}-{n}");
                    let request = actor.request(Method::POST, "/v1/notes").header("idempotency-key", &key);
                    match request.json(&two_items()).send().await {
                        Ok(reply) if reply.status() == 201 => {
                            created.push((key, reply.json::<Value>().await.ok()));
                            created_count.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(reply) => assert_eq!(reply.status(), 429),
                        Err(_) => return created,
                    }
                }
                created
            }));
        }
        let enough = (round + 1) * 12;
        eventually("notes are created", async || created_count.load(Ordering::Relaxed) >= enough).await;
        process.kill();
        process = ServiceProcess::start(&SERVICE, &variables).await;
        for client in clients {
            let created = client.await.unwrap();
            acknowledged.extend(created.into_iter().filter_map(|(key, body)| Some((key, id(&body?)))));
        }
    }
    let stored = query(&database.owner, "select id::text from notes where created_by <> 'demo'").await;
    for (key, note) in &acknowledged {
        assert!(stored.contains(note), "{key}: an acknowledged note is lost");
    }
    let keys = query(&database.owner, "select key from palisade.idempotency_keys").await;
    assert_eq!(keys.len(), stored.len(), "a note without a stored response, or a response without its note");
    let actor = Actor::new(process.address, Some(admin));
    let (key, note) = acknowledged.first_key_value().unwrap();
    let retry = actor.request(Method::POST, "/v1/notes").header("idempotency-key", key).json(&two_items());
    assert_eq!(&id(&actor.send(retry).await.ok(201)), note);
}

#[tokio::test]
async fn fail_01_idle_connection_that_a_firewall_dropped_costs_no_request() {
    let proxied = ProxiedApp::start(&SERVICE).await;
    let admin = proxied.app.user(roles::ADMIN);
    admin.get("/v1/notes").await.ok(200);
    // Longer than a released connection is used without a test.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    proxied.reader.silence();
    admin.get("/v1/notes").await.ok(200);
    // The readiness probe has a connection of its own, which is as silent.
    let anonymous = proxied.app.anonymous();
    eventually("the service is ready", async || anonymous.get("/health/ready").await.status == 200).await;
}
