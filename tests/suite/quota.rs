//! How much anybody may ask for: by principal and class, by tenant, and by address.

use std::time::Duration;

use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;
use service::{
    authz::{
        matrix::{Callers, MATRIX, QuotaClass, Scope},
        policy::Role,
    },
    dev::{database::Urls, demo},
};

use crate::support::{ACME, Actor, GLOBEX, Reply, TestApp, binary, eventually, run, test_database};

/// As the settings have them when nobody says otherwise.
const DEFAULTS: [(&str, &str); 5] = [
    ("APP_QUOTA__READ_PER_MINUTE", ""),
    ("APP_QUOTA__WRITE_PER_MINUTE", ""),
    ("APP_QUOTA__SENSITIVE_PER_MINUTE", ""),
    ("APP_QUOTA__EXPORT_PER_MINUTE", ""),
    ("APP_QUOTA__TENANT_PER_MINUTE", ""),
];

/// That a quota of this name was used up; after how many seconds there is more.
#[track_caller]
fn assert_used_up(reply: &Reply, limit: &str) -> u64 {
    assert_eq!(reply.problem(429), "rate_limited");
    assert_eq!(reply.body["limit"], limit, "{reply:#?}");
    let seconds = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{reply:#?}");
    seconds
}

#[tokio::test]
async fn rate_02_a_principal_has_a_quota_of_its_own() {
    // Of the same size, and yet two.
    let app = TestApp::start_with(&[("APP_QUOTA__READ_PER_MINUTE", "3"), ("APP_QUOTA__WRITE_PER_MINUTE", "3")]).await;
    let user = app.user(Role::Sales);
    for left in [2, 1, 0] {
        let reply = user.get("/v1/orders").await;
        assert_eq!(reply.header("ratelimit-policy"), Some("\"read\";q=3;w=60, \"tenant\";q=1000000;w=60"));
        let stands = reply.header("ratelimit").unwrap();
        assert!(stands.starts_with(&format!("\"read\";r={left};t=")), "{stands}");
        reply.ok(200);
    }
    let reply = user.get("/v1/me").await;
    let seconds = assert_used_up(&reply, "read");
    assert!(seconds <= 20, "one of three per minute is there after 20 s, not {seconds}");
    assert_eq!(reply.header("ratelimit"), Some("\"read\";r=0;t=60"));
    let [event] = &reply.events()[..] else { panic!("{:#?}", reply.events()) };
    assert_eq!((&*event["event"], &*event["limit"]), ("excess_rate_limit_exceeded", "read"));
    assert_eq!(
        (&*event["subject"], &*event["tenant"], &*event["operation"]),
        (&*user_subject(Role::Sales), &*ACME.id.to_string(), "getMe")
    );
    // Another token of theirs is still theirs; another user, a key and another class are not.
    assert_used_up(&app.user(Role::Sales).get("/v1/me").await, "read");
    app.user(Role::Viewer).get("/v1/me").await.ok(200);
    let key = app.new_api_key(&[Scope::OrdersRead]).await;
    app.api_key(key["key"].as_str().unwrap()).get("/v1/orders").await.ok(200);
    user.post("/v1/customers", &json!({ "name": "A", "email": "a@example.com" })).await.ok(201);
    // It comes back evenly.
    app.clock.advance(Duration::from_secs(21));
    user.get("/v1/me").await.ok(200);
    assert_used_up(&user.get("/v1/me").await, "read");
}

fn user_subject(role: Role) -> String {
    crate::support::person(&ACME, role).subject
}

/// The subject of two tenants' users may be the same text.
#[tokio::test]
async fn rate_02_the_same_name_in_another_tenant_is_somebody_else() {
    let app = TestApp::start_with(&[("APP_QUOTA__READ_PER_MINUTE", "1")]).await;
    let of = |tenant: &demo::Tenant| {
        app.bearer(app.forge().claim("sub", "alice").claim("tenant_id", tenant.id.to_string()).token())
    };
    of(&ACME).get("/v1/me").await.ok(200);
    assert_used_up(&of(&ACME).get("/v1/me").await, "read");
    of(&GLOBEX).get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn rate_02_what_is_refused_counts_too() {
    let app = TestApp::start_with(&[("APP_QUOTA__READ_PER_MINUTE", "3")]).await;
    let user = app.user_of(&ACME, Role::Viewer, &[Scope::OrdersRead]);
    for (path, status) in
        [("/v1/products", 403), ("/v1/orders?limit=0", 400), ("/v1/orders/0190a001-0000-7000-8000-00000000ffff", 404)]
    {
        let reply = user.get(path).await;
        reply.problem(status);
        assert!(reply.header("ratelimit").is_some(), "{reply:#?}");
    }
    assert_used_up(&user.get("/v1/orders").await, "read");
    // Who is not known has none.
    assert_eq!(app.anonymous().get("/v1/orders").await.header("ratelimit"), None);
    assert_eq!(app.anonymous().get("/health/live").await.header("ratelimit"), None);
}

#[tokio::test]
async fn rate_03_a_tenant_has_a_quota_that_others_do_not_touch() {
    let app = TestApp::start_with(&[("APP_QUOTA__READ_PER_MINUTE", "3"), ("APP_QUOTA__TENANT_PER_MINUTE", "5")]).await;
    let (one, another) = (app.user(Role::Viewer), app.user(Role::Sales));
    for _ in 0..3 {
        one.get("/v1/me").await.ok(200);
    }
    // What a caller is refused is not held against the others of the tenant.
    for _ in 0..5 {
        assert_used_up(&one.get("/v1/me").await, "read");
    }
    for _ in 0..2 {
        another.get("/v1/me").await.ok(200);
    }
    let reply = another.get("/v1/me").await;
    assert_used_up(&reply, "tenant");
    assert!(reply.header("ratelimit").unwrap().contains("\"tenant\";r=0;"), "{reply:#?}");
    app.user_of(&GLOBEX, Role::Viewer, &Scope::ALL).get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn rate_04_every_operation_counts_against_the_quota_of_its_class() {
    let app = TestApp::start_with(&DEFAULTS).await;
    let admin = app.user(Role::Admin);
    for row in MATRIX.iter().filter(|row| row.callers != Callers::Public) {
        let path = row.path.replace("{id}", "0190a001-0000-7000-8000-00000000ffff").replace("{sku}", "NONE-SUCH");
        let method = Method::from_bytes(row.method.as_str().as_bytes()).unwrap();
        let reply = admin.send(admin.request(method, &path)).await;
        let policy = match row.quota {
            QuotaClass::Read => "\"read\";q=100;w=60, \"tenant\";q=2000;w=60",
            QuotaClass::Write => "\"write\";q=60;w=60, \"tenant\";q=2000;w=60",
            QuotaClass::Sensitive => "\"sensitive\";q=20;w=60, \"tenant\";q=2000;w=60",
            QuotaClass::Export => "\"export\";q=5;w=60, \"tenant\";q=2000;w=60",
            QuotaClass::Health => panic!("{} is open to everybody", row.operation),
        };
        assert_eq!(reply.header("ratelimit-policy"), Some(policy), "{}", row.operation);
    }
}

/// "Requests exceeding 100 reads per minute per user are throttled."
#[tokio::test]
async fn rate_04_a_hundred_reads_a_minute_are_allowed_at_once_and_no_more() {
    let app = TestApp::start_with(&DEFAULTS).await;
    let user = app.user(Role::Viewer);
    let mut refused = 0;
    for _ in 0..130 {
        let reply = user.get("/v1/me").await;
        if reply.status == 429 {
            assert_used_up(&reply, "read");
            refused += 1;
        }
    }
    // A few come back while this runs.
    assert!((1..=30).contains(&refused), "{refused}");
}

fn throttle(database: &Urls, arguments: &[&str]) -> std::process::Output {
    let mut command = binary();
    command.args(["incident", "throttle"]).args(arguments);
    if !arguments.contains(&"--reason") {
        command.args(["--reason", "a test"]);
    }
    command.env("APP_DATABASE__OPERATOR_URL", database.operator.expose_secret()).env("APP_PROFILE", "development");
    command.output().unwrap()
}

#[tokio::test]
async fn rate_03_operators_widen_and_narrow_a_tenants_quotas_while_the_service_runs() {
    let database = test_database().await;
    let read = ("APP_QUOTA__READ_PER_MINUTE", "50");
    let (here, there) =
        (TestApp::start_on(database.clone(), &[read]).await, TestApp::start_on(database.clone(), &[read]).await);
    let policy = async |app: &TestApp, tenant: &demo::Tenant| {
        let reply = app.user_of(tenant, Role::Viewer, &Scope::ALL).get("/v1/me").await;
        reply.header("ratelimit-policy").unwrap().to_owned()
    };
    let acme = ACME.id.to_string();
    for (arguments, read, tenant) in [
        (vec![&*acme, "read", "7"], 7, 1_000_000),
        (vec![&*acme, "tenant", "60"], 7, 60),
        (vec![&*acme, "read", "90"], 90, 60),
        // Over at once.
        (vec![&*acme, "read", "1", "--hours", "0"], 50, 60),
    ] {
        let output = throttle(&database, &arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let wanted = format!("\"read\";q={read};w=60, \"tenant\";q={tenant};w=60");
        for app in [&here, &there] {
            eventually(&wanted, async || policy(app, &ACME).await == wanted).await;
        }
    }
    assert_eq!(policy(&here, &GLOBEX).await, "\"read\";q=50;w=60, \"tenant\";q=1000000;w=60");
    // From the first call after a start.
    let fresh = TestApp::start_on(database.clone(), &[read]).await;
    assert_eq!(policy(&fresh, &ACME).await, "\"read\";q=50;w=60, \"tenant\";q=60;w=60");
    for (arguments, message) in [
        (vec!["acme", "read", "7"], "invalid value 'acme'"),
        (vec![&*acme, "health", "7"], "invalid value 'health'"),
        (vec![&*acme, "read", "0"], "only addresses may have 0 calls per minute"),
        (vec![&*acme, "read", "1000001"], "invalid value '1000001'"),
        (vec![&*acme, "address", "7"], "a network has the limit `address`"),
        (vec!["203.0.113.0/24", "read", "7"], "a network has the limit `address`"),
        (vec![&*acme, "read", "7", "--hours", "9000"], "invalid value '9000'"),
        (vec![&*acme, "read", "7", "--reason", " "], "a reason has 1 to 500 characters"),
    ] {
        let output = throttle(&database, &arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(message), "{arguments:?}: {error}");
    }
    // Only the operator's login may.
    for login in [&database.writer, &database.reader, &database.authn, &database.auditor] {
        let call = format!("select note_tenant_quota('{acme}', 'read', 1, now(), 'a test')");
        assert!(run(login, &call).await.unwrap_err().to_string().contains("permission denied"));
    }
}

#[tokio::test]
async fn rate_06_who_is_known_is_not_punished_for_others_at_the_same_address() {
    let app = TestApp::start_with(&[
        ("APP_THROTTLE__ADDRESS_PER_SECOND", "0.02"),
        ("APP_THROTTLE__ADDRESS_BURST", "20"),
        ("APP_PENALTY__FREE_FAILURES", "1000"),
        ("APP_PENALTY__FAILURES", "1000"),
        // Keys are checked anew each time, and yet known.
        ("APP_API_KEYS__REMEMBERED_SECONDS", "0"),
    ])
    .await;
    let user = app.user(Role::Viewer);
    let key = app.new_api_key(&[Scope::OrdersRead]).await;
    let program = app.api_key(key["key"].as_str().unwrap());
    user.get("/v1/me").await.ok(200);
    program.get("/v1/orders").await.ok(200);
    let guesser = app.bearer("e30.e30.e30");
    eventually("the address is used up", async || guesser.get("/v1/me").await.status == 429).await;
    for _ in 0..3 {
        user.get("/v1/me").await.ok(200);
        program.get("/v1/orders").await.ok(200);
    }
    for stranger in [app.anonymous(), guesser, app.user(Role::Sales)] {
        let reply = stranger.get("/v1/me").await;
        assert_used_up(&reply, "address");
        assert_eq!(reply.events()[0]["limit"], "address");
    }
    // Nor may one who is known do without end.
    eventually("the known caller's own bucket is used up", async || user.get("/v1/me").await.status == 429).await;
    assert_used_up(&user.get("/v1/me").await, "address");
}

/// A caller whom a proxy at 127.0.0.1 says to be at this address.
struct Forwarded<'a> {
    actor: &'a Actor,
    header: &'static str,
}

impl Forwarded<'_> {
    async fn get(&self, lines: &[&str]) -> Reply {
        let mut request = self.actor.request(Method::GET, "/v1/me");
        for line in lines {
            request = request.header(self.header, *line);
        }
        self.actor.send(request).await
    }
}

#[tokio::test]
async fn rate_07_what_declared_proxies_say_counts_and_nothing_else() {
    for (header, of) in [("x-forwarded-for", ""), ("forwarded", "for=")] {
        let app = TestApp::start_with(&[
            ("APP_THROTTLE__ADDRESS_PER_SECOND", "0.02"),
            ("APP_THROTTLE__ADDRESS_BURST", "30"),
            ("APP_HTTP__TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8"),
            ("APP_HTTP__PROXY_HEADER", header),
        ])
        .await;
        let say = |chain: &str| chain.split(", ").map(|a| format!("{of}{a}")).collect::<Vec<_>>().join(", ");
        let stranger = app.anonymous();
        let by_proxy = Forwarded { actor: &stranger, header };
        let victim = say("203.0.113.9");
        eventually("used up", async || by_proxy.get(&[&victim]).await.status == 429).await;
        // Another caller behind the same proxy is another; what a caller wrote in front of it neither helps nor harms.
        by_proxy.get(&[&say("203.0.113.10")]).await.problem(401);
        let claims = [say("198.51.100.1, 203.0.113.9"), say("10.1.1.1, 203.0.113.9, 10.0.0.7")];
        for claim in &claims {
            assert_used_up(&by_proxy.get(&[claim]).await, "address");
        }
        assert_used_up(&by_proxy.get(&[&say("198.51.100.2"), &victim]).await, "address");
        by_proxy.get(&[&say("203.0.113.9, 203.0.113.11")]).await.problem(401);
        // What cannot be understood is refused, not guessed.
        for garbage in ["", "unknown", "203.0.113.9,", "for=\"203.0.113.9"] {
            assert_eq!(by_proxy.get(&[garbage]).await.problem(400), "malformed_request", "{garbage}");
        }
        // The other header is the caller's to write, and so is this one where no proxy stands.
        let other = Forwarded { actor: &stranger, header: if of.is_empty() { "forwarded" } else { "x-forwarded-for" } };
        other.get(&["203.0.113.9"]).await.problem(401);
        let elsewhere = app.anonymous().at_address(std::net::Ipv4Addr::new(127, 0, 0, 9).into());
        let direct = Forwarded { actor: &elsewhere, header };
        direct.get(&[&victim]).await.problem(401);
        eventually("used up", async || direct.get(&[&say("192.0.2.200")]).await.status == 429).await;
        // What cannot be understood has a limit of its own. It is not held against the proxy, nor are the proxy's other
        // calls against its probes.
        eventually("used up", async || by_proxy.get(&["unknown"]).await.status == 429).await;
        stranger.get("/v1/me").await.problem(401);
        eventually("used up", async || stranger.get("/v1/me").await.status == 429).await;
        for _ in 0..9 {
            stranger.get("/health/ready").await.ok(200);
        }
        // Bytes that are no text spoil one element, and not what the proxy appended.
        let spoiled = [b"\xc3\xa9\xff\", ", say("203.0.113.12").as_bytes()].concat();
        let spoiled = http::HeaderValue::from_bytes(&spoiled).unwrap();
        let request = || stranger.request(Method::GET, "/v1/me").header(header, spoiled.clone());
        stranger.send(request()).await.problem(401);
        eventually("used up", async || stranger.send(request()).await.status == 429).await;
        by_proxy.get(&[&say("203.0.113.13")]).await.problem(401);
    }
}
