//! Sealed fields of notes (CRYPTO-02 to CRYPTO-08): the database never contains their
//! plaintext, and a ciphertext that was moved or changed is rejected.
//!
//! Tests write notes through the API, search or manipulate the tables as a superuser, and read
//! again through the API.

use http::Method;
use palisade::store::{SealedColumn, SealedTable as _};
use sample::{
    access::{roles, scopes},
    demo,
    store::NoteTable,
};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::support::{
    ACME, Actor, Fields, GLOBEX, Reply, SERVICE, assert_not_in_database, id, id_of, note_body, query, run, search,
    superuser,
};

/// The sealed texts of [`canaries`]: longer than anything that a random id could contain.
const SEALED_TEXTS: [&str; 2] = ["canary-1f9b", "17712378945"];

/// A note with unique texts, one for each sealed field.
fn canaries() -> Value {
    with_person("canary-1f9b@sealed.example", "+4917712378945")
}

/// A note with these sealed fields.
fn with_person(email: &str, phone: &str) -> Value {
    let mut body = note_body("PAPER-A4", 1);
    body["remark"] = json!("not sealed");
    body["email"] = json!(email);
    body["phone"] = json!(phone);
    body
}

async fn add(actor: &Actor, body: &Value) -> String {
    format!("/v1/notes/{}", id(&actor.post("/v1/notes", body).await.ok(201)))
}

#[tokio::test]
async fn crypto_02_database_dumps_contain_no_sealed_plaintext() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let body = canaries();
    let create = admin.request(Method::POST, "/v1/notes").json(&body);
    admin.send(create.header("idempotency-key", "canary")).await.ok(201);
    // A change is a second way to write them.
    let path = add(&admin, &with_person("else@example.com", "+4917712345678")).await;
    let change = json!({ "email": "canary-2f9b@sealed.example", "phone": body["phone"] });
    admin.send(admin.request(Method::PATCH, &path).json(&change)).await.ok(200);
    let texts = ["canary-1f9b@sealed.example", "+4917712378945", "canary-1f9b", "canary-2f9b", "17712378945"];
    assert_not_in_database(&app, "not sealed", &texts).await;
}

/// CONTRIBUTING, "Add a sealed field": a key rotation would lose a column that the code's list
/// lacks.
#[tokio::test]
async fn crypto_02_code_lists_all_sealed_columns_of_the_database() {
    let app = SERVICE.start().await;
    let columns = "select column_name::text from information_schema.columns
                   where table_name = 'notes' and data_type = 'bytea' and column_name not like '%_index'
                   order by ordinal_position";
    let listed: Vec<_> = NoteTable::COLUMNS.iter().map(SealedColumn::name).collect();
    assert_eq!(query(&app.database.owner, columns).await, listed);
}

/// SQL that copies the column `from` of the note `source` into `column` of the note `target`.
fn copy_column(column: &str, target: &str, from: &str, source: &str) -> String {
    format!("update notes set {column} = (select {from} from notes where id = '{source}') where id = '{target}'")
}

/// Manipulations of the note `victim`, with data of `other` (same tenant) and `foreign`
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
        ("another column", copy_column("phone", victim, "email", victim)),
        ("another row", copy_column("phone", victim, "phone", other)),
        ("another tenant", copy_column("phone", victim, "phone", foreign)),
        ("another row's key", copy_key.clone()),
        ("another row with its key", format!("{}; {copy_key}", copy_column("email", victim, "email", other))),
        ("one bit of a field", flip("notes", "phone", "id")),
        ("one bit of a key", flip("palisade.row_keys", "wrapped", "row_id")),
    ]
}

/// How many events of the response report a field or key that does not open.
fn count_invalid(reply: &Reply) -> usize {
    reply.events().iter().filter(|event| event["event"] == "sealed_data_invalid").count()
}

/// The items and the unreadable ids of all pages, one note each.
async fn walk(actor: &Actor) -> [Value; 2] {
    let (mut items, mut unreadable, mut cursor) = (Vec::new(), Vec::new(), String::new());
    loop {
        let page = actor.get(&format!("/v1/notes?limit=1{cursor}")).await.ok(200);
        items.extend(page["items"].as_array().unwrap().clone());
        unreadable.extend(page["unreadable"].as_array().unwrap().clone());
        let Some(next) = page["nextCursor"].as_str() else { return [items.into(), unreadable.into()] };
        cursor = format!("&cursor={next}");
    }
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
            "begin; create table kept as table notes; create table kept_keys as table palisade.row_keys; commit",
        )
        .execute(&mut superuser)
        .await
        .unwrap();
        sqlx::raw_sql(AssertSqlSafe(change)).execute(&mut superuser).await.unwrap();
        let reply = admin.get(&victim).await;
        assert_eq!(reply.problem(500), "internal", "{what}");
        assert_eq!(count_invalid(&reply), 1, "{what}: {:?}", reply.events());
        assert!(!SEALED_TEXTS.iter().any(|text| reply.text.contains(text)), "{what}");
        // A list names the note, hides no other, and goes on at the next page.
        let reply = admin.get("/v1/notes?limit=100").await;
        assert_eq!(count_invalid(&reply), 1, "{what}: {:?}", reply.events());
        let all = reply.ok(200);
        assert_eq!(all["unreadable"], json!([id_of(&victim)]), "{what}");
        assert!(all["items"].as_array().unwrap().iter().any(|note| note["id"] == id_of(&other)), "{what}");
        assert_eq!(walk(&admin).await, [all["items"].clone(), all["unreadable"].clone()], "{what}");
        sqlx::raw_sql(
            "begin;
             update notes n set email = k.email, phone = k.phone from kept k where n.id = k.id;
             update palisade.row_keys c set wrapped = k.wrapped from kept_keys k where c.row_id = k.row_id;
             drop table kept, kept_keys; commit",
        )
        .execute(&mut superuser)
        .await
        .unwrap();
        // The failed reads changed nothing.
        assert_eq!(admin.get(&victim).await.ok(200)["phone"], canaries()["phone"], "{what}");
    }
}

/// Manipulated views return another note's row as the requested one, unchanged and with its
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
    let keep_tables = "alter table notes rename to kept; alter table palisade.row_keys rename to kept_keys";
    sqlx::raw_sql(keep_tables).execute(&mut superuser).await.unwrap();
    for (what, returned) in [("of another tenant", &foreign), ("of the same tenant", &other)] {
        let replace = |view: &str, kept: &str, id: &str| {
            format!(
                "drop view if exists {view};
                 create view {view} as
                 select (jsonb_populate_record(k, jsonb_build_object('tenant_id', '{}', '{id}', '{}'))).*
                 from {kept} k where k.{id} = '{}';
                 grant select on {view} to app_reader;",
                ACME.id,
                id_of(&requested),
                id_of(returned)
            )
        };
        let replace_views =
            replace("notes", "kept", "id") + &replace("palisade.row_keys", "palisade.kept_keys", "row_id");
        sqlx::raw_sql(AssertSqlSafe(replace_views)).execute(&mut superuser).await.unwrap();
        let reply = admin.get(&requested).await;
        assert_eq!(reply.problem(500), "internal", "{what}");
        let events = reply.events();
        assert!(events.iter().any(|event| event["event"] == "sealed_data_invalid"), "{what}: {events:?}");
        assert!(!SEALED_TEXTS.iter().any(|text| reply.text.contains(text)), "{what}");
    }
}

/// Notes that cannot be decrypted can still be erased.
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
    // A note whose key is missing is listed, and hides no other.
    let keyless = add(&admin, &canaries()).await;
    let delete_key = format!("delete from palisade.row_keys where row_id = '{}'", id_of(&keyless));
    sqlx::raw_sql(AssertSqlSafe(delete_key)).execute(&mut superuser(&app.database).await).await.unwrap();
    let reply = admin.get("/v1/notes?limit=100").await;
    assert_eq!(count_invalid(&reply), 2, "{:?}", reply.events());
    assert_eq!(reply.ok(200)["unreadable"], json!([id_of(&keyless), id_of(&corrupt)]));
    assert_eq!(admin.get(&keyless).await.problem(500), "internal");
    for path in [&intact, &corrupt] {
        assert_eq!(admin.send(admin.request(Method::DELETE, path)).await.status, 204);
        assert_eq!(admin.get(path).await.problem(404), "not_found");
        let keys = format!("select count(*)::text from palisade.row_keys where row_id = '{}'", id_of(path));
        assert_eq!(query(&app.database.owner, &keys).await, ["0"]);
    }
    assert!(search(&admin, "canary-1f9b@sealed.example").await.is_empty());
}

#[tokio::test]
async fn crypto_06_sealed_fields_are_searched_by_exact_value_within_the_tenant() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let globex = app.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL);
    add(&admin, &canaries()).await;
    for email in ["canary-1f9b@sealed.example", "Canary-1f9b@SEALED.example"] {
        assert_eq!(search(&admin, email).await.len(), 1, "{email}");
        assert!(search(&globex, email).await.is_empty(), "{email}");
    }
    assert!(search(&admin, "canary-1f9b@sealed.exampl").await.is_empty());
    // The same value has another index in another tenant, so the indexes of tenants cannot be
    // compared.
    add(&globex, &canaries()).await;
    let mut superuser = superuser(&app.database).await;
    let equal: i64 = sqlx::query_scalar("select count(*) - count(distinct email_index) from notes")
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert_eq!(equal, 0, "two rows have the same blind index");
    // An index value copied to another row finds nothing and raises an event.
    let other = add(&admin, &with_person("o@example.com", "+491770000001")).await;
    let target = add(&admin, &with_person("t@example.com", "+491770000002")).await;
    let copy_index = copy_column("email_index", id_of(&target), "email_index", id_of(&other));
    sqlx::raw_sql(AssertSqlSafe(copy_index)).execute(&mut superuser).await.unwrap();
    let reply = admin.post("/v1/notes/search", &json!({ "email": "o@example.com" })).await;
    assert!(reply.events().iter().any(|event| event["event"] == "sealed_data_invalid"));
    let page = reply.ok(200);
    assert_eq!((&page["items"][0]["id"], &page["items"][1]), (&json!(id_of(&other)), &Value::Null));
    assert_eq!(page["unreadable"], json!([id_of(&target)]));
    // A change updates the index.
    let path = add(&admin, &with_person("b@example.com", "+491770000003")).await;
    let update = |change| admin.send(admin.request(Method::PATCH, &path).json(&change));
    update(json!({ "email": "c@example.com" })).await.ok(200);
    for (email, expected) in [("b@example.com", 0), ("c@example.com", 1)] {
        assert_eq!(search(&admin, email).await.len(), expected, "{email}");
    }
    update(json!({ "email": null })).await.ok(200);
    assert!(search(&admin, "c@example.com").await.is_empty());
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
    for table in ["public.notes", "palisade.row_keys", "palisade.api_keys"] {
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
    let path = &format!("/v1/notes/{}", demo::FIRST_NOTE);
    for _ in 0..10 {
        assert_eq!(read_events(&admin.get(path).await), std::slice::from_ref(&read));
    }
    assert_eq!(read_events(&admin.get(path).await), [read.clone(), excess]);
    // Masked reads are not counted, and each subject has its own count. Lists and responses to changes
    // are masked.
    assert_eq!(read_events(&viewer.get(path).await), []);
    assert_eq!(read_events(&admin.get("/v1/notes").await), []);
    let update = admin.send(admin.request(Method::PATCH, path).json(&json!({}))).await;
    assert_eq!((read_events(&update), &update.body["masked"]), (vec![], &json!(true)));
    update.ok(200);
    // A search that finds something confirms the value.
    let auditor = app.user(roles::AUDITOR);
    add(&admin, &with_person("found@example.com", "+491770000009")).await;
    for (email, count) in [("absent@example.com", 0), ("found@example.com", 1)] {
        let search = auditor.post("/v1/notes/search", &json!({ "email": email })).await;
        assert_eq!((search.status.as_u16(), read_events(&search).len()), (200, count), "{email}");
    }
    assert_eq!(read_events(&app.user(roles::AUDITOR).get(path).await).len(), 1);
    // After a minute the count starts again.
    app.clock.advance(std::time::Duration::from_secs(61));
    assert_eq!(read_events(&admin.get(path).await), [read]);
}
