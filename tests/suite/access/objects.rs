use http::Method;
use serde_json::{Value, json};
use service::{
    authz::{matrix::Scope, policy::Role},
    dev::demo::Tenant,
};
use uuid::Uuid;

use crate::support::{Actor, TestApp};

/// Makes objects of one tenant, each in the state that the operation it is for needs.
pub struct Objects {
    pub admin: Actor,
}

fn unused_sku() -> String {
    format!("SKU-{}", Uuid::now_v7().simple()).to_uppercase()
}

impl Objects {
    pub async fn of(app: &TestApp, tenant: &Tenant) -> Self {
        let admin = app.user_of(tenant, Role::Admin, &Scope::ALL);
        let objects = Self { admin };
        // Costs nothing, so an order of it is paid as soon as it is invoiced.
        objects.put_product("FREE-1", 0).await;
        objects
    }

    /// The identifier of a new object for an operation of this path.
    pub async fn make(&self, path: &str) -> String {
        match path {
            "/v1/products/{sku}" => {
                let sku = unused_sku();
                self.put_product(&sku, 1).await;
                sku
            }
            "/v1/customers/{id}" => self.customer().await,
            path if path.starts_with("/v1/api-keys/{id}") => self.api_key().await,
            "/v1/orders/{id}/fulfil" => {
                let order = self.order("FREE-1").await;
                self.create(&format!("/v1/orders/{order}/invoice"), &Value::Null).await;
                order
            }
            "/v1/payments/{id}/refunds" => {
                let payment = json!({ "amount": { "amount": 200, "currency": "EUR" } });
                let invoice = self.invoice().await;
                self.create(&format!("/v1/invoices/{invoice}/payments"), &payment).await
            }
            path if path.starts_with("/v1/orders/{id}") => self.order("PAPER-A4").await,
            path if path.starts_with("/v1/invoices/{id}") => self.invoice().await,
            other => panic!("say here how to make an object for {other}"),
        }
    }

    /// An identifier that nobody has.
    pub fn missing(path: &str) -> String {
        if path.contains("{sku}") { unused_sku() } else { Uuid::now_v7().to_string() }
    }

    /// What its own tenant sees of an object.
    pub async fn look(&self, path: &str, object: &str) -> Value {
        let Some((collection, _)) = path.split_once("/{") else { return Value::Null };
        // A payment is seen with its invoice, which is not known here; its refunds are what could have changed.
        if collection == "/v1/payments" {
            let page = self.admin.get("/v1/invoices?limit=100").await.ok(200);
            let invoices = page["items"].as_array().unwrap().iter();
            let mut payments = invoices.flat_map(|invoice| invoice["payments"].as_array().unwrap());
            return payments.find(|payment| payment["id"] == object).unwrap().clone();
        }
        if collection == "/v1/api-keys" {
            let page = self.admin.get("/v1/api-keys?limit=100").await.ok(200);
            return page["items"].as_array().unwrap().iter().find(|key| key["id"] == object).unwrap().clone();
        }
        self.admin.get(&format!("{collection}/{object}")).await.ok(200)
    }

    async fn create(&self, path: &str, body: &Value) -> String {
        let request = self.admin.request(Method::POST, path).header("idempotency-key", Uuid::now_v7().to_string());
        let request = if body.is_null() { request } else { request.json(body) };
        let created = self.admin.send_until_served(request).await;
        created.ok(201)["id"].as_str().unwrap().to_owned()
    }

    async fn put_product(&self, sku: &str, price: i64) {
        let product = json!({ "name": sku, "price": { "amount": price, "currency": "EUR" } });
        let request = self.admin.request(Method::PUT, &format!("/v1/products/{sku}")).json(&product);
        assert!(self.admin.send(request).await.status.is_success());
    }

    async fn customer(&self) -> String {
        self.create("/v1/customers", &json!({ "name": "Somebody", "email": "somebody@example.com" })).await
    }

    async fn api_key(&self) -> String {
        let key = json!({ "name": "somewhere", "scopes": ["orders:read"], "validForDays": 1 });
        self.create("/v1/api-keys", &key).await
    }

    async fn order(&self, sku: &str) -> String {
        let order = json!({ "lines": [{ "sku": sku, "quantity": 1 }], "shippingSpeed": "standard" });
        self.create("/v1/orders", &order).await
    }

    async fn invoice(&self) -> String {
        let order = self.order("PAPER-A4").await;
        self.create(&format!("/v1/orders/{order}/invoice"), &Value::Null).await
    }
}
