//! The audit trail of this service (LOG-05): each of its operations that changes something has one
//! event with its request, and so have changes that an operation causes indirectly.

use http::Method;
use palisade::authz::matrix;
use serde_json::json;

use crate::support::{
    BillingFixture, MATRIX, Reply, SERVICE, TestApp,
    audit_trail::{assert_each_has_one_event, read_trail},
    id, order_body,
};

/// Calls every operation that changes something: its name, the changed object and the reply.
async fn call_every_change(app: &TestApp) -> Vec<(&'static str, String, Reply)> {
    let fixture = BillingFixture::new(app);
    let admin = &fixture.admin;
    let mut changes = Vec::new();
    let product = json!({ "name": "Ink", "price": { "amount": 500, "currency": "EUR" } });
    let put = admin.send(admin.request(Method::PUT, "/v1/products/INK").json(&product)).await;
    changes.push(("putProduct", "INK".to_owned(), put));
    let customer = admin.post("/v1/customers", &json!({ "name": "Ada", "email": "ada@example.com" })).await;
    let customer_id = id(&customer.clone().ok(201));
    changes.push(("createCustomer", customer_id.clone(), customer));
    let path = format!("/v1/customers/{customer_id}");
    let rename = admin.request(Method::PATCH, &path).json(&json!({ "name": "Ada L." }));
    changes.push(("updateCustomer", customer_id.clone(), admin.send(rename).await));
    changes.push(("eraseCustomer", customer_id, admin.send(admin.request(Method::DELETE, &path)).await));
    let placed = admin.post("/v1/orders", &order_body("INK", 1)).await;
    let order = id(&placed.clone().ok(201));
    changes.push(("createOrder", order.clone(), placed));
    changes.push(("cancelOrder", order.clone(), fixture.change(&format!("/v1/orders/{order}/cancel")).await));
    let order = fixture.order("INK", 1).await;
    let issued = fixture.issue(&order).await;
    let invoice = id(&issued.clone().ok(201));
    changes.push(("createInvoice", invoice.clone(), issued));
    let paid = fixture.pay(&invoice, 500).await;
    let payment = id(&paid.clone().ok(201));
    changes.push(("createPayment", payment.clone(), paid));
    changes.push(("fulfilOrder", order.clone(), fixture.change(&format!("/v1/orders/{order}/fulfil")).await));
    let (_, invoice) = fixture.invoice("INK", 1).await;
    changes.push(("voidInvoice", invoice.clone(), fixture.change(&format!("/v1/invoices/{invoice}/void")).await));
    let (_, invoice) = fixture.invoice("INK", 1).await;
    let payment = id(&fixture.pay(&invoice, 500).await.ok(201));
    let refund = fixture.refund(&payment, 200).await;
    changes.push(("createRefund", id(&refund.clone().ok(201)), refund));
    let key = json!({ "name": "a key", "scopes": ["orders:read"], "validForDays": 3 });
    let created = admin.post("/v1/api-keys", &key).await;
    let key = id(&created.clone().ok(201));
    changes.push(("createApiKey", key.clone(), created));
    let rotation = json!({ "validForDays": 3, "overlapHours": 1 });
    let rotated = admin.post(&format!("/v1/api-keys/{key}/rotate"), &rotation).await;
    changes.push(("rotateApiKey", id(&rotated.clone().ok(201)), rotated));
    let revoked = admin.send(admin.request(Method::DELETE, &format!("/v1/api-keys/{key}"))).await;
    changes.push(("revokeApiKey", key, revoked));
    let period = json!({ "kind": "orders", "from": "2020-01-01T00:00:00Z", "to": "2040-01-01T00:00:00Z" });
    changes.push(("createExport", "orders".to_owned(), admin.post("/v1/exports", &period).await));
    changes
}

#[tokio::test]
async fn log_05_every_change_has_one_event_with_its_request() {
    let app = SERVICE.start().await;
    let changes = call_every_change(&app).await;
    assert_each_has_one_event(&app, MATRIX.iter().filter(|row| row.method != matrix::Method::Get), &changes).await;
}

#[tokio::test]
async fn log_05_indirect_changes_have_events_too() {
    let app = SERVICE.start().await;
    let fixture = BillingFixture::new(&app);
    let (order, invoice) = fixture.invoice("PAPER-A4", 1).await;
    let cancelled = fixture.change(&format!("/v1/orders/{order}/cancel")).await;
    let request = cancelled.header("x-request-id").unwrap().to_owned();
    cancelled.ok(200);
    let trail = read_trail(&app, "").await;
    let events = trail.iter().filter(|event| event["traceId"] == request.as_str());
    let mut changes: Vec<_> = events.map(|event| (event["action"].as_str(), event["object"].as_str())).collect();
    changes.sort_unstable();
    assert_eq!(
        changes,
        [(Some("invoice_voided"), Some(invoice.as_str())), (Some("order_cancelled"), Some(order.as_str()))]
    );
}
