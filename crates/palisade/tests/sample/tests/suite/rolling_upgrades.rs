//! Rolling upgrades: replicas of the version before serve on a schema that was expanded (FAIL-03,
//! AUTHZ-08), and readiness ends before the listener does (FAIL-04).

use std::time::{Duration, Instant};

use http::Method;
use palisade::model::Clock;
use sample::{
    access::{roles, scopes},
    demo,
};
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::support::{
    ACME, Actor, FileSecretsService, Logins, SERVICE, ServiceProcess, TestApp, eventually, id, note_body, person, run,
    start_error_after, start_issuer, superuser,
};

/// What the next version adds: a table, a column, and the rights to both.
const EXPAND: &str = "
    create table shelves (tenant_id uuid not null, id uuid not null, primary key (tenant_id, id));
    select palisade.isolate_tenants('shelves');
    grant select, insert on shelves to app_writer;
    grant select on shelves to app_reader;
    alter table notes add column shelf uuid;
    grant update (shelf) on notes to app_writer;
    insert into _sqlx_migrations select 9000, 'expand shelves', now(), true, '', 0;
    insert into palisade._sqlx_migrations select 900, 'expand something', now(), true, '', 0;";

/// Runs the command `migrate` of this version: its error, if it fails.
fn migrate(owner: &secrecy::SecretString) -> Result<(), String> {
    let mut command = SERVICE.binary();
    command.arg("migrate").env("APP_PROFILE", "development").env("APP_DATABASE__OWNER_URL", owner.expose_secret());
    let output = command.output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr).unwrap()) }
}

#[tokio::test]
async fn fail_03_older_replicas_serve_start_and_renew_secrets_on_an_expanded_schema() {
    let mut service = FileSecretsService::start(SERVICE.database().await, "100000", &[]).await;
    let admin = service.admin();
    let note = id(&admin.post("/v1/notes", &note_body("PAPER-A4", 1)).await.ok(201));
    run(&service.database.owner, EXPAND).await.unwrap();
    let works = async |admin: &Actor| {
        let change = admin.request(Method::PATCH, &format!("/v1/notes/{note}"));
        admin.send(change.json(&json!({ "remark": "changed" }))).await.ok(200);
        admin.post("/v1/notes", &note_body("PAPER-A4", 1)).await.ok(201);
        admin.get("/v1/notes").await.ok(200);
    };
    works(&admin).await;
    // Each login passes the checks of the start again.
    let mut administrator = superuser(&service.database).await;
    let logins = Logins::new().create(&mut administrator).await;
    service.write_urls(&logins);
    service.process.send_sighup();
    for login in Logins::ALL {
        service.wait_for_event("secret_renewed", &format!("DATABASE__{}_URL", login.to_uppercase())).await;
    }
    works(&admin).await;
    // A replica of this version starts, and a rollback may run its `migrate`.
    assert_eq!(migrate(&service.database.owner), Ok(()));
    let app = SERVICE.start_on(service.database.clone(), &[]).await;
    works(&app.admin()).await;
    drop((app, service.process));
    let database = service.database;
    // A step that is not declared as expanding ends it.
    run(&database.owner, "insert into _sqlx_migrations select 9001, 'drop remark', now(), true, '', 0").await.unwrap();
    let refused = migrate(&database.owner).unwrap_err();
    assert!(refused.contains("the schema public is newer than this binary, which lacks migration 9001"), "{refused}");
}

#[tokio::test]
async fn fail_03_expanded_schema_permits_no_rights_to_known_objects() {
    for (grant, excess) in [
        ("grant delete on notes to app_writer", "table public.notes: delete"),
        ("grant update (created_by) on notes to app_writer", "table public.notes (created_by): update"),
        ("grant execute on function palisade.set_override to app_reader", "function palisade.set_override: execute"),
        ("grant create on schema public to app_writer", "schema public: create"),
    ] {
        let error = start_error_after(&format!("{EXPAND}{grant}")).await;
        assert!(error.contains("rights.txt does not list") && error.contains(excess), "{grant}: {error}");
    }
}

#[tokio::test]
async fn fail_04_readiness_ends_before_the_listener() {
    let issuer = start_issuer(Clock::system()).await;
    let mut variables = TestApp::variables(&SERVICE.database().await, issuer.url());
    variables.insert("APP_HTTP__SHUTDOWN_DELAY_MS".to_owned(), "5000".to_owned());
    let process = ServiceProcess::start(&SERVICE, &variables).await;
    let address = process.address;
    let viewer = issuer.access_token(&person(&ACME, roles::VIEWER), &scopes::ALL);
    let viewer = Actor::new(address, Some(viewer));
    let served = viewer.get("/v1/notes").await;
    assert_eq!((served.status.as_u16(), served.header("connection")), (200, None));
    let signalled = Instant::now();
    let stopping = tokio::spawn(process.terminate());
    eventually("not ready", async || viewer.get("/health/ready").await.status == 503).await;
    assert!(signalled.elapsed() < Duration::from_secs(5), "readiness ended with the listener");
    // New connections are served, and clients are asked to leave.
    let late = Actor::new(address, None).get("/health/live").await;
    assert_eq!((late.status.as_u16(), late.header("connection")), (200, Some("close")));
    viewer.get("/v1/notes").await.ok(200);
    let (status, log) = stopping.await.unwrap();
    assert!(status.success() && log.contains("no longer ready"), "{log}");
    assert!(signalled.elapsed() >= Duration::from_secs(5), "the listener ended early");
}

#[tokio::test]
async fn fail_04_full_connection_pools_do_not_end_readiness() {
    let app = SERVICE.start_with(&[("APP_DATABASE__MAX_CONNECTIONS", "1")]).await;
    let admin = app.admin();
    let mut holder = superuser(&app.database).await;
    sqlx::raw_sql("begin; lock table notes in access exclusive mode").execute(&mut holder).await.unwrap();
    let path = format!("/v1/notes/{}", demo::FIRST_NOTE);
    let change = admin.request(Method::PATCH, &path).json(&json!({ "remark": "changed" }));
    let requests = async { tokio::join!(admin.send(change), admin.get("/v1/notes")) };
    let probes = async {
        let waiting = "select count(*) from pg_locks where not granted and relation = 'notes'::regclass";
        let both = async || sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut holder).await.unwrap() == 2;
        eventually("both logins have a request that waits", both).await;
        // Longer than the result of a probe is reused.
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(1) {
            app.anonymous().get("/health/ready").await.ok(200);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        sqlx::raw_sql("rollback").execute(&mut holder).await.unwrap();
    };
    let ((changed, listed), ()) = tokio::join!(requests, probes);
    changed.ok(200);
    listed.ok(200);
}
