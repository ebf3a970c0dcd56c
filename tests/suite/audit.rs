//! The audit trail of this service (LOG-05): changes that an operation causes indirectly have events
//! too.

use crate::support::{BillingFixture, SERVICE, audit_trail::read_trail};

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
