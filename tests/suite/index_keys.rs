//! Keys of blind indexes that change while the service runs (CRYPTO-06).

use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;
use service::{
    authz::policy::Role,
    ops::{Keys, Pass},
};

use crate::{
    retired_keys::{copies, retire_beside},
    rotation::{DATA_KEY, INDEX_KEY, QUICK, add, all_is_there, keys, person, refused_start, under},
    support::{ACME, TestApp, as_superuser, keyset, superuser},
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
    // Who is storing a customer does not wait for that, nor is waited for.
    let mut storing = superuser(&app.database).await;
    let store = format!("begin; {}", copies(1));
    sqlx::raw_sql(sqlx::AssertSqlSafe(store)).execute(&mut storing).await.unwrap();
    let refused = forget("1").await.unwrap_err();
    assert!(refused.contains("customers of") && refused.contains("keys reseal"), "{refused}");
    sqlx::raw_sql("rollback").execute(&mut storing).await.unwrap();
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

/// It has the new key by then, and not first yet.
#[tokio::test]
async fn crypto_05_a_replica_that_indexes_by_the_key_before_keeps_no_rotation_of_data_keys_going() {
    let app = TestApp::start().await;
    let paths = add(&app, 2).await;
    let both = format!("{},{}", keyset(2), app.database.index_keys.expose_secret());
    // Whatever it is sealed with, it is indexed as before.
    let before = "create schema slow; grant usage on schema slow to app_writer;
                  create function slow.index() returns trigger language plpgsql as $$ begin
                      new.email_index := old.email_index;
                      new.tax_id_index := old.tax_id_index;
                      return new;
                  end $$;
                  create trigger a_slow before update on customers for each row execute function slow.index()";
    as_superuser(&app, before.to_owned()).await;
    let own = [&QUICK[..], &[("APP_KEYS__INDEX", &both)]].concat();
    keys(&app, Keys::Rotate { pass: Pass::of(None) }, &own).await.unwrap();
    assert_eq!((under(&app, DATA_KEY).await, under(&app, INDEX_KEY).await), (vec!["2: 5".into()], vec!["1: 5".into()]));
    all_is_there(&app, &paths).await;
}

/// Of a tenant that has thousands with nothing to do in front of them.
#[tokio::test]
async fn crypto_05_a_pass_finds_who_is_far_down_and_first_on_a_page() {
    let app = TestApp::start().await;
    add(&app, 10).await;
    let both = format!("{},{}", keyset(2), app.database.index_keys.expose_secret());
    let own = [("APP_KEYS__INDEX", both.as_str())];
    TestApp::start_on(app.database.clone(), &own).await;
    let much = format!(
        "{}; update customers set created_at = now() + interval '1 hour', email_index = '\\x0002' || substring(email_index from 3)
         where id not in (select customer_id from customer_keys);
         insert into customer_keys (tenant_id, customer_id, data_key, wrapped)
         select tenant_id, id, 1, email from customers where id not in (select customer_id from customer_keys)",
        copies(5_000)
    );
    as_superuser(&app, much).await;
    let pass = Pass::of(Some(ACME.id.uuid()));
    let said = keys(&app, Keys::Reseal { pass }, &own).await.unwrap();
    assert_eq!(said, [format!("{}: done, 13 customers sealed anew", ACME.id)]);
    // And who is the last of all.
    let last = format!(
        "update customers set email_index = '\\x0001' || substring(email_index from 3)
                where (created_at, id) = (select created_at, id from customers where tenant_id = '{}' order by created_at, id limit 1)",
        ACME.id
    );
    as_superuser(&app, last).await;
    let said = keys(&app, Keys::Reseal { pass }, &own).await.unwrap();
    assert_eq!(said, [format!("{}: done, 1 customers sealed anew", ACME.id)]);
}
