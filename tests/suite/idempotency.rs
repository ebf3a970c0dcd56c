//! Repeating a creating request is safe.

use http::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use service::{
    authz::{matrix::Scope, policy::Role},
    dev::demo,
};
use sqlx::{Connection, PgConnection};

use crate::support::{ACME, Actor, Books, GLOBEX, Reply, TestApp, id, query, run, wait_for_a_waiter};

fn an_order(quantity: i32) -> Value {
    json!({ "lines": [{ "sku": "PAPER-A4", "quantity": quantity }], "shippingSpeed": "standard" })
}

async fn post(actor: &Actor, path: &str, key: &str, body: &Value) -> Reply {
    let request = actor.request(Method::POST, path).header("idempotency-key", key);
    actor.send(if body.is_null() { request } else { request.json(body) }).await
}

fn is_replay(reply: &Reply) -> bool {
    reply.header("idempotent-replayed") == Some("true")
}

async fn orders_of(app: &TestApp, quantity: i32) -> usize {
    let sql = format!("select order_id::text from order_lines where quantity = {quantity}");
    query(&app.database.owner, &sql).await.len()
}

#[tokio::test]
async fn input_10_a_repetition_gets_the_same_answer_and_does_nothing() {
    let app = TestApp::start().await;
    let sales = app.user(Role::Sales);
    let first = post(&sales, "/v1/orders", "k-1", &an_order(41)).await;
    let order = first.clone().ok(201);
    assert!(!is_replay(&first));
    // The order moves on; the answer to its creation does not.
    let path = format!("/v1/orders/{}/cancel", id(&order.clone()));
    sales.send(sales.request(Method::POST, &path)).await.ok(200);
    for _ in 0..3 {
        let again = post(&sales, "/v1/orders", "k-1", &an_order(41)).await;
        assert!(is_replay(&again));
        assert_eq!(again.header("location"), first.header("location"));
        assert_eq!(again.ok(201), order);
    }
    // Written otherwise, it says the same.
    let other_spelling = r#" {"shippingSpeed" : "standard", "lines":[{"quantity":41,"sku":"PAPER-A4"}]}"#;
    let request = sales.request(Method::POST, "/v1/orders").header("idempotency-key", "k-1");
    let again = sales.send(request.header("content-type", "application/json").body(other_spelling)).await;
    assert!(is_replay(&again), "{again:?}");
    assert_eq!(orders_of(&app, 41).await, 1);
    // Without a key, every request is a request.
    sales.post("/v1/orders", &an_order(41)).await.ok(201);
    assert_eq!(orders_of(&app, 41).await, 2);
}

#[tokio::test]
async fn input_10_a_key_belongs_to_one_request() {
    let app = TestApp::shared();
    let books = Books::of(app);
    post(&books.admin, "/v1/orders", "reused", &an_order(1)).await.ok(201);
    assert_eq!(post(&books.admin, "/v1/orders", "reused", &an_order(2)).await.problem(422), "idempotency_key_reused");
    let mut express = an_order(1);
    express["shippingSpeed"] = json!("express");
    assert_eq!(post(&books.admin, "/v1/orders", "reused", &express).await.problem(422), "idempotency_key_reused");
    // The same body for another object is another request.
    let (_, first) = books.invoice("PEN-BLUE", 1).await;
    let (_, second) = books.invoice("PEN-BLUE", 1).await;
    let payment = json!({ "amount": { "amount": 1, "currency": "EUR" } });
    books.pay_with(&first, &payment, Some("for-one")).await.ok(201);
    assert_eq!(books.pay_with(&second, &payment, Some("for-one")).await.problem(422), "idempotency_key_reused");
    assert!(is_replay(&books.pay_with(&first, &payment, Some("for-one")).await));
}

#[tokio::test]
async fn input_10_a_key_is_the_callers_own() {
    let app = TestApp::shared();
    let everybody = [
        app.user(Role::Admin),
        app.user(Role::Sales),
        app.user_of(&GLOBEX, Role::Admin, &Scope::ALL),
        app.bearer(app.forge().claim("client_id", "another-client").token()),
    ];
    let mut created = Vec::new();
    for actor in &everybody {
        let reply = post(actor, "/v1/orders", "shared-key", &an_order(1)).await;
        assert!(!is_replay(&reply), "an answer went to somebody else: {reply:?}");
        created.push(id(&reply.ok(201)));
        // Nor is it one of another operation.
        let customer = json!({ "name": "Somebody", "email": "somebody@example.com" });
        assert!(!is_replay(&post(actor, "/v1/customers", "shared-key", &customer).await));
    }
    created.sort();
    created.dedup();
    assert_eq!(created.len(), everybody.len());
}

#[tokio::test]
async fn input_10_a_repetition_needs_the_right_of_the_request() {
    let app = TestApp::shared();
    let sales = app.user(Role::Sales);
    post(&sales, "/v1/orders", "right", &an_order(1)).await.ok(201);
    // The same person, who has lost the scope since.
    let without = app.user_of(&ACME, Role::Sales, &[Scope::OrdersRead]);
    assert_eq!(post(&without, "/v1/orders", "right", &an_order(1)).await.problem(403), "insufficient_scope");
}

#[tokio::test]
async fn input_10_what_moves_money_needs_a_key_of_its_form() {
    let app = TestApp::shared();
    let books = Books::of(app);
    let (_, invoice) = books.invoice("PEN-BLUE", 1).await;
    let payment = json!({ "amount": { "amount": 129, "currency": "EUR" } });
    let paths = [format!("/v1/invoices/{invoice}/payments"), format!("/v1/payments/{}/refunds", demo::FIRST_PAYMENT)];
    for path in &paths {
        let reply = books.admin.post(path, &payment).await;
        assert_eq!(reply.problem(400), "invalid_input");
        assert_eq!(reply.faults(), ["Idempotency-Key invalid"]);
        for key in ["", "two words", &"k".repeat(256), "t\u{e9}"] {
            let reply = post(&books.admin, path, key, &payment).await;
            assert_eq!(reply.faults(), ["Idempotency-Key invalid"], "{key:?}");
        }
    }
    // Where a key is optional, a bad one is not taken for none.
    let order = books.order("PEN-BLUE", 1).await;
    for path in ["/v1/orders", "/v1/customers", &format!("/v1/orders/{order}/invoice")] {
        for key in ["", "two words", &"k".repeat(256), "t\u{e9}"] {
            let body = if path.ends_with("/invoice") { &Value::Null } else { &payment };
            let faults = post(&books.admin, path, key, body).await.faults();
            assert_eq!(faults, ["Idempotency-Key invalid"], "{path} {key:?}");
        }
    }
    let two =
        books.admin.request(Method::POST, &paths[0]).header("idempotency-key", "a").header("idempotency-key", "b");
    assert_eq!(books.admin.send(two.json(&payment)).await.faults(), ["Idempotency-Key invalid"]);
    assert_eq!(books.pay_with(&invoice, &payment, Some(&"k".repeat(255))).await.status, 201);
}

#[tokio::test]
async fn input_10_what_failed_is_not_remembered() {
    let app = TestApp::shared();
    let books = Books::of(app);
    let (_, invoice) = books.invoice("PEN-BLUE", 1).await;
    let amount = |amount: i64| json!({ "amount": { "amount": amount, "currency": "EUR" } });
    assert_eq!(books.pay_with(&invoice, &amount(130), Some("tried")).await.status, 422);
    books.pay_with(&invoice, &amount(129), Some("tried")).await.ok(201);
}

#[tokio::test]
async fn input_10_a_repetition_in_flight_is_told_to_come_back() {
    let app = TestApp::start().await;
    let books = Books::of(&app);
    let (order, invoice) = books.invoice("PEN-BLUE", 1).await;
    let payment = json!({ "amount": { "amount": 129, "currency": "EUR" } });
    // Somebody holds the order, so the first request waits in the middle of its work.
    let mut holder = PgConnection::connect(app.database.owner.expose_secret()).await.unwrap();
    let begin = sqlx::AssertSqlSafe(format!("begin; set local app.tenant_id = '{}'", ACME.id));
    let mut tx = holder.begin_with(begin).await.unwrap();
    let lock = sqlx::AssertSqlSafe(format!("select id from orders where id = '{order}' for update"));
    sqlx::query(lock).execute(&mut *tx).await.unwrap();
    let first = books.pay_with(&invoice, &payment, Some("slow"));
    let others = async {
        wait_for_a_waiter(&app.database).await;
        let second = books.pay_with(&invoice, &payment, Some("slow")).await;
        tx.rollback().await.unwrap();
        second
    };
    let (first, second) = tokio::join!(first, others);
    assert_eq!(second.problem(409), "request_in_flight");
    let first = first.ok(201);
    let third = books.pay_with(&invoice, &payment, Some("slow")).await;
    assert!(is_replay(&third));
    assert_eq!(third.ok(201), first);
}

#[tokio::test]
async fn input_10_of_two_creations_with_one_key_one_wins() {
    let app = TestApp::shared();
    let admin = app.user(Role::Admin);
    let customer = json!({ "name": "Somebody", "email": "somebody@example.com" });
    let (mut won_at_once, mut in_flight) = (0, 0);
    for round in 0..20 {
        for (path, body) in [("/v1/orders", &an_order(1)), ("/v1/customers", &customer)] {
            let key = format!("race-{round}");
            let ask = || post(&admin, path, &key, body);
            let (a, b, c, d) = tokio::join!(ask(), ask(), ask(), ask());
            let mut ids = Vec::new();
            for reply in [a, b, c, d] {
                if reply.status == 201 {
                    ids.push((is_replay(&reply), id(&reply.body)));
                } else {
                    assert_eq!(reply.problem(409), "request_in_flight");
                    in_flight += 1;
                }
            }
            won_at_once += ids.iter().filter(|(replay, _)| !replay).count();
            ids.sort();
            ids.dedup_by(|a, b| a.1 == b.1);
            assert_eq!(ids.len(), 1, "{path}: one key made two things");
        }
    }
    assert_eq!(won_at_once, 40);
    assert!(in_flight > 0, "no two requests ever met, so this proves nothing");
}

#[tokio::test]
async fn input_10_an_answer_counts_for_a_day_and_is_then_deleted() {
    let app = TestApp::start_with(&[("APP_OIDC__REFRESH_SECONDS", "1")]).await;
    // More than are swept up at once, and older, so that what is tried below is not swept up by chance.
    for n in 0..21 {
        post(&app.user(Role::Sales), "/v1/orders", &format!("old-{n}"), &an_order(1)).await.ok(201);
    }
    let first = id(&post(&app.user(Role::Sales), "/v1/orders", "daily", &an_order(1)).await.ok(201));
    let hours = |hours: u64| std::time::Duration::from_hours(hours);
    app.clock.advance(hours(23));
    // Neither tokens nor the issuer's word for its keys live that long.
    app.wait_until_ready().await;
    let again = post(&app.user(Role::Sales), "/v1/orders", "daily", &an_order(1)).await;
    assert_eq!((is_replay(&again), id(&again.body)), (true, first.clone()));
    app.clock.advance(hours(2));
    app.wait_until_ready().await;
    let next_day = post(&app.user(Role::Sales), "/v1/orders", "daily", &an_order(1)).await;
    assert!(!is_replay(&next_day));
    assert_ne!(id(&next_day.ok(201)), first);
    // Whoever comes next sweeps up after those who do not come back.
    app.clock.advance(hours(25));
    app.wait_until_ready().await;
    let customer = json!({ "name": "Somebody", "email": "somebody@example.com" });
    post(&app.user(Role::Sales), "/v1/customers", "another", &customer).await.ok(201);
    let left = query(&app.database.owner, "select key from idempotency_keys").await;
    assert_eq!(left, ["another"], "22 expired answers were swept up by two requests");
}

#[tokio::test]
async fn input_10_a_stored_answer_can_neither_be_changed_nor_tells_of_the_erased() {
    let app = TestApp::start().await;
    let admin = app.user(Role::Admin);
    let customer = json!({ "name": "Canary Person", "email": "canary@example.com" });
    let created = post(&admin, "/v1/customers", "person", &customer).await.ok(201);
    let stored = query(&app.database.owner, "select body from idempotency_keys").await;
    assert!(stored[0].contains("Canary Person") && !stored[0].contains("canary@example.com"), "{stored:?}");
    for (change, refused) in [("body = '{}'", "an answer is only emptied"), ("fingerprint = ''", "permission denied")] {
        let change = format!("set local app.tenant_id = '{}'; update idempotency_keys set {change}", ACME.id);
        let error = run(&app.database.writer, &change).await.unwrap_err().to_string();
        assert!(error.contains(refused), "{error}");
    }
    let path = format!("/v1/customers/{}", id(&created));
    assert_eq!(admin.send(admin.request(Method::DELETE, &path)).await.status, 204);
    let left = "select coalesce(body, location, 'nothing') from idempotency_keys";
    assert_eq!(query(&app.database.owner, left).await, ["nothing"]);
    // A repetition that comes late does not bring the person back.
    assert_eq!(post(&admin, "/v1/customers", "person", &customer).await.problem(409), "conflict");
    assert_eq!(admin.get("/v1/customers?email=canary@example.com").await.ok(200)["items"], json!([]));
}
