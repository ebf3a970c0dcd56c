//! Sealed fields: what the database holds, and what becomes of whoever touches it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use service::{
    app,
    authz::{matrix::Scope, policy::Role},
    domain::Clock,
    settings::Settings,
};
use sqlx::{AssertSqlSafe, Row};

use crate::support::{
    ACME, Actor, Fields, GLOBEX, Reply, TestApp, id_of, keyset, query, run, superuser, test_database,
};

/// Texts that occur nowhere else, one for each sealed field.
fn canaries() -> Value {
    json!({
        "name": "Somebody", "email": "canary-1f9b@sealed.example", "phone": "+4917712378945", "taxId": "XZ987-CANARY-6543",
        "bankAccount": "GB33BUKB20201555555555", "address": "77 Canary Wharf\nZanzibar",
    })
}

async fn add(actor: &Actor, body: &Value) -> String {
    format!("/v1/customers/{}", actor.post("/v1/customers", body).await.ok(201)["id"].as_str().unwrap())
}

/// Everything that is in any table, as text; bytes are in hexadecimal digits.
async fn everything(app: &TestApp) -> String {
    let mut superuser = superuser(&app.database).await;
    let tables = "select c.oid::regclass::text from pg_class c
                  where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut superuser).await.unwrap();
    assert!(tables.len() > 10, "{tables:?}");
    let mut dump = String::new();
    for table in tables {
        let rows = format!("select coalesce(string_agg(t::text, e'\\n'), '') from {table} t");
        dump += &sqlx::query(AssertSqlSafe(rows)).fetch_one(&mut superuser).await.unwrap().get::<String, _>(0);
    }
    dump
}

/// What `pg_dump` writes; nothing if there is none beside the server's binaries.
fn pg_dump(app: &TestApp) -> String {
    let done =
        std::process::Command::new("pg_dump").arg(app.database.owner.expose_secret()).arg("--role=app_owner").output();
    done.map(|done| String::from_utf8_lossy(&done.stdout).into_owned()).unwrap_or_default()
}

#[tokio::test]
async fn crypto_02_no_dump_of_the_database_shows_what_is_sealed() {
    let app = TestApp::start().await;
    let (admin, body) = (app.user(Role::Admin), canaries());
    let mut first = admin.request(Method::POST, "/v1/customers").json(&body);
    first = first.header("idempotency-key", "canary");
    admin.send(first).await.ok(201);
    // Again, by a change.
    let path = add(&admin, &json!({ "name": "Else", "email": "else@example.com" })).await;
    let mut change = body.clone();
    change["email"] = json!("canary-2f9b@sealed.example");
    admin.send(admin.request(Method::PATCH, &path).json(&change)).await.ok(200);
    let dump = everything(&app).await + &pg_dump(&app);
    assert!(dump.contains("Somebody"), "the dump has the rows");
    let mut texts: Vec<String> =
        ["email", "phone", "taxId", "bankAccount", "address"].map(|f| body[f].as_str().unwrap().to_owned()).into();
    texts.extend(
        ["canary-2f9b", "canary-1f9b", "17712378945", "XZ987-CANARY", "BUKB20201555", "Wharf\nZanzibar"]
            .map(str::to_owned),
    );
    for text in texts {
        let hex = service::crypto::hex(text.as_bytes());
        // Base64 of a text depends on what is before it.
        let encoded = (0..3).map(|before| {
            let padded = STANDARD.encode([vec![b' '; before], text.clone().into_bytes()].concat());
            padded[4..padded.len() - 4].to_owned()
        });
        assert!(text.len() > 8, "so that something is left in the middle");
        for form in [text.clone(), text.to_lowercase(), hex].into_iter().chain(encoded) {
            assert!(!dump.contains(&form), "{text} is there as {form}");
        }
    }
}

/// Sets a column of a customer to a column of another, as a superuser could.
fn put(column: &str, at: &str, from: &str, of: &str) -> String {
    format!("update customers set {column} = (select {from} from customers where id = '{of}') where id = '{at}'")
}

/// Each is tried on a customer `one`, beside a customer `two` and another tenant's, and is a way to make a field show what
/// belongs elsewhere, or something else than what was stored.
fn forgeries(one: &str, two: &str, theirs: &str) -> Vec<(&'static str, String)> {
    let flip = |table: &str, column: &str, id: &str| {
        let flipped = format!("set_bit({column}, 200, 1 - get_bit({column}, 200))");
        format!("update {table} set {column} = {flipped} where {id} = '{one}'")
    };
    let their_key = format!(
        "update customer_keys set wrapped = (select wrapped from customer_keys where customer_id = '{two}')
         where customer_id = '{one}'"
    );
    vec![
        ("another column", put("tax_id", one, "bank_account", one)),
        ("another row", put("tax_id", one, "tax_id", two)),
        ("another tenant", put("tax_id", one, "tax_id", theirs)),
        ("another row's key", their_key.clone()),
        ("another row with its key", format!("{}; {their_key}", put("email", one, "email", two))),
        ("one bit of a field", flip("customers", "address", "id")),
        ("one bit of a key", flip("customer_keys", "wrapped", "customer_id")),
    ]
}

#[tokio::test]
async fn crypto_03_what_is_moved_or_changed_does_not_open_and_is_told() {
    let app = TestApp::start().await;
    let (admin, globex) = (app.user(Role::Admin), app.user_of(&GLOBEX, Role::Admin, &Scope::ALL));
    let one = add(&admin, &canaries()).await;
    let (two, theirs) = (add(&admin, &canaries()).await, add(&globex, &canaries()).await);
    let mut superuser = superuser(&app.database).await;
    for (what, change) in forgeries(id_of(&one), id_of(&two), id_of(&theirs)) {
        sqlx::raw_sql(
            "begin; create table kept as table customers; create table kept_keys as table customer_keys; commit",
        )
        .execute(&mut superuser)
        .await
        .unwrap();
        sqlx::raw_sql(AssertSqlSafe(change)).execute(&mut superuser).await.unwrap();
        for path in [one.as_str(), "/v1/customers"] {
            let reply = admin.get(path).await;
            assert_eq!(reply.problem(500), "internal", "{what}");
            let events = reply.events();
            assert!(events.iter().any(|event| event["event"] == "sealed_data_invalid"), "{what}: {events:?}");
            assert!(!reply.text.contains("XZ987") && !reply.text.contains("Zanzibar"), "{what}");
        }
        sqlx::raw_sql(
            "begin;
             update customers c set email = k.email, tax_id = k.tax_id, address = k.address from kept k where c.id = k.id;
             update customer_keys c set wrapped = k.wrapped from kept_keys k where c.customer_id = k.customer_id;
             drop table kept, kept_keys; commit",
        )
        .execute(&mut superuser)
        .await
        .unwrap();
        // As before: what failed changed nothing.
        assert_eq!(admin.get(&one).await.ok(200)["taxId"], canaries()["taxId"], "{what}");
    }
}

/// Somebody changed what the database answers with, and it is whole.
#[tokio::test]
async fn crypto_03_a_row_that_was_not_asked_for_does_not_open() {
    let app = TestApp::start().await;
    let (admin, globex) = (app.user(Role::Admin), app.user_of(&GLOBEX, Role::Admin, &Scope::ALL));
    let (one, two) = (add(&admin, &canaries()).await, add(&admin, &canaries()).await);
    let theirs = add(&globex, &canaries()).await;
    admin.get(&one).await.ok(200);
    let mut superuser = superuser(&app.database).await;
    for (what, tenant, other) in [("of another tenant", &GLOBEX, &theirs), ("of the same tenant", &ACME, &two)] {
        let lie = format!(
            "create or replace function read_customer(tenant uuid, wanted uuid) returns setof customer_documents
                 language plpgsql volatile
             as $$
             begin
                 perform enter_tenant('{}');
                 return query select * from customer_documents c where c.id = '{}';
             end
             $$",
            tenant.id,
            id_of(other)
        );
        sqlx::raw_sql(AssertSqlSafe(lie)).execute(&mut superuser).await.unwrap();
        let reply = admin.get(&one).await;
        assert_eq!(reply.problem(500), "internal", "{what}");
        let events = reply.events();
        assert!(events.iter().any(|event| event["event"] == "sealed_data_invalid"), "{what}: {events:?}");
        assert!(!reply.text.contains("XZ987") && !reply.text.contains("Zanzibar"), "{what}");
    }
}

/// Who cannot be read any more must not be beyond erasure.
#[tokio::test]
async fn crypto_08_erasing_destroys_the_key_and_needs_none() {
    let app = TestApp::start().await;
    let admin = app.user(Role::Admin);
    let (sound, broken) = (add(&admin, &canaries()).await, add(&admin, &canaries()).await);
    let spoil = format!(
        "set local app.tenant_id = '{}';
         update customer_keys set wrapped = set_bit(wrapped, 200, 1 - get_bit(wrapped, 200)) where customer_id = '{}'",
        ACME.id,
        id_of(&broken)
    );
    run(&app.database.writer, &spoil).await.unwrap();
    assert_eq!(admin.get(&broken).await.problem(500), "internal");
    for path in [&sound, &broken] {
        assert_eq!(admin.send(admin.request(Method::DELETE, path)).await.status, 204);
        assert_eq!(admin.get(path).await.problem(404), "not_found");
        let keys = format!("select count(*)::text from customer_keys where customer_id = '{}'", id_of(path));
        assert_eq!(query(&app.database.owner, &keys).await, ["0"]);
    }
    assert_eq!(admin.get("/v1/customers?taxId=XZ987-CANARY-6543").await.ok(200)["items"], json!([]));
}

#[tokio::test]
async fn crypto_06_sealed_fields_are_found_by_their_whole_value_in_their_tenant() {
    let app = TestApp::start().await;
    let (admin, globex) = (app.user(Role::Admin), app.user_of(&GLOBEX, Role::Admin, &Scope::ALL));
    add(&admin, &canaries()).await;
    let found = async |actor: &Actor, query: &str| {
        actor.get(&format!("/v1/customers?{query}")).await.ok(200)["items"].as_array().unwrap().len()
    };
    for query in ["email=Canary-1f9b@SEALED.example", "taxId=xz987-canary-6543", "taxId=XZ987CANARY6543"] {
        assert_eq!(found(&admin, query).await, 1, "{query}");
        assert_eq!(found(&globex, query).await, 0, "{query}");
    }
    for query in ["email=canary-1f9b@sealed.exampl", "taxId=XZ987-CANARY-654", "taxId=XZ987"] {
        assert_eq!(found(&admin, query).await, 0, "{query}");
    }
    let both = admin.get("/v1/customers?email=a@example.com&taxId=XZ987").await;
    assert_eq!(both.faults(), ["taxId not_combinable"]);
    // The same value of another tenant has another index, so nobody can compare tenants by it.
    add(&globex, &canaries()).await;
    let mut superuser = superuser(&app.database).await;
    let equal: i64 = sqlx::query_scalar("select count(*) - count(distinct email_index) from customers")
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert_eq!(equal, 0, "demo customers are the same in no two tenants by index");
    // An index that somebody moved to another row finds nothing, and is told.
    let other = add(&admin, &json!({ "name": "O", "email": "o@example.com", "taxId": "O-1234" })).await;
    for (field, value) in [("email", "o@example.com"), ("tax_id", "O-1234")] {
        let name = if field == "email" { "email" } else { "taxId" };
        let theirs = add(&admin, &json!({ "name": "T", "email": "t@example.com", "taxId": "T-1234" })).await;
        let column = format!("{field}_index");
        sqlx::raw_sql(AssertSqlSafe(put(&column, id_of(&theirs), &column, id_of(&other))))
            .execute(&mut superuser)
            .await
            .unwrap();
        let reply = admin.get(&format!("/v1/customers?{name}={value}")).await;
        assert_eq!(reply.problem(500), "internal", "{field}");
        assert!(reply.events().iter().any(|event| event["event"] == "sealed_data_invalid"), "{field}");
    }
    // A change moves it.
    let path = add(&admin, &json!({ "name": "B", "email": "b@example.com", "taxId": "B-1234" })).await;
    admin
        .send(admin.request(Method::PATCH, &path).json(&json!({ "email": "c@example.com", "taxId": null })))
        .await
        .ok(200);
    for (query, expected) in [("email=b@example.com", 0), ("email=c@example.com", 1), ("taxId=B-1234", 0)] {
        assert_eq!(found(&admin, query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn crypto_04_a_start_without_the_master_key_is_refused_and_loses_nothing() {
    let database = test_database().await;
    let right = database.master_keys.expose_secret().to_owned();
    let start = async |master: &str| {
        let mut variables = TestApp::variables(&database, "http://127.0.0.1:9");
        variables.insert("APP_KEYS__MASTER".to_owned(), master.to_owned());
        app::start(Settings::from_variables(variables).unwrap(), Clock::system())
            .await
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let missing = start(&keyset(2)).await.unwrap_err();
    assert!(missing.contains("wrapped by master key keyset:1, which the settings do not have"), "{missing}");
    let wrong = start(&keyset(1)).await.unwrap_err();
    assert!(wrong.contains("does not open with master key keyset:1"), "{wrong}");
    start(&format!("{},{right}", keyset(2))).await.unwrap();
    start(&right).await.unwrap();
}

#[tokio::test]
async fn crypto_04_nothing_unwrapped_is_stored_and_operations_reach_no_data_key() {
    let app = TestApp::start().await;
    add(&app.user(Role::Admin), &canaries()).await;
    let database = &app.database;
    for login in [&database.reader, &database.writer, &database.authn, &database.auditor] {
        let error = run(login, "select wrapped from data_keys").await.unwrap_err().to_string();
        assert!(error.contains("permission denied"), "{error}");
    }
    for table in ["customers", "customer_keys", "orders", "api_keys"] {
        let error = run(&app.database.keys, &format!("select 1 from {table}")).await.unwrap_err().to_string();
        assert!(error.contains("permission denied"), "{table}: {error}");
    }
    for change in ["update data_keys set wrapped = wrapped", "delete from data_keys"] {
        let error = run(&app.database.keys, change).await.unwrap_err().to_string();
        assert!(error.contains("permission denied"), "{error}");
    }
    let lengths = "select length(wrapped)::text from data_keys union select length(wrapped)::text from customer_keys";
    assert_eq!(query(&app.database.owner, lengths).await, ["61"], "a key of 32 bytes, and what sealing adds");
}

#[tokio::test]
async fn crypto_07_what_is_seen_in_plain_text_is_counted_and_too_much_of_it_is_told() {
    let app = TestApp::start_with(&[("APP_KEYS__USUAL_PER_MINUTE", "10")]).await;
    let (admin, viewer) = (app.user(Role::Admin), app.user(Role::Viewer));
    let told = |reply: &Reply| {
        let named = |event: &Fields| event["event"].starts_with("sensitive_read");
        let events = reply.events().into_iter().filter(named);
        events.map(|event| (event["event"].clone(), event["subject"].clone())).collect::<Vec<_>>()
    };
    let read = ("sensitive_read".to_owned(), "admin@acme.example".to_owned());
    let excess = ("sensitive_read_excess".to_owned(), "admin@acme.example".to_owned());
    // Three customers each time: the fourth is one too many pages.
    for _ in 0..3 {
        assert_eq!(told(&admin.get("/v1/customers").await), std::slice::from_ref(&read));
    }
    let reply = admin.get("/v1/customers").await;
    assert_eq!(told(&reply), [read.clone(), excess]);
    assert_eq!(reply.events().iter().find(|event| event["event"] == "sensitive_read").unwrap()["customers"], "3");
    // Whoever sees nothing is not counted, and nobody for somebody else.
    for _ in 0..5 {
        assert_eq!(told(&viewer.get("/v1/customers").await), []);
    }
    assert_eq!(told(&app.user(Role::Auditor).get("/v1/customers").await).len(), 1);
    // After a minute all of it is usual again.
    app.clock.advance(std::time::Duration::from_secs(61));
    assert_eq!(told(&admin.get("/v1/customers").await), [read]);
}
