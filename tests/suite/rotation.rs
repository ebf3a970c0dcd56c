//! Keys of sealed fields that change while the service runs (CRYPTO-05), by the commands that operators have.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
};

use http::Method;
use serde_json::{Value, json};
use service::{
    app,
    authz::policy::Role,
    domain::Clock,
    ops::{Keys, Pass},
    settings::{LoginSettings, Settings},
};

use crate::support::{ACME, TestApp, UNTHROTTLED, binary, keyset, query, run, superuser};

/// The environment of a command beside this service, with other keys if need be.
pub fn variables(app: &TestApp, keys: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut variables = TestApp::variables(&app.database, app.issuer.url());
    variables.extend(keys.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    variables.retain(|_, value| !value.is_empty());
    variables
}

/// Runs a command as `main` does, and gives what it says.
pub async fn keys(app: &TestApp, command: Keys, keys: &[(&str, &str)]) -> Result<Vec<String>, String> {
    let settings = Settings::from_variables(variables(app, keys)).unwrap();
    let operator = LoginSettings { url: app.database.operator.clone(), secrets_read: Vec::new() };
    let mut said = Vec::new();
    let done = command.run(&settings, Some(&operator), &Clock::system(), |line| said.push(line)).await;
    done.map(|()| said).map_err(|error| error.to_string())
}

pub fn person(n: usize) -> Value {
    json!({
        "name": format!("Person {n}"), "email": format!("person-{n}@example.com"), "phone": "+491771234567",
        "taxId": format!("DE-{n:06}"), "address": format!("{n} Main Street"),
    })
}

pub async fn add(app: &TestApp, people: usize) -> Vec<String> {
    let sales = app.user(Role::Sales);
    let mut paths = Vec::new();
    for n in 0..people {
        let created = sales.post("/v1/customers", &person(n)).await.ok(201);
        paths.push(format!("/v1/customers/{}", created["id"].as_str().unwrap()));
    }
    paths
}

/// Everybody can be read, and found by both indexes.
pub async fn all_is_there(app: &TestApp, paths: &[String]) {
    let admin = app.user(Role::Admin);
    for (n, path) in paths.iter().enumerate() {
        let read = admin.get(path).await.ok(200);
        assert_eq!(read["email"], person(n)["email"]);
        assert_eq!(read["taxId"], person(n)["taxId"]);
        assert_eq!(read["phone"], "+491771234567");
    }
    for query in ["email=person-1@example.com", "taxId=DE000001"] {
        let page = admin.get(&format!("/v1/customers?{query}")).await.ok(200);
        assert_eq!(page["items"][0]["email"], "person-1@example.com", "{query}");
    }
}

/// Customers of Acme under each data key, such as `1: 3`.
pub async fn under(app: &TestApp, column: &str) -> Vec<String> {
    let counts = format!(
        "select concat({column}, ': ', count(*)) from customer_keys k join customers c on c.id = k.customer_id
         group by {column} order by {column}"
    );
    query(&app.database.owner, &counts).await
}

/// Why a replica with another value does not start.
pub async fn refused_start(app: &TestApp, name: &str, value: &str) -> String {
    let settings = Settings::from_variables(variables(app, &[(name, value)])).unwrap();
    app::start(settings, Clock::system()).await.map(|_| ()).unwrap_err().to_string()
}

#[tokio::test]
async fn crypto_06_a_service_without_the_index_keys_that_rows_have_does_not_start() {
    let app = TestApp::start().await;
    let missing = refused_start(&app, "APP_KEYS__INDEX", &keyset(2)).await;
    assert!(missing.contains("index key 1") && missing.contains("does not have"), "{missing}");
    let wrong = refused_start(&app, "APP_KEYS__INDEX", &keyset(1)).await;
    assert!(wrong.contains("another key under version 1"), "{wrong}");
    // Neither left anything behind that keeps the right one from starting.
    TestApp::start_on(app.database.clone(), &[]).await;
}

const DATA_KEY: &str = "k.data_key";
pub const INDEX_KEY: &str = "get_byte(c.email_index, 1)";

#[tokio::test]
async fn crypto_05_data_keys_rotate_under_reads_and_writes_and_the_old_one_is_needed_no_more() {
    let app = TestApp::start_with(&UNTHROTTLED).await;
    let paths = add(&app, 120).await;
    let (admin, done) = (app.user(Role::Admin), AtomicBool::new(false));
    let tenant = Some(ACME.id.uuid());
    let reads = async {
        let mut pages = 0;
        while !done.load(Ordering::Relaxed) {
            let page = admin.get("/v1/customers?limit=100").await.ok(200);
            assert_eq!(page["items"][0]["masked"], false);
            pages += 1;
        }
        pages
    };
    let writes = async {
        let (mut n, mut added) = (0, 0);
        while !done.load(Ordering::Relaxed) {
            let path = &paths[n % paths.len()];
            let change = json!({ "address": format!("{n} Side Street") });
            admin.send(admin.request(Method::PATCH, path).json(&change)).await.ok(200);
            assert_eq!(admin.get(path).await.ok(200)["address"], change["address"]);
            if n % 10 == 0 {
                admin.post("/v1/customers", &json!({ "name": "New", "email": "new@example.com" })).await.ok(201);
                added += 1;
            }
            n += 1;
        }
        added
    };
    let rotation = async {
        // A second operator starts at the same time.
        let both = tokio::join!(
            keys(&app, Keys::Rotate { pass: Pass::of(tenant) }, &[]),
            keys(&app, Keys::Reseal { pass: Pass::of(tenant) }, &[])
        );
        done.store(true, Ordering::Relaxed);
        both
    };
    let (pages, added, (rotated, other)) = tokio::join!(reads, writes, rotation);
    assert!(pages > 1 && added > 1, "{pages} {added}");
    other.unwrap();
    let rotated = rotated.unwrap();
    assert_eq!(rotated[0], format!("{}: data key 2", ACME.id));
    all_is_there(&app, &paths).await;
    assert_eq!(under(&app, DATA_KEY).await, [format!("2: {}", 3 + 120 + added)]);
    // What is no longer needed can go; what is needed cannot.
    let drop = |version| Keys::Drop { tenant: ACME.id.uuid(), version };
    let newest = keys(&app, drop(2), &[]).await.unwrap_err();
    assert!(newest.contains("data key 2 is needed"), "{newest}");
    keys(&app, drop(1), &[]).await.unwrap();
    all_is_there(&app, &paths).await;
    let status = keys(&app, Keys::Status, &[]).await.unwrap().join("\n");
    assert!(
        status.contains(&format!("{}: data key 2, wrapped by keyset:1: {} customers", ACME.id, 123 + added)),
        "{status}"
    );
    assert!(!status.contains(&format!("{}: data key 1", ACME.id)), "{status}");
    // Another replica, which remembers nothing.
    let replica = TestApp::start_on(app.database.clone(), &UNTHROTTLED).await;
    all_is_there(&replica, &paths).await;
}

#[tokio::test]
async fn crypto_05_a_data_key_that_customers_need_is_not_dropped() {
    let app = TestApp::start().await;
    // As if a rotation had stopped before its first batch.
    let add = format!(
        "insert into data_keys select of_tenant, 2, wrapped_by, wrapped, now() from data_keys where of_tenant = '{}'",
        ACME.id
    );
    run(&app.database.owner, &add).await.unwrap();
    let drop = async |version| keys(&app, Keys::Drop { tenant: ACME.id.uuid(), version }, &[]).await.unwrap_err();
    let refused = drop(1).await;
    assert!(refused.contains("3 customers are sealed with it"), "{refused}");
    // The newest is the one that the next customer gets, though nobody has it yet.
    for version in [2, 3] {
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
    sqlx::raw_sql(sqlx::AssertSqlSafe(next)).execute(&mut superuser(&app.database).await).await.unwrap();
    keys(&app, Keys::Drop { tenant, version: 1 }, &[]).await.unwrap();
    let reply = sales.post("/v1/customers", &person(2)).await;
    assert_eq!(reply.problem(503), "unavailable");
    assert_eq!(
        query(&app.database.owner, "select data_key::text from customer_keys where data_key = 1").await.len(),
        0
    );
}

#[tokio::test]
async fn crypto_05_who_cannot_be_opened_does_not_keep_the_others_from_being_sealed_anew() {
    let app = TestApp::start().await;
    let paths = add(&app, 60).await;
    let broken = paths[30].rsplit('/').next().unwrap();
    let spoil = format!(
        "update customer_keys set wrapped = set_bit(wrapped, 200, 1 - get_bit(wrapped, 200)) where customer_id = '{broken}'"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(spoil)).execute(&mut superuser(&app.database).await).await.unwrap();
    let told = keys(&app, Keys::Rotate { pass: Pass::of(None) }, &[]).await.unwrap_err();
    assert!(told.starts_with("1 customers and 0 tenants could not be opened"), "{told}");
    assert_eq!(query(&app.database.owner, "select data_key::text from customer_keys where data_key = 1").await, ["1"]);
    assert_eq!(under(&app, DATA_KEY).await, ["1: 1", "2: 62"]);
}

/// It may have asked for the newest key a moment before.
#[tokio::test]
async fn crypto_05_when_a_rotation_has_ended_no_replica_seals_with_the_key_before() {
    let app = TestApp::start().await;
    add(&app, 1).await;
    keys(&app, Keys::Rotate { pass: Pass::of(None) }, &[]).await.unwrap();
    add(&app, 1).await;
    assert_eq!(under(&app, DATA_KEY).await, ["2: 5"]);
}

#[tokio::test]
async fn crypto_05_a_rotation_that_is_killed_goes_on_where_it_was() {
    let app = TestApp::start_with(&UNTHROTTLED).await;
    let paths = add(&app, 300).await;
    let mut command = binary();
    let mut child = command
        .args(["keys", "rotate", "--tenant", &ACME.id.to_string()])
        .envs(variables(&app, &[("APP_LOG__FILTER", "off")]))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let seen = lines.find(|line| line.as_ref().unwrap().contains("50 customers sealed anew")).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(seen.unwrap().ends_with(": 50 customers sealed anew"));
    let half = under(&app, DATA_KEY).await;
    assert!(half.len() == 2, "some have the new key, some the old: {half:?}");
    all_is_there(&app, &paths).await;
    keys(&app, Keys::Reseal { pass: Pass::of(None) }, &[]).await.unwrap();
    assert_eq!(under(&app, DATA_KEY).await, ["2: 303"]);
    all_is_there(&app, &paths).await;
}

#[tokio::test]
async fn crypto_08_a_tenant_whose_data_keys_are_destroyed_is_read_by_nobody() {
    let app = TestApp::start().await;
    let paths = add(&app, 1).await;
    let tenant = ACME.id.uuid();
    let destroy = |reason: &str| Keys::Destroy { tenant, reason: reason.to_owned() };
    assert!(keys(&app, destroy(" "), &[]).await.unwrap_err().contains("a reason"));
    // A tenant of another name would be thought to be gone.
    let other = Keys::Destroy { tenant: uuid::Uuid::from_u128(7), reason: "they left".to_owned() };
    assert!(keys(&app, other, &[]).await.unwrap_err().contains("never a data key of this tenant"));
    keys(&app, destroy("they left"), &[]).await.unwrap();
    keys(&app, destroy("once more"), &[]).await.unwrap();
    let replica = TestApp::start_on(app.database.clone(), &[]).await;
    let admin = replica.user(Role::Admin);
    assert_eq!(admin.get(&paths[0]).await.problem(404), "not_found");
    assert_eq!(admin.get("/v1/customers").await.problem(404), "not_found");
    // The books stay.
    assert!(!admin.get("/v1/orders").await.ok(200)["items"].as_array().unwrap().is_empty());
    // No other key has the version of one that was destroyed, so nothing comes back with half of a tenant readable.
    assert_eq!(replica.user(Role::Sales).post("/v1/customers", &person(2)).await.problem(404), "not_found");
    let left = format!("select concat(version, wrapped is null) from data_keys where of_tenant = '{tenant}'");
    assert_eq!(query(&app.database.owner, &left).await, ["1t"]);
    let rotate = keys(&app, Keys::Rotate { pass: Pass::of(Some(tenant)) }, &[]).await.unwrap_err();
    assert!(rotate.contains("nothing sealed"), "{rotate}");
    keys(&app, Keys::Rotate { pass: Pass::of(None) }, &[]).await.unwrap();
    // Whoever is left can be erased.
    assert_eq!(admin.send(admin.request(Method::DELETE, &paths[0])).await.status, 204);
}
