//! The audit trail of this service (LOG-05): changes that an operation causes indirectly have events
//! too.

use serde_json::json;

use crate::support::{BillingFixture, SERVICE, audit_trail::read_trail, id};

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

/// An auditor sees amounts, states and the invoice of a payment without reading other tables.
#[tokio::test]
async fn log_05_events_of_books_name_amounts_states_and_related_rows() {
    let app = SERVICE.start().await;
    let fixture = BillingFixture::new(&app);
    let (order, invoice) = fixture.invoice("PAPER-A4", 1).await;
    let payment = id(&fixture.pay(&invoice, 200).await.ok(201));
    fixture.refund(&payment, 50).await.ok(201);
    fixture.put_product("PAPER-A4", 777).await;
    let trail = read_trail(&app, "").await;
    let change = |table: &str, key: &str, column: &str, before: &str, after: &str| json!({ "table": table, "key": key, "column": column, "before": before, "after": after });
    for (action, expected) in [
        ("invoice_issued", vec![change("orders", &order, "status", "placed", "invoiced")]),
        ("payment_recorded", vec![change("invoices", &invoice, "paid_amount", "0", "200")]),
        (
            "payment_refunded",
            vec![
                change("payments", &payment, "refunded_amount", "0", "50"),
                change("invoices", &invoice, "refunded_amount", "0", "50"),
            ],
        ),
    ] {
        let event =
            trail.iter().find(|event| event["action"] == action).unwrap_or_else(|| panic!("{action}: {trail:#?}"));
        let changes = event["changes"].as_array().unwrap();
        assert!(expected.iter().all(|change| changes.contains(change)), "{action}: {changes:#?}");
    }
    let product = &read_trail(&app, "&object=PAPER-A4").await[0]["changes"];
    let price = product.as_array().unwrap().iter().find(|change| change["column"] == "price_amount").unwrap();
    assert!(price["before"].is_string() && price["after"] == "777", "{product:#?}");
}
