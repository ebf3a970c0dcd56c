//! Round trips to the database that each operation of this service takes.

use http::Method;
use serde_json::{Value, json};
use service::{access::roles, demo};
use uuid::Uuid;

use crate::support::{BillingFixture, ProxiedApp, SERVICE, id, order_body};

#[tokio::test]
async fn reads_and_lists_take_one_round_trip_and_creates_two() {
    let proxied = ProxiedApp::start(&SERVICE).await;
    let admin = proxied.app.user(roles::ADMIN);
    let customer = json!({ "name": "Ann Example", "email": "ann@example.com" });
    let order = order_body("PAPER-A4", 2);
    let get = |path: String| admin.request(Method::GET, &path);
    let post = |path: &str, body: &Value| admin.request(Method::POST, path).json(body);
    let key = || Uuid::now_v7().to_string();
    proxied
        .assert_messages(&admin, || {
            vec![
                ("getOrder", get(format!("/v1/orders/{}", demo::FIRST_ORDER)), &["statement"]),
                ("getCustomer", get(format!("/v1/customers/{}", demo::FIRST_CUSTOMER)), &["statement"]),
                ("getInvoice", get(format!("/v1/invoices/{}", demo::OPEN_INVOICE)), &["statement"]),
                ("getProduct", get("/v1/products/PAPER-A4".to_owned()), &["statement"]),
                ("listOrders", get("/v1/orders?status=paid".to_owned()), &["statement"]),
                ("listCustomers", get("/v1/customers".to_owned()), &["statement"]),
                (
                    "searchCustomers",
                    post("/v1/customers/search", &json!({ "email": "ann@example.com" })),
                    &["begin", "statement", "rollback"],
                ),
                ("createOrder", post("/v1/orders", &order), &["statement", "statement"]),
                (
                    "createOrder with a key",
                    post("/v1/orders", &order).header("idempotency-key", key()),
                    &["statement", "statement"],
                ),
                ("createCustomer", post("/v1/customers", &customer), &["statement"]),
                (
                    "createCustomer with a key",
                    post("/v1/customers", &customer).header("idempotency-key", key()),
                    &["statement", "statement"],
                ),
            ]
        })
        .await;
}

/// After `begin`: the claim of the key, one message to lock and read each object, those that write,
/// and the event with the response.
#[tokio::test]
async fn changes_take_six_to_eight_messages() {
    let proxied = ProxiedApp::start(&SERVICE).await;
    let fixture = BillingFixture::new(&proxied.app);
    let mut rounds = Vec::new();
    for _ in 0..2 {
        let (order, invoice) = fixture.invoice("PEN-BLUE", 1).await;
        let payment = id(&fixture.pay(&invoice, 100).await.ok(201));
        let (paid_order, paid) = fixture.invoice("PEN-BLUE", 1).await;
        fixture.pay(&paid, 129).await.ok(201);
        let placed = fixture.order("PEN-BLUE", 1).await;
        let (_, open) = fixture.invoice("PEN-BLUE", 1).await;
        let issued = fixture.order("PEN-BLUE", 1).await;
        rounds.push([
            ("createPayment", format!("/v1/invoices/{invoice}/payments"), 4),
            ("createRefund", format!("/v1/payments/{payment}/refunds"), 5),
            ("fulfilOrder", format!("/v1/orders/{paid_order}/fulfil"), 4),
            ("cancelOrder", format!("/v1/orders/{placed}/cancel"), 5),
            ("createInvoice", format!("/v1/orders/{issued}/invoice"), 6),
            ("voidInvoice", format!("/v1/invoices/{open}/void"), 6),
        ]);
        assert_eq!(fixture.order_status(&order).await, "invoiced");
    }
    let rounds = std::cell::RefCell::new(rounds);
    proxied
        .assert_messages(&fixture.admin, || {
            let requests = rounds.borrow_mut().pop().unwrap().into_iter();
            let counted = requests.map(|(what, path, statements)| {
                let request = fixture.admin.request(Method::POST, &path);
                let request = request.header("idempotency-key", Uuid::now_v7().to_string());
                let amount = json!({ "amount": { "amount": 1, "currency": "EUR" } });
                let has_body = path.ends_with("payments") || path.ends_with("refunds");
                let request = if has_body { request.json(&amount) } else { request };
                let messages = [vec!["begin"], vec!["statement"; statements], vec!["commit"]].concat();
                (what, request, &*messages.leak())
            });
            counted.collect()
        })
        .await;
}
