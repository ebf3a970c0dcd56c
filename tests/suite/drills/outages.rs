//! What becomes of callers while something that the service depends on is away, and when it is back (FAIL-01). It is
//! really away: its process ended, or nobody listens where it was.
//!
//! Callers go on through all of it, each from a task of their own. Nobody is ever let in who would not be, nobody is
//! answered with anything but what they are usually or the matrix says for an outage, and no order that was answered
//! with is lost or there twice. The service is never started again.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use service::{
    api,
    authz::{
        matrix::{MATRIX, Outage, Row, Scope, Uncounted},
        policy::Role,
    },
    dev::demo::{self, Tenant},
    ops::Keys,
};

use crate::{
    rotation::keys,
    support::{
        ACME, Actor, Ask, Caller, Door, GLOBEX, Load, OddIssuer, OwnPostgres, Redis, Reply, Stages, TestApp, TestKey,
        UNTHROTTLED, Vault, Wire, eventually, run, test_database, vault::TOKEN,
    },
};

/// From the moment at which a dependency answers again, all is as before within this: the database, whose connections
/// are all made anew; the issuer, who is asked every second here; the store of quotas, which is tried five times a
/// second; and the vault, which is left alone for a second after each failure. In truth it is a second or two, and the
/// rest is for a machine that is busy.
const DATABASE_BACK: Duration = Duration::from_secs(10);
const ISSUER_BACK: Duration = Duration::from_secs(10);
const QUOTAS_BACK: Duration = Duration::from_secs(10);
const KEYS_BACK: Duration = Duration::from_secs(10);

/// The database is not what is away, and a busy machine is no outage.
const PATIENT: (&str, &str) = ("APP_DATABASE__ACQUIRE_TIMEOUT_MS", "9000");

const NOBODYS: &str = "0190a001-0000-7000-8000-00000000ffff";

/// Callers of every kind, signed for by `sign`; `is_refused` says who of them is answered with 503 in the outage.
async fn callers(
    app: &TestApp,
    sign: impl Fn(&str, Role, &Tenant) -> String,
    is_refused: impl Fn(&str) -> bool,
) -> Vec<Caller> {
    let token = |name: &str, role| sign(&format!("load-{name}"), role, &ACME);
    let (good, other, revoked) = (token("a", Role::Admin), token("b", Role::Admin), token("gone", Role::Admin));
    let forged = format!("{}.{}", good.rsplit_once('.').unwrap().0, other.rsplit_once('.').unwrap().1);
    run(&app.database.operator, "select note_revocation('subject', 'load-gone', now(), 'a test')").await.unwrap();
    let gone = app.bearer(revoked.clone());
    eventually("the revocation is known", async || gone.get("/v1/me").await.status == 401).await;

    let maker = app.bearer(token("maker", Role::Admin));
    let body = json!({ "name": "load", "scopes": ["orders:read"], "validForDays": 30 });
    let key = maker.post("/v1/api-keys", &body).await.ok(201)["key"].as_str().unwrap().to_owned();

    let get = |path: &str| Ask::For(Method::GET, path.to_owned());
    let an_order = || get(&format!("/v1/orders/{}", demo::FIRST_ORDER));
    let void = Ask::For(Method::POST, format!("/v1/invoices/{NOBODYS}/void"));
    let stranger = sign("load-stranger", Role::Admin, &GLOBEX);
    let all = [
        ("a reader", Some(token("viewer", Role::Viewer)), an_order(), 200),
        ("a reader of lists", Some(token("viewer-2", Role::Viewer)), get("/v1/orders?limit=5"), 200),
        ("who orders", Some(token("sales", Role::Sales)), Ask::ForOrders, 201),
        ("who orders too", Some(token("sales-2", Role::Sales)), Ask::ForOrders, 201),
        ("who asks for something sensitive", Some(good), void, 404),
        ("another tenant's", Some(stranger), an_order(), 404),
        ("who may not order", Some(token("viewer-3", Role::Viewer)), Ask::ForOrders, 403),
        ("a forger", Some(forged), an_order(), 401),
        ("who was revoked", Some(revoked), an_order(), 401),
        ("a program", None, an_order(), 200),
        ("a probe of liveness", None, get("/health/live"), 200),
        ("a probe of readiness", None, get("/health/ready"), 200),
    ];
    all.into_iter()
        .map(|(name, token, asks, usual)| {
            let meanwhile = if is_refused(name) { 503 } else { usual };
            let is_hasty = name == "a probe of readiness";
            let actor = if name == "a program" { app.api_key(&key) } else { Actor::new(app.address, token) };
            Caller { name, actor, asks, usual, meanwhile, is_hasty }
        })
        .collect()
}

/// Tokens of an app's own issuer.
fn tokens_of(app: &TestApp) -> impl Fn(&str, Role, &Tenant) -> String {
    move |subject: &str, role: Role, tenant: &Tenant| {
        let forge = app.forge().claim("sub", subject).claim("roles", json!([role.as_str()]));
        forge.claim("tenant_id", tenant.id.to_string()).token()
    }
}

/// Until all is as before; when that is.
async fn recovery(load: &Load, within: Duration) -> Instant {
    let back = Instant::now();
    load.is_well().await;
    assert!(back.elapsed() < within, "all is as before only {:?} after it was back", back.elapsed());
    Instant::now()
}

/// Calls every operation at once, with the document's examples and on objects that nobody has.
async fn walk(actor: &Actor, judge: impl Fn(&Row, &Reply)) {
    let document = api::document("https://login.example.com", "https://api.example.com");
    let replies = join_all(MATRIX.iter().map(|row| ask(actor, &document, row))).await;
    for (row, reply) in MATRIX.iter().zip(&replies) {
        judge(row, reply);
    }
}

async fn ask(actor: &Actor, document: &Value, row: &Row) -> Reply {
    let path = row.path.replace("{id}", NOBODYS).replace("{sku}", "NONE-SUCH");
    let request = actor.request(row.method.as_str().parse().unwrap(), &path);
    let request = request.header("idempotency-key", uuid::Uuid::now_v7().to_string());
    let content = &document["paths"][row.path][row.method.as_str().to_lowercase()]["requestBody"]["content"];
    let schema = content["application/json; charset=utf-8"]["schema"]["$ref"].as_str();
    let name = schema.and_then(|schema| schema.rsplit('/').next());
    let example = name.map(|name| &document["components"]["schemas"][name]["examples"][0]);
    actor.send(if let Some(example) = example { request.json(example) } else { request }).await
}

/// It refuses, and says when it is worth to come back.
#[track_caller]
fn assert_refused(row: &Row, reply: &Reply) {
    assert_eq!(reply.problem(503), "unavailable", "{}", row.operation);
    assert_eq!(reply.header("retry-after"), Some("1"), "{}", row.operation);
}

/// Nobody is let in, so each operation does what the matrix says of an outage.
fn as_the_matrix_says(row: &Row, reply: &Reply) {
    match row.outage {
        Outage::Open => assert_eq!(reply.status, 200, "{}: {reply:#?}", row.operation),
        Outage::Closed => assert_refused(row, reply),
    }
}

/// Somebody answers there, and hangs up: that is no fault of this program.
#[tokio::test]
async fn fail_01_a_database_that_hangs_up_is_unavailable() {
    let database = test_database().await;
    let wire = Wire::to(&database.reader).await;
    let app = TestApp::start_on(database.clone(), &[("APP_DATABASE__READER_URL", wire.url())]).await;
    let sales = app.user(Role::Sales);
    let path = format!("/v1/orders/{}", demo::FIRST_ORDER);
    sales.get(&path).await.ok(200);
    wire.down(true);
    for path in [&path, "/v1/orders", "/v1/customers", "/v1/orders?limit=5"] {
        for _ in 0..5 {
            assert_eq!(sales.get(path).await.problem(503), "unavailable", "{path}");
        }
    }
    wire.down(false);
    eventually("it is back", async || sales.get(&path).await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_01_the_database_crashes_under_load_and_comes_back() {
    let mut postgres = OwnPostgres::start().await;
    let own = [("APP_REVOCATION__MAX_FEED_AGE_SECONDS", "5"), ("APP_DATABASE__ACQUIRE_TIMEOUT_MS", "4000")];
    let refuses = [&UNTHROTTLED[..], &own].concat();
    let serves = [&refuses[..], &[("APP_REVOCATION__WHEN_LOST", "serve")]].concat();
    let app = TestApp::start_on(postgres.database.clone(), &refuses).await;
    let other = TestApp::start_on(postgres.database.clone(), &serves).await;
    let (admin, known_there) = (app.user(Role::Admin), other.user(Role::Admin));
    known_there.get("/v1/me").await.ok(200);
    // A forger is found out by the issuer's keys, which are known.
    let load =
        Load::start(callers(&app, tokens_of(&app), |who| !["a forger", "a probe of liveness"].contains(&who)).await);
    load.more(20).await;

    let began = Instant::now();
    postgres.crash().await;
    load.is_hit().await;
    let known = Instant::now();
    walk(&admin, as_the_matrix_says).await;
    // Where callers are let in by what was known, it is the operations that refuse.
    walk(&known_there, |row, reply| match (row.operation, row.outage) {
        ("getMe", _) | (_, Outage::Open) => assert_eq!(reply.status, 200, "{}: {reply:#?}", row.operation),
        (_, Outage::Closed) => assert_refused(row, reply),
    })
    .await;
    load.more(20).await;

    let ended = Instant::now();
    postgres.revive().await;
    let over = recovery(&load, DATABASE_BACK).await;
    other.wait_until_ready().await;
    load.more(20).await;
    let calls = load.finish().await;
    calls.judge(&Stages { began, known, ended, over });
    calls.assert_kept(&postgres.database).await;
}

/// An issuer of this key, at the address of the door.
async fn issuer_at(door: &mut Door, key: &TestKey) -> OddIssuer {
    let mut issuer = OddIssuer::with_keys(&[key]).await;
    let server: SocketAddr = issuer.url.trim_start_matches("http://").parse().unwrap();
    issuer.url = door.url();
    issuer.metadata("issuer", door.url());
    issuer.metadata("jwks_uri", format!("{}/keys", door.url()));
    door.open_to(server).await;
    issuer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_01_the_issuer_goes_away_under_load_and_comes_back() {
    let (key, mut door) = (TestKey::es256("a"), Door::new().await);
    let issuer = issuer_at(&mut door, &key).await;
    let own = [("APP_OIDC__REFRESH_SECONDS", "1"), ("APP_OIDC__MAX_STALENESS_SECONDS", "60"), PATIENT];
    let app = issuer.app(&[&UNTHROTTLED[..], &own].concat()).await;
    app.wait_until_ready().await;
    let now = app.clock.timestamp();
    let sign = |subject: &str, role: Role, tenant: &Tenant| {
        let mut claims = issuer.claims(now);
        claims["sub"] = json!(subject);
        claims["roles"] = json!([role.as_str()]);
        claims["tenant_id"] = json!(tenant.id.to_string());
        key.sign_text(&json!({ "alg": key.alg, "typ": "at+jwt", "kid": key.id }).to_string(), &claims.to_string())
    };
    let admin = app.bearer(sign("load-admin", Role::Admin, &ACME));
    // Who has a key needs no issuer.
    let load = Load::start(callers(&app, sign, |who| !["a program", "a probe of liveness"].contains(&who)).await);
    load.more(20).await;

    door.shut().await;
    drop(issuer);
    // Known keys serve up to the limit (AUTHN-10): nobody notices anything yet.
    load.more(20).await;
    app.clock.advance(Duration::from_secs(40));
    load.more(20).await;
    let began = Instant::now();
    app.clock.advance(Duration::from_secs(30));
    load.is_hit().await;
    let known = Instant::now();
    walk(&admin, as_the_matrix_says).await;
    load.more(20).await;

    let ended = Instant::now();
    let issuer = issuer_at(&mut door, &key).await;
    let over = recovery(&load, ISSUER_BACK).await;
    load.more(20).await;
    let calls = load.finish().await;
    calls.judge(&Stages { began, known, ended, over });
    calls.assert_kept(&app.database).await;

    // It goes away once more and comes back with another key: what the old one signed ends when that is known.
    admin.get("/v1/me").await.ok(200);
    door.shut().await;
    drop(issuer);
    let other = TestKey::es256("b");
    let issuer = issuer_at(&mut door, &other).await;
    let holder = app.bearer(issuer.token(&other, app.clock.timestamp()));
    eventually("the new key is known", async || holder.get("/v1/me").await.status == 200).await;
    assert_eq!(admin.get("/v1/me").await.problem(401), "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_01_the_store_of_quotas_is_killed_under_load_and_comes_back() {
    let Some(mut redis) = Redis::start().await else { return };
    let url = redis.url();
    let own = [("APP_QUOTA__REDIS_URL", &*url), ("APP_QUOTA__REDIS_TIMEOUT_MS", "5000"), PATIENT];
    let app = TestApp::start_with(&[&UNTHROTTLED[..], &own].concat()).await;
    let admin = app.user(Role::Admin);
    // All others are counted here meanwhile, and notice nothing.
    let load = Load::start(callers(&app, tokens_of(&app), |who| who == "who asks for something sensitive").await);
    load.more(20).await;

    let began = Instant::now();
    redis.kill();
    load.is_hit().await;
    let known = Instant::now();
    walk(&admin, |row, reply| match row.quota.uncounted() {
        // Asked by somebody in no hurry: all of these are asked at once.
        _ if row.operation == "getReadiness" => {}
        Uncounted::Closed => assert_refused(row, reply),
        Uncounted::Local => assert!(!reply.status.is_server_error(), "{}: {reply:#?}", row.operation),
    })
    .await;
    load.more(20).await;

    let ended = Instant::now();
    redis.revive().await;
    let over = recovery(&load, QUOTAS_BACK).await;
    load.more(20).await;
    let calls = load.finish().await;
    calls.judge(&Stages { began, known, ended, over });
    calls.assert_kept(&app.database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_01_the_keeper_of_master_keys_goes_away_under_load_and_comes_back() {
    let (vault, mut door) = (Vault::start().await, Door::new().await);
    door.open_to(vault.address).await;
    let url = door.url();
    let own = [
        ("APP_KEYS__PROVIDER", "vault"),
        ("APP_KEYS__VAULT__URL", &*url),
        ("APP_KEYS__VAULT__TOKEN", TOKEN),
        ("APP_KEYS__VAULT__TIMEOUT_MS", "4900"),
        PATIENT,
    ];
    let beside = [&UNTHROTTLED[..], &own].concat();
    let before = TestApp::start_with(&beside).await;
    keys(&before, Keys::Rewrap, &beside).await.unwrap();
    let alone = [&beside[..], &[("APP_KEYS__MASTER", "")]].concat();
    let app = TestApp::start_on(before.database.clone(), &alone).await;
    let globex = || app.user_of(&GLOBEX, Role::Admin, &Scope::ALL);
    let customers = |name, actor, meanwhile| {
        let asks = Ask::For(Method::GET, "/v1/customers".to_owned());
        Caller { name, actor, asks, usual: 200, meanwhile, is_hasty: false }
    };
    let mut load = Load::start(callers(&app, tokens_of(&app), |_| false).await);
    load.add(customers("who needs a key that is remembered", app.user(Role::Admin), 200));
    load.more(20).await;

    let began = Instant::now();
    door.shut().await;
    load.add(customers("who needs one that is not", globex(), 503));
    load.is_hit().await;
    let known = Instant::now();
    // Nothing is sealed with a key that could not be had.
    let customer = json!({ "name": "New", "email": "new@example.com" });
    assert_eq!(globex().post("/v1/customers", &customer).await.problem(503), "unavailable");
    globex().get("/v1/orders").await.ok(200);
    load.more(20).await;

    let ended = Instant::now();
    door.open_to(vault.address).await;
    let over = recovery(&load, KEYS_BACK).await;
    globex().post("/v1/customers", &customer).await.ok(201);
    load.more(20).await;
    let calls = load.finish().await;
    calls.judge(&Stages { began, known, ended, over });
    calls.assert_kept(&app.database).await;
}
