//! What goes to the database and back: how often, for which tenant, and what if the answer is lost.

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
    authz::{matrix::Scope, policy::Role},
    dev::demo,
};

use sqlx::Connection;

use crate::support::{
    ACME, Actor, Books, GLOBEX, Serving, TestApp, Wire, eventually, id, query, start_issuer, test_database,
    wait_for_a_waiter,
};

fn an_order() -> Value {
    json!({ "lines": [{ "sku": "PAPER-A4", "quantity": 2 }, { "sku": "PEN-BLUE", "quantity": 1 }], "shippingSpeed": "standard" })
}

/// An app with one connection per login, each over a wire.
async fn wired() -> (TestApp, Wire, Wire) {
    let database = test_database().await;
    let (writer, reader) = (Wire::to(&database.writer).await, Wire::to(&database.reader).await);
    let variables = [
        ("APP_DATABASE__WRITER_URL", writer.url()),
        ("APP_DATABASE__READER_URL", reader.url()),
        ("APP_DATABASE__MAX_CONNECTIONS", "1"),
        ("APP_DATABASE__ACQUIRE_TIMEOUT_MS", "30000"),
    ];
    let app = TestApp::start_on(database, &variables).await;
    (app, writer, reader)
}

#[tokio::test]
async fn a_read_is_one_message_a_list_two_and_a_create_at_most_two() {
    let (app, writer, reader) = wired().await;
    let admin = app.user(Role::Admin);
    let customer = json!({ "name": "Somebody", "email": "somebody@example.com" });
    let get = |path: String| admin.request(Method::GET, &path);
    let post = |path: &str, body: &Value| admin.request(Method::POST, path).json(body);
    let key = || uuid::Uuid::now_v7().to_string();
    let once = || -> Vec<(&str, reqwest::RequestBuilder, &[&str])> {
        vec![
            ("getOrder", get(format!("/v1/orders/{}", demo::FIRST_ORDER)), &["statement", "ping"]),
            ("getCustomer", get(format!("/v1/customers/{}", demo::FIRST_CUSTOMER)), &["statement", "ping"]),
            ("getInvoice", get(format!("/v1/invoices/{}", demo::OPEN_INVOICE)), &["statement", "ping"]),
            ("getProduct", get("/v1/products/PAPER-A4".to_owned()), &["statement", "ping"]),
            // Nobody waits for the rollback, nor for the pool's test of a connection that was given back; see below.
            ("listOrders", get("/v1/orders?status=paid".to_owned()), &["begin", "statement", "rollback", "ping"]),
            ("listCustomers", get("/v1/customers".to_owned()), &["begin", "statement", "rollback", "ping"]),
            ("createOrder", post("/v1/orders", &an_order()), &["statement", "statement", "ping"]),
            (
                "createOrder with a key",
                post("/v1/orders", &an_order()).header("idempotency-key", key()),
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
    // The first time prepares the statements; from then on the connection knows them.
    for (_, request, _) in once() {
        assert!(admin.send(request).await.status.is_success());
    }
    everything(&writer, &reader, 0).await;
    for (what, request, expected) in once() {
        assert!(admin.send(request).await.status.is_success());
        assert_eq!(everything(&writer, &reader, expected.len()).await, expected, "{what}");
    }
}

/// What was sent, once all connections have been given back and it is as much as that.
async fn everything(writer: &Wire, reader: &Wire, least: usize) -> Vec<String> {
    let mut messages = Vec::new();
    for _ in 0..200 {
        messages.extend(writer.take());
        messages.extend(reader.take());
        if messages.len() >= least && messages.last().is_none_or(|last| last == "ping") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    messages
}

#[tokio::test]
async fn a_list_does_not_wait_for_its_transaction_to_end() {
    let (app, _writer, reader) = wired().await;
    reader.lose_answer_to("rollback", 0);
    app.user(Role::Viewer).get("/v1/orders").await.ok(200);
    reader.lost().await;
}

#[tokio::test]
async fn authz_07_tenants_that_share_one_connection_never_meet() {
    let (app, _writer, _reader) = wired().await;
    let actors = [app.user(Role::Admin), app.user_of(&GLOBEX, Role::Admin, &Scope::ALL)];
    let orders = ["0190a001-0000-7000-8000-000000000001", "0190a002-0000-7000-8000-000000000001"];
    let visit = async |round: usize| {
        let (own, other) = (round % 2, (round + 1) % 2);
        let actor: &Actor = &actors[own];
        match round % 8 {
            0 => assert_eq!(actor.get(&format!("/v1/orders/{}", orders[own])).await.ok(200)["id"], orders[own]),
            1 => assert_eq!(actor.get(&format!("/v1/orders/{}", orders[other])).await.problem(404), "not_found"),
            2 => {
                let page = actor.get("/v1/orders?limit=100").await;
                assert!(page.text.contains(orders[own]) && !page.text.contains(orders[other]));
            }
            3 => assert_eq!(actor.post("/v1/orders", &an_order()).await.status, 201),
            // Statements that fail, and transactions that are rolled back.
            4 => {
                let path = format!("/v1/orders/{}/cancel", orders[other]);
                assert_eq!(actor.send(actor.request(Method::POST, &path)).await.problem(404), "not_found");
            }
            // A transaction that is committed: what is set in it must not stay.
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
    // One after the other in every order of two, then all at once.
    for round in 0..16 {
        visit(round).await;
        visit(round * 3 + 1).await;
    }
    let mut tasks = Vec::new();
    for round in 0..42 {
        tasks.push(visit(round));
    }
    futures_join(tasks).await;
}

async fn futures_join<F: Future<Output = ()>>(tasks: Vec<F>) {
    let mut tasks: Vec<_> = tasks.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        tasks.retain_mut(|task| task.as_mut().poll(context).is_pending());
        if tasks.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[tokio::test]
async fn fail_03_a_stop_signal_lets_a_request_in_flight_finish() {
    let database = test_database().await;
    let issuer = start_issuer(service::domain::Clock::system()).await;
    let admin = issuer.access_token(&crate::support::person(&ACME, Role::Admin), &Scope::ALL);
    let serving = Serving::start(&TestApp::variables(&database, issuer.url())).await;
    let books = Books { admin: Actor::new(serving.address, Some(admin)) };
    let mut holder = sqlx::PgConnection::connect(database.owner.expose_secret()).await.unwrap();
    let begin = sqlx::AssertSqlSafe(format!("begin; set local app.tenant_id = '{}'", ACME.id));
    let mut tx = holder.begin_with(begin).await.unwrap();
    sqlx::query("select id from orders for update").execute(&mut *tx).await.unwrap();
    let payment = json!({ "amount": { "amount": 1, "currency": "EUR" } });
    let invoice = demo::OPEN_INVOICE.to_string();
    let paid = books.pay_with(&invoice, &payment, None);
    let stopped = async {
        wait_for_a_waiter(&database).await;
        let address = serving.address;
        let stopping = tokio::spawn(serving.terminate());
        // Once it takes no new callers it is stopping; the one it has is answered when the order is free.
        eventually("no new callers", async || tokio::net::TcpStream::connect(address).await.is_err()).await;
        tx.rollback().await.unwrap();
        stopping.await.unwrap()
    };
    let (paid, (status, log)) = tokio::join!(paid, stopped);
    paid.ok(201);
    assert!(status.success(), "{status} {log}");
}

#[tokio::test]
async fn fail_03_killed_between_commit_and_answer_a_retry_finds_the_work_done_once() {
    let database = test_database().await;
    let issuer = start_issuer(service::domain::Clock::system()).await;
    let admin = issuer.access_token(&crate::support::person(&ACME, Role::Admin), &Scope::ALL);
    let mut variables = TestApp::variables(&database, issuer.url());
    let payment = json!({ "amount": { "amount": 77, "currency": "EUR" } });
    let pay = format!("/v1/invoices/{}/payments", demo::OPEN_INVOICE);
    // A create is committed by its last statement, a payment by its commit.
    for (path, body, committed_by, count) in [
        ("/v1/orders", an_order(), "statement", "select count(*)::text from orders where created_by <> 'demo'"),
        (pay.as_str(), payment, "commit", "select count(*)::text from payments where amount = 77"),
    ] {
        let wire = Wire::to(&database.writer).await;
        variables.insert("APP_DATABASE__WRITER_URL".to_owned(), wire.url().to_owned());
        variables.insert("APP_DATABASE__MAX_CONNECTIONS".to_owned(), "1".to_owned());
        let serving = Serving::start(&variables).await;
        let actor = Actor::new(serving.address, Some(admin.clone()));
        let request = || actor.request(Method::POST, path).header("idempotency-key", "kill").json(&body);
        if committed_by == "statement" {
            // Without this one, preparing each statement would be another message. The first statement only reads.
            actor.post(path, &body).await.ok(201);
            wire.lose_answer_to(committed_by, 1);
        } else {
            wire.lose_answer_to(committed_by, 0);
        }
        let before: usize = query(&database.owner, count).await[0].parse().unwrap();
        let unanswered = tokio::spawn(request().send());
        wire.lost().await;
        serving.kill();
        assert!(unanswered.await.unwrap().is_err(), "an answer came from a process that was killed");
        let after: usize = query(&database.owner, count).await[0].parse().unwrap();
        assert_eq!(after, before + 1, "{path}: the work was committed");

        variables.insert("APP_DATABASE__WRITER_URL".to_owned(), database.writer.expose_secret().to_owned());
        let serving = Serving::start(&variables).await;
        let actor = Actor::new(serving.address, Some(admin.clone()));
        let again = actor.request(Method::POST, path).header("idempotency-key", "kill").json(&body);
        let again = actor.send(again).await;
        assert_eq!(again.header("idempotent-replayed"), Some("true"), "{again:?}");
        let found = id(&again.ok(201));
        let stored = format!("select body from idempotency_keys where body like '%{found}%'");
        assert_eq!(query(&database.owner, &stored).await.len(), 1);
        assert_eq!(query(&database.owner, count).await, [after.to_string()], "{path}: the work was done twice");
    }
}

#[tokio::test]
async fn fail_03_killed_under_load_no_answered_order_is_lost_and_none_is_there_twice() {
    let database = test_database().await;
    let issuer = start_issuer(service::domain::Clock::system()).await;
    let admin = issuer.access_token(&crate::support::person(&ACME, Role::Admin), &Scope::ALL);
    let variables = TestApp::variables(&database, issuer.url());
    let mut serving = Serving::start(&variables).await;
    let mut answered = std::collections::BTreeMap::new();
    let placed = Arc::new(AtomicUsize::new(0));
    for round in 0..3 {
        let mut clients = Vec::new();
        for client in 0..8 {
            let (actor, placed) = (Actor::new(serving.address, Some(admin.clone())), Arc::clone(&placed));
            clients.push(tokio::spawn(async move {
                let mut got = Vec::new();
                for n in 0..1000 {
                    let key = format!("load-{round}-{client}-{n}");
                    let request = actor.request(Method::POST, "/v1/orders").header("idempotency-key", &key);
                    match request.json(&an_order()).send().await {
                        Ok(reply) if reply.status() == 201 => {
                            got.push((key, reply.json::<Value>().await.ok()));
                            placed.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(reply) => assert_eq!(reply.status(), 429),
                        Err(_) => return got,
                    }
                }
                got
            }));
        }
        let enough = (round + 1) * 12;
        eventually("orders are placed", async || placed.load(Ordering::Relaxed) >= enough).await;
        serving.kill();
        serving = Serving::start(&variables).await;
        for client in clients {
            let got = client.await.unwrap();
            answered.extend(got.into_iter().filter_map(|(key, body)| Some((key, id(&body?)))));
        }
    }
    let stored = query(&database.owner, "select id::text from orders where created_by <> 'demo'").await;
    for (key, order) in &answered {
        assert!(stored.contains(order), "{key}: the order that was answered with is lost");
    }
    let keys = query(&database.owner, "select key from idempotency_keys").await;
    assert_eq!(keys.len(), stored.len(), "an order without its answer, or an answer without its order");
    let books = Books { admin: Actor::new(serving.address, Some(admin)) };
    let (key, order) = answered.first_key_value().unwrap();
    let again = books.admin.request(Method::POST, "/v1/orders").header("idempotency-key", key).json(&an_order());
    assert_eq!(&id(&books.admin.send(again).await.ok(201)), order);
}
