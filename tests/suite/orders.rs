//! Orders and products: placing, reading, filtered lists and their pages, totals from catalogue
//! prices (INPUT-09), and extreme times in filters (INPUT-02).

use serde_json::{Value, json};
use service::access::roles;
use uuid::Uuid;

use crate::support::{SERVICE, order_body};

#[tokio::test]
async fn order_is_placed_read_listed_and_cancelled() {
    let app = SERVICE.start().await;
    let sales = app.user(roles::SALES);
    let body = json!({
        "lines": [{ "sku": "paper-a4", "quantity": 3 }, { "sku": "CHAIR-PRO", "quantity": 2 }],
        "shippingSpeed": "express",
        "note": "  two chairs  ",
    });
    let reply = sales.post("/v1/orders", &body).await;
    let location = reply.header("location").unwrap().to_owned();
    let order = reply.ok(201);
    let id = order["id"].as_str().unwrap();
    assert_eq!(location, format!("/v1/orders/{id}"));
    assert_eq!(id.parse::<Uuid>().unwrap().get_version_num(), 7);
    assert_eq!(order["status"], "placed");
    assert_eq!(order["note"], "two chairs");
    assert_eq!(order["createdBy"], "sales@acme.example");
    assert_eq!(order["total"], json!({ "amount": 3 * 549 + 2 * 32_900, "currency": "EUR" }));
    assert_eq!(
        order["lines"],
        json!([
            { "sku": "PAPER-A4", "quantity": 3, "unitPrice": { "amount": 549, "currency": "EUR" } },
            { "sku": "CHAIR-PRO", "quantity": 2, "unitPrice": { "amount": 32_900, "currency": "EUR" } },
        ])
    );
    assert_eq!(app.user(roles::VIEWER).get(&location).await.ok(200), order);
    let first = sales.get("/v1/orders?limit=1").await.ok(200);
    assert_eq!(first["items"], json!([order]));

    let cancelled = sales.post(&format!("{location}/cancel"), &Value::Null).await.ok(200);
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(sales.get(&location).await.ok(200), cancelled);
}

#[tokio::test]
async fn input_09_total_comes_from_catalogue_prices() {
    let app = SERVICE.shared();
    let sales = app.user(roles::SALES);
    let body = json!({
        "lines": [{ "sku": "DESK-160", "quantity": 1, "unitPrice": { "amount": 1, "currency": "EUR" } }],
        "shippingSpeed": "standard",
    });
    assert_eq!(sales.post("/v1/orders", &body).await.faults(), ["/lines/0 unknown_field"]);
    let reply = sales.post("/v1/orders", &order_body("NO-SUCH-SKU", 1)).await;
    assert_eq!(reply.problem(422), "unprocessable");
    assert_eq!(reply.faults(), ["/lines/0/sku unknown_product"]);
}

#[tokio::test]
async fn orders_above_the_configured_total_are_refused() {
    let app = SERVICE.start_with(&[("APP_ORDERS__MAX_TOTAL", "1098")]).await;
    let sales = app.user(roles::SALES);
    let order =
        |quantity: u32| json!({ "lines": [{ "sku": "PAPER-A4", "quantity": quantity }], "shippingSpeed": "standard" });
    sales.post("/v1/orders", &order(2)).await.ok(201);
    let refused = sales.post("/v1/orders", &order(3)).await;
    assert!(refused.events().iter().any(|event| event["event"] == "order_limit_exceeded"));
    assert_eq!(refused.problem(422), "unprocessable");
}

#[tokio::test]
async fn order_pages_contain_every_order_once() {
    let app = SERVICE.start().await;
    let viewer = app.user(roles::VIEWER);
    let all = viewer.get("/v1/orders?limit=100").await.ok(200);
    assert_eq!(all["nextCursor"], Value::Null);
    let all: Vec<Value> = all["items"].as_array().unwrap().clone();
    assert!(all.len() >= 6);
    let mut collected = Vec::new();
    let mut path = "/v1/orders?limit=2".to_owned();
    loop {
        let page = viewer.get(&path).await.ok(200);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        collected.extend(items.iter().cloned());
        match page["nextCursor"].as_str() {
            Some(cursor) => path = format!("/v1/orders?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(collected, all);
    let ids: Vec<&str> = collected.iter().map(|order| order["id"].as_str().unwrap()).collect();
    assert!(ids.is_sorted_by(|newer, older| newer > older), "newest first: {ids:?}");
}

#[tokio::test]
async fn product_lookup_ignores_case() {
    let app = SERVICE.start().await;
    let viewer = app.user(roles::VIEWER);
    let page = viewer.get("/v1/products?limit=2").await.ok(200);
    assert_eq!(page["items"][0]["sku"], "CHAIR-PRO");
    let cursor = page["nextCursor"].as_str().unwrap();
    let rest = viewer.get(&format!("/v1/products?cursor={cursor}")).await.ok(200);
    assert_eq!(rest["items"].as_array().unwrap().len(), 3);
    let product = viewer.get("/v1/products/pen-blue").await.ok(200);
    let expected = json!({
        "sku": "PEN-BLUE", "name": "Ballpoint pen, blue", "price": { "amount": 129, "currency": "EUR" },
    });
    assert_eq!(product, expected);
}

#[tokio::test]
async fn orders_are_filtered_by_status_customer_and_time() {
    let app = SERVICE.start().await;
    let viewer = app.user(roles::VIEWER);
    let all = viewer.get("/v1/orders?limit=100").await.ok(200)["items"].as_array().unwrap().clone();
    let text = |order: &Value, name: &str| order[name].as_str().unwrap().to_owned();
    let filtered =
        async |query: &str| viewer.get(&format!("/v1/orders?limit=100&{query}")).await.ok(200)["items"].clone();
    let expected =
        |matches: &dyn Fn(&Value) -> bool| -> Value { all.iter().filter(|order| matches(order)).cloned().collect() };
    let time = |order: &Value| text(order, "createdAt").replace('+', "%2B");
    let third = &all[2];
    let customer = text(&all[0], "customerId");
    for status in ["placed", "invoiced", "paid", "fulfilled", "cancelled", "refunded"] {
        assert_eq!(
            filtered(&format!("status={status}")).await,
            expected(&|order| order["status"] == status),
            "{status}"
        );
    }
    let of_customer = expected(&|order| order["customerId"] == customer.as_str());
    assert_eq!(filtered(&format!("customerId={customer}")).await, of_customer);
    assert_eq!(
        filtered(&format!("customerId={customer}&status=placed")).await,
        expected(&|order| order["customerId"] == customer.as_str() && order["status"] == "placed")
    );
    // `createdFrom` includes its time, `createdTo` does not.
    assert_eq!(filtered(&format!("createdFrom={}", time(third))).await, Value::from_iter(all[..3].to_vec()));
    assert_eq!(filtered(&format!("createdTo={}", time(third))).await, Value::from_iter(all[3..].to_vec()));
    let between = format!("createdFrom={}&createdTo={}", time(&all[4]), time(&all[1]));
    assert_eq!(filtered(&between).await, Value::from_iter(all[2..5].to_vec()));
    // The next page of a filtered list continues it.
    let page = viewer.get(&format!("/v1/orders?limit=2&{between}")).await.ok(200);
    let next = format!("/v1/orders?limit=2&{between}&cursor={}", text(&page, "nextCursor"));
    let next = viewer.get(&next).await.ok(200);
    assert_eq!((&next["items"][0], &next["nextCursor"]), (&all[4], &Value::Null));
    assert_eq!(viewer.get("/v1/orders?status=lost").await.faults(), ["status invalid"]);
    assert_eq!(viewer.get("/v1/orders?createdFrom=yesterday").await.faults(), ["createdFrom invalid"]);
}

#[tokio::test]
async fn input_02_extreme_times_are_no_server_error() {
    let app = SERVICE.shared();
    let viewer = app.user(roles::VIEWER);
    for time in [
        "-262143-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "-5000-01-01T00:00:00Z",
        "%2B262142-12-31T23:59:59Z",
        "9999-12-31T23:59:60Z",
    ] {
        for name in ["createdFrom", "createdTo"] {
            let reply = viewer.get(&format!("/v1/orders?{name}={time}")).await;
            assert!([200, 400].contains(&reply.status.as_u16()), "{name}={time}: {reply:#?}");
        }
    }
    assert_eq!(viewer.get("/v1/orders?createdTo=0001-01-01T00:00:00Z").await.ok(200)["items"], json!([]));
}
