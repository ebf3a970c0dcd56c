//! Keys of blind indexes that change while the service runs (CRYPTO-06).

use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;
use service::{
    authz::policy::Role,
    ops::{Keys, Pass},
};

use crate::{
    retired_keys::retire_beside,
    rotation::{INDEX_KEY, add, all_is_there, keys, person, refused_start, under},
    support::{ACME, TestApp, keyset},
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
    let forget = async |version| retire_beside(&app, &["forget-index", version], Some(&both)).await;
    let refused = forget("1").await.unwrap_err();
    assert!(refused.contains("customers of") && refused.contains("keys reseal"), "{refused}");
    keys(&app, Keys::Reseal { pass: Pass::of(None) }, &[("APP_KEYS__INDEX", &both)]).await.unwrap();
    let after = status().await;
    assert!(after.contains(&uses(2, 64)) && after.contains(&uses(1, 0)), "{after}");
    assert_eq!(under(&app, INDEX_KEY).await, ["2: 64"]);
    assert_eq!(under(&app, "get_byte(c.tax_id_index, 1)").await[0], "2: 63");
    // What rows may have must be there: first it is forgotten, then left out.
    assert!(refused_start(&app, "APP_KEYS__INDEX", &new).await.contains("index key 1"));
    assert!(forget("2").await.unwrap_err().contains("new rows get it"));
    forget("1").await.unwrap();
    let last = TestApp::start_on(app.database.clone(), &[("APP_KEYS__INDEX", &new)]).await;
    let page = last.user(Role::Admin).get("/v1/customers?taxId=DE-000001").await.ok(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
}
