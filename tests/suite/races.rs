//! Concurrent changes (INPUT-11): exactly one of them succeeds, and the amounts add up. Each test
//! repeats its race.
//!
//! The isolation level is read committed. Every change of an order, its invoices or their payments
//! locks the row of the order in the statement that reads it (`src/store/orders.rs`).

use std::collections::BTreeSet;

use crate::support::{ACME, BillingFixture, Reply, SERVICE, count_successes, during_transaction, id, query};

const ROUNDS: usize = 15;

#[tokio::test]
async fn input_11_concurrent_cancellations_succeed_once() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    for _ in 0..ROUNDS {
        let path = format!("/v1/orders/{}/cancel", fixture.order("PEN-BLUE", 1).await);
        let (a, b, c) = tokio::join!(fixture.change(&path), fixture.change(&path), fixture.change(&path));
        assert_eq!(count_successes(&[a, b, c], 409), 1);
    }
}

#[tokio::test]
async fn input_11_concurrent_payments_succeed_once() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    for _ in 0..ROUNDS {
        let (order, invoice) = fixture.invoice("PEN-BLUE", 1).await;
        let pay = || fixture.pay(&invoice, 129);
        let (a, b, c, d) = tokio::join!(pay(), pay(), pay(), pay());
        assert_eq!(count_successes(&[a, b, c, d], 409), 1);
        let after = fixture.admin.get(&format!("/v1/invoices/{invoice}")).await.ok(200);
        assert_eq!(after["paid"]["amount"], 129);
        assert_eq!(after["payments"].as_array().unwrap().len(), 1);
        assert_eq!(fixture.order_status(&order).await, "paid");
    }
}

/// The statement that waits for the lock began before the other change was committed.
#[tokio::test]
async fn input_11_change_that_waited_sees_what_it_waited_for() {
    let app = SERVICE.start().await;
    let fixture = BillingFixture::new(&app);
    let (order, invoice) = fixture.invoice("PEN-BLUE", 1).await;
    let payment = id(&fixture.pay(&invoice, 100).await.ok(201));
    let tenant = format!("set local app.tenant_id = '{}'", ACME.id);
    let lock = format!("{tenant}; select from orders where id = '{order}' for no key update");
    let pay = format!(
        "insert into payments (tenant_id, id, invoice_id, amount, created_by, created_at)
         select tenant_id, gen_random_uuid(), id, 20, 'x', now() from invoices where id = '{invoice}';
         update invoices set paid_amount = 120 where id = '{invoice}'"
    );
    let refund = format!(
        "insert into refunds (tenant_id, id, payment_id, amount, created_by, created_at)
         select tenant_id, gen_random_uuid(), id, 90, 'x', now() from payments where id = '{payment}';
         update payments set refunded_amount = 90 where id = '{payment}';
         update invoices set refunded_amount = 90 where id = '{invoice}'"
    );
    let invoiced_again = format!("update orders set updated_at = '2031-01-01 00:00:00Z' where id = '{order}'");
    let urls = &app.database;
    // 9 of 129 are left.
    let paid = during_transaction(urls, &lock, &pay, fixture.pay(&invoice, 29)).await;
    assert_eq!(paid.problem(422), "unprocessable");
    fixture.pay(&invoice, 9).await.ok(201);
    let refunded = during_transaction(urls, &lock, &refund, fixture.refund(&payment, 11)).await;
    assert_eq!(refunded.problem(422), "unprocessable");
    let fulfilled = format!("/v1/orders/{order}/fulfil");
    during_transaction(urls, &lock, &invoiced_again, fixture.change(&fulfilled)).await.ok(200);
}

#[tokio::test]
async fn input_11_concurrent_refunds_never_exceed_the_payment() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    for _ in 0..ROUNDS {
        let (_, invoice) = fixture.invoice("PEN-BLUE", 1).await;
        let payment = id(&fixture.pay(&invoice, 129).await.ok(201));
        let refund = || fixture.refund(&payment, 80);
        let (a, b, c, d) = tokio::join!(refund(), refund(), refund(), refund());
        assert_eq!(count_successes(&[a, b, c, d], 422), 1);
        let after = fixture.admin.get(&format!("/v1/invoices/{invoice}")).await.ok(200);
        assert_eq!(after["refunded"]["amount"], 80);
    }
}

#[tokio::test]
async fn input_11_invoice_is_paid_or_voided_but_not_both() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    for _ in 0..ROUNDS {
        let (_, invoice) = fixture.invoice("PEN-BLUE", 1).await;
        let void = format!("/v1/invoices/{invoice}/void");
        let (paid, voided) = tokio::join!(fixture.pay(&invoice, 129), fixture.change(&void));
        let paid_first = paid.status.is_success();
        assert_eq!(count_successes(&[paid, voided], 409), 1);
        let after = fixture.admin.get(&format!("/v1/invoices/{invoice}")).await.ok(200);
        assert_eq!(after["status"], if paid_first { "paid" } else { "void" });
        assert_eq!(after["paid"]["amount"], if paid_first { 129 } else { 0 });
    }
}

#[tokio::test]
async fn input_11_cancelled_order_has_no_open_invoice() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    for _ in 0..ROUNDS {
        let order = fixture.order("PEN-BLUE", 1).await;
        let cancel = format!("/v1/orders/{order}/cancel");
        let (issued, cancelled) = tokio::join!(fixture.issue(&order), fixture.change(&cancel));
        // Either the invoice was issued first and then voided, or it was never issued.
        cancelled.ok(200);
        assert_eq!(fixture.order_status(&order).await, "cancelled");
        if issued.status.is_success() {
            let invoice = format!("/v1/invoices/{}", id(&issued.body));
            assert_eq!(fixture.admin.get(&invoice).await.ok(200)["status"], "void");
        } else {
            issued.problem(409);
        }
    }
}

#[tokio::test]
async fn input_11_cancelled_order_has_no_payment() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    for _ in 0..ROUNDS {
        let (order, invoice) = fixture.invoice("PEN-BLUE", 1).await;
        let cancel = format!("/v1/orders/{order}/cancel");
        let (paid, cancelled) = tokio::join!(fixture.pay(&invoice, 100), fixture.change(&cancel));
        let paid_first = paid.status.is_success();
        assert_eq!(count_successes(&[paid, cancelled], 409), 1);
        assert_eq!(fixture.order_status(&order).await, if paid_first { "invoiced" } else { "cancelled" });
    }
}

#[tokio::test]
async fn input_11_invoice_numbers_have_no_gaps_after_failures() {
    let app = SERVICE.start().await;
    let fixture = BillingFixture::new(&app);
    let mut numbers = BTreeSet::from([1, 2]);
    for _ in 0..ROUNDS {
        let orders = [
            fixture.order("PEN-BLUE", 1).await,
            fixture.order("PEN-BLUE", 1).await,
            fixture.order("PEN-BLUE", 1).await,
        ];
        // Two concurrent attempts for each order: three of the six fail.
        let [one, two, three] = orders.each_ref().map(|order| async || fixture.issue(order).await);
        let attempts = tokio::join!(one(), two(), three(), one(), two(), three());
        let replies: [Reply; 6] = attempts.into();
        assert_eq!(count_successes(&replies, 409), 3);
        let issued = replies.iter().filter_map(|reply| reply.body["number"].as_i64());
        numbers.extend(issued);
    }
    let expected: BTreeSet<i64> = (1..=i64::try_from(ROUNDS * 3 + 2).unwrap()).collect();
    assert_eq!(numbers, expected);
    let stored = query(&app.database.owner, "select number::text from invoices order by number").await;
    assert_eq!(stored.len(), expected.len());
}
