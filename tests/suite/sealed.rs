//! Sealed fields of customers (CRYPTO-02 to CRYPTO-08): the database never contains their
//! plaintext, and a ciphertext that was moved or changed is rejected.
//!
//! Tests write customers through the API, search or manipulate the tables as a superuser, and read
//! again through the API.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use palisade::store::{SealedColumn, SealedTable as _};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use service::{
    access::{roles, scopes},
    store::customers::CustomerTable,
};
use sqlx::{AssertSqlSafe, Row};

use crate::support::{ACME, Actor, Fields, GLOBEX, Reply, SERVICE, TestApp, id_of, query, run, superuser};

/// A customer with unique texts, one for each sealed field.
fn canaries() -> Value {
    json!({
        "name": "Somebody", "email": "canary-1f9b@sealed.example", "phone": "+4917712378945",
        "taxId": "XZ987-CANARY-6543", "bankAccount": "GB33BUKB20201555555555", "address": "77 Canary Wharf\nZanzibar",
    })
}

async fn add(actor: &Actor, body: &Value) -> String {
    format!("/v1/customers/{}", actor.post("/v1/customers", body).await.ok(201)["id"].as_str().unwrap())
}

/// All rows of all tables as text; bytes are hexadecimal.
async fn dump_tables(app: &TestApp) -> String {
    let mut superuser = superuser(&app.database).await;
    let tables = "select c.oid::regclass::text from pg_class c
                  join pg_namespace n on n.oid = c.relnamespace
                  where c.relkind = 'r' and n.nspname in ('palisade', 'public')";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut superuser).await.unwrap();
    assert!(tables.len() > 10, "{tables:?}");
    let mut dump = String::new();
    for table in tables {
        let rows = format!("select coalesce(string_agg(t::text, e'\\n'), '') from {table} t");
        dump += &sqlx::query(AssertSqlSafe(rows)).fetch_one(&mut superuser).await.unwrap().get::<String, _>(0);
    }
    dump
}

/// The output of `pg_dump`; empty if the program is not installed.
fn pg_dump(app: &TestApp) -> String {
    let mut command = std::process::Command::new("pg_dump");
    let output = command.arg(app.database.owner.expose_secret()).arg("--role=app_owner").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
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
    let dump = dump_tables(&app).await + &pg_dump(&app);
    assert!(dump.contains("Somebody"), "the dump has the rows");
    let mut texts: Vec<String> =
        ["email", "phone", "taxId", "bankAccount", "address"].map(|f| body[f].as_str().unwrap().to_owned()).into();
    texts.extend(
        ["canary-2f9b", "canary-1f9b", "17712378945", "XZ987-CANARY", "BUKB20201555", "Wharf\nZanzibar"]
            .map(str::to_owned),
    );
    for text in texts {
        let hex = palisade::crypto::hex(text.as_bytes());
        // The base64 of a text depends on the text's offset modulo 3.
        let encoded = (0..3).map(|offset| {
            let padded = STANDARD.encode([vec![b' '; offset], text.clone().into_bytes()].concat());
            padded[4..padded.len() - 4].to_owned()
        });
        assert!(text.len() > 8, "too short: nothing is left of the base64 between the ends");
        for form in [text.clone(), text.to_lowercase(), hex].into_iter().chain(encoded) {
            assert!(!dump.contains(&form), "the dump contains {text} as {form}");
        }
    }
}

/// CONTRIBUTING, "Add a sealed field": a key rotation would lose a column that the code's list
/// lacks.
#[tokio::test]
async fn crypto_02_code_lists_all_sealed_columns_of_the_database() {
    let app = SERVICE.start().await;
    let columns = "select column_name::text from information_schema.columns
                   where table_name = 'customers' and data_type = 'bytea' and column_name not like '%_index'
                   order by ordinal_position";
    let listed: Vec<_> = CustomerTable::COLUMNS.iter().map(SealedColumn::name).collect();
    assert_eq!(query(&app.database.owner, columns).await, listed);
}

/// SQL that copies the column `from` of the customer `source` into `column` of the customer
/// `target`.
fn copy_column(column: &str, target: &str, from: &str, source: &str) -> String {
    format!(
        "update customers set {column} = (select {from} from customers where id = '{source}') where id = '{target}'"
    )
}

/// Manipulations of the customer `victim`, with data of `other` (same tenant) and `foreign`
/// (another tenant). Each would make a field show a value that was not stored there.
fn forgeries(victim: &str, other: &str, foreign: &str) -> Vec<(&'static str, String)> {
    let flip = |table: &str, column: &str, id: &str| {
        let flipped = format!("set_bit({column}, 200, 1 - get_bit({column}, 200))");
        format!("update {table} set {column} = {flipped} where {id} = '{victim}'")
    };
    let copy_key = format!(
        "update palisade.row_keys set wrapped = (select wrapped from palisade.row_keys where row_id = '{other}')
         where row_id = '{victim}'"
    );
    vec![
        ("another column", copy_column("tax_id", victim, "bank_account", victim)),
        ("another row", copy_column("tax_id", victim, "tax_id", other)),
        ("another tenant", copy_column("tax_id", victim, "tax_id", foreign)),
        ("another row's key", copy_key.clone()),
        ("another row with its key", format!("{}; {copy_key}", copy_column("email", victim, "email", other))),
        ("one bit of a field", flip("customers", "address", "id")),
        ("one bit of a key", flip("palisade.row_keys", "wrapped", "row_id")),
    ]
}

#[tokio::test]
async fn crypto_03_moved_or_changed_ciphertexts_are_rejected_and_logged() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let globex = app.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL);
    let victim = add(&admin, &canaries()).await;
    let other = add(&admin, &canaries()).await;
    let foreign = add(&globex, &canaries()).await;
    let mut superuser = superuser(&app.database).await;
    for (what, change) in forgeries(id_of(&victim), id_of(&other), id_of(&foreign)) {
        sqlx::raw_sql(
            "begin; create table kept as table customers; create table kept_keys as table palisade.row_keys; commit",
        )
        .execute(&mut superuser)
        .await
        .unwrap();
        sqlx::raw_sql(AssertSqlSafe(change)).execute(&mut superuser).await.unwrap();
        for path in [victim.as_str(), "/v1/customers"] {
            let reply = admin.get(path).await;
            assert_eq!(reply.problem(500), "internal", "{what}");
            let events = reply.events();
            assert!(events.iter().any(|event| event["event"] == "sealed_data_invalid"), "{what}: {events:?}");
            assert!(!reply.text.contains("XZ987") && !reply.text.contains("Zanzibar"), "{what}");
        }
        sqlx::raw_sql(
            "begin;
             update customers c set email = k.email, tax_id = k.tax_id, address = k.address from kept k
             where c.id = k.id;
             update palisade.row_keys c set wrapped = k.wrapped from kept_keys k where c.row_id = k.row_id;
             drop table kept, kept_keys; commit",
        )
        .execute(&mut superuser)
        .await
        .unwrap();
        // The failed reads changed nothing.
        assert_eq!(admin.get(&victim).await.ok(200)["taxId"], canaries()["taxId"], "{what}");
    }
}

/// A manipulated view returns another customer's row as the requested one, unchanged and with its
/// key.
#[tokio::test]
async fn crypto_03_substituted_rows_are_rejected() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let globex = app.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL);
    let requested = add(&admin, &canaries()).await;
    let other = add(&admin, &canaries()).await;
    let foreign = add(&globex, &canaries()).await;
    admin.get(&requested).await.ok(200);
    let mut superuser = superuser(&app.database).await;
    let keep_view = "alter view customer_documents rename to kept_documents;
                     alter view kept_documents set (security_invoker = false);
                     alter view kept_documents owner to session_user;";
    sqlx::raw_sql(keep_view).execute(&mut superuser).await.unwrap();
    for (what, returned) in [("of another tenant", &foreign), ("of the same tenant", &other)] {
        let replace_view = format!(
            "drop view if exists customer_documents;
             create view customer_documents as
             select (jsonb_populate_record(k, jsonb_build_object('tenant_id', '{}', 'id', '{}'))).*
             from kept_documents k where k.id = '{}';
             grant select on customer_documents to app_reader",
            ACME.id,
            id_of(&requested),
            id_of(returned)
        );
        sqlx::raw_sql(AssertSqlSafe(replace_view)).execute(&mut superuser).await.unwrap();
        let reply = admin.get(&requested).await;
        assert_eq!(reply.problem(500), "internal", "{what}");
        let events = reply.events();
        assert!(events.iter().any(|event| event["event"] == "sealed_data_invalid"), "{what}: {events:?}");
        assert!(!reply.text.contains("XZ987") && !reply.text.contains("Zanzibar"), "{what}");
    }
}

/// Customers that cannot be decrypted can still be erased.
#[tokio::test]
async fn crypto_08_erasure_destroys_the_row_key_without_needing_it() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let intact = add(&admin, &canaries()).await;
    let corrupt = add(&admin, &canaries()).await;
    let corrupt_key = format!(
        "set local app.tenant_id = '{}';
         update palisade.row_keys set wrapped = set_bit(wrapped, 200, 1 - get_bit(wrapped, 200)) where row_id = '{}'",
        ACME.id,
        id_of(&corrupt)
    );
    run(&app.database.writer, &corrupt_key).await.unwrap();
    assert_eq!(admin.get(&corrupt).await.problem(500), "internal");
    for path in [&intact, &corrupt] {
        assert_eq!(admin.send(admin.request(Method::DELETE, path)).await.status, 204);
        assert_eq!(admin.get(path).await.problem(404), "not_found");
        let keys = format!("select count(*)::text from palisade.row_keys where row_id = '{}'", id_of(path));
        assert_eq!(query(&app.database.owner, &keys).await, ["0"]);
    }
    assert_eq!(admin.get("/v1/customers?taxId=XZ987-CANARY-6543").await.ok(200)["items"], json!([]));
}

#[tokio::test]
async fn crypto_06_sealed_fields_are_searched_by_exact_value_within_the_tenant() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let globex = app.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL);
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
    // The same value has another index in another tenant, so the indexes of tenants cannot be
    // compared.
    add(&globex, &canaries()).await;
    let mut superuser = superuser(&app.database).await;
    let equal: i64 = sqlx::query_scalar("select count(*) - count(distinct email_index) from customers")
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert_eq!(equal, 0, "two rows have the same blind index");
    // An index value copied to another row finds nothing and raises an event.
    let other = add(&admin, &json!({ "name": "O", "email": "o@example.com", "taxId": "O-1234" })).await;
    for (field, value) in [("email", "o@example.com"), ("tax_id", "O-1234")] {
        let name = if field == "email" { "email" } else { "taxId" };
        let target = add(&admin, &json!({ "name": "T", "email": "t@example.com", "taxId": "T-1234" })).await;
        let column = format!("{field}_index");
        sqlx::raw_sql(AssertSqlSafe(copy_column(&column, id_of(&target), &column, id_of(&other))))
            .execute(&mut superuser)
            .await
            .unwrap();
        let reply = admin.get(&format!("/v1/customers?{name}={value}")).await;
        assert_eq!(reply.problem(500), "internal", "{field}");
        assert!(reply.events().iter().any(|event| event["event"] == "sealed_data_invalid"), "{field}");
    }
    // A change updates the index.
    let path = add(&admin, &json!({ "name": "B", "email": "b@example.com", "taxId": "B-1234" })).await;
    let change = json!({ "email": "c@example.com", "taxId": null });
    admin.send(admin.request(Method::PATCH, &path).json(&change)).await.ok(200);
    for (query, expected) in [("email=b@example.com", 0), ("email=c@example.com", 1), ("taxId=B-1234", 0)] {
        assert_eq!(found(&admin, query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn crypto_04_stored_keys_are_wrapped_and_only_the_keys_login_reads_data_keys() {
    let app = SERVICE.start().await;
    add(&app.user(roles::ADMIN), &canaries()).await;
    let database = &app.database;
    for login in [&database.reader, &database.writer, &database.authn, &database.auditor] {
        let error = run(login, "select wrapped from palisade.data_keys").await.unwrap_err().to_string();
        assert!(error.contains("permission denied"), "{error}");
    }
    for table in ["public.customers", "palisade.row_keys", "public.orders", "palisade.api_keys"] {
        let error = run(&app.database.keys, &format!("select 1 from {table}")).await.unwrap_err().to_string();
        assert!(error.contains("permission denied"), "{table}: {error}");
    }
    for change in ["update palisade.data_keys set wrapped = wrapped", "delete from palisade.data_keys"] {
        let error = run(&app.database.keys, change).await.unwrap_err().to_string();
        assert!(error.contains("permission denied"), "{error}");
    }
    let lengths = "select length(wrapped)::text from palisade.data_keys
                   union select length(wrapped)::text from palisade.row_keys";
    assert_eq!(query(&app.database.owner, lengths).await, ["61"], "a key of 32 bytes, and 29 bytes of overhead");
}

#[tokio::test]
async fn crypto_07_reads_of_plaintext_are_counted_and_excess_raises_an_event() {
    let app = SERVICE.start_with(&[("APP_KEYS__ALERT_READS_PER_MINUTE", "10")]).await;
    let admin = app.user(roles::ADMIN);
    let viewer = app.user(roles::VIEWER);
    let read_events = |reply: &Reply| {
        let is_read = |event: &Fields| event["event"].starts_with("sensitive_read");
        let events = reply.events().into_iter().filter(is_read);
        events.map(|event| (event["event"].clone(), event["subject"].clone())).collect::<Vec<_>>()
    };
    let read = ("sensitive_read".to_owned(), "admin@acme.example".to_owned());
    let excess = ("sensitive_read_excess".to_owned(), "admin@acme.example".to_owned());
    // Each page has three customers, so the fourth exceeds ten a minute.
    for _ in 0..3 {
        assert_eq!(read_events(&admin.get("/v1/customers").await), std::slice::from_ref(&read));
    }
    let reply = admin.get("/v1/customers").await;
    assert_eq!(read_events(&reply), [read.clone(), excess]);
    assert_eq!(reply.events().iter().find(|event| event["event"] == "sensitive_read").unwrap()["records"], "3");
    // Masked reads are not counted, and each subject has its own count.
    for _ in 0..5 {
        assert_eq!(read_events(&viewer.get("/v1/customers").await), []);
    }
    assert_eq!(read_events(&app.user(roles::AUDITOR).get("/v1/customers").await).len(), 1);
    // After a minute the count starts again.
    app.clock.advance(std::time::Duration::from_secs(61));
    assert_eq!(read_events(&admin.get("/v1/customers").await), [read]);
}
