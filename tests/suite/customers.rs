//! Customers, as a caller uses them.

use http::Method;
use serde_json::{Value, json};
use service::{
    authz::{matrix::Scope, policy::Role},
    dev::demo,
};

use crate::support::{ACME, Actor, GLOBEX, TestApp, query, run};

fn somebody() -> Value {
    json!({
        "name": " Vandelay Industries ",
        "email": "Art@Vandelay.Example",
        "phone": "+1 (555) 012-3456",
        "taxId": "us-12-3456789",
        "bankAccount": "GB82 WEST 1234 5698 7654 32",
        "address": "129 West 81st Street\nNew York",
    })
}

async fn patch(actor: &Actor, path: &str, body: &Value) -> crate::support::Reply {
    actor.send(actor.request(Method::PATCH, path).json(body)).await
}

/// The five fields, masked and plain.
const FIELDS: [(&str, &str, &str); 5] = [
    ("email", "****mple", "art@vandelay.example"),
    ("phone", "****3456", "+15550123456"),
    ("taxId", "****6789", "US-12-3456789"),
    ("bankAccount", "****5432", "GB82WEST12345698765432"),
    ("address", "****York", "129 West 81st Street\nNew York"),
];

#[tokio::test]
async fn authz_06_fields_about_a_person_are_masked_but_for_whom_they_are_meant() {
    let app = TestApp::start().await;
    let reply = app.user(Role::Sales).post("/v1/customers", &somebody()).await;
    let location = reply.header("location").unwrap().to_owned();
    let created = reply.ok(201);
    assert_eq!((&created["name"], &created["masked"]), (&json!("Vandelay Industries"), &json!(true)));
    // What is stored for a repetition is masked for everyone.
    let by_admin = app.user(Role::Admin).post("/v1/customers", &somebody()).await.ok(201);
    for (field, masked, _) in FIELDS {
        assert_eq!((&created[field], &by_admin[field]), (&json!(masked), &json!(masked)), "{field}");
    }
    let mut plain = created.clone();
    plain["masked"] = json!(false);
    for (field, _, shown) in FIELDS {
        plain[field] = json!(shown);
    }
    for role in Role::ALL {
        let user = app.user(role);
        let seen = if matches!(role, Role::Viewer | Role::Sales) { &created } else { &plain };
        assert_eq!(&user.get(&location).await.ok(200), seen, "{role:?}");
        let page = user.get("/v1/customers?email=art@vandelay.example").await.ok(200);
        assert_eq!(&page["items"][1], seen, "{role:?}");
    }
    // An administrator's key and a program speak for no person.
    let key = app.new_api_key(&[Scope::CustomersRead]).await;
    assert_eq!(app.api_key(key["key"].as_str().unwrap()).get(&location).await.ok(200), created);
}

#[tokio::test]
async fn customers_are_found_by_their_whole_address_only() {
    let app = TestApp::shared();
    let viewer = app.user(Role::Viewer);
    let found = async |email: &str| -> usize {
        let page = viewer.get(&format!("/v1/customers?email={email}")).await.ok(200);
        page["items"].as_array().unwrap().len()
    };
    assert_eq!(found("Accounts@Hooli.example").await, 1);
    for other in ["accounts@hooli.exampl", "accounts@hooli.example.com", "%25@hooli.example", "_ccounts@hooli.example"]
    {
        assert_eq!(found(other).await, 0, "{other}");
    }
    assert_eq!(viewer.get("/v1/customers?email=billing").await.faults(), ["email invalid"]);
    let page = viewer.get("/v1/customers?limit=2").await.ok(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let cursor = page["nextCursor"].as_str().unwrap();
    let rest = viewer.get(&format!("/v1/customers?limit=100&cursor={cursor}")).await.ok(200);
    assert!(!rest["items"].as_array().unwrap().contains(&page["items"][1]));
}

#[tokio::test]
async fn a_change_leaves_what_is_absent_and_empties_what_is_null() {
    let app = TestApp::start().await;
    let sales = app.user(Role::Sales);
    let created = sales.post("/v1/customers", &somebody()).await.ok(201);
    let path = format!("/v1/customers/{}", created["id"].as_str().unwrap());
    let change = json!({ "name": "Vandelay Imports", "phone": null, "address": "Elsewhere 12345" });
    let changed = patch(&sales, &path, &change).await.ok(200);
    assert_eq!(changed["name"], "Vandelay Imports");
    assert_eq!(changed["phone"], Value::Null);
    assert_eq!(changed["address"], "****2345");
    assert_eq!(changed["email"], created["email"]);
    assert_eq!(changed["taxId"], created["taxId"]);
    assert_eq!(sales.get(&path).await.ok(200), changed);
    for (body, fault) in [
        (json!({ "name": null }), "/name wrong_type"),
        (json!({ "email": null }), "/email wrong_type"),
        (json!({ "email": "nobody" }), "/email format"),
        (json!({ "name": "  " }), "/name format"),
        (json!({ "bankAccount": "GB82WEST12345698765431" }), "/bankAccount format"),
    ] {
        assert_eq!(patch(&sales, &path, &body).await.faults(), [fault], "{body}");
    }
    assert_eq!(sales.get(&path).await.ok(200), changed);
}

#[tokio::test]
async fn input_02_every_fault_of_a_customer_is_told_at_once_and_none_of_its_values() {
    let app = TestApp::shared();
    let sales = app.user(Role::Sales);
    let body = json!({
        "name": "\u{7}bell", "email": "secret-canary", "phone": "+0000000000", "taxId": "A_1",
        "bankAccount": "DE00 0000 0000 0000 0000 00", "address": "", "password": "x",
    });
    let reply = sales.post("/v1/customers", &body).await;
    assert_eq!(reply.problem(400), "invalid_input");
    // What the schema says comes first.
    assert_eq!(
        reply.faults(),
        ["/name format", "/email format", "/phone format", "/taxId too_short", "/address too_short", " unknown_field"]
    );
    // Then what no schema can say: check digits, and a character that no pattern names.
    let body = json!({
        "name": "canary\u{e0041}", "email": "secret-canary@example.com", "taxId": "A-12",
        "bankAccount": "DE00 0000 0000 0000 0000 00",
    });
    let reply = sales.post("/v1/customers", &body).await;
    assert_eq!(reply.problem(422), "unprocessable");
    assert_eq!(reply.faults(), ["/name format", "/bankAccount format"]);
    assert!(!reply.text.contains("canary"));
}

#[tokio::test]
async fn an_erased_customer_is_gone_and_the_books_remain() {
    let app = TestApp::start().await;
    let admin = app.user(Role::Admin);
    let customer = admin.post("/v1/customers", &somebody()).await.ok(201)["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/customers/{customer}");
    let order = json!({
        "customerId": customer, "lines": [{ "sku": "PAPER-A4", "quantity": 1 }], "shippingSpeed": "standard",
    });
    let placed = admin.post("/v1/orders", &order).await.ok(201);
    assert_eq!(placed["customerId"], customer.as_str());
    assert_eq!(admin.send(admin.request(Method::DELETE, &path)).await.status, 204);
    for reply in [
        admin.get(&path).await,
        patch(&admin, &path, &json!({ "name": "X" })).await,
        admin.send(admin.request(Method::DELETE, &path)).await,
    ] {
        assert_eq!(reply.problem(404), "not_found");
    }
    assert_eq!(admin.get("/v1/customers?email=art@vandelay.example").await.ok(200)["items"], json!([]));
    assert!(!admin.get("/v1/customers?limit=100").await.text.contains(&customer));
    let kept = admin.get(&format!("/v1/orders/{}", placed["id"].as_str().unwrap())).await.ok(200);
    assert_eq!(kept, placed);
    assert_eq!(admin.post("/v1/orders", &order).await.faults(), ["/customerId unknown_customer"]);
    // Nor past the code.
    let tenant = format!("set local app.tenant_id = '{}';", ACME.id);
    for (change, refused) in [
        (format!("update customers set erased_at = null, name = 'X' where id = '{customer}'"), "stays erased"),
        (
            format!(
                "insert into orders (tenant_id, id, customer_id, status, shipping_speed, total_amount, total_currency,
                                     created_by, created_at, updated_at)
                 values (current_tenant(), gen_random_uuid(), '{customer}', 'placed', 'standard', 1, 'EUR', 'x', now(), now())"
            ),
            "no such customer",
        ),
    ] {
        let error = run(&app.database.writer, &format!("{tenant} {change}")).await.unwrap_err().to_string();
        assert!(error.contains(refused), "{change}: {error}");
    }
    let left = format!("select to_jsonb(c) - 'id' - 'tenant_id' from customers c where id = '{customer}'");
    let left: Value = serde_json::from_str(&query(&app.database.owner, &left).await[0]).unwrap();
    for field in ["name", "email", "phone", "tax_id", "bank_account", "address", "email_index", "tax_id_index"] {
        assert_eq!(left[field], Value::Null, "{field}");
    }
}

#[tokio::test]
async fn authz_03_an_order_cannot_be_for_another_tenants_customer() {
    let app = TestApp::shared();
    let globex = app.user_of(&GLOBEX, Role::Admin, &Scope::ALL);
    let theirs = globex.post("/v1/customers", &somebody()).await.ok(201);
    let order = |customer: &Value| json!({ "customerId": customer, "lines": [{ "sku": "PAPER-A4", "quantity": 1 }], "shippingSpeed": "standard" });
    let admin = app.user(Role::Admin);
    let foreign = admin.post("/v1/orders", &order(&theirs["id"])).await;
    let missing = admin.post("/v1/orders", &order(&json!(uuid::Uuid::now_v7()))).await;
    assert_eq!(foreign.problem(422), "unprocessable");
    assert_eq!(foreign.faults(), ["/customerId unknown_customer"]);
    assert_eq!(foreign.comparable(), missing.comparable());
    assert_eq!(
        admin.get(&format!("/v1/orders?customerId={}", theirs["id"].as_str().unwrap())).await.ok(200)["items"],
        json!([])
    );
    // Nor past the code: the reference carries the tenant.
    let update = format!(
        "set local app.tenant_id = '{}'; update orders set customer_id = '{}' where id = '{}'",
        ACME.id,
        theirs["id"].as_str().unwrap(),
        demo::FIRST_ORDER
    );
    let error = run(&app.database.owner, &update).await.unwrap_err().to_string();
    assert!(error.contains("foreign key"), "{error}");
}
