//! Idempotency keys (INPUT-10): retries get the stored response and repeat no work. A key belongs
//! to one caller, operation and body, and expires after 24 hours.

use http::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use service::{
    access::{roles, scopes},
    demo,
};
use sqlx::{Connection, PgConnection};

use crate::support::{
    ACME, Actor, BillingFixture, GLOBEX, Reply, SERVICE, TestApp, id, order_body, query, run, wait_for_lock_wait,
};

fn customer_body() -> Value {
    json!({ "name": "Somebody", "email": "somebody@example.com" })
}

async fn post(actor: &Actor, path: &str, key: &str, body: &Value) -> Reply {
    let request = actor.request(Method::POST, path).header("idempotency-key", key);
    actor.send(if body.is_null() { request } else { request.json(body) }).await
}

fn is_replay(reply: &Reply) -> bool {
    reply.header("idempotent-replayed") == Some("true")
}

/// The number of orders of this quantity.
async fn count_orders(app: &TestApp, quantity: i32) -> usize {
    let sql = format!("select order_id::text from order_lines where quantity = {quantity}");
    query(&app.database.owner, &sql).await.len()
}

#[tokio::test]
async fn input_10_retry_gets_the_stored_response_and_repeats_no_work() {
    let app = SERVICE.start().await;
    let sales = app.user(roles::SALES);
    let first = post(&sales, "/v1/orders", "k-1", &order_body("PAPER-A4", 41)).await;
    let order = first.clone().ok(201);
    assert!(!is_replay(&first));
    // The order changes; the stored response does not.
    let path = format!("/v1/orders/{}/cancel", id(&order.clone()));
    sales.send(sales.request(Method::POST, &path)).await.ok(200);
    for _ in 0..3 {
        let again = post(&sales, "/v1/orders", "k-1", &order_body("PAPER-A4", 41)).await;
        assert!(is_replay(&again));
        assert_eq!(again.header("location"), first.header("location"));
        assert_eq!(again.ok(201), order);
    }
    // Another spelling of the same JSON is the same request.
    let other_spelling = r#" {"shippingSpeed" : "standard", "lines":[{"quantity":41,"sku":"PAPER-A4"}]}"#;
    let request = sales.request(Method::POST, "/v1/orders").header("idempotency-key", "k-1");
    let again = sales.send(request.header("content-type", "application/json").body(other_spelling)).await;
    assert!(is_replay(&again), "{again:?}");
    assert_eq!(count_orders(&app, 41).await, 1);
    // Without an idempotency key, each request creates an order.
    sales.post("/v1/orders", &order_body("PAPER-A4", 41)).await.ok(201);
    assert_eq!(count_orders(&app, 41).await, 2);
}

#[tokio::test]
async fn input_10_idempotency_key_with_another_request_is_rejected() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    post(&fixture.admin, "/v1/orders", "reused", &order_body("PAPER-A4", 1)).await.ok(201);
    assert_eq!(
        post(&fixture.admin, "/v1/orders", "reused", &order_body("PAPER-A4", 2)).await.problem(422),
        "idempotency_key_reused"
    );
    let mut express = order_body("PAPER-A4", 1);
    express["shippingSpeed"] = json!("express");
    assert_eq!(post(&fixture.admin, "/v1/orders", "reused", &express).await.problem(422), "idempotency_key_reused");
    // The same body for another object is another request.
    let (_, first) = fixture.invoice("PEN-BLUE", 1).await;
    let (_, second) = fixture.invoice("PEN-BLUE", 1).await;
    let payment = json!({ "amount": { "amount": 1, "currency": "EUR" } });
    fixture.pay_with(&first, &payment, Some("for-one")).await.ok(201);
    assert_eq!(fixture.pay_with(&second, &payment, Some("for-one")).await.problem(422), "idempotency_key_reused");
    assert!(is_replay(&fixture.pay_with(&first, &payment, Some("for-one")).await));
}

#[tokio::test]
async fn input_10_idempotency_keys_are_separate_per_caller_and_operation() {
    let app = SERVICE.shared();
    let callers = [
        app.user(roles::ADMIN),
        app.user(roles::SALES),
        app.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL),
        app.bearer(app.forge().claim("client_id", "another-client").token()),
    ];
    let mut created = Vec::new();
    for actor in &callers {
        let reply = post(actor, "/v1/orders", "shared-key", &order_body("PAPER-A4", 1)).await;
        assert!(!is_replay(&reply), "a response went to another caller: {reply:?}");
        created.push(id(&reply.ok(201)));
        // The same key for another operation is another key.
        assert!(!is_replay(&post(actor, "/v1/customers", "shared-key", &customer_body()).await));
    }
    created.sort();
    created.dedup();
    assert_eq!(created.len(), callers.len());
}

#[tokio::test]
async fn input_10_retry_needs_the_rights_of_the_request() {
    let app = SERVICE.shared();
    let sales = app.user(roles::SALES);
    post(&sales, "/v1/orders", "right", &order_body("PAPER-A4", 1)).await.ok(201);
    // The same user, without the scope.
    let without = app.user_of(&ACME, roles::SALES, &[scopes::ORDERS_READ]);
    assert_eq!(
        post(&without, "/v1/orders", "right", &order_body("PAPER-A4", 1)).await.problem(403),
        "insufficient_scope"
    );
}

#[tokio::test]
async fn input_10_payments_need_a_valid_idempotency_key() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    let (_, invoice) = fixture.invoice("PEN-BLUE", 1).await;
    let payment = json!({ "amount": { "amount": 129, "currency": "EUR" } });
    let paths = [format!("/v1/invoices/{invoice}/payments"), format!("/v1/payments/{}/refunds", demo::FIRST_PAYMENT)];
    for path in &paths {
        let reply = fixture.admin.post(path, &payment).await;
        assert_eq!(reply.problem(400), "invalid_input");
        assert_eq!(reply.faults(), ["Idempotency-Key invalid"]);
        for key in ["", "two words", &"k".repeat(256), "t\u{e9}"] {
            let reply = post(&fixture.admin, path, key, &payment).await;
            assert_eq!(reply.faults(), ["Idempotency-Key invalid"], "{key:?}");
        }
    }
    // Where the key is optional, an invalid one is rejected too.
    let order = fixture.order("PEN-BLUE", 1).await;
    for path in ["/v1/orders", "/v1/customers", &format!("/v1/orders/{order}/invoice")] {
        for key in ["", "two words", &"k".repeat(256), "t\u{e9}"] {
            let body = if path.ends_with("/invoice") { &Value::Null } else { &payment };
            let faults = post(&fixture.admin, path, key, body).await.faults();
            assert_eq!(faults, ["Idempotency-Key invalid"], "{path} {key:?}");
        }
    }
    let two =
        fixture.admin.request(Method::POST, &paths[0]).header("idempotency-key", "a").header("idempotency-key", "b");
    assert_eq!(fixture.admin.send(two.json(&payment)).await.faults(), ["Idempotency-Key invalid"]);
    assert_eq!(fixture.pay_with(&invoice, &payment, Some(&"k".repeat(255))).await.status, 201);
}

#[tokio::test]
async fn input_10_failed_requests_are_not_stored() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    let (_, invoice) = fixture.invoice("PEN-BLUE", 1).await;
    let amount = |amount: i64| json!({ "amount": { "amount": amount, "currency": "EUR" } });
    assert_eq!(fixture.pay_with(&invoice, &amount(130), Some("tried")).await.status, 422);
    fixture.pay_with(&invoice, &amount(129), Some("tried")).await.ok(201);
}

#[tokio::test]
async fn input_10_retry_of_a_request_in_flight_gets_409() {
    let app = SERVICE.start().await;
    let fixture = BillingFixture::new(&app);
    let (order, invoice) = fixture.invoice("PEN-BLUE", 1).await;
    let payment = json!({ "amount": { "amount": 129, "currency": "EUR" } });
    // Another transaction locks the order, so the first request waits.
    let mut holder = PgConnection::connect(app.database.owner.expose_secret()).await.unwrap();
    let begin = sqlx::AssertSqlSafe(format!("begin; set local app.tenant_id = '{}'", ACME.id));
    let mut tx = holder.begin_with(begin).await.unwrap();
    let lock = sqlx::AssertSqlSafe(format!("select id from orders where id = '{order}' for update"));
    sqlx::query(lock).execute(&mut *tx).await.unwrap();
    let first = fixture.pay_with(&invoice, &payment, Some("slow"));
    let retry = async {
        wait_for_lock_wait(&app.database).await;
        let second = fixture.pay_with(&invoice, &payment, Some("slow")).await;
        tx.rollback().await.unwrap();
        second
    };
    let (first, second) = tokio::join!(first, retry);
    assert_eq!(second.problem(409), "request_in_flight");
    let first = first.ok(201);
    let third = fixture.pay_with(&invoice, &payment, Some("slow")).await;
    assert!(is_replay(&third));
    assert_eq!(third.ok(201), first);
}

#[tokio::test]
async fn input_10_concurrent_requests_with_one_key_create_one_object() {
    let app = SERVICE.shared();
    let admin = app.user(roles::ADMIN);
    let mut created = 0;
    let mut in_flight = 0;
    for round in 0..20 {
        for (path, body) in [("/v1/orders", &order_body("PAPER-A4", 1)), ("/v1/customers", &customer_body())] {
            let key = format!("race-{round}");
            let call = || post(&admin, path, &key, body);
            let (a, b, c, d) = tokio::join!(call(), call(), call(), call());
            let mut ids = Vec::new();
            for reply in [a, b, c, d] {
                if reply.status == 201 {
                    ids.push((is_replay(&reply), id(&reply.body)));
                } else {
                    assert_eq!(reply.problem(409), "request_in_flight");
                    in_flight += 1;
                }
            }
            created += ids.iter().filter(|(replay, _)| !replay).count();
            ids.sort();
            ids.dedup_by(|a, b| a.1 == b.1);
            assert_eq!(ids.len(), 1, "{path}: one idempotency key created two objects");
        }
    }
    assert_eq!(created, 40);
    assert!(in_flight > 0, "no two requests were concurrent, so the test proves nothing");
}

#[tokio::test]
async fn input_10_stored_responses_expire_after_a_day() {
    let app = SERVICE.start_with(&[("APP_OIDC__REFRESH_SECONDS", "1")]).await;
    // A request deletes up to 20 expired responses, the oldest first: these come before `daily`.
    for n in 0..21 {
        post(&app.user(roles::SALES), "/v1/orders", &format!("old-{n}"), &order_body("PAPER-A4", 1)).await.ok(201);
    }
    let first = id(&post(&app.user(roles::SALES), "/v1/orders", "daily", &order_body("PAPER-A4", 1)).await.ok(201));
    let hours = |hours: u64| std::time::Duration::from_hours(hours);
    app.clock.advance(hours(23));
    // Tokens and the issuer's keys have expired by now.
    app.wait_until_ready().await;
    let again = post(&app.user(roles::SALES), "/v1/orders", "daily", &order_body("PAPER-A4", 1)).await;
    assert_eq!((is_replay(&again), id(&again.body)), (true, first.clone()));
    app.clock.advance(hours(2));
    app.wait_until_ready().await;
    let next_day = post(&app.user(roles::SALES), "/v1/orders", "daily", &order_body("PAPER-A4", 1)).await;
    assert!(!is_replay(&next_day));
    assert_ne!(id(&next_day.ok(201)), first);
    // The next requests delete expired responses of other callers.
    app.clock.advance(hours(25));
    app.wait_until_ready().await;
    post(&app.user(roles::SALES), "/v1/customers", "another", &customer_body()).await.ok(201);
    let left = query(&app.database.owner, "select key from palisade.idempotency_keys").await;
    assert_eq!(left, ["another"], "two requests delete 22 expired responses");
}

#[tokio::test]
async fn input_10_stored_responses_are_immutable_and_erased_with_the_customer() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let customer = json!({ "name": "Canary Person", "email": "canary@example.com" });
    let created = post(&admin, "/v1/customers", "person", &customer).await.ok(201);
    let stored = query(&app.database.owner, "select body from palisade.idempotency_keys").await;
    assert!(stored[0].contains("Canary Person") && !stored[0].contains("canary@example.com"), "{stored:?}");
    for (change, message) in
        [("body = '{}'", "a stored response can only be emptied"), ("fingerprint = ''", "permission denied")]
    {
        let change = format!("set local app.tenant_id = '{}'; update palisade.idempotency_keys set {change}", ACME.id);
        let error = run(&app.database.writer, &change).await.unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let path = format!("/v1/customers/{}", id(&created));
    assert_eq!(admin.send(admin.request(Method::DELETE, &path)).await.status, 204);
    let left = "select coalesce(body, location, 'nothing') from palisade.idempotency_keys";
    assert_eq!(query(&app.database.owner, left).await, ["nothing"]);
    // A late retry does not create the customer again.
    assert_eq!(post(&admin, "/v1/customers", "person", &customer).await.problem(409), "conflict");
    assert_eq!(admin.get("/v1/customers?email=canary@example.com").await.ok(200)["items"], json!([]));
}
