//! Customers: masking (AUTHZ-06), search by sealed fields (CRYPTO-06), validation (INPUT-02),
//! erasure (CRYPTO-08), and customers of other tenants (AUTHZ-03).

use http::Method;
use palisade::dev::issuer::SERVICE_CLIENT;
use serde_json::{Value, json};
use service::{
    access::{roles, scopes},
    demo,
};

use crate::support::{
    ACME, Actor, BillingFixture, GLOBEX, Reply, SERVICE, api_keys::key_text, id, order_body, query, run, search,
};

fn customer_body() -> Value {
    json!({
        "name": " Vandelay Industries ",
        "email": "Art@Vandelay.Example",
        "phone": "+1 (555) 012-3456",
        "taxId": "us-12-3456789",
        "bankAccount": "GB82 WEST 1234 5698 7654 32",
        "address": "129 West 81st Street\nNew York",
    })
}

async fn patch(actor: &Actor, path: &str, body: &Value) -> Reply {
    actor.send(actor.request(Method::PATCH, path).json(body)).await
}

/// The fields about a person: name, masked text and plain text.
const FIELDS: [(&str, &str, &str); 5] = [
    ("email", "****mple", "art@vandelay.example"),
    ("phone", "****3456", "+15550123456"),
    ("taxId", "****6789", "US-12-3456789"),
    ("bankAccount", "****5432", "GB82WEST12345698765432"),
    ("address", "****York", "129 West 81st Street\nNew York"),
];

#[tokio::test]
async fn authz_06_personal_data_is_masked_without_the_right_to_see_it() {
    let app = SERVICE.start().await;
    let reply = app.user(roles::SALES).post("/v1/customers", &customer_body()).await;
    let location = reply.header("location").unwrap().to_owned();
    let created = reply.ok(201);
    assert_eq!((&created["name"], &created["masked"]), (&json!("Vandelay Industries"), &json!(true)));
    // The response to a creation is masked for all roles: it is stored for retries.
    let by_admin = app.user(roles::ADMIN).post("/v1/customers", &customer_body()).await.ok(201);
    for (field, masked, _) in FIELDS {
        assert_eq!((&created[field], &by_admin[field]), (&json!(masked), &json!(masked)), "{field}");
    }
    // So is the response to a change: the scope to change a customer is not the scope to read it.
    let path = format!("/v1/customers/{}", id(&by_admin));
    let writer = app.bearer(app.forge().claim("scope", scopes::CUSTOMERS_WRITE.as_str()).token());
    writer.get(&path).await.problem(403);
    assert_eq!(patch(&writer, &path, &json!({})).await.ok(200), by_admin);
    let mut plain = created.clone();
    plain["masked"] = json!(false);
    for (field, _, shown) in FIELDS {
        plain[field] = json!(shown);
    }
    for role in roles::ALL {
        let user = app.user(role);
        let seen = if matches!(role, roles::VIEWER | roles::SALES) { &created } else { &plain };
        assert_eq!(&user.get(&location).await.ok(200), seen, "{role:?}");
        // A list is masked for every role: plain text is read one customer at a time.
        let page = user.get("/v1/customers?limit=2").await.ok(200);
        assert_eq!(page["items"][1], created, "{role:?}");
    }
    // An API key gets masked data, whatever roles its creator has.
    let key = app.new_api_key(&[scopes::CUSTOMERS_READ]).await;
    assert_eq!(app.api_key(key_text(&key)).get(&location).await.ok(200), created);
}

#[tokio::test]
async fn crypto_06_customers_are_found_by_their_exact_email_address() {
    let app = SERVICE.shared();
    let billing = app.user(roles::BILLING);
    assert_eq!(search(&billing, &json!({ "email": "Accounts@Hooli.example" })).await.len(), 1);
    for other in ["accounts@hooli.exampl", "accounts@hooli.example.com", "%@hooli.example", "_ccounts@hooli.example"] {
        assert!(search(&billing, &json!({ "email": other })).await.is_empty(), "{other}");
    }
    let no_address = billing.post("/v1/customers/search", &json!({ "email": "billing" })).await;
    assert_eq!(no_address.faults(), ["/email format"]);
    let viewer = app.user(roles::VIEWER);
    let page = viewer.get("/v1/customers?limit=2").await.ok(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let cursor = page["nextCursor"].as_str().unwrap();
    let rest = viewer.get(&format!("/v1/customers?limit=100&cursor={cursor}")).await.ok(200);
    assert!(!rest["items"].as_array().unwrap().contains(&page["items"][1]));
}

/// A found customer confirms a guessed value. So only callers that may see the value can search.
#[tokio::test]
async fn crypto_06_search_needs_the_right_to_see_personal_data() {
    let app = SERVICE.shared();
    let guess = json!({ "email": "accounts@hooli.example" });
    let key = app.new_api_key(&[scopes::CUSTOMERS_READ]).await;
    let service = app.forge().claim("sub", SERVICE_CLIENT).claim("client_id", SERVICE_CLIENT);
    let service = app.bearer(service.claim("roles", Value::Null).token());
    // The key's creator may see personal data, and the key shows it masked.
    for masked in [app.user(roles::VIEWER), app.user(roles::SALES), app.api_key(key_text(&key)), service] {
        assert_eq!(masked.post("/v1/customers/search", &guess).await.problem(403), "forbidden");
        // No list has a filter by a sealed field, and none confirms a guess in another way.
        for query in ["email=accounts@hooli.example", "taxId=DE123456789"] {
            let reply = masked.get(&format!("/v1/customers?{query}")).await;
            assert_eq!(reply.faults(), [" unknown_parameter"], "{query}");
        }
    }
    for role in [roles::BILLING, roles::AUDITOR, roles::ADMIN] {
        let found = search(&app.user(role), &guess).await;
        assert_eq!((found.len(), &found[0]["masked"]), (1, &json!(true)), "{role:?}");
    }
}

#[tokio::test]
async fn customer_search_takes_one_value_and_has_pages() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    for body in [json!({}), json!({ "limit": 5 })] {
        assert_eq!(admin.post("/v1/customers/search", &body).await.faults(), ["/email required"]);
    }
    let both = json!({ "email": "a@example.com", "taxId": "XZ987" });
    let reply = admin.post("/v1/customers/search", &both).await;
    assert_eq!((reply.problem(422), reply.faults()), ("unprocessable", vec!["/taxId not_combinable".to_owned()]));
    let mut created = Vec::new();
    for _ in 0..3 {
        created.push(id(&admin.post("/v1/customers", &customer_body()).await.ok(201)));
    }
    let mut found = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let mut body = json!({ "email": "art@vandelay.example", "limit": 2 });
        if cursor.is_string() {
            body["cursor"] = cursor;
        }
        let page = admin.post("/v1/customers/search", &body).await.ok(200);
        found.extend(page["items"].as_array().unwrap().iter().map(id));
        cursor = page["nextCursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    created.reverse();
    assert_eq!(found, created);
}

/// RFC 7396: an empty merge patch changes nothing.
#[tokio::test]
async fn log_05_empty_patch_changes_nothing_and_appends_no_event() {
    let app = SERVICE.start().await;
    let sales = app.user(roles::SALES);
    let created = sales.post("/v1/customers", &customer_body()).await.ok(201);
    let path = format!("/v1/customers/{}", id(&created));
    app.clock.advance(std::time::Duration::from_secs(1));
    let events = async || query(&app.database.owner, "select count(*)::text from palisade.audit_events").await;
    let before = events().await;
    assert_eq!(patch(&sales, &path, &json!({})).await.ok(200), created);
    assert_eq!(sales.get(&path).await.ok(200), created);
    assert_eq!(events().await, before);
    let missing = format!("/v1/customers/{}", uuid::Uuid::now_v7());
    assert_eq!(patch(&sales, &missing, &json!({})).await.problem(404), "not_found");
}

#[tokio::test]
async fn customer_patch_keeps_omitted_fields_and_clears_null_ones() {
    let app = SERVICE.start().await;
    let sales = app.user(roles::SALES);
    let created = sales.post("/v1/customers", &customer_body()).await.ok(201);
    let path = format!("/v1/customers/{}", id(&created));
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
async fn input_02_all_faults_of_a_customer_are_reported_without_values() {
    let app = SERVICE.shared();
    let sales = app.user(roles::SALES);
    let body = json!({
        "name": "\u{7}bell", "email": "secret-canary", "phone": "+0000000000", "taxId": "A_1",
        "bankAccount": "DE00 0000 0000 0000 0000 00", "address": "", "password": "x",
    });
    let reply = sales.post("/v1/customers", &body).await;
    assert_eq!(reply.problem(400), "invalid_input");
    // Faults of the schema are reported first.
    assert_eq!(
        reply.faults(),
        ["/name format", "/email format", "/phone format", "/taxId too_short", "/address too_short", " unknown_field"]
    );
    // Then the faults that no schema can describe: check digits, and invisible characters.
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
async fn crypto_08_erased_customer_is_gone_and_its_orders_remain() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let customer = id(&admin.post("/v1/customers", &customer_body()).await.ok(201));
    let path = format!("/v1/customers/{customer}");
    let mut order = order_body("PAPER-A4", 1);
    order["customerId"] = json!(customer);
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
    assert!(search(&admin, &json!({ "email": "art@vandelay.example" })).await.is_empty());
    assert!(!admin.get("/v1/customers?limit=100").await.text.contains(&customer));
    let kept = admin.get(&format!("/v1/orders/{}", id(&placed))).await.ok(200);
    assert_eq!(kept, placed);
    assert_eq!(admin.post("/v1/orders", &order).await.faults(), ["/customerId unknown_customer"]);
    // The database enforces the same.
    let tenant = format!("set local app.tenant_id = '{}';", ACME.id);
    for (change, message) in [
        (
            format!("update customers set erased_at = null, name = 'X' where id = '{customer}'"),
            "an erased customer cannot be changed",
        ),
        (
            format!(
                "insert into orders (tenant_id, id, customer_id, status, shipping_speed, total_amount, total_currency,
                                     created_by, created_at, updated_at)
                 values (palisade.current_tenant(), gen_random_uuid(), '{customer}', 'placed', 'standard', 1, 'EUR',
                 'x', now(), now())"
            ),
            "no such customer",
        ),
    ] {
        let error = run(&app.database.writer, &format!("{tenant} {change}")).await.unwrap_err().to_string();
        assert!(error.contains(message), "{change}: {error}");
    }
    // A new column must be erased too, or be listed here.
    let kept_columns = "'{id,tenant_id,created_by,created_at,updated_at,erased_at}'::text[]";
    let rest = format!("select to_jsonb(c) - {kept_columns} from customers c where id = '{customer}'");
    let rest: Value = serde_json::from_str(&query(&app.database.owner, &rest).await[0]).unwrap();
    let left: Vec<_> = rest.as_object().unwrap().iter().filter(|(_, value)| !value.is_null()).collect();
    assert!(left.is_empty(), "erasure leaves {left:?}");
}

#[tokio::test]
async fn authz_03_order_for_a_foreign_customer_is_rejected() {
    let app = SERVICE.shared();
    let globex = BillingFixture::for_tenant(app, &GLOBEX);
    let foreign_customer = globex.customer().await;
    let admin = app.user(roles::ADMIN);
    let order_for = async |customer: &str| {
        let mut order = order_body("PAPER-A4", 1);
        order["customerId"] = json!(customer);
        admin.post("/v1/orders", &order).await
    };
    let foreign = order_for(&foreign_customer).await;
    let missing = order_for(&uuid::Uuid::now_v7().to_string()).await;
    assert_eq!(foreign.problem(422), "unprocessable");
    assert_eq!(foreign.faults(), ["/customerId unknown_customer"]);
    assert_eq!(foreign.comparable(), missing.comparable());
    assert_eq!(admin.get(&format!("/v1/orders?customerId={foreign_customer}")).await.ok(200)["items"], json!([]));
    // The database enforces the same: the foreign key contains the tenant.
    let update = format!(
        "set local app.tenant_id = '{}'; update orders set customer_id = '{foreign_customer}' where id = '{}'",
        ACME.id,
        demo::FIRST_ORDER
    );
    let error = run(&app.database.owner, &update).await.unwrap_err().to_string();
    assert!(error.contains("foreign key"), "{error}");
}
