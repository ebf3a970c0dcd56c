//! Invoices, payments and refunds: their state machine (INPUT-11), amounts (INPUT-09), limits
//! (INPUT-02), roles (AUTHZ-02) and events (LOG-01).

use serde_json::{Value, json};
use service::{
    access::{roles, scopes},
    demo,
};

use crate::support::{
    ACME, Actor, BillingFixture, SERVICE, ServiceProcess, TestApp, id, person, query, run, start_issuer,
};

fn eur(amount: i64) -> Value {
    json!({ "amount": amount, "currency": "EUR" })
}

#[tokio::test]
async fn input_11_order_is_invoiced_paid_in_parts_and_fulfilled() {
    let app = SERVICE.start().await;
    let fixture = BillingFixture::new(&app);
    let order = fixture.order("PAPER-A4", 3).await;
    let reply = fixture.issue(&order).await;
    let location = reply.header("location").unwrap().to_owned();
    let invoice = reply.ok(201);
    assert_eq!(invoice["orderId"], order.as_str());
    assert_eq!(invoice["number"], 3, "the demo data has two invoices");
    assert_eq!(invoice["status"], "open");
    assert_eq!((&invoice["total"], &invoice["outstanding"]), (&eur(1647), &eur(1647)));
    assert_eq!(
        invoice["lines"],
        json!([{ "sku": "PAPER-A4", "description": "Paper A4, 500 sheets", "quantity": 3, "unitPrice": eur(549) }])
    );
    assert_eq!(fixture.admin.get(&location).await.ok(200), invoice);
    assert_eq!(fixture.order_status(&order).await, "invoiced");

    let invoice_id = invoice["id"].as_str().unwrap();
    let part = fixture.pay(invoice_id, 1000).await.ok(201);
    assert_eq!((&part["amount"], &part["refunded"]), (&eur(1000), &eur(0)));
    let after = fixture.admin.get(&location).await.ok(200);
    assert_eq!((&after["status"], &after["outstanding"]), (&json!("open"), &eur(647)));
    assert_eq!(after["payments"], json!([part]));
    assert_eq!(fixture.pay(invoice_id, 648).await.faults(), ["/amount/amount exceeds_what_is_left"]);
    fixture.pay(invoice_id, 647).await.ok(201);
    let after = fixture.admin.get(&location).await.ok(200);
    assert_eq!((&after["status"], &after["outstanding"], &after["paid"]), (&json!("paid"), &eur(0), &eur(1647)));
    assert_eq!(fixture.order_status(&order).await, "paid");
    assert_eq!(fixture.pay(invoice_id, 1).await.problem(409), "conflict");
    assert_eq!(fixture.change(&format!("/v1/orders/{order}/cancel")).await.problem(409), "conflict");
    assert_eq!(fixture.change(&format!("{location}/void")).await.problem(409), "conflict");
    assert_eq!(fixture.change(&format!("/v1/orders/{order}/fulfil")).await.ok(200)["status"], "fulfilled");
    assert_eq!(fixture.change(&format!("/v1/orders/{order}/fulfil")).await.problem(409), "conflict");
    let list = fixture.admin.get("/v1/invoices?limit=1").await.ok(200);
    // A list has summaries: it is bounded, however many payments an invoice has.
    let mut summary = fixture.admin.get(&location).await.ok(200);
    for part in ["lines", "payments"] {
        assert!(summary.as_object_mut().unwrap().remove(part).is_some());
    }
    assert_eq!(list["items"][0], summary);
}

#[tokio::test]
async fn input_11_refunds_never_exceed_the_payment() {
    let app = SERVICE.start().await;
    let fixture = BillingFixture::new(&app);
    let (order, invoice) = fixture.invoice("PEN-BLUE", 10).await;
    let payment = id(&fixture.pay(&invoice, 1290).await.ok(201));
    let refund = fixture.refund(&payment, 290).await.ok(201);
    assert_eq!((&refund["paymentId"], &refund["amount"]), (&json!(payment), &eur(290)));
    assert_eq!(fixture.refund(&payment, 1001).await.faults(), ["/amount/amount exceeds_what_is_left"]);
    assert_eq!(fixture.order_status(&order).await, "paid");
    fixture.refund(&payment, 1000).await.ok(201);
    let after = fixture.admin.get(&format!("/v1/invoices/{invoice}")).await.ok(200);
    assert_eq!((&after["status"], &after["refunded"]), (&json!("refunded"), &eur(1290)));
    assert_eq!(after["payments"][0]["refunds"].as_array().unwrap().len(), 2);
    assert_eq!(fixture.order_status(&order).await, "refunded");
    assert_eq!(fixture.refund(&payment, 1).await.problem(409), "conflict");
    assert_eq!(fixture.pay(&invoice, 1).await.problem(409), "conflict");
}

#[tokio::test]
async fn input_11_fulfilled_order_stays_fulfilled_after_a_refund() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    let (order, invoice) = fixture.invoice("PEN-BLUE", 1).await;
    let payment = id(&fixture.pay(&invoice, 129).await.ok(201));
    fixture.change(&format!("/v1/orders/{order}/fulfil")).await.ok(200);
    fixture.refund(&payment, 129).await.ok(201);
    assert_eq!(fixture.order_status(&order).await, "fulfilled");
    assert_eq!(fixture.admin.get(&format!("/v1/invoices/{invoice}")).await.ok(200)["status"], "refunded");
}

#[tokio::test]
async fn input_11_invoice_with_unrefunded_payments_cannot_be_voided() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    let (order, first) = fixture.invoice("PEN-BLUE", 2).await;
    let payment = id(&fixture.pay(&first, 100).await.ok(201));
    let void = format!("/v1/invoices/{first}/void");
    assert_eq!(fixture.change(&void).await.problem(409), "conflict");
    assert_eq!(fixture.change(&format!("/v1/orders/{order}/cancel")).await.problem(409), "conflict");
    fixture.refund(&payment, 100).await.ok(201);
    assert_eq!(fixture.change(&void).await.ok(200)["status"], "void");
    assert_eq!(fixture.change(&void).await.problem(409), "conflict");
    assert_eq!(fixture.pay(&first, 258).await.problem(409), "conflict");
    // A corrected invoice may follow, with a new number.
    assert_eq!(fixture.order_status(&order).await, "placed");
    let second = fixture.issue(&order).await.ok(201);
    assert_ne!(second["id"], first.as_str());
    // Cancelling the order voids its invoice.
    assert_eq!(fixture.change(&format!("/v1/orders/{order}/cancel")).await.ok(200)["status"], "cancelled");
    let path = format!("/v1/invoices/{}", second["id"].as_str().unwrap());
    assert_eq!(fixture.admin.get(&path).await.ok(200)["status"], "void");
    assert_eq!(fixture.issue(&order).await.problem(409), "conflict");
}

#[tokio::test]
async fn input_09_invoice_of_zero_is_paid_at_once() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    fixture.put_product("GIFT-1", 0).await;
    let (order, invoice) = fixture.invoice("GIFT-1", 100).await;
    assert_eq!(fixture.order_status(&order).await, "paid");
    let invoice = fixture.admin.get(&format!("/v1/invoices/{invoice}")).await.ok(200);
    assert_eq!((&invoice["status"], &invoice["total"]), (&json!("paid"), &eur(0)));
}

#[tokio::test]
async fn input_09_invalid_amounts_are_rejected() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    let (_, invoice) = fixture.invoice("PEN-BLUE", 1).await;
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
        let reply = fixture.pay_with(&invoice, &json!({ "amount": amount }), None).await;
        assert_eq!(reply.faults(), [fault], "{amount}");
    }
    let untouched = fixture.admin.get(&format!("/v1/invoices/{invoice}")).await.ok(200);
    assert_eq!(untouched["paid"], eur(0));
}

#[tokio::test]
async fn input_09_overflowing_total_is_rejected() {
    let app = SERVICE.start().await;
    let fixture = BillingFixture::new(&app);
    // The API rejects such a price, so the test inserts it.
    let expensive = json!({ "name": "Moon", "price": eur(1_000_000_001) });
    let put = fixture.admin.request(http::Method::PUT, "/v1/products/MOON-1").json(&expensive);
    assert_eq!(fixture.admin.send(put).await.faults(), ["/price/amount too_large"]);
    for (sku, price, currency) in [("MOON-1", i64::MAX / 2, "EUR"), ("MOON-2", 1, "USD")] {
        let insert = format!(
            "set local app.tenant_id = '{0}'; insert into products values ('{0}', '{sku}', 'Moon', {price}, '{currency}')",
            ACME.id
        );
        run(&app.database.owner, &insert).await.unwrap();
    }
    let order_count = query(&app.database.owner, "select count(*)::text from orders").await;
    let line = |sku: &str, quantity: i32| json!({ "sku": sku, "quantity": quantity });
    for lines in [
        json!([line("MOON-1", 3)]),
        json!([line("MOON-1", 2), line("PEN-BLUE", 1)]),
        json!([line("PEN-BLUE", 1), line("MOON-2", 1)]),
    ] {
        let order = json!({ "lines": lines, "shippingSpeed": "standard" });
        let reply = fixture.admin.post("/v1/orders", &order).await;
        assert_eq!(reply.problem(422), "unprocessable", "{lines}");
        assert_eq!(reply.faults(), ["/lines total"]);
    }
    assert_eq!(query(&app.database.owner, "select count(*)::text from orders").await, order_count);
}

#[tokio::test]
async fn input_11_issued_invoice_keeps_its_prices() {
    let app = SERVICE.start().await;
    let fixture = BillingFixture::new(&app);
    let (order, invoice) = fixture.invoice("DESK-160", 1).await;
    let path = format!("/v1/invoices/{invoice}");
    let before = fixture.admin.get(&path).await.ok(200);
    let placed = fixture.admin.get(&format!("/v1/orders/{order}")).await;
    fixture.put_product("DESK-160", 1).await;
    assert_eq!(fixture.admin.get(&path).await.ok(200), before);
    assert_eq!(fixture.admin.get(&format!("/v1/orders/{order}")).await.body, placed.body);
    let change = format!("set local app.tenant_id = '{}'; update invoice_lines set unit_price_amount = 1", ACME.id);
    let error = run(&app.database.writer, &change).await.unwrap_err().to_string();
    assert!(error.contains("permission denied"), "{error}");
}

#[tokio::test]
async fn input_02_invoice_has_at_most_100_payments_and_100_refunds_each() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    let (order, invoice) = fixture.invoice("CHAIR-PRO", 1).await;
    let payment = id(&fixture.pay(&invoice, 200).await.ok(201));
    for _ in 0..100 {
        fixture.refund(&payment, 1).await.ok(201);
    }
    assert_eq!(fixture.refund(&payment, 1).await.faults(), [" too_many"]);
    for _ in 1..100 {
        fixture.pay(&invoice, 1).await.ok(201);
    }
    assert_eq!(fixture.pay(&invoice, 1).await.faults(), [" too_many"]);
    // What settles is beyond the limits: the rest of a payment, and all that is outstanding.
    fixture.refund(&payment, 100).await.ok(201);
    fixture.pay(&invoice, 32_900 - 99).await.ok(201);
    let settled = fixture.admin.get(&format!("/v1/invoices/{invoice}")).await.ok(200);
    assert_eq!((&settled["status"], &settled["outstanding"]), (&json!("paid"), &eur(0)));
    assert_eq!(settled["payments"].as_array().unwrap().len(), 101);
    assert_eq!(settled["payments"][0]["refunds"].as_array().unwrap().len(), 101);
    assert_eq!(fixture.order_status(&order).await, "paid");
}

#[tokio::test]
async fn input_02_invoice_at_its_limit_can_be_refunded_and_voided() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    let (order, invoice) = fixture.invoice("CHAIR-PRO", 1).await;
    let mut payments = Vec::new();
    for amount in [200].into_iter().chain([1; 99]) {
        payments.push(id(&fixture.pay(&invoice, amount).await.ok(201)));
    }
    for _ in 0..100 {
        fixture.refund(&payments[0], 1).await.ok(201);
    }
    assert_eq!(fixture.refund(&payments[0], 99).await.faults(), [" too_many"]);
    fixture.refund(&payments[0], 100).await.ok(201);
    for payment in &payments[1..] {
        fixture.refund(payment, 1).await.ok(201);
    }
    assert_eq!(fixture.change(&format!("/v1/invoices/{invoice}/void")).await.ok(200)["status"], "void");
    assert_eq!(fixture.order_status(&order).await, "placed");
}

#[tokio::test]
async fn authz_02_roles_without_billing_rights_cannot_record_payments() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    let (order, invoice) = fixture.invoice("PEN-BLUE", 1).await;
    let payment = json!({ "amount": eur(129) });
    let pay = async |actor: &Actor| {
        let request = actor.request(http::Method::POST, &format!("/v1/invoices/{invoice}/payments"));
        actor.send(request.header("idempotency-key", "sales").json(&payment)).await
    };
    for role in [roles::VIEWER, roles::SALES, roles::AUDITOR] {
        assert_eq!(pay(&app.user(role)).await.problem(403), "forbidden", "{role:?}");
    }
    assert_eq!(fixture.order_status(&order).await, "invoiced");
    app.user(roles::AUDITOR).get(&format!("/v1/invoices/{invoice}")).await.ok(200);
}

#[tokio::test]
async fn log_01_cancelled_order_and_voided_invoice_have_an_event_each() {
    let database = SERVICE.database().await;
    let issuer = start_issuer(palisade::model::Clock::system()).await;
    let serving = ServiceProcess::start(&SERVICE, &TestApp::variables(&database, issuer.url())).await;
    let token = issuer.access_token(&person(&ACME, roles::SALES), &scopes::ALL);
    let sales = Actor::new(serving.address, Some(token));
    let order = "0190a001-0000-7000-8000-000000000004";
    let path = format!("/v1/orders/{order}/cancel");
    sales.send(sales.request(http::Method::POST, &path)).await.ok(200);
    let (_, log) = serving.terminate().await;
    for (action, object) in [("order_cancelled", order), ("invoice_voided", &demo::OPEN_INVOICE.to_string())] {
        let is_event = |line: &&str| line.contains(&format!("\"{action}\"")) && line.contains(object);
        assert!(log.lines().any(|line| is_event(&line) && line.contains("sales@acme.example")), "{action}: {log}");
    }
}
