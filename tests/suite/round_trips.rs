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
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use service::{
    access::{roles, scopes},
    demo,
};
use sqlx::Connection;

use crate::support::{
    ACME, Actor, BillingFixture, GLOBEX, PgProxy, SERVICE, ServiceProcess, TestApp, eventually, id, person, query,
    start_issuer, wait_for_lock_wait,
};

fn two_line_order() -> Value {
    let lines = json!([{ "sku": "PAPER-A4", "quantity": 2 }, { "sku": "PEN-BLUE", "quantity": 1 }]);
    json!({ "lines": lines, "shippingSpeed": "standard" })
}

/// An app with one connection per login, each through a proxy: the app, the writer's and the
/// reader's.
async fn start_with_proxies() -> (TestApp, PgProxy, PgProxy) {
    let database = SERVICE.database().await;
    let writer = PgProxy::start(&database.writer).await;
    let reader = PgProxy::start(&database.reader).await;
    let variables = [
        ("APP_DATABASE__WRITER_URL", writer.url()),
        ("APP_DATABASE__READER_URL", reader.url()),
        ("APP_DATABASE__MAX_CONNECTIONS", "1"),
        ("APP_DATABASE__ACQUIRE_TIMEOUT_MS", "30000"),
    ];
    let app = SERVICE.start_on(database, &variables).await;
    (app, writer, reader)
}

#[tokio::test]
async fn reads_and_lists_take_one_round_trip_and_creates_two() {
    let (app, writer, reader) = start_with_proxies().await;
    let admin = app.user(roles::ADMIN);
    let customer = json!({ "name": "Somebody", "email": "somebody@example.com" });
    let get = |path: String| admin.request(Method::GET, &path);
    let post = |path: &str, body: &Value| admin.request(Method::POST, path).json(body);
    let key = || uuid::Uuid::now_v7().to_string();
    let requests = || -> Vec<(&str, reqwest::RequestBuilder, &[&str])> {
        vec![
            ("getOrder", get(format!("/v1/orders/{}", demo::FIRST_ORDER)), &["statement", "ping"]),
            ("getCustomer", get(format!("/v1/customers/{}", demo::FIRST_CUSTOMER)), &["statement", "ping"]),
            ("getInvoice", get(format!("/v1/invoices/{}", demo::OPEN_INVOICE)), &["statement", "ping"]),
            ("getProduct", get("/v1/products/PAPER-A4".to_owned()), &["statement", "ping"]),
            // The response waits neither for the rollback (see the next test) nor for the pool's
            // test of the returned connection.
            ("listOrders", get("/v1/orders?status=paid".to_owned()), &["statement", "ping"]),
            ("listCustomers", get("/v1/customers".to_owned()), &["statement", "ping"]),
            (
                "listCustomers by e-mail address",
                get("/v1/customers?email=somebody@example.com".to_owned()),
                &["begin", "statement", "rollback", "ping"],
            ),
            ("createOrder", post("/v1/orders", &two_line_order()), &["statement", "statement", "ping"]),
            (
                "createOrder with a key",
                post("/v1/orders", &two_line_order()).header("idempotency-key", key()),
                &["statement", "statement", "ping"],
            ),
            ("createCustomer", post("/v1/customers", &customer), &["statement", "ping"]),
            (
                "createCustomer with a key",
                post("/v1/customers", &customer).header("idempotency-key", key()),
                &["statement", "statement", "ping"],
            ),
        ]
    };
    // The first round prepares the statements on the connection, which takes further messages.
    for (_, request, _) in requests() {
        assert!(admin.send(request).await.status.is_success());
    }
    take_messages(&writer, &reader, 0).await;
    for (what, request, expected) in requests() {
        assert!(admin.send(request).await.status.is_success());
        assert_eq!(take_messages(&writer, &reader, expected.len()).await, expected, "{what}");
    }
}

/// The messages since the last call, once there are at least this many and all connections are back
/// in the pool.
async fn take_messages(writer: &PgProxy, reader: &PgProxy, least: usize) -> Vec<String> {
    let mut messages = Vec::new();
    for _ in 0..200 {
        messages.extend(writer.take_messages());
        messages.extend(reader.take_messages());
        if messages.len() >= least && messages.last().is_none_or(|last| last == "ping") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    messages
}

#[tokio::test]
async fn searches_do_not_wait_for_their_rollback() {
    let (app, _writer, reader) = start_with_proxies().await;
    reader.lose_answer_to("rollback", 0);
    app.user(roles::ADMIN).get("/v1/customers?email=somebody@example.com").await.ok(200);
    reader.wait_until_lost().await;
}

#[tokio::test]
async fn authz_07_tenants_on_a_shared_connection_stay_apart() {
    let (app, _writer, _reader) = start_with_proxies().await;
    let actors = [app.user(roles::ADMIN), app.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL)];
    let orders = ["0190a001-0000-7000-8000-000000000001", "0190a002-0000-7000-8000-000000000001"];
    let visit = async |round: usize| {
        let actor: &Actor = &actors[round % 2];
        let own = orders[round % 2];
        let foreign = orders[(round + 1) % 2];
        match round % 8 {
            0 => assert_eq!(actor.get(&format!("/v1/orders/{own}")).await.ok(200)["id"], own),
            1 => assert_eq!(actor.get(&format!("/v1/orders/{foreign}")).await.problem(404), "not_found"),
            2 => {
                let page = actor.get("/v1/orders?limit=100").await;
                assert!(page.text.contains(own) && !page.text.contains(foreign));
            }
            3 => assert_eq!(actor.post("/v1/orders", &two_line_order()).await.status, 201),
            // A failing statement, and a transaction that is rolled back.
            4 => {
                let path = format!("/v1/orders/{foreign}/cancel");
                assert_eq!(actor.send(actor.request(Method::POST, &path)).await.problem(404), "not_found");
            }
            // A transaction that is committed: its tenant must not stay set on the connection.
            5 => {
                let pen = json!({ "name": "Ballpoint pen, blue", "price": { "amount": 129, "currency": "EUR" } });
                let put = actor.request(Method::PUT, "/v1/products/PEN-BLUE").json(&pen);
                actor.send(put).await.ok(200);
            }
            6 => {
                let unknown = json!({ "lines": [{ "sku": "NO-SUCH", "quantity": 1 }], "shippingSpeed": "standard" });
                assert_eq!(actor.post("/v1/orders", &unknown).await.problem(422), "unprocessable");
            }
            _ => {
                let page = actor.get("/v1/products?limit=100").await.ok(200);
                assert_eq!(page["items"].as_array().unwrap().len(), 5);
            }
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
    let billing = BillingFixture { admin: Actor::new(process.address, Some(admin)) };
    let mut holder = sqlx::PgConnection::connect(database.owner.expose_secret()).await.unwrap();
    let begin = sqlx::AssertSqlSafe(format!("begin; set local app.tenant_id = '{}'", ACME.id));
    let mut tx = holder.begin_with(begin).await.unwrap();
    sqlx::query("select id from orders for update").execute(&mut *tx).await.unwrap();
    let payment = json!({ "amount": { "amount": 1, "currency": "EUR" } });
    let invoice = demo::OPEN_INVOICE.to_string();
    let paid = billing.pay_with(&invoice, &payment, None);
    let stop = async {
        wait_for_lock_wait(&database).await;
        let address = process.address;
        let stopping = tokio::spawn(process.terminate());
        // A stopping service accepts no new connections. The open request still waits for the lock.
        eventually("no new connections", async || tokio::net::TcpStream::connect(address).await.is_err()).await;
        tx.rollback().await.unwrap();
        stopping.await.unwrap()
    };
    let (paid, (status, log)) = tokio::join!(paid, stop);
    paid.ok(201);
    assert!(status.success(), "{status} {log}");
}

#[tokio::test]
async fn fail_03_retry_after_a_kill_between_commit_and_response_repeats_nothing() {
    let database = SERVICE.database().await;
    let issuer = start_issuer(palisade::model::Clock::system()).await;
    let admin = issuer.access_token(&person(&ACME, roles::ADMIN), &scopes::ALL);
    let mut variables = TestApp::variables(&database, issuer.url());
    let payment = json!({ "amount": { "amount": 77, "currency": "EUR" } });
    let pay = format!("/v1/invoices/{}/payments", demo::OPEN_INVOICE);
    // A create is committed by its last statement, a payment by its commit.
    for (path, body, committed_by, count) in [
        ("/v1/orders", two_line_order(), "statement", "select count(*)::text from orders where created_by <> 'demo'"),
        (pay.as_str(), payment, "commit", "select count(*)::text from payments where amount = 77"),
    ] {
        let proxy = PgProxy::start(&database.writer).await;
        variables.insert("APP_DATABASE__WRITER_URL".to_owned(), proxy.url().to_owned());
        variables.insert("APP_DATABASE__MAX_CONNECTIONS".to_owned(), "1".to_owned());
        let process = ServiceProcess::start(&SERVICE, &variables).await;
        let actor = Actor::new(process.address, Some(admin.clone()));
        let request = || actor.request(Method::POST, path).header("idempotency-key", "kill").json(&body);
        if committed_by == "statement" {
            // This request prepares the statements, which takes further messages. Of the two
            // statements the first only reads.
            actor.post(path, &body).await.ok(201);
            proxy.lose_answer_to(committed_by, 1);
        } else {
            proxy.lose_answer_to(committed_by, 0);
        }
        let before: usize = query(&database.owner, count).await[0].parse().unwrap();
        let unanswered = tokio::spawn(request().send());
        proxy.wait_until_lost().await;
        process.kill();
        assert!(unanswered.await.unwrap().is_err(), "the killed process sent a response");
        let after: usize = query(&database.owner, count).await[0].parse().unwrap();
        assert_eq!(after, before + 1, "{path}: the work was committed");

        variables.insert("APP_DATABASE__WRITER_URL".to_owned(), database.writer.expose_secret().to_owned());
        let process = ServiceProcess::start(&SERVICE, &variables).await;
        let actor = Actor::new(process.address, Some(admin.clone()));
        let retry = actor.request(Method::POST, path).header("idempotency-key", "kill").json(&body);
        let retry = actor.send(retry).await;
        assert_eq!(retry.header("idempotent-replayed"), Some("true"), "{retry:?}");
        let created = id(&retry.ok(201));
        let stored = format!("select body from palisade.idempotency_keys where body like '%{created}%'");
        assert_eq!(query(&database.owner, &stored).await.len(), 1);
        assert_eq!(query(&database.owner, count).await, [after.to_string()], "{path}: the work was done twice");
    }
}

#[tokio::test]
async fn fail_03_acknowledged_orders_survive_kills_under_load_exactly_once() {
    let database = SERVICE.database().await;
    let issuer = start_issuer(palisade::model::Clock::system()).await;
    let admin = issuer.access_token(&person(&ACME, roles::ADMIN), &scopes::ALL);
    let variables = TestApp::variables(&database, issuer.url());
    let mut process = ServiceProcess::start(&SERVICE, &variables).await;
    let mut acknowledged = std::collections::BTreeMap::new();
    let placed = Arc::new(AtomicUsize::new(0));
    for round in 0..3 {
        let mut clients = Vec::new();
        for client in 0..8 {
            let actor = Actor::new(process.address, Some(admin.clone()));
            let placed = Arc::clone(&placed);
            clients.push(tokio::spawn(async move {
                let mut created = Vec::new();
                for n in 0..1000 {
                    let key = format!("load-{round}-{client}-{n}");
                    let request = actor.request(Method::POST, "/v1/orders").header("idempotency-key", &key);
                    match request.json(&two_line_order()).send().await {
                        Ok(reply) if reply.status() == 201 => {
                            created.push((key, reply.json::<Value>().await.ok()));
                            placed.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(reply) => assert_eq!(reply.status(), 429),
                        Err(_) => return created,
                    }
                }
                created
            }));
        }
        let enough = (round + 1) * 12;
        eventually("orders are placed", async || placed.load(Ordering::Relaxed) >= enough).await;
        process.kill();
        process = ServiceProcess::start(&SERVICE, &variables).await;
        for client in clients {
            let created = client.await.unwrap();
            acknowledged.extend(created.into_iter().filter_map(|(key, body)| Some((key, id(&body?)))));
        }
    }
    let stored = query(&database.owner, "select id::text from orders where created_by <> 'demo'").await;
    for (key, order) in &acknowledged {
        assert!(stored.contains(order), "{key}: an acknowledged order is lost");
    }
    let keys = query(&database.owner, "select key from palisade.idempotency_keys").await;
    assert_eq!(keys.len(), stored.len(), "an order without a stored response, or a response without its order");
    let actor = Actor::new(process.address, Some(admin));
    let (key, order) = acknowledged.first_key_value().unwrap();
    let retry = actor.request(Method::POST, "/v1/orders").header("idempotency-key", key).json(&two_line_order());
    assert_eq!(&id(&actor.send(retry).await.ok(201)), order);
}
