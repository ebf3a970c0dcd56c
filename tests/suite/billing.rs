//! Invoices, payments and refunds, as a caller uses them.

use serde_json::{Value, json};
use service::{
    authz::{matrix::Scope, policy::Role},
    dev::demo,
};

use crate::support::{ACME, Actor, Books, Serving, TestApp, id, person, query, run, start_issuer, test_database};

fn eur(amount: i64) -> Value {
    json!({ "amount": amount, "currency": "EUR" })
}

#[tokio::test]
async fn an_order_is_invoiced_paid_in_parts_and_fulfilled() {
    let app = TestApp::start().await;
    let books = Books::of(&app);
    let order = books.order("PAPER-A4", 3).await;
    let reply = books.issue(&order).await;
    let location = reply.header("location").unwrap().to_owned();
    let invoice = reply.ok(201);
    assert_eq!(invoice["orderId"], order.as_str());
    assert_eq!(invoice["number"], 3, "the demo has two");
    assert_eq!(invoice["status"], "open");
    assert_eq!((&invoice["total"], &invoice["outstanding"]), (&eur(1647), &eur(1647)));
    assert_eq!(
        invoice["lines"],
        json!([{ "sku": "PAPER-A4", "description": "Paper A4, 500 sheets", "quantity": 3, "unitPrice": eur(549) }])
    );
    assert_eq!(books.admin.get(&location).await.ok(200), invoice);
    assert_eq!(books.order_status(&order).await, "invoiced");

    let id = invoice["id"].as_str().unwrap();
    let part = books.pay(id, 1000).await.ok(201);
    assert_eq!((&part["amount"], &part["refunded"]), (&eur(1000), &eur(0)));
    let after = books.admin.get(&location).await.ok(200);
    assert_eq!((&after["status"], &after["outstanding"]), (&json!("open"), &eur(647)));
    assert_eq!(after["payments"], json!([part]));
    assert_eq!(books.pay(id, 648).await.faults(), ["/amount/amount exceeds_what_is_left"]);
    books.pay(id, 647).await.ok(201);
    let after = books.admin.get(&location).await.ok(200);
    assert_eq!((&after["status"], &after["outstanding"], &after["paid"]), (&json!("paid"), &eur(0), &eur(1647)));
    assert_eq!(books.order_status(&order).await, "paid");
    assert_eq!(books.pay(id, 1).await.problem(409), "conflict");
    assert_eq!(books.change(&format!("/v1/orders/{order}/cancel")).await.problem(409), "conflict");
    assert_eq!(books.change(&format!("{location}/void")).await.problem(409), "conflict");
    assert_eq!(books.change(&format!("/v1/orders/{order}/fulfil")).await.ok(200)["status"], "fulfilled");
    assert_eq!(books.change(&format!("/v1/orders/{order}/fulfil")).await.problem(409), "conflict");
    let list = books.admin.get("/v1/invoices?limit=1").await.ok(200);
    assert_eq!(list["items"][0]["id"], invoice["id"]);
}

#[tokio::test]
async fn input_11_refunds_reach_the_total_and_no_further() {
    let app = TestApp::start().await;
    let books = Books::of(&app);
    let (order, invoice) = books.invoice("PEN-BLUE", 10).await;
    let payment = books.pay(&invoice, 1290).await.ok(201)["id"].as_str().unwrap().to_owned();
    let refund = books.refund(&payment, 290).await.ok(201);
    assert_eq!((&refund["paymentId"], &refund["amount"]), (&json!(payment), &eur(290)));
    assert_eq!(books.refund(&payment, 1001).await.faults(), ["/amount/amount exceeds_what_is_left"]);
    assert_eq!(books.order_status(&order).await, "paid");
    books.refund(&payment, 1000).await.ok(201);
    let after = books.admin.get(&format!("/v1/invoices/{invoice}")).await.ok(200);
    assert_eq!((&after["status"], &after["refunded"]), (&json!("refunded"), &eur(1290)));
    assert_eq!(after["payments"][0]["refunds"].as_array().unwrap().len(), 2);
    assert_eq!(books.order_status(&order).await, "refunded");
    assert_eq!(books.refund(&payment, 1).await.problem(409), "conflict");
    assert_eq!(books.pay(&invoice, 1).await.problem(409), "conflict");
}

#[tokio::test]
async fn a_delivered_order_stays_delivered_when_its_money_goes_back() {
    let app = TestApp::shared();
    let books = Books::of(app);
    let (order, invoice) = books.invoice("PEN-BLUE", 1).await;
    let payment = books.pay(&invoice, 129).await.ok(201)["id"].as_str().unwrap().to_owned();
    books.change(&format!("/v1/orders/{order}/fulfil")).await.ok(200);
    books.refund(&payment, 129).await.ok(201);
    assert_eq!(books.order_status(&order).await, "fulfilled");
    assert_eq!(books.admin.get(&format!("/v1/invoices/{invoice}")).await.ok(200)["status"], "refunded");
}

#[tokio::test]
async fn input_11_an_invoice_is_voided_only_while_no_money_is_kept() {
    let app = TestApp::shared();
    let books = Books::of(app);
    let (order, first) = books.invoice("PEN-BLUE", 2).await;
    let payment = books.pay(&first, 100).await.ok(201)["id"].as_str().unwrap().to_owned();
    let void = format!("/v1/invoices/{first}/void");
    assert_eq!(books.change(&void).await.problem(409), "conflict");
    assert_eq!(books.change(&format!("/v1/orders/{order}/cancel")).await.problem(409), "conflict");
    books.refund(&payment, 100).await.ok(201);
    assert_eq!(books.change(&void).await.ok(200)["status"], "void");
    assert_eq!(books.change(&void).await.problem(409), "conflict");
    assert_eq!(books.pay(&first, 258).await.problem(409), "conflict");
    // A corrected one may follow, under a number of its own.
    assert_eq!(books.order_status(&order).await, "placed");
    let second = books.issue(&order).await.ok(201);
    assert_ne!(second["id"], first.as_str());
    // Cancelling the order takes its invoice back.
    assert_eq!(books.change(&format!("/v1/orders/{order}/cancel")).await.ok(200)["status"], "cancelled");
    let path = format!("/v1/invoices/{}", second["id"].as_str().unwrap());
    assert_eq!(books.admin.get(&path).await.ok(200)["status"], "void");
    assert_eq!(books.issue(&order).await.problem(409), "conflict");
}

#[tokio::test]
async fn input_09_what_costs_nothing_is_paid_at_once() {
    let app = TestApp::shared();
    let books = Books::of(app);
    books.put_product("GIFT-1", 0).await;
    let (order, invoice) = books.invoice("GIFT-1", 100).await;
    assert_eq!(books.order_status(&order).await, "paid");
    let invoice = books.admin.get(&format!("/v1/invoices/{invoice}")).await.ok(200);
    assert_eq!((&invoice["status"], &invoice["total"]), (&json!("paid"), &eur(0)));
}

#[tokio::test]
async fn input_09_amounts_that_are_none_are_refused() {
    let app = TestApp::shared();
    let books = Books::of(app);
    let (_, invoice) = books.invoice("PEN-BLUE", 1).await;
    for (amount, fault) in [
        (json!({ "amount": 0, "currency": "EUR" }), "/amount/amount too_small"),
        (json!({ "amount": -129, "currency": "EUR" }), "/amount/amount too_small"),
        (json!({ "amount": 1.29, "currency": "EUR" }), "/amount/amount wrong_type"),
        (json!({ "amount": 1e16, "currency": "EUR" }), "/amount/amount wrong_type"),
        (json!({ "amount": "129", "currency": "EUR" }), "/amount/amount wrong_type"),
        (json!({ "amount": i64::MAX, "currency": "EUR" }), "/amount/amount too_large"),
        (json!({ "amount": 129, "currency": "eur" }), "/amount/currency format"),
        (json!({ "amount": 129, "currency": "USD" }), "/amount/currency other_currency"),
        (json!({ "amount": 129 }), "/amount/currency required"),
    ] {
        let reply = books.pay_with(&invoice, &json!({ "amount": amount }), None).await;
        assert_eq!(reply.faults(), [fault], "{amount}");
    }
    let untouched = books.admin.get(&format!("/v1/invoices/{invoice}")).await.ok(200);
    assert_eq!(untouched["paid"], eur(0));
}

#[tokio::test]
async fn input_09_a_total_beyond_all_numbers_is_an_error_and_no_order() {
    let app = TestApp::start().await;
    let books = Books::of(&app);
    // The service itself allows no such price.
    let dear = json!({ "name": "Moon", "price": eur(1_000_000_001) });
    let put = books.admin.request(http::Method::PUT, "/v1/products/MOON-1").json(&dear);
    assert_eq!(books.admin.send(put).await.faults(), ["/price/amount too_large"]);
    for (sku, price, currency) in [("MOON-1", i64::MAX / 2, "EUR"), ("MOON-2", 1, "USD")] {
        let insert = format!(
            "set local app.tenant_id = '{0}'; insert into products values ('{0}', '{sku}', 'Moon', {price}, '{currency}')",
            ACME.id
        );
        run(&app.database.owner, &insert).await.unwrap();
    }
    let orders = query(&app.database.owner, "select count(*)::text from orders").await;
    let line = |sku: &str, quantity: i32| json!({ "sku": sku, "quantity": quantity });
    for lines in [
        json!([line("MOON-1", 3)]),
        json!([line("MOON-1", 2), line("PEN-BLUE", 1)]),
        json!([line("PEN-BLUE", 1), line("MOON-2", 1)]),
    ] {
        let order = json!({ "lines": lines, "shippingSpeed": "standard" });
        let reply = books.admin.post("/v1/orders", &order).await;
        assert_eq!(reply.problem(422), "unprocessable", "{lines}");
        assert_eq!(reply.faults(), ["/lines total"]);
    }
    assert_eq!(query(&app.database.owner, "select count(*)::text from orders").await, orders);
}

#[tokio::test]
async fn an_invoice_is_frozen_when_it_is_issued() {
    let app = TestApp::start().await;
    let books = Books::of(&app);
    let (order, invoice) = books.invoice("DESK-160", 1).await;
    let path = format!("/v1/invoices/{invoice}");
    let (before, placed) =
        (books.admin.get(&path).await.ok(200), books.admin.get(&format!("/v1/orders/{order}")).await);
    books.put_product("DESK-160", 1).await;
    assert_eq!(books.admin.get(&path).await.ok(200), before);
    assert_eq!(books.admin.get(&format!("/v1/orders/{order}")).await.body, placed.body);
    let change = format!("set local app.tenant_id = '{}'; update invoice_lines set unit_price_amount = 1", ACME.id);
    let error = run(&app.database.writer, &change).await.unwrap_err().to_string();
    assert!(error.contains("permission denied"), "{error}");
}

#[tokio::test]
async fn input_02_an_invoice_has_so_many_payments_and_no_more() {
    let app = TestApp::shared();
    let books = Books::of(app);
    let (_, invoice) = books.invoice("CHAIR-PRO", 1).await;
    let payment = id(&books.pay(&invoice, 200).await.ok(201));
    for _ in 0..100 {
        books.refund(&payment, 1).await.ok(201);
    }
    assert_eq!(books.refund(&payment, 1).await.faults(), [" too_many"]);
    for _ in 1..100 {
        books.pay(&invoice, 1).await.ok(201);
    }
    assert_eq!(books.pay(&invoice, 1).await.faults(), [" too_many"]);
}

#[tokio::test]
async fn sales_may_not_touch_money_and_auditors_only_look() {
    let app = TestApp::shared();
    let books = Books::of(app);
    let (order, invoice) = books.invoice("PEN-BLUE", 1).await;
    let payment = json!({ "amount": eur(129) });
    let paid = async |actor: &Actor| {
        let request = actor.request(http::Method::POST, &format!("/v1/invoices/{invoice}/payments"));
        actor.send(request.header("idempotency-key", "sales").json(&payment)).await
    };
    for role in [Role::Viewer, Role::Sales, Role::Auditor] {
        assert_eq!(paid(&app.user(role)).await.problem(403), "forbidden", "{role:?}");
    }
    assert_eq!(books.order_status(&order).await, "invoiced");
    app.user(Role::Auditor).get(&format!("/v1/invoices/{invoice}")).await.ok(200);
}

#[tokio::test]
async fn cancelling_an_invoiced_order_leaves_an_event_for_each_of_the_two() {
    let database = test_database().await;
    let issuer = start_issuer(service::domain::Clock::system()).await;
    let serving = Serving::start(&TestApp::variables(&database, issuer.url())).await;
    let token = issuer.access_token(&person(&ACME, Role::Sales), &Scope::ALL);
    let sales = Actor::new(serving.address, Some(token));
    let order = "0190a001-0000-7000-8000-000000000004";
    let path = format!("/v1/orders/{order}/cancel");
    sales.send(sales.request(http::Method::POST, &path)).await.ok(200);
    let (_, log) = serving.terminate().await;
    for (action, object) in [("order_cancelled", order), ("invoice_voided", &demo::OPEN_INVOICE.to_string())] {
        let said = |line: &&str| line.contains(&format!("\"{action}\"")) && line.contains(object);
        assert!(log.lines().any(|line| said(&line) && line.contains("sales@acme.example")), "{action}: {log}");
    }
}
