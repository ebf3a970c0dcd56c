//! Round trips to the database that each operation of this service takes.

use http::Method;
use serde_json::{Value, json};
use service::{access::roles, demo};
use uuid::Uuid;

use crate::support::{ProxiedApp, SERVICE, order_body};

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
                    &["begin", "statement", "rollback", "ping"],
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
