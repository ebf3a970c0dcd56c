//! Keys of blind indexes that change while the service runs (CRYPTO-06).

use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;
use service::{
    authz::policy::Role,
    dev::demo,
    ops::{Keys, Pass},
};

use crate::{
    rotation::{INDEX_KEY, add, all_is_there, keys, person, refused_start, under},
    support::{ACME, TestApp, keyset, query, superuser, wait_for_a_waiter},
};

#[tokio::test]
async fn crypto_06_index_keys_rotate_and_what_is_searched_is_found_meanwhile() {
    let app = TestApp::start().await;
    let paths = add(&app, 60).await;
    let (old, new) = (app.database.index_keys.expose_secret().to_owned(), keyset(2));
    let both = format!("{new},{old}");
    let replica = TestApp::start_on(app.database.clone(), &[("APP_KEYS__INDEX", &both)]).await;
    all_is_there(&replica, &paths).await;
    let added = replica.user(Role::Sales).post("/v1/customers", &person(1)).await.ok(201);
    let page = replica.user(Role::Admin).get("/v1/customers?email=person-1@example.com").await.ok(200);
    assert_eq!(page["items"][0]["id"], added["id"], "the newest first, under whichever key");
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let status = async || keys(&app, Keys::Status, &[("APP_KEYS__INDEX", &both)]).await.unwrap().join("\n");
    let uses = |version: u16, customers: usize| format!("{}: index key {version}: {customers} customers", ACME.id);
    let before = status().await;
    assert!(before.contains(&uses(1, 63)) && before.contains(&uses(2, 1)), "{before}");
    // A change of one of the two leaves the other where it was.
    let newest = json!({ "email": "newest@example.com" });
    for path in &paths[58..] {
        let admin = replica.user(Role::Admin);
        admin.send(admin.request(Method::PATCH, path).json(&newest)).await.ok(200);
    }
    let forget = async |version| keys(&app, Keys::ForgetIndex { version }, &[("APP_KEYS__INDEX", &both)]).await;
    let refused = forget(1).await.unwrap_err();
    assert!(refused.contains("63 customers of") && refused.contains("keys reseal"), "{refused}");
    keys(&app, Keys::Reseal { pass: Pass::of(None) }, &[("APP_KEYS__INDEX", &both)]).await.unwrap();
    let after = status().await;
    assert!(after.contains(&uses(2, 64)) && after.contains(&uses(1, 0)), "{after}");
    assert_eq!(under(&app, INDEX_KEY).await, ["2: 64"]);
    assert_eq!(under(&app, "get_byte(c.tax_id_index, 1)").await[0], "2: 63");
    // What rows may have must be there: first it is forgotten, then left out.
    assert!(refused_start(&app, "APP_KEYS__INDEX", &new).await.contains("index key 1"));
    assert!(forget(2).await.unwrap_err().contains("new rows get it"));
    forget(1).await.unwrap();
    assert!(forget(1).await.unwrap_err().contains("no index key of this version"));
    let last = TestApp::start_on(app.database.clone(), &[("APP_KEYS__INDEX", &new)]).await;
    let page = last.user(Role::Admin).get("/v1/customers?taxId=DE-000001").await.ok(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
}

/// By a replica that was not told, what the others cannot find would be stored.
#[tokio::test]
async fn crypto_06_an_index_key_that_was_forgotten_gets_no_row_and_one_that_a_row_gets_is_not_forgotten() {
    let stale = TestApp::start().await;
    let both = format!("{},{}", keyset(2), stale.database.index_keys.expose_secret());
    let forget = async || keys(&stale, Keys::ForgetIndex { version: 1 }, &[("APP_KEYS__INDEX", &both)]).await;
    keys(&stale, Keys::Reseal { pass: Pass::of(None) }, &[("APP_KEYS__INDEX", &both)]).await.unwrap();
    // One that is being written while it is looked for whether any row has it.
    let mut writer = superuser(&stale.database).await;
    let write = "begin; update customers set tax_id_index = '\\x0001' || substring(tax_id_index from 3)
                        where tax_id_index is not null";
    sqlx::raw_sql(write).execute(&mut writer).await.unwrap();
    let (refused, ()) = tokio::join!(forget(), async {
        wait_for_a_waiter(&stale.database).await;
        sqlx::raw_sql("commit").execute(&mut writer).await.unwrap();
    });
    assert!(refused.unwrap_err().contains("a customer just got it"));
    keys(&stale, Keys::Reseal { pass: Pass::of(None) }, &[("APP_KEYS__INDEX", &both)]).await.unwrap();
    forget().await.unwrap();
    let customers = "select concat(id, email_index, tax_id_index) from customers order by 1";
    let before = query(&stale.database.owner, customers).await;
    let (sales, customer) = (stale.user(Role::Sales), format!("/v1/customers/{}", demo::FIRST_CUSTOMER));
    assert_eq!(sales.post("/v1/customers", &person(1)).await.problem(503), "unavailable");
    for change in [json!({ "email": "other@example.com" }), json!({ "taxId": "DE-7" })] {
        let patch = sales.request(Method::PATCH, &customer).json(&change);
        assert_eq!(sales.send(patch).await.problem(503), "unavailable");
    }
    assert_eq!(query(&stale.database.owner, customers).await, before);
}
