use http::Method;
use serde_json::{Value, json};
use service::authz::policy::Role;
use uuid::Uuid;

use super::{Actor, Reply, TestApp};

/// An administrator of Acme who keeps the books.
pub struct Books {
    pub admin: Actor,
}

impl Books {
    pub fn of(app: &TestApp) -> Self {
        Self { admin: app.user(Role::Admin) }
    }

    pub async fn put_product(&self, sku: &str, price: i64) {
        let product = json!({ "name": sku, "price": { "amount": price, "currency": "EUR" } });
        let request = self.admin.request(Method::PUT, &format!("/v1/products/{sku}")).json(&product);
        assert!(self.admin.send(request).await.status.is_success());
    }

    /// A placed order, by its id.
    pub async fn order(&self, sku: &str, quantity: i32) -> String {
        let order = json!({ "lines": [{ "sku": sku, "quantity": quantity }], "shippingSpeed": "standard" });
        id(&self.admin.post("/v1/orders", &order).await.ok(201))
    }

    /// An invoiced order and its invoice, by their ids.
    pub async fn invoice(&self, sku: &str, quantity: i32) -> (String, String) {
        let order = self.order(sku, quantity).await;
        let invoice = id(&self.issue(&order).await.ok(201));
        (order, invoice)
    }

    pub async fn issue(&self, order: &str) -> Reply {
        self.change(&format!("/v1/orders/{order}/invoice")).await
    }

    pub async fn pay(&self, invoice: &str, amount: i64) -> Reply {
        self.pay_with(invoice, &json!({ "amount": { "amount": amount, "currency": "EUR" } }), None).await
    }

    /// With any body, under a key of its own or this one.
    pub async fn pay_with(&self, invoice: &str, body: &Value, key: Option<&str>) -> Reply {
        let key = key.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
        let request = self.admin.request(Method::POST, &format!("/v1/invoices/{invoice}/payments"));
        self.admin.send(request.header("idempotency-key", key).json(body)).await
    }

    pub async fn refund(&self, payment: &str, amount: i64) -> Reply {
        let body = json!({ "amount": { "amount": amount, "currency": "EUR" } });
        let request = self.admin.request(Method::POST, &format!("/v1/payments/{payment}/refunds"));
        self.admin.send(request.header("idempotency-key", Uuid::now_v7().to_string()).json(&body)).await
    }

    /// A change that takes no body.
    pub async fn change(&self, path: &str) -> Reply {
        self.admin.send(self.admin.request(Method::POST, path)).await
    }

    pub async fn order_status(&self, order: &str) -> String {
        let order = self.admin.get(&format!("/v1/orders/{order}")).await.ok(200);
        order["status"].as_str().unwrap().to_owned()
    }
}

/// The id of what was created.
pub fn id(created: &Value) -> String {
    created["id"].as_str().unwrap().to_owned()
}

/// What the path of something ends with.
pub fn id_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}
