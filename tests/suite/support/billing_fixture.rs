//! The factory of business objects for tests: products, customers, orders, invoices,
//! payments and refunds of one tenant, which its administrator creates through the API.

use http::Method;
use palisade::dev::people::Tenant;
use serde_json::{Value, json};
use service::access::{roles, scopes};
use uuid::Uuid;

use super::{ACME, Actor, Fixture, Reply, TestApp};

/// An administrator who creates objects of a tenant.
pub struct BillingFixture {
    pub admin: Actor,
}

impl Fixture for BillingFixture {
    fn new(app: &TestApp, tenant: &Tenant) -> Self {
        Self::for_tenant(app, tenant)
    }

    async fn create(&self, path: &str) -> Option<String> {
        let object = match path {
            "/v1/products/{sku}" => {
                let sku = Self::unused_id(path);
                self.put_product(&sku, 1).await;
                sku
            }
            "/v1/customers/{id}" => self.customer().await,
            "/v1/orders/{id}/fulfil" => {
                // An order without costs is paid as soon as it is invoiced.
                self.put_product("FREE-1", 0).await;
                self.invoice("FREE-1", 1).await.0
            }
            "/v1/payments/{id}/refunds" => {
                let (_, invoice) = self.invoice("PAPER-A4", 1).await;
                id(&self.pay(&invoice, 200).await.ok(201))
            }
            path if path.starts_with("/v1/orders/{id}") => self.order("PAPER-A4", 1).await,
            path if path.starts_with("/v1/invoices/{id}") => self.invoice("PAPER-A4", 1).await.1,
            _ => return None,
        };
        Some(object)
    }

    /// A payment is read with its invoice, which is one of the newest.
    async fn read(&self, path: &str, object: &str) -> Value {
        let (collection, _) = path.split_once("/{").unwrap();
        if collection != "/v1/payments" {
            return self.admin.get(&format!("{collection}/{object}")).await.ok(200);
        }
        let page = self.admin.get("/v1/invoices?limit=100").await.ok(200);
        for summary in page["items"].as_array().unwrap() {
            let path = format!("/v1/invoices/{}", summary["id"].as_str().unwrap());
            let invoice = self.admin.get(&path).await.ok(200);
            let mut payments = invoice["payments"].as_array().unwrap().iter();
            if let Some(payment) = payments.find(|payment| payment["id"] == object) {
                return payment.clone();
            }
        }
        panic!("no payment {object}");
    }

    fn unused_id(path: &str) -> String {
        let id = Uuid::now_v7();
        if path.contains("{sku}") { format!("SKU-{}", id.simple()).to_uppercase() } else { id.to_string() }
    }
}

impl BillingFixture {
    /// Of the tenant Acme.
    pub fn new(app: &TestApp) -> Self {
        Self::for_tenant(app, &ACME)
    }

    pub fn for_tenant(app: &TestApp, tenant: &Tenant) -> Self {
        Self { admin: app.user_of(tenant, roles::ADMIN, &scopes::ALL) }
    }

    pub async fn put_product(&self, sku: &str, price: i64) {
        let product = json!({ "name": sku, "price": { "amount": price, "currency": "EUR" } });
        let request = self.admin.request(Method::PUT, &format!("/v1/products/{sku}")).json(&product);
        assert!(self.admin.send(request).await.status.is_success());
    }

    pub async fn customer(&self) -> String {
        let customer = json!({
            "name": "Ann Example", "email": "ann@example.com", "phone": "+15550100200", "taxId": "US-98-7654321",
            "bankAccount": "GB82WEST12345698765432", "address": "7 Side Street\nDublin",
        });
        id(&self.admin.post("/v1/customers", &customer).await.ok(201))
    }

    /// A placed order, by its id.
    pub async fn order(&self, sku: &str, quantity: i32) -> String {
        id(&self.admin.post("/v1/orders", &order_body(sku, quantity)).await.ok(201))
    }

    /// An invoiced order and its invoice, by their ids.
    pub async fn invoice(&self, sku: &str, quantity: i32) -> (String, String) {
        let order = self.order(sku, quantity).await;
        let invoice = id(&self.issue(&order).await.ok(201));
        (order, invoice)
    }

    /// Issues the invoice of an order.
    pub async fn issue(&self, order: &str) -> Reply {
        self.change(&format!("/v1/orders/{order}/invoice")).await
    }

    pub async fn pay(&self, invoice: &str, amount: i64) -> Reply {
        self.pay_with(invoice, &json!({ "amount": { "amount": amount, "currency": "EUR" } }), None).await
    }

    /// Pays with any body. Without an idempotency key it takes an unused one.
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

    /// A change without a body.
    pub async fn change(&self, path: &str) -> Reply {
        self.admin.send(self.admin.request(Method::POST, path)).await
    }

    pub async fn order_status(&self, order: &str) -> String {
        let order = self.admin.get(&format!("/v1/orders/{order}")).await.ok(200);
        order["status"].as_str().unwrap().to_owned()
    }
}

/// The body that places an order of one product.
pub fn order_body(sku: &str, quantity: i32) -> Value {
    json!({ "lines": [{ "sku": sku, "quantity": quantity }], "shippingSpeed": "standard" })
}

/// The id of a created object.
pub fn id(created: &Value) -> String {
    created["id"].as_str().unwrap().to_owned()
}

/// The customers with this e-mail address or tax identifier, as the caller finds them.
pub async fn search(actor: &Actor, value: &Value) -> Vec<Value> {
    let page = actor.post("/v1/customers/search", value).await.ok(200);
    page["items"].as_array().unwrap().clone()
}

/// The last segment of an object's path.
pub fn id_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}
