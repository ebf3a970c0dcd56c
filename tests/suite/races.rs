//! Changes that meet: exactly one wins, and the books add up. Each test runs its race many times.
//!
//! Isolation is read committed; every change to an order, its invoices and their payments first locks the
//! order's row (`src/store/orders.rs`).

use std::collections::BTreeSet;

use serde_json::{Value, json};
use service::authz::policy::Role;

use crate::support::{Books, Reply, TestApp, id, query};

const ROUNDS: usize = 15;

/// How many succeeded; the others must have failed with this status.
#[track_caller]
fn winners(replies: &[Reply], loser: u16) -> usize {
    let (won, lost): (Vec<&Reply>, Vec<&Reply>) = replies.iter().partition(|reply| reply.status.is_success());
    for reply in lost {
        reply.problem(loser);
    }
    won.len()
}

#[tokio::test]
async fn input_11_an_order_is_cancelled_once_however_many_try() {
    let app = TestApp::shared();
    let books = Books::of(app);
    for _ in 0..ROUNDS {
        let path = format!("/v1/orders/{}/cancel", books.order("PEN-BLUE", 1).await);
        let (a, b, c) = tokio::join!(books.change(&path), books.change(&path), books.change(&path));
        assert_eq!(winners(&[a, b, c], 409), 1);
    }
}

#[tokio::test]
async fn input_11_an_invoice_is_paid_once_however_many_try() {
    let app = TestApp::shared();
    let books = Books::of(app);
    for _ in 0..ROUNDS {
        let (order, invoice) = books.invoice("PEN-BLUE", 1).await;
        let pay = || books.pay(&invoice, 129);
        let (a, b, c, d) = tokio::join!(pay(), pay(), pay(), pay());
        assert_eq!(winners(&[a, b, c, d], 409), 1);
        let after = books.admin.get(&format!("/v1/invoices/{invoice}")).await.ok(200);
        assert_eq!(after["paid"]["amount"], 129);
        assert_eq!(after["payments"].as_array().unwrap().len(), 1);
        assert_eq!(books.order_status(&order).await, "paid");
    }
}

#[tokio::test]
async fn input_11_parallel_refunds_never_give_back_more_than_came() {
    let app = TestApp::shared();
    let books = Books::of(app);
    for _ in 0..ROUNDS {
        let (_, invoice) = books.invoice("PEN-BLUE", 1).await;
        let payment = id(&books.pay(&invoice, 129).await.ok(201));
        let refund = || books.refund(&payment, 80);
        let (a, b, c, d) = tokio::join!(refund(), refund(), refund(), refund());
        assert_eq!(winners(&[a, b, c, d], 422), 1);
        let after = books.admin.get(&format!("/v1/invoices/{invoice}")).await.ok(200);
        assert_eq!(after["refunded"]["amount"], 80);
    }
}

#[tokio::test]
async fn input_11_an_invoice_is_paid_or_voided_but_not_both() {
    let app = TestApp::shared();
    let books = Books::of(app);
    for _ in 0..ROUNDS {
        let (_, invoice) = books.invoice("PEN-BLUE", 1).await;
        let void = format!("/v1/invoices/{invoice}/void");
        let (paid, voided) = tokio::join!(books.pay(&invoice, 129), books.change(&void));
        let paid_first = paid.status.is_success();
        assert_eq!(winners(&[paid, voided], 409), 1);
        let after = books.admin.get(&format!("/v1/invoices/{invoice}")).await.ok(200);
        assert_eq!(after["status"], if paid_first { "paid" } else { "void" });
        assert_eq!(after["paid"]["amount"], if paid_first { 129 } else { 0 });
    }
}

#[tokio::test]
async fn input_11_no_open_invoice_is_left_of_an_order_that_is_cancelled() {
    let app = TestApp::shared();
    let books = Books::of(app);
    let mut invoice_first = 0;
    for _ in 0..ROUNDS {
        let order = books.order("PEN-BLUE", 1).await;
        let cancel = format!("/v1/orders/{order}/cancel");
        let (issued, cancelled) = tokio::join!(books.issue(&order), books.change(&cancel));
        // Either the invoice came first and was taken back, or it was never issued.
        cancelled.ok(200);
        assert_eq!(books.order_status(&order).await, "cancelled");
        if issued.status.is_success() {
            invoice_first += 1;
            let invoice = format!("/v1/invoices/{}", id(&issued.body));
            assert_eq!(books.admin.get(&invoice).await.ok(200)["status"], "void");
        } else {
            issued.problem(409);
        }
    }
    assert!(invoice_first <= ROUNDS);
}

#[tokio::test]
async fn input_11_a_cancelled_order_keeps_no_money() {
    let app = TestApp::shared();
    let books = Books::of(app);
    for _ in 0..ROUNDS {
        let (order, invoice) = books.invoice("PEN-BLUE", 1).await;
        let cancel = format!("/v1/orders/{order}/cancel");
        let (paid, cancelled) = tokio::join!(books.pay(&invoice, 100), books.change(&cancel));
        let paid_first = paid.status.is_success();
        assert_eq!(winners(&[paid, cancelled], 409), 1);
        assert_eq!(books.order_status(&order).await, if paid_first { "invoiced" } else { "cancelled" });
    }
}

#[tokio::test]
async fn input_11_invoice_numbers_have_no_gaps_whoever_fails() {
    let app = TestApp::start().await;
    let books = Books::of(&app);
    let mut numbers = BTreeSet::from([1, 2]);
    for _ in 0..ROUNDS {
        let orders =
            [books.order("PEN-BLUE", 1).await, books.order("PEN-BLUE", 1).await, books.order("PEN-BLUE", 1).await];
        // Each is tried twice at once, so three of these six fail.
        let [one, two, three] = orders.each_ref().map(|order| async || books.issue(order).await);
        let tried = tokio::join!(one(), two(), three(), one(), two(), three());
        let replies: [Reply; 6] = tried.into();
        assert_eq!(winners(&replies, 409), 3);
        let issued = replies.iter().filter_map(|reply| reply.body["number"].as_i64());
        numbers.extend(issued);
    }
    let expected: BTreeSet<i64> = (1..=i64::try_from(ROUNDS * 3 + 2).unwrap()).collect();
    assert_eq!(numbers, expected);
    let stored = query(&app.database.owner, "select number::text from invoices order by number").await;
    assert_eq!(stored.len(), expected.len());
}

#[tokio::test]
async fn input_11_changes_of_different_fields_both_stay() {
    let app = TestApp::shared();
    let sales = app.user(Role::Sales);
    let customer = json!({ "name": "Somebody", "email": "somebody@example.com" });
    for round in 0..ROUNDS {
        let path = format!("/v1/customers/{}", id(&sales.post("/v1/customers", &customer).await.ok(201)));
        let change = async |body: Value| sales.send(sales.request(http::Method::PATCH, &path).json(&body)).await;
        let name = format!("Somebody {round}");
        let (a, b) = tokio::join!(change(json!({ "name": name })), change(json!({ "taxId": "TAX-12345678" })));
        assert_eq!(winners(&[a, b], 409), 2);
        let after = sales.get(&path).await.ok(200);
        assert_eq!((&after["name"], &after["taxId"]), (&json!(name), &json!("****5678")));
    }
}
