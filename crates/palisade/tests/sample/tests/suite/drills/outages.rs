//! Outages of each dependency (FAIL-01): database, issuer, quota store and vault. The dependency is
//! really down: its process has ended, or nothing listens at its address.
//!
//! Callers of every kind send requests throughout ([`Load`]). None of them is accepted that is
//! normally rejected, each gets its normal status or the one that the matrix gives for the outage,
//! and acknowledged notes are stored exactly once. The service recovers without a restart.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use http::Method;
use palisade::{
    authz::{Callers, OnStoreDown, Outage, Role, Row},
    dev::people::Tenant,
};
use sample::{
    access::{roles, scopes},
    demo,
};
use serde_json::{Value, json};

use crate::support::{
    ACME, Actor, Caller, GLOBEX, Load, LoadRequest, MATRIX, MisbehavingIssuer, OutageTimes, PgProxy, Redis, Reply,
    RestartablePostgres, SERVICE, TcpSwitch, TestApp, TestKey, UNTHROTTLED, Vault, eventually, note_body, run,
    start_with_vault, vault_only,
};

/// All callers get their normal status again within this time after the dependency is back
/// (FAIL-01).
///
/// It takes a second or two, and the rest is for a busy machine. Connections to the database are
/// all opened again; the issuer is asked every second here, the quota store five times a second,
/// and the vault a second after each failure.
const RECOVERY_TIME: Duration = Duration::from_secs(10);

/// Where the database is not the dependency that is down, a busy machine must not look like an
/// outage.
const LONG_ACQUIRE_TIMEOUT: (&str, &str) = ("APP_DATABASE__ACQUIRE_TIMEOUT_MS", "9000");

/// The id of no object.
const MISSING_ID: &str = "0190a001-0000-7000-8000-00000000ffff";

/// Callers of every kind. `sign` makes their tokens; `is_affected` says by name which of them get
/// 503 during the outage.
async fn callers(
    app: &TestApp,
    sign: impl Fn(&str, Role, &Tenant) -> String,
    is_affected: impl Fn(&str) -> bool,
) -> Vec<Caller> {
    let token = |name: &str, role| sign(&format!("load-{name}"), role, &ACME);
    let valid = token("a", roles::ADMIN);
    let other = token("b", roles::ADMIN);
    let revoked = token("gone", roles::ADMIN);
    let forged = format!("{}.{}", valid.rsplit_once('.').unwrap().0, other.rsplit_once('.').unwrap().1);
    run(&app.database.operator, "select palisade.record_revocation('subject', 'load-gone', now(), 'a test')")
        .await
        .unwrap();
    let revoked_caller = app.bearer(revoked.clone());
    eventually("the revocation is loaded", async || revoked_caller.get("/v1/me").await.status == 401).await;

    let creator = app.bearer(token("creator", roles::ADMIN));
    let body = json!({ "name": "load", "scopes": ["notes:read"], "validForDays": 30 });
    let key = creator.post("/v1/api-keys", &body).await.ok(201)["key"].as_str().unwrap().to_owned();

    let get = |path: &str| LoadRequest::Path(Method::GET, path.to_owned());
    let get_note = || get(&format!("/v1/notes/{}", demo::FIRST_NOTE));
    let erase = LoadRequest::Path(Method::DELETE, format!("/v1/notes/{MISSING_ID}"));
    let foreign = sign("load-foreign", roles::ADMIN, &GLOBEX);
    let all = [
        ("reader", Some(token("viewer", roles::VIEWER)), get_note(), 200),
        ("reader of lists", Some(token("viewer-2", roles::VIEWER)), get("/v1/notes?limit=5"), 200),
        ("writer", Some(token("writer", roles::WRITER)), create_notes(), 201),
        ("second writer", Some(token("writer-2", roles::WRITER)), create_notes(), 201),
        ("caller of a sensitive operation", Some(valid), erase, 404),
        ("caller of another tenant", Some(foreign), get_note(), 404),
        ("writer without permission", Some(token("viewer-3", roles::VIEWER)), create_notes(), 403),
        ("forged token", Some(forged), get_note(), 401),
        ("revoked subject", Some(revoked), get_note(), 401),
        ("API key", None, get_note(), 200),
        ("liveness probe", None, get("/health/live"), 200),
        ("readiness probe", None, get("/health/ready"), 200),
    ];
    all.into_iter()
        .map(|(name, token, request, normal_status)| {
            let outage_status = if is_affected(name) { 503 } else { normal_status };
            let may_time_out = name == "readiness probe";
            let actor = if name == "API key" { app.api_key(&key) } else { Actor::new(app.address, token) };
            Caller { name, actor, request, normal_status, outage_status, may_time_out }
        })
        .collect()
}

/// Reads the notes that the load has created.
const CREATED: &str = "select id::text from notes where created_by like 'load-%'";

fn create_notes() -> LoadRequest {
    LoadRequest::Create("/v1/notes", note_body("PAPER-A4", 1))
}

/// Makes tokens of the app's issuer.
fn token_maker(app: &TestApp) -> impl Fn(&str, Role, &Tenant) -> String {
    move |subject: &str, role: Role, tenant: &Tenant| {
        let forge = app.forge().claim("sub", subject).claim("roles", json!([role.as_str()]));
        forge.claim("tenant_id", tenant.id.to_string()).token()
    }
}

/// Waits until every caller gets its normal status, asserts the bound, and returns the time.
async fn wait_for_recovery(load: &Load) -> Instant {
    let back = Instant::now();
    load.wait_until_normal().await;
    assert!(back.elapsed() < RECOVERY_TIME, "recovered only {:?} after the dependency was back", back.elapsed());
    Instant::now()
}

/// Calls all operations concurrently, with the OpenAPI document's examples and on missing objects.
async fn call_all_operations(actor: &Actor, check: impl Fn(&Row, &Reply)) {
    let document = SERVICE.document("https://login.example.com", "https://api.example.com");
    // Without a client in the settings, the operations of browsers do not exist.
    let rows: Vec<&Row> = MATRIX.iter().filter(|row| row.callers != Callers::Browser).collect();
    let replies = join_all(rows.iter().map(|row| call(actor, &document, row))).await;
    for (row, reply) in rows.into_iter().zip(&replies) {
        check(row, reply);
    }
}

async fn call(actor: &Actor, document: &Value, row: &Row) -> Reply {
    let path = row.path.replace("{id}", MISSING_ID).replace("{code}", "NONE-SUCH");
    let mut request = actor.request(row.method.as_str().parse().unwrap(), &path);
    let operation = &document["paths"][row.path][row.method.as_str().to_lowercase()];
    if operation["x-access"]["idempotencyKey"].as_str().is_some_and(|key| key != "refused") {
        request = request.header("idempotency-key", uuid::Uuid::now_v7().to_string());
    }
    let schema = operation["requestBody"]["content"]["application/json; charset=utf-8"]["schema"]["$ref"].as_str();
    let name = schema.and_then(|schema| schema.rsplit('/').next());
    let example = name.map(|name| &document["components"]["schemas"][name]["examples"][0]);
    actor.send(if let Some(example) = example { request.json(example) } else { request }).await
}

/// Asserts 503 with `Retry-After`.
#[track_caller]
fn assert_unavailable(row: &Row, reply: &Reply) {
    assert_eq!(reply.problem(503), "unavailable", "{}", row.operation);
    assert_eq!(reply.header("retry-after"), Some("1"), "{}", row.operation);
}

/// Asserts the outage behaviour that the matrix gives for an operation.
fn assert_matrix_behaviour(row: &Row, reply: &Reply) {
    match row.outage {
        Outage::Open => assert_eq!(reply.status, 200, "{}: {reply:#?}", row.operation),
        Outage::Closed => assert_unavailable(row, reply),
    }
}

/// The address accepts connections and closes them. That is an outage, not an internal error.
#[tokio::test]
async fn fail_01_closed_database_connections_give_503() {
    let database = SERVICE.database().await;
    let proxy = PgProxy::start(&database.reader).await;
    let app = SERVICE.start_on(database.clone(), &[("APP_DATABASE__READER_URL", proxy.url())]).await;
    let writer = app.user(roles::WRITER);
    let path = format!("/v1/notes/{}", demo::FIRST_NOTE);
    writer.get(&path).await.ok(200);
    proxy.set_down(true);
    for path in [&path, "/v1/notes", "/v1/items/PAPER-A4", "/v1/notes?limit=5"] {
        for _ in 0..5 {
            assert_eq!(writer.get(path).await.problem(503), "unavailable", "{path}");
        }
    }
    proxy.set_down(false);
    eventually("notes are served again", async || writer.get(&path).await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_01_recovers_from_a_database_crash_under_load() {
    let mut postgres = RestartablePostgres::start(&SERVICE).await;
    let timeouts = [("APP_REVOCATION__MAX_FEED_AGE_SECONDS", "5"), ("APP_DATABASE__ACQUIRE_TIMEOUT_MS", "4000")];
    let fail_closed = [&UNTHROTTLED[..], &timeouts].concat();
    let fail_open = [&fail_closed[..], &[("APP_REVOCATION__ON_STALE_FEED", "serve")]].concat();
    let app = SERVICE.start_on(postgres.database.clone(), &fail_closed).await;
    let open_app = SERVICE.start_on(postgres.database.clone(), &fail_open).await;
    let admin = app.user(roles::ADMIN);
    let cached_admin = open_app.user(roles::ADMIN);
    cached_admin.get("/v1/me").await.ok(200);
    // Forged tokens are rejected without the database: the issuer's keys are cached.
    let is_affected = |name: &str| !["forged token", "liveness probe"].contains(&name);
    let load = Load::start(callers(&app, token_maker(&app), is_affected).await);
    load.wait_for_calls(20).await;

    let began = Instant::now();
    postgres.crash().await;
    load.wait_until_affected().await;
    let noticed = Instant::now();
    call_all_operations(&admin, assert_matrix_behaviour).await;
    // Where revocations fail open, cached callers are authenticated, and the operations get 503.
    call_all_operations(&cached_admin, |row, reply| match (row.operation, row.outage) {
        ("getMe", _) | (_, Outage::Open) => assert_eq!(reply.status, 200, "{}: {reply:#?}", row.operation),
        (_, Outage::Closed) => assert_unavailable(row, reply),
    })
    .await;
    load.wait_for_calls(20).await;

    let ended = Instant::now();
    postgres.restart().await;
    let recovered = wait_for_recovery(&load).await;
    open_app.wait_until_ready().await;
    load.wait_for_calls(20).await;
    let calls = load.finish().await;
    calls.assert_statuses(&OutageTimes { began, noticed, ended, recovered });
    calls.assert_created_stored(&postgres.database, CREATED).await;
}

/// An issuer with this key, at the address of the switch, which it opens.
async fn start_issuer_behind(switch: &mut TcpSwitch, key: &TestKey) -> MisbehavingIssuer {
    let mut issuer = MisbehavingIssuer::with_keys(&SERVICE, &[key]).await;
    let server: SocketAddr = issuer.url.trim_start_matches("http://").parse().unwrap();
    issuer.url = switch.url();
    issuer.set_metadata("issuer", switch.url());
    issuer.set_metadata("jwks_uri", format!("{}/keys", switch.url()));
    switch.open_to(server).await;
    issuer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_01_recovers_from_an_issuer_outage_under_load() {
    let key = TestKey::es256("a");
    let mut switch = TcpSwitch::new().await;
    let issuer = start_issuer_behind(&mut switch, &key).await;
    let refresh = [("APP_OIDC__REFRESH_SECONDS", "1"), ("APP_OIDC__MAX_STALENESS_SECONDS", "60")];
    let app = issuer.app(&[&UNTHROTTLED[..], &refresh, &[LONG_ACQUIRE_TIMEOUT]].concat()).await;
    app.wait_until_ready().await;
    let now = app.clock.timestamp();
    let sign = |subject: &str, role: Role, tenant: &Tenant| {
        let mut claims = issuer.claims(now);
        claims["sub"] = json!(subject);
        claims["roles"] = json!([role.as_str()]);
        claims["tenant_id"] = json!(tenant.id.to_string());
        key.sign_text(&json!({ "alg": key.alg, "typ": "at+jwt", "kid": key.id }).to_string(), &claims.to_string())
    };
    let admin = app.bearer(sign("load-admin", roles::ADMIN, &ACME));
    // API keys do not depend on the issuer.
    let load = Load::start(callers(&app, sign, |name| !["API key", "liveness probe"].contains(&name)).await);
    load.wait_for_calls(20).await;

    switch.close().await;
    drop(issuer);
    // Cached issuer keys stay valid up to the limit (AUTHN-10), so no caller is affected yet.
    load.wait_for_calls(20).await;
    app.clock.advance(Duration::from_secs(40));
    load.wait_for_calls(20).await;
    let began = Instant::now();
    app.clock.advance(Duration::from_secs(30));
    load.wait_until_affected().await;
    let noticed = Instant::now();
    call_all_operations(&admin, assert_matrix_behaviour).await;
    load.wait_for_calls(20).await;

    let ended = Instant::now();
    let issuer = start_issuer_behind(&mut switch, &key).await;
    let recovered = wait_for_recovery(&load).await;
    load.wait_for_calls(20).await;
    let calls = load.finish().await;
    calls.assert_statuses(&OutageTimes { began, noticed, ended, recovered });
    calls.assert_created_stored(&app.database, CREATED).await;

    // The issuer comes back with another key: tokens of the old key are rejected once it is loaded.
    admin.get("/v1/me").await.ok(200);
    switch.close().await;
    drop(issuer);
    let other = TestKey::es256("b");
    let issuer = start_issuer_behind(&mut switch, &other).await;
    let holder = app.bearer(issuer.token(&other, app.clock.timestamp()));
    eventually("the new issuer key is loaded", async || holder.get("/v1/me").await.status == 200).await;
    assert_eq!(admin.get("/v1/me").await.problem(401), "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_01_recovers_from_a_quota_store_crash_under_load() {
    let Some(mut redis) = Redis::start().await else { return };
    let url = redis.url();
    let store = [("APP_QUOTA__REDIS_URL", &*url), ("APP_QUOTA__REDIS_TIMEOUT_MS", "5000"), LONG_ACQUIRE_TIMEOUT];
    let app = SERVICE.start_with(&[&UNTHROTTLED[..], &store].concat()).await;
    let admin = app.user(roles::ADMIN);
    // The quotas of all other classes are counted locally during the outage.
    let is_affected = |name: &str| name == "caller of a sensitive operation";
    let load = Load::start(callers(&app, token_maker(&app), is_affected).await);
    load.wait_for_calls(20).await;

    let began = Instant::now();
    redis.kill();
    load.wait_until_affected().await;
    let noticed = Instant::now();
    call_all_operations(&admin, |row, reply| match row.quota.on_store_down() {
        // All operations are called at once, so the readiness probe may time out. The load has one
        // too.
        _ if row.operation == "getReadiness" => {}
        OnStoreDown::Closed => assert_unavailable(row, reply),
        OnStoreDown::Local => assert!(!reply.status.is_server_error(), "{}: {reply:#?}", row.operation),
    })
    .await;
    load.wait_for_calls(20).await;

    let ended = Instant::now();
    redis.restart().await;
    let recovered = wait_for_recovery(&load).await;
    load.wait_for_calls(20).await;
    let calls = load.finish().await;
    calls.assert_statuses(&OutageTimes { began, noticed, ended, recovered });
    calls.assert_created_stored(&app.database, CREATED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_01_recovers_from_a_vault_outage_under_load() {
    let vault = Vault::start().await;
    let mut switch = TcpSwitch::new().await;
    switch.open_to(vault.address).await;
    let url = switch.url();
    let before = start_with_vault(&vault).await;
    let timeouts = [("APP_KEYS__VAULT__TIMEOUT_MS", "4900"), LONG_ACQUIRE_TIMEOUT];
    let app = SERVICE.start_on(before.database.clone(), &[&vault_only(&url)[..], &timeouts].concat()).await;
    let globex = || app.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL);
    let notes = |name, actor, outage_status| {
        let request = LoadRequest::Path(Method::GET, "/v1/notes".to_owned());
        Caller { name, actor, request, normal_status: 200, outage_status, may_time_out: false }
    };
    let mut load = Load::start(callers(&app, token_maker(&app), |_| false).await);
    load.add(notes("reader with a cached data key", app.user(roles::ADMIN), 200));
    load.wait_for_calls(20).await;

    let began = Instant::now();
    switch.close().await;
    load.add(notes("reader without a cached data key", globex(), 503));
    load.wait_until_affected().await;
    let noticed = Instant::now();
    // Without the data key nothing can be sealed, and what is not sealed is still served.
    let note = note_body("PAPER-A4", 1);
    assert_eq!(globex().post("/v1/notes", &note).await.problem(503), "unavailable");
    globex().get("/v1/items/PAPER-A4").await.ok(200);
    load.wait_for_calls(20).await;

    let ended = Instant::now();
    switch.open_to(vault.address).await;
    let recovered = wait_for_recovery(&load).await;
    globex().post("/v1/notes", &note).await.ok(201);
    load.wait_for_calls(20).await;
    let calls = load.finish().await;
    calls.assert_statuses(&OutageTimes { began, noticed, ended, recovered });
    calls.assert_created_stored(&app.database, CREATED).await;
}
