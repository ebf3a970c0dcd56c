//! Keys that go: data keys that nothing needs, and keys of blind indexes. By the command as
//! operators run it, which is told nothing but its login.

use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;
use service::{
    authz::policy::Role,
    ops::{Keys, Pass},
};

use crate::{
    rotation::{INDEX_KEY, add, keys, person, refused_start, under},
    support::{ACME, TestApp, as_superuser, binary, id_of, in_the_middle, keyset, query, run, superuser},
};

/// Runs `keys` with these arguments, and gives what it says.
pub async fn retire(app: &TestApp, arguments: &[&str]) -> Result<String, String> {
    retire_beside(app, arguments, None).await
}

/// The same with `APP_KEYS__INDEX`.
pub async fn retire_beside(app: &TestApp, arguments: &[&str], index: Option<&str>) -> Result<String, String> {
    let mut command = binary();
    command.arg("keys").args(arguments).env("APP_PROFILE", "development");
    command.env("APP_DATABASE__OPERATOR_URL", app.database.operator.expose_secret());
    // The server's, and no affair of these.
    command.env("APP_HTTP__LISTEN", "nonsense").envs(index.map(|index| ("APP_KEYS__INDEX", index)));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let [said, faults] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    if output.status.success() { Ok(said) } else { Err(faults) }
}

/// Stores so many more customers of Acme, whom nobody can open.
pub fn copies(customers: usize) -> String {
    format!(
        "insert into customers (tenant_id, id, name, email, email_index, created_by, created_at, updated_at)
         select tenant_id, gen_random_uuid(), name, email, email_index, created_by, created_at, updated_at
         from (select * from customers where tenant_id = '{}' limit 1) c, generate_series(1, {customers})",
        ACME.id
    )
}

/// Customers of Acme who are in an index.
pub const ENTRIES: &str = "select count(*)::text from customers where coalesce(email_index, tax_id_index) is not null";

#[tokio::test]
async fn crypto_05_a_data_key_that_customers_need_is_not_dropped() {
    let app = TestApp::start().await;
    // As if a rotation had stopped before its first batch.
    let add = format!(
        "insert into data_keys select of_tenant, 2, wrapped_by, wrapped, now() from data_keys where of_tenant = '{}'",
        ACME.id
    );
    run(&app.database.owner, &add).await.unwrap();
    let acme = ACME.id.to_string();
    let drop = async |version| retire(&app, &["drop", &acme, version]).await.unwrap_err();
    let refused = drop("1").await;
    assert!(refused.contains("customers are sealed with it") && refused.contains("keys reseal"), "{refused}");
    // The newest is the one that the next customer gets, though nobody has it yet.
    for version in ["2", "3"] {
        let refused = drop(version).await;
        assert!(refused.contains(&format!("data key {version} is needed")), "{refused}");
    }
    assert_eq!(app.user(Role::Admin).get("/v1/customers").await.ok(200)["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn crypto_05_nothing_is_sealed_with_a_data_key_that_was_dropped_meanwhile() {
    let app = TestApp::start().await;
    let tenant = ACME.id.uuid();
    let sales = app.user(Role::Sales);
    // This replica now takes data key 1 for the newest, for five seconds.
    sales.post("/v1/customers", &person(1)).await.ok(201);
    let next = format!(
        "begin; delete from customer_keys where tenant_id = '{tenant}';
         insert into data_keys select of_tenant, 2, wrapped_by, wrapped, now() from data_keys where of_tenant = '{tenant}';
         commit"
    );
    as_superuser(&app, next).await;
    retire(&app, &["drop", &tenant.to_string(), "1"]).await.unwrap();
    let reply = sales.post("/v1/customers", &person(2)).await;
    assert_eq!(reply.problem(503), "unavailable");
    assert_eq!(
        query(&app.database.owner, "select data_key::text from customer_keys where data_key = 1").await.len(),
        0
    );
}

/// Each by the login that might do it.
#[tokio::test]
async fn crypto_06_a_customer_has_index_entries_by_keys_that_are_there() {
    let app = TestApp::start().await;
    let refused = async |login, sql: &str| {
        let sql = format!("set local app.tenant_id = '{}'; {sql}", ACME.id);
        run(login, &sql).await.unwrap_err().to_string()
    };
    for (change, says) in [
        ("email_index = null", "found by nobody"),
        ("tax_id_index = null", "erased_is_empty"),
        ("email_index = set_byte(email_index, 1, 9)", "not known, or was forgotten"),
        ("tax_id_index = set_byte(email_index, 0, 1)", "not known, or was forgotten"),
    ] {
        let change = format!("update customers set {change} where tax_id is not null");
        let told = refused(&app.database.writer, &change).await;
        assert!(told.contains(says), "{change}: {told}");
    }
    // Who operates takes the entries of nobody who is still there, nor of a tenant that never was.
    for tenant in [ACME.id.uuid(), uuid::Uuid::from_u128(7)] {
        let told =
            refused(&app.database.operator, &format!("select clear_indexes('{tenant}', now(), '{tenant}', 1000)"))
                .await;
        assert!(told.contains("are not destroyed"), "{told}");
    }
    // What a snapshot does not show it would not miss.
    let late = "set transaction isolation level repeatable read; select forget_index_key(1)";
    assert!(run(&app.database.operator, late).await.unwrap_err().to_string().contains("that is read committed"));
    let told = refused(&app.database.operator, "delete from index_keys").await;
    assert!(told.contains("permission denied"), "{told}");
    assert_ne!(query(&app.database.owner, ENTRIES).await, ["0"]);
    // Whom an older version indexed by a key that it had forgotten can be changed all the same.
    as_superuser(&app, "delete from index_keys".to_owned()).await;
    let same = "update customers set email_index = email_index, tax_id_index = tax_id_index";
    run(&app.database.writer, &format!("set local app.tenant_id = '{}'; {same}", ACME.id)).await.unwrap();
}

/// Each sees that there is another key: the one that the other forgets.
#[tokio::test]
async fn crypto_06_two_operators_do_not_forget_the_last_two_index_keys() {
    let app = TestApp::start().await;
    let two = "update index_keys set forgotten_at = now(); insert into index_keys select v, check_value from index_keys, (values (7), (8)) n (v)";
    as_superuser(&app, two.to_owned()).await;
    let other = keyset(2);
    let second = retire_beside(&app, &["forget-index", "8"], Some(&other));
    let second = in_the_middle(&app.database, "select forget_index_key(7)", "", second).await;
    assert!(second.unwrap_err().contains("it is the only index key"));
    assert_eq!(
        query(&app.database.keys, "select version::text from index_keys where forgotten_at is null").await,
        ["8"]
    );
}

/// A command that is told of another list than the replicas have, or of none.
#[tokio::test]
async fn crypto_06_the_only_index_key_is_not_forgotten_nor_one_that_is_not_there() {
    let app = TestApp::start().await;
    let none = TestApp::start_on(app.database.clone(), &[]).await;
    let other = keyset(2);
    for (version, index, says) in [
        ("1", None, "APP_KEYS__INDEX: is required"),
        ("1", Some(app.database.index_keys.expose_secret()), "index key 1 is needed: new rows get it"),
        ("1", Some(&*other), "index key 1 is needed: it is the only index key"),
        ("2", Some(app.database.index_keys.expose_secret()), "no index key of this version"),
    ] {
        let told = retire_beside(&app, &["forget-index", version], index).await.unwrap_err();
        assert!(told.contains(says), "{version}: {told}");
    }
    none.user(Role::Sales).post("/v1/customers", &person(1)).await.ok(201);
}

#[tokio::test]
async fn crypto_06_a_replica_that_goes_by_a_forgotten_index_key_stores_nothing_and_does_not_start_again() {
    let app = TestApp::start().await;
    let paths = add(&app, 1).await;
    let (old, new) = (app.database.index_keys.expose_secret().to_owned(), keyset(2));
    let both = format!("{new},{old}");
    let replica = TestApp::start_on(app.database.clone(), &[("APP_KEYS__INDEX", &both)]).await;
    keys(&app, Keys::Reseal { pass: Pass::of(None) }, &[("APP_KEYS__INDEX", &both)]).await.unwrap();
    // This one was overlooked, and is storing a customer right now.
    let forget = async || retire_beside(&app, &["forget-index", "1"], Some(&both)).await;
    for entry in ["email_index", "tax_id_index"] {
        let store = format!(
            "update customers set {entry} = '\\x0001' || substring({entry} from 3) where id = '{}'",
            id_of(&paths[0])
        );
        let refused = in_the_middle(&app.database, &store, "", forget()).await.unwrap_err();
        assert!(refused.contains(&format!("customers of {} have it: run `keys reseal`", ACME.id)), "{refused}");
        keys(&app, Keys::Reseal { pass: Pass::of(None) }, &[("APP_KEYS__INDEX", &both)]).await.unwrap();
    }
    forget().await.unwrap();
    assert!(forget().await.unwrap_err().contains("no index key of this version, or it was forgotten"));
    let trail =
        "select count(*)::text from audit_events where action = 'index_key_forgotten' and object = 'index key 1'";
    let trail: String = sqlx::query_scalar(trail).fetch_one(&mut superuser(&app.database).await).await.unwrap();
    assert_eq!(trail, "1");
    // What it stores the others would not find.
    let reply = app.user(Role::Sales).post("/v1/customers", &person(2)).await;
    assert_eq!(reply.problem(503), "unavailable");
    let admin = app.user(Role::Admin);
    let change = admin.request(Method::PATCH, &paths[0]).json(&json!({ "taxId": "DE-9" }));
    assert_eq!(admin.send(change).await.problem(503), "unavailable");
    assert_eq!(under(&app, INDEX_KEY).await, ["2: 4"]);
    // It may come back as often as it likes, with the right list or not at all.
    for list in [&old, &format!("{old},{new}")] {
        let told = refused_start(&app, "APP_KEYS__INDEX", list).await;
        assert!(told.contains("index key 1 is the first") && told.contains("take the next number"), "{told}");
    }
    for list in [&both, &new] {
        let replica = TestApp::start_on(app.database.clone(), &[("APP_KEYS__INDEX", list)]).await;
        replica.user(Role::Sales).post("/v1/customers", &person(3)).await.ok(201);
    }
    let page = replica.user(Role::Admin).get("/v1/customers?taxId=DE-000003").await.ok(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let status = keys(&app, Keys::Status, &[("APP_KEYS__INDEX", &new)]).await.unwrap().join("\n");
    assert!(!status.contains("index key 1"), "{status}");
}
