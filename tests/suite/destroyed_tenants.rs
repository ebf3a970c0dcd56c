//! Tenants that have left, and whose data keys are destroyed (CRYPTO-08): nobody reads their customers again, nor finds them.

use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;
use service::{
    authz::policy::Role,
    ops::{Keys, Pass},
};

use crate::{
    retired_keys::{ENTRIES, copies, retire, retire_beside},
    rotation::{add, all_is_there, keys, person},
    support::{ACME, TestApp, as_superuser, id_of, in_the_middle, keyset, query, run, superuser, wait_for_a_waiter},
};

async fn destroy(app: &TestApp, reason: &str) -> Result<String, String> {
    retire(app, &["destroy", &ACME.id.to_string(), "--reason", reason]).await
}

#[tokio::test]
async fn crypto_08_a_tenant_whose_data_keys_are_destroyed_is_read_by_nobody() {
    let app = TestApp::start().await;
    let paths = add(&app, 1).await;
    assert!(destroy(&app, " ").await.unwrap_err().contains("a reason"));
    // A tenant of another name would be thought to be gone.
    let other = retire(&app, &["destroy", &uuid::Uuid::from_u128(7).to_string(), "--reason", "they left"]).await;
    assert!(other.unwrap_err().contains("never a data key of this tenant"));
    let done = destroy(&app, "they left").await.unwrap();
    assert!(done.contains("1 data keys destroyed") && done.contains("4 customers are found by nothing"), "{done}");
    let again = destroy(&app, "once more").await.unwrap();
    assert!(again.contains("0 data keys destroyed") && again.contains("0 customers"), "{again}");
    let replica = TestApp::start_on(app.database.clone(), &[]).await;
    let admin = replica.user(Role::Admin);
    assert_eq!(admin.get(&paths[0]).await.problem(404), "not_found");
    assert_eq!(admin.get("/v1/customers").await.problem(404), "not_found");
    let change = admin.request(Method::PATCH, &paths[0]).json(&json!({ "phone": "+491771234567" }));
    assert_eq!(admin.send(change).await.problem(404), "not_found");
    // Nor does the index say any more who shares an address.
    let found = admin.get("/v1/customers?email=person-0@example.com").await.ok(200);
    assert_eq!(found["items"], json!([]));
    assert_eq!(query(&app.database.owner, ENTRIES).await, ["0"]);
    // The books stay.
    assert!(!admin.get("/v1/orders").await.ok(200)["items"].as_array().unwrap().is_empty());
    // No other key has the version of one that was destroyed, so nothing comes back with half of a tenant readable.
    assert_eq!(replica.user(Role::Sales).post("/v1/customers", &person(2)).await.problem(404), "not_found");
    let left = format!("select concat(version, wrapped is null) from data_keys where of_tenant = '{}'", ACME.id);
    assert_eq!(query(&app.database.owner, &left).await, ["1t"]);
    let rotate = keys(&app, Keys::Rotate { pass: Pass::of(Some(ACME.id.uuid())) }, &[]).await.unwrap_err();
    assert!(rotate.contains("nothing sealed"), "{rotate}");
    keys(&app, Keys::Rotate { pass: Pass::of(None) }, &[]).await.unwrap();
    // Whoever is left can be erased.
    assert_eq!(admin.send(admin.request(Method::DELETE, &paths[0])).await.status, 204);
}

/// A replica remembers data keys for a minute, and the newest for five seconds.
#[tokio::test]
async fn crypto_08_who_remembers_a_data_key_that_was_destroyed_stores_nothing_with_it() {
    let app = TestApp::start().await;
    let paths = add(&app, 2).await;
    // Somebody is storing a customer right now, and is waited for.
    let mut storing = superuser(&app.database).await;
    let store = format!("begin; {}", copies(1));
    sqlx::raw_sql(sqlx::AssertSqlSafe(store)).execute(&mut storing).await.unwrap();
    let finish = async {
        wait_for_a_waiter(&app.database).await;
        let there = "select (wrapped is not null)::text from data_keys where of_tenant = (select current_tenant())";
        assert_eq!(query(&app.database.owner, there).await, ["true"], "nothing is destroyed yet");
        // Other tenants get data keys meanwhile.
        let add =
            "insert into data_keys select gen_random_uuid(), 1, wrapped_by, wrapped, now() from data_keys limit 1";
        run(&app.database.keys, add).await.unwrap();
        sqlx::raw_sql("commit").execute(&mut storing).await.unwrap();
    };
    let (destroyed, ()) = tokio::join!(destroy(&app, "they left"), finish);
    assert!(destroyed.unwrap().contains("6 customers are found by nothing"));
    let (sales, admin) = (app.user(Role::Sales), app.user(Role::Admin));
    assert_eq!(sales.post("/v1/customers", &person(3)).await.problem(404), "not_found");
    let change = admin.request(Method::PATCH, &paths[1]).json(&json!({ "email": "other@example.com" }));
    assert_eq!(admin.send(change).await.problem(404), "not_found");
    assert_eq!(admin.get(&paths[1]).await.problem(404), "not_found");
    assert_eq!(query(&app.database.owner, ENTRIES).await, ["0"]);
}

/// Its customers cannot be sealed anew, and would have kept the key for ever.
#[tokio::test]
async fn crypto_08_a_tenant_that_was_destroyed_keeps_no_index_key() {
    let app = TestApp::start().await;
    add(&app, 1).await;
    let (old, new) = (app.database.index_keys.expose_secret().to_owned(), keyset(2));
    let both = format!("{new},{old}");
    // As if the command had been broken off, or been one of an older version.
    let destroyed = format!(
        "{}; update data_keys set wrapped = null, destroyed_at = now() where of_tenant = '{}'",
        copies(2000),
        ACME.id
    );
    as_superuser(&app, destroyed).await;
    let with_both = [("APP_KEYS__INDEX", both.as_str())];
    TestApp::start_on(app.database.clone(), &with_both).await;
    keys(&app, Keys::Reseal { pass: Pass::of(None) }, &with_both).await.unwrap();
    let forget = async || retire_beside(&app, &["forget-index", "1"], Some(&both)).await;
    let refused = forget().await.unwrap_err();
    assert!(refused.contains("or `keys destroy` once more if that tenant has left"), "{refused}");
    let done = destroy(&app, "they left").await.unwrap();
    assert!(done.contains("2004 customers are found by nothing"), "{done}");
    forget().await.unwrap();
    let last = TestApp::start_on(app.database.clone(), &[("APP_KEYS__INDEX", &new)]).await;
    assert_eq!(last.user(Role::Admin).get("/v1/customers").await.problem(404), "not_found");
}

/// They were destroyed by mistake, or it was the wrong tenant.
#[tokio::test]
async fn crypto_08_data_keys_that_come_back_from_a_backup_bring_their_customers_back() {
    let app = TestApp::start().await;
    let paths = add(&app, 2).await;
    as_superuser(&app, "create schema backup; create table backup.data_keys as select * from data_keys".to_owned())
        .await;
    destroy(&app, "the wrong one").await.unwrap();
    let back = "update data_keys k set wrapped = b.wrapped, destroyed_at = null from backup.data_keys b
                where b.of_tenant = k.of_tenant and b.version = k.version";
    as_superuser(&app, back.to_owned()).await;
    let replica = TestApp::start_on(app.database.clone(), &[]).await;
    assert_eq!(replica.user(Role::Admin).get(&paths[0]).await.problem(404), "not_found");
    let said = keys(&app, Keys::Reseal { pass: Pass::of(None) }, &[]).await.unwrap().concat();
    assert!(said.contains("done, 5 customers sealed anew"), "{said}");
    all_is_there(&replica, &paths).await;
}

/// Who is erased right now is not there to be taken out of an index.
#[tokio::test]
async fn crypto_08_destroying_and_erasing_do_not_keep_each_other_from_ending() {
    let app = TestApp::start().await;
    let paths = add(&app, 2).await;
    let erase = format!(
        "update customers set name = null, email = null, phone = null, tax_id = null, bank_account = null,
                                     address = null, email_index = null, tax_id_index = null, erased_at = now()
         where id = '{}'",
        id_of(&paths[1])
    );
    let destroyed = in_the_middle(&app.database, &erase, "", destroy(&app, "they left")).await;
    assert!(destroyed.unwrap().contains("4 customers are found by nothing"));
    assert_eq!(query(&app.database.owner, ENTRIES).await, ["0"]);
}

/// As a rotation may have come since it began.
#[tokio::test]
async fn crypto_08_who_stores_with_a_data_key_that_is_not_the_newest_is_waited_for_too() {
    let app = TestApp::start().await;
    let next = "insert into data_keys select of_tenant, 2, wrapped_by, wrapped, now() from data_keys";
    let rotated = async {
        run(&app.database.keys, next).await.unwrap();
        destroy(&app, "they left").await
    };
    let destroyed = in_the_middle(&app.database, &copies(1), "", rotated).await;
    assert!(destroyed.unwrap().contains("4 customers are found by nothing"));
}
