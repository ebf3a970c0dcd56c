//! Sealed fields of customers: the database never contains their plaintext (CRYPTO-02), and tax ids
//! are found by their exact value (CRYPTO-06).

use http::Method;
use serde_json::{Value, json};
use service::access::{roles, scopes};

use crate::support::{ACME, Actor, GLOBEX, SERVICE, assert_not_in_database, id, id_of, run, search, superuser};

/// A customer with unique texts, one for each sealed field.
fn canaries() -> Value {
    json!({
        "name": "Ann Example", "email": "canary-1f9b@sealed.example", "phone": "+4917712378945",
        "taxId": "XZ987-CANARY-6543", "bankAccount": "GB33BUKB20201555555555", "address": "77 Canary Wharf\nZanzibar",
    })
}

async fn add(actor: &Actor, body: &Value) -> String {
    format!("/v1/customers/{}", id(&actor.post("/v1/customers", body).await.ok(201)))
}

#[tokio::test]
async fn crypto_02_database_dumps_contain_no_sealed_plaintext() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let body = canaries();
    let create = admin.request(Method::POST, "/v1/customers").json(&body);
    admin.send(create.header("idempotency-key", "canary")).await.ok(201);
    // A change is a second way to write them.
    let path = add(&admin, &json!({ "name": "Else", "email": "else@example.com" })).await;
    let mut change = body.clone();
    change["email"] = json!("canary-2f9b@sealed.example");
    admin.send(admin.request(Method::PATCH, &path).json(&change)).await.ok(200);
    let fields = ["email", "phone", "taxId", "bankAccount", "address"].map(|field| body[field].as_str().unwrap());
    let parts = ["canary-2f9b", "canary-1f9b", "17712378945", "XZ987-CANARY", "BUKB20201555", "Wharf\nZanzibar"];
    assert_not_in_database(&app, "Ann Example", &[&fields[..], &parts].concat()).await;
}

#[tokio::test]
async fn crypto_06_tax_ids_are_searched_by_exact_value_within_the_tenant() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let globex = app.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL);
    let first = add(&admin, &canaries()).await;
    let found = async |actor: &Actor, tax_id: &str| search(actor, &json!({ "taxId": tax_id })).await.len();
    for tax_id in ["xz987-canary-6543", "XZ987CANARY6543"] {
        assert_eq!(found(&admin, tax_id).await, 1, "{tax_id}");
        assert_eq!(found(&globex, tax_id).await, 0, "{tax_id}");
    }
    for tax_id in ["XZ987-CANARY-654", "XZ987"] {
        assert_eq!(found(&admin, tax_id).await, 0, "{tax_id}");
    }
    // An index value copied to another row raises an event, and hides no customer.
    let target = add(&admin, &json!({ "name": "T", "email": "t@example.com", "taxId": "T-1234" })).await;
    let copy_index = format!(
        "update customers set tax_id_index = (select tax_id_index from customers where id = '{}') where id = '{}'",
        id_of(&first),
        id_of(&target)
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(copy_index)).execute(&mut superuser(&app.database).await).await.unwrap();
    let reply = admin.post("/v1/customers/search", &json!({ "taxId": "XZ987-CANARY-6543" })).await;
    assert!(reply.events().iter().any(|event| event["event"] == "sealed_data_invalid"));
    let page = reply.ok(200);
    assert_eq!((&page["items"][0]["id"], &page["items"][1]), (&json!(id_of(&first)), &Value::Null));
    assert_eq!(page["unreadable"], json!([id_of(&target)]));
    // A change updates the index.
    let path = add(&admin, &json!({ "name": "B", "email": "b@example.com", "taxId": "B-1234" })).await;
    let change = json!({ "taxId": null });
    admin.send(admin.request(Method::PATCH, &path).json(&change)).await.ok(200);
    assert_eq!(found(&admin, "B-1234").await, 0);
}

/// The database enforces this for each login that can write the columns.
#[tokio::test]
async fn crypto_06_database_enforces_an_index_entry_for_each_indexed_field() {
    let app = SERVICE.start().await;
    for column in ["email_index", "tax_id_index"] {
        let clear = format!(
            "set local app.tenant_id = '{}'; update customers set {column} = null where tax_id is not null",
            ACME.id
        );
        let error = run(&app.database.writer, &clear).await.unwrap_err().to_string();
        let expected = if column == "email_index" { "needs the blind index" } else { "erased_is_empty" };
        assert!(error.contains(expected), "{column}: {error}");
    }
    // A customer without a tax identifier too, whether changed or inserted.
    add(&app.user(roles::ADMIN), &json!({ "name": "E", "email": "e@example.com" })).await;
    for statement in [
        "update customers set email_index = null where tax_id is null",
        "insert into customers (tenant_id, id, name, email, created_by, created_at, updated_at)
         select tenant_id, gen_random_uuid(), name, email, created_by, created_at, updated_at from customers limit 1",
    ] {
        let statement = format!("set local app.tenant_id = '{}'; {statement}", ACME.id);
        let error = run(&app.database.writer, &statement).await.unwrap_err().to_string();
        assert!(error.contains("needs the blind index"), "{statement}: {error}");
    }
}

#[tokio::test]
async fn crypto_03_customer_without_a_row_key_is_listed_and_can_be_erased() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let path = add(&admin, &json!({ "name": "K", "email": "k@example.com" })).await;
    let delete = format!("delete from palisade.row_keys where row_id = '{}'", id_of(&path));
    sqlx::raw_sql(sqlx::AssertSqlSafe(delete)).execute(&mut superuser(&app.database).await).await.unwrap();
    for reply in [
        admin.get("/v1/customers?limit=100").await,
        admin.post("/v1/customers/search", &json!({ "email": "k@example.com" })).await,
    ] {
        assert!(reply.events().iter().any(|event| event["event"] == "sealed_data_invalid"));
        assert_eq!(reply.ok(200)["unreadable"], json!([id_of(&path)]));
    }
    assert_eq!(admin.get(&path).await.problem(500), "internal");
    assert_eq!(admin.send(admin.request(Method::DELETE, &path)).await.status, 204);
    assert_eq!(admin.get(&path).await.problem(404), "not_found");
}
