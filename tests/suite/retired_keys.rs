//! Keys that go: data keys that nothing needs, keys of blind indexes, and all of a tenant that has left. By the command as
//! operators run it, which is told nothing but its login.

use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;
use service::{
    authz::policy::Role,
    ops::{Keys, Pass},
};
use sqlx::{Connection as _, PgConnection};

use crate::{
    rotation::{INDEX_KEY, add, all_is_there, keys, person, refused_start, under},
    support::{ACME, TestApp, binary, keyset, query, run, superuser, wait_for_a_waiter},
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

async fn destroy(app: &TestApp, reason: &str) -> Result<String, String> {
    retire(app, &["destroy", &ACME.id.to_string(), "--reason", reason]).await
}

/// Does it as somebody who may do everything.
pub async fn as_superuser(app: &TestApp, sql: String) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut superuser(&app.database).await).await.unwrap();
}

fn id_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
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
const ENTRIES: &str = "select count(*)::text from customers where coalesce(email_index, tax_id_index) is not null";

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
    let mut first = PgConnection::connect(app.database.operator.expose_secret()).await.unwrap();
    sqlx::raw_sql("begin; select forget_index_key(7)").execute(&mut first).await.unwrap();
    let finish = async {
        wait_for_a_waiter(&app.database).await;
        sqlx::raw_sql("commit").execute(&mut first).await.unwrap();
    };
    let other = keyset(2);
    let (second, ()) = tokio::join!(retire_beside(&app, &["forget-index", "8"], Some(&other)), finish);
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
    let mut storing = superuser(&app.database).await;
    let forget = async || retire_beside(&app, &["forget-index", "1"], Some(&both)).await;
    for entry in ["email_index", "tax_id_index"] {
        let store = format!(
            "begin; update customers set {entry} = '\\x0001' || substring({entry} from 3) where id = '{}'",
            id_of(&paths[0])
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(store)).execute(&mut storing).await.unwrap();
        let finish = async {
            wait_for_a_waiter(&app.database).await;
            sqlx::raw_sql("commit").execute(&mut storing).await.unwrap();
        };
        let (refused, ()) = tokio::join!(forget(), finish);
        let refused = refused.unwrap_err();
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
    let mut erasing = superuser(&app.database).await;
    let erase = format!(
        "begin; update customers set name = null, email = null, phone = null, tax_id = null, bank_account = null,
                                     address = null, email_index = null, tax_id_index = null, erased_at = now()
         where id = '{}'",
        id_of(&paths[1])
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(erase)).execute(&mut erasing).await.unwrap();
    let finish = async {
        wait_for_a_waiter(&app.database).await;
        sqlx::raw_sql("commit").execute(&mut erasing).await.unwrap();
    };
    let (destroyed, ()) = tokio::join!(destroy(&app, "they left"), finish);
    assert!(destroyed.unwrap().contains("4 customers are found by nothing"));
    assert_eq!(query(&app.database.owner, ENTRIES).await, ["0"]);
}

/// As a rotation may have come since it began.
#[tokio::test]
async fn crypto_08_who_stores_with_a_data_key_that_is_not_the_newest_is_waited_for_too() {
    let app = TestApp::start().await;
    let mut storing = superuser(&app.database).await;
    let store = format!("begin; {}", copies(1));
    sqlx::raw_sql(sqlx::AssertSqlSafe(store)).execute(&mut storing).await.unwrap();
    let next = "insert into data_keys select of_tenant, 2, wrapped_by, wrapped, now() from data_keys";
    run(&app.database.keys, next).await.unwrap();
    let finish = async {
        wait_for_a_waiter(&app.database).await;
        sqlx::raw_sql("commit").execute(&mut storing).await.unwrap();
    };
    let (destroyed, ()) = tokio::join!(destroy(&app, "they left"), finish);
    assert!(destroyed.unwrap().contains("4 customers are found by nothing"));
}
