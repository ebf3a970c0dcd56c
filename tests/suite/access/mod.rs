//! The control suite of the test kit: each control for every operation of the service, with
//! `matrix.txt` as the reviewed table of callers and operations (AUTHZ-05). It covers new operations
//! at once. Here too: references in the bodies of orders to objects of another tenant (AUTHZ-03).

use serde_json::json;
use service::access::roles;

use crate::support::{BillingFixture, Fixture as _, GLOBEX, SERVICE, UNTHROTTLED, order_body, query, run};

palisade_test::control_suite!(SERVICE, BillingFixture, "tests/suite/access/matrix.txt");

#[tokio::test]
async fn authz_03_references_to_foreign_objects_are_rejected_without_row_level_security() {
    let app = SERVICE.start_with(&UNTHROTTLED).await;
    let globex = BillingFixture::for_tenant(&app, &GLOBEX);
    let customer = globex.customer().await;
    let globex_sku = globex.create("/v1/products/{sku}").await.unwrap();
    let tables = "select oid::regclass::text from pg_class where relrowsecurity and relkind = 'r'";
    for table in query(&app.database.owner, tables).await {
        run(&app.database.owner, &format!("alter table {table} disable row level security")).await.unwrap();
    }
    let admin = app.user(roles::ADMIN);
    let reply = admin.post("/v1/orders", &order_body(&globex_sku, 1)).await;
    assert_eq!(reply.faults(), ["/lines/0/sku unknown_product"]);
    let mut order = order_body("PAPER-A4", 1);
    order["customerId"] = json!(customer);
    assert_eq!(admin.post("/v1/orders", &order).await.faults(), ["/customerId unknown_customer"]);
}
