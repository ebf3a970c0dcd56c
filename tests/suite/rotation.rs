//! Keys of sealed fields that change while the service runs (CRYPTO-05), by the commands that operators have.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use service::{
    app,
    authz::policy::Role,
    domain::Clock,
    ops::{Keys, Pass},
    settings::{LoginSettings, Settings},
};

use crate::{
    retired_keys::retire,
    support::{ACME, TestApp, UNTHROTTLED, as_superuser, binary, id_of, in_the_middle, keyset, query},
};

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

/// So that a rotation need not wait for long.
pub const QUICK: [(&str, &str); 2] =
    [("APP_DATABASE__STATEMENT_TIMEOUT_MS", "1000"), ("APP_DATABASE__ACQUIRE_TIMEOUT_MS", "1000")];

/// Between two calls of a caller under rotation: the machine is for other tests too.
const PACE: Duration = Duration::from_millis(20);

pub const DATA_KEY: &str = "k.data_key";
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
            tokio::time::sleep(PACE).await;
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
            tokio::time::sleep(PACE).await;
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
    let acme = ACME.id.to_string();
    let newest = retire(&app, &["drop", &acme, "2"]).await.unwrap_err();
    assert!(newest.contains("data key 2 is needed"), "{newest}");
    retire(&app, &["drop", &acme, "1"]).await.unwrap();
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
async fn crypto_05_who_cannot_be_opened_does_not_keep_the_others_from_being_sealed_anew() {
    let app = TestApp::start().await;
    let paths = add(&app, 60).await;
    let broken = id_of(&paths[30]);
    let spoil = format!(
        "update customer_keys set wrapped = set_bit(wrapped, 200, 1 - get_bit(wrapped, 200)) where customer_id = '{broken}'"
    );
    as_superuser(&app, spoil).await;
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

/// Puts aside what is stored of a customer, in a schema of this name, with all data keys.
pub fn keep(name: &str, id: &str) -> String {
    format!(
        "create schema {name}; create table {name}.customers as select * from customers where id = '{id}';
         create table {name}.keys as select * from customer_keys where customer_id = '{id}';
         create table {name}.data_keys as select * from data_keys"
    )
}

/// Puts it back.
pub fn put(name: &str) -> String {
    format!(
        "insert into data_keys select * from {name}.data_keys on conflict do nothing;
         update customer_keys k set data_key = s.data_key, wrapped = s.wrapped from {name}.keys s
         where k.customer_id = s.customer_id;
         update customers c set email = s.email, phone = s.phone, tax_id = s.tax_id, address = s.address
         from {name}.customers s where c.id = s.id"
    )
}

/// The path of a customer who was put aside before a rotation and since.
async fn kept_before_and_since(app: &TestApp) -> String {
    let path = add(app, 1).await.remove(0);
    as_superuser(app, keep("before", id_of(&path))).await;
    keys(app, Keys::Rotate { pass: Pass::of(None) }, &QUICK).await.unwrap();
    as_superuser(app, keep("since", id_of(&path))).await;
    path
}

/// Who read a customer just before has no use for what was read, and the customer is there all the same.
#[tokio::test]
async fn crypto_05_a_customer_whose_data_key_is_dropped_right_now_is_not_taken_for_gone() {
    let app = TestApp::start().await;
    let path = kept_before_and_since(&app).await;
    for (method, status) in [(Method::PATCH, 200), (Method::GET, 503)] {
        as_superuser(&app, put("before")).await;
        // It remembers no data key, and waits for the first.
        let replica = TestApp::start_on(app.database.clone(), &[]).await;
        let admin = replica.user(Role::Admin);
        let request = admin.request(method.clone(), &path);
        let request = if method == Method::GET { request } else { request.json(&json!({ "name": "Changed" })) };
        let lock = "lock table data_keys in access exclusive mode";
        let rotated = format!("{}; delete from data_keys where version = 1", put("since"));
        let reply = in_the_middle(&app.database, lock, &rotated, admin.send(request)).await;
        assert_eq!(reply.status, status, "{method}: {reply:#?}");
        let read = admin.get(&path).await.ok(200);
        assert_eq!((&read["name"], &read["email"]), (&json!("Changed"), &json!("person-0@example.com")));
    }
}

/// It goes on with what it began with; what the other has sealed is the other's.
#[tokio::test]
async fn crypto_05_a_pass_leaves_alone_what_a_newer_rotation_has_sealed() {
    let app = TestApp::start().await;
    let path = kept_before_and_since(&app).await;
    let id = id_of(&path);
    let alone = format!(
        "{}; delete from customer_keys where customer_id <> '{id}'; delete from data_keys where version = 2",
        put("before")
    );
    as_superuser(&app, alone).await;
    // By another index key, which that customer does not have yet either way.
    let both = format!("{},{}", keyset(2), app.database.index_keys.expose_secret());
    let lock = format!("select from customers where id = '{id}' for update");
    let own = [("APP_KEYS__INDEX", &*both)];
    let pass = Pass::of(Some(ACME.id.uuid()));
    let resealed = keys(&app, Keys::Reseal { pass }, &own);
    let resealed = in_the_middle(&app.database, &lock, &put("since"), resealed).await.unwrap().concat();
    assert!(resealed.contains("done, 0 customers"), "{resealed}");
    assert_eq!(under(&app, DATA_KEY).await, ["2: 1"]);
    // A data key that somebody spoiled since costs its customers, and nobody else.
    keys(&app, Keys::Reseal { pass }, &own).await.unwrap();
    let paths = add(&app, 1).await;
    let spoil = format!(
        "{}; update data_keys set wrapped = set_bit(wrapped, 200, 1 - get_bit(wrapped, 200)) where version = 1",
        put("before")
    );
    as_superuser(&app, spoil).await;
    let told = keys(&app, Keys::Rotate { pass }, &[&QUICK[..], &own].concat()).await.unwrap_err();
    assert!(told.starts_with("1 customers and 0 tenants could not be opened"), "{told}");
    assert_eq!(under(&app, DATA_KEY).await, ["1: 1", "3: 1"]);
    assert_eq!(app.user(Role::Admin).get(&paths[0]).await.ok(200)["email"], "person-0@example.com");
}

/// It took its time for whatever reason: longer than its settings say.
#[tokio::test]
async fn crypto_05_what_a_slow_replica_stores_after_the_last_pass_is_sealed_anew_or_told() {
    for (times, told) in [(3, None), (1_000, Some("customers still get an older data key, 1 before the last pass"))] {
        let app = TestApp::start().await;
        let paths = add(&app, 2).await;
        // Whenever that customer has the new key, it is what it was before, so many times.
        let slow = format!(
            "create schema slow;
             create table slow.customers as select * from customers where id = '{id}';
             create table slow.keys as select * from customer_keys where customer_id = '{id}';
             create table slow.times as select {times} as n;
             create function slow.restore() returns trigger language plpgsql as $$ begin
                 update slow.times set n = n - 1 where n > 0
                     and exists (select from customer_keys where customer_id = '{id}' and data_key > 1);
                 if found then
                     update customer_keys k set data_key = s.data_key, wrapped = s.wrapped from slow.keys s
                     where k.customer_id = s.customer_id;
                     update customers c set email = s.email, phone = s.phone, tax_id = s.tax_id, address = s.address
                     from slow.customers s where c.id = s.id;
                 end if;
                 return null;
             end $$;
             create trigger slow after update on customer_keys for each statement execute function slow.restore();
             grant usage on schema slow to app_writer;
             grant all on all tables in schema slow to app_writer",
            id = id_of(&paths[0])
        );
        as_superuser(&app, slow).await;
        let rotated = keys(&app, Keys::Rotate { pass: Pass::of(None) }, &QUICK).await;
        assert_eq!(rotated.err().as_deref().map(|error| error.split(':').next().unwrap()), told);
        let left = if told.is_none() { &["2: 5"][..] } else { &["1: 1", "2: 4"] };
        assert_eq!(under(&app, DATA_KEY).await, left);
        all_is_there(&app, &paths).await;
    }
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
