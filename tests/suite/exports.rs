//! Exports of the books (CRYPTO-09): the orders and invoices of a period, with their totals.

use serde_json::{Value, json};
use service::access::{roles, scopes};

use crate::support::{Actor, BillingFixture, GLOBEX, Reply, SERVICE};

fn all_time(kind: &str) -> Value {
    json!({ "kind": kind, "from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z" })
}

async fn export(actor: &Actor, request: &Value) -> Reply {
    actor.post("/v1/exports", request).await
}

/// The rows of a CSV file, as cells by column.
fn rows(csv: &str) -> Vec<std::collections::HashMap<String, String>> {
    csv::Reader::from_reader(csv.as_bytes()).deserialize().map(Result::unwrap).collect()
}

#[tokio::test]
async fn crypto_09_export_contains_the_period_of_the_callers_tenant() {
    let app = SERVICE.start().await;
    let auditor = app.user(roles::AUDITOR);
    let admin = app.user(roles::ADMIN);
    let globex = app.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL);
    let globex_orders = globex.get("/v1/orders?limit=100").await.ok(200);
    let listed = admin.get("/v1/orders?limit=100").await.ok(200);
    let ids = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|order| order["id"].as_str().unwrap().to_owned()).collect()
    };
    let acme_ids = ids(&listed);
    assert!(acme_ids.len() > 1 && !ids(&globex_orders).is_empty());
    for actor in [&auditor, &admin] {
        let reply = export(actor, &all_time("orders")).await;
        assert_eq!(reply.status, 200, "{reply:#?}");
        assert_eq!(reply.header("content-disposition"), Some("attachment; filename=\"orders.csv\""));
        let exported = rows(&reply.text);
        assert_eq!(exported.iter().map(|row| row["id"].clone()).collect::<Vec<_>>(), acme_ids);
        let first = &listed["items"][0];
        assert_eq!(exported[0]["totalAmount"], first["total"]["amount"].to_string());
        assert_eq!(exported[0]["status"], first["status"].as_str().unwrap());
        let line = &first["lines"][0];
        let lines = format!("{} x {}", line["quantity"], line["sku"].as_str().unwrap());
        assert!(exported[0]["lines"].starts_with(&lines), "{exported:?}");
    }
    // A period includes its beginning and excludes its end.
    let newest = &listed["items"][0]["createdAt"];
    let oldest = &listed["items"][acme_ids.len() - 1]["createdAt"];
    let part = json!({ "kind": "orders", "from": oldest, "to": newest });
    let exported = rows(&export(&auditor, &part).await.text);
    assert_eq!(exported.iter().map(|row| row["id"].clone()).collect::<Vec<_>>(), acme_ids[1..]);
    let none = json!({ "kind": "orders", "from": "2001-01-01T00:00:00Z", "to": "2001-01-02T00:00:00Z" });
    let reply = export(&auditor, &none).await;
    assert!(reply.text.starts_with("id,customerId,") && rows(&reply.text).is_empty(), "{}", reply.text);
}

#[tokio::test]
async fn crypto_09_invoice_export_contains_payments_and_totals() {
    let app = SERVICE.start().await;
    let fixture = BillingFixture::new(&app);
    let order = fixture.order("PEN-BLUE", 2).await;
    let issued = fixture.issue(&order).await.ok(201);
    let exported = rows(&export(&app.user(roles::AUDITOR), &all_time("invoices")).await.text);
    let row = exported.iter().find(|row| row["id"] == issued["id"].as_str().unwrap()).unwrap();
    assert_eq!((row["status"].as_str(), row["paidAmount"].as_str()), ("open", "0"));
    assert_eq!(row["number"], issued["number"].to_string());
    assert_eq!(row["totalAmount"], issued["total"]["amount"].to_string());
}
