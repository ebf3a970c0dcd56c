//! Quotas per principal (RATE-02), tenant (RATE-03) and operation class (RATE-04), the responses
//! that report them (RATE-05), and rate limits per address for authenticated callers (RATE-06) and
//! behind proxies (RATE-07).

use std::time::Duration;

use http::Method;
use palisade::{
    authz::{Callers, QuotaClass},
    dev::people,
};
use sample::access::{roles, scopes};

use crate::support::{
    ACME, Actor, GLOBEX, MATRIX, Reply, SERVICE, TestApp, api_keys::key_text, eventually, incident, note_body, person,
    run, run_incident,
};

/// Unsets the quotas of `TestApp`, so that the defaults apply.
const DEFAULTS: [(&str, &str); 5] = [
    ("APP_QUOTA__READ_PER_MINUTE", ""),
    ("APP_QUOTA__WRITE_PER_MINUTE", ""),
    ("APP_QUOTA__SENSITIVE_PER_MINUTE", ""),
    ("APP_QUOTA__EXPORT_PER_MINUTE", ""),
    ("APP_QUOTA__TENANT_PER_MINUTE", ""),
];

/// Checks that this limit is exhausted; the `Retry-After` in seconds.
#[track_caller]
fn assert_exhausted(reply: &Reply, limit: &str) -> u64 {
    assert_eq!(reply.problem(429), "rate_limited");
    assert_eq!(reply.body["limit"], limit, "{reply:#?}");
    let seconds = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{reply:#?}");
    seconds
}

#[tokio::test]
async fn rate_05_responses_report_the_quota_and_429_names_the_limit() {
    let app = SERVICE.start_with(&[("APP_QUOTA__READ_PER_MINUTE", "3")]).await;
    let user = app.user(roles::WRITER);
    for left in [2, 1, 0] {
        let reply = user.get("/v1/notes").await;
        assert_eq!(reply.header("ratelimit-policy"), Some("\"read\";q=3;w=60, \"tenant\";q=1000000;w=60"));
        let remaining = reply.header("ratelimit").unwrap();
        // Seconds until the bucket is full, rounded up.
        let seconds = 60 - 20 * left;
        assert!(remaining.starts_with(&format!("\"read\";r={left};t={seconds}, \"tenant\";r=")), "{remaining}");
        assert!(remaining.ends_with(";t=1"), "{remaining}");
        reply.ok(200);
    }
    let reply = user.get("/v1/me").await;
    let seconds = assert_exhausted(&reply, "read");
    assert!(seconds <= 20, "with three per minute, one is available after 20 s, not after {seconds}");
    assert_eq!(reply.header("ratelimit"), Some("\"read\";r=0;t=60"));
    let [event] = &reply.events()[..] else { panic!("{:#?}", reply.events()) };
    assert_eq!((&*event["event"], &*event["limit"]), ("excess_rate_limit_exceeded", "read"));
    assert_eq!(
        (&*event["subject"], &*event["tenant"], &*event["operation"]),
        (&*person(&ACME, roles::WRITER).subject, &*ACME.id.to_string(), "getMe")
    );
}

#[tokio::test]
async fn rate_02_principals_have_separate_quotas_per_class() {
    // Two classes with quotas of the same size are separate.
    let app = SERVICE.start_with(&[("APP_QUOTA__READ_PER_MINUTE", "3"), ("APP_QUOTA__WRITE_PER_MINUTE", "3")]).await;
    let user = app.user(roles::WRITER);
    for _ in 0..3 {
        user.get("/v1/notes").await.ok(200);
    }
    assert_exhausted(&user.get("/v1/me").await, "read");
    // Another token of the user shares the quota. Another user, an API key and another class do
    // not.
    assert_exhausted(&app.user(roles::WRITER).get("/v1/me").await, "read");
    app.user(roles::VIEWER).get("/v1/me").await.ok(200);
    let key = app.new_api_key(&[scopes::NOTES_READ]).await;
    app.api_key(key_text(&key)).get("/v1/notes").await.ok(200);
    user.post("/v1/notes", &note_body("PAPER-A4", 1)).await.ok(201);
    // The quota refills evenly.
    app.clock.advance(Duration::from_secs(21));
    user.get("/v1/me").await.ok(200);
    assert_exhausted(&user.get("/v1/me").await, "read");
}

/// Two tenants may have users with the same subject.
#[tokio::test]
async fn rate_02_same_subject_in_another_tenant_has_its_own_quota() {
    let app = SERVICE.start_with(&[("APP_QUOTA__READ_PER_MINUTE", "1")]).await;
    let alice = |tenant: &people::Tenant| {
        app.bearer(app.forge().claim("sub", "alice").claim("tenant_id", tenant.id.to_string()).token())
    };
    alice(&ACME).get("/v1/me").await.ok(200);
    assert_exhausted(&alice(&ACME).get("/v1/me").await, "read");
    alice(&GLOBEX).get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn rate_02_rejected_requests_count() {
    let app = SERVICE.start_with(&[("APP_QUOTA__READ_PER_MINUTE", "3")]).await;
    let user = app.user_of(&ACME, roles::VIEWER, &[scopes::NOTES_READ]);
    for (path, status) in
        [("/v1/audit-events", 403), ("/v1/notes?limit=0", 400), ("/v1/notes/0190a001-0000-7000-8000-00000000ffff", 404)]
    {
        let reply = user.get(path).await;
        reply.problem(status);
        assert!(reply.header("ratelimit").is_some(), "{reply:#?}");
    }
    assert_exhausted(&user.get("/v1/notes").await, "read");
    // Anonymous callers have no quota.
    assert_eq!(app.anonymous().get("/v1/notes").await.header("ratelimit"), None);
    assert_eq!(app.anonymous().get("/health/live").await.header("ratelimit"), None);
}

#[tokio::test]
async fn rate_03_tenants_have_separate_quotas() {
    let app = SERVICE.start_with(&[("APP_QUOTA__READ_PER_MINUTE", "3"), ("APP_QUOTA__TENANT_PER_MINUTE", "5")]).await;
    let viewer = app.user(roles::VIEWER);
    let writer = app.user(roles::WRITER);
    for _ in 0..3 {
        viewer.get("/v1/me").await.ok(200);
    }
    // Requests that a caller's own quota rejects do not count against the tenant's.
    for _ in 0..5 {
        assert_exhausted(&viewer.get("/v1/me").await, "read");
    }
    for _ in 0..2 {
        writer.get("/v1/me").await.ok(200);
    }
    let reply = writer.get("/v1/me").await;
    assert_exhausted(&reply, "tenant");
    assert!(reply.header("ratelimit").unwrap().contains("\"tenant\";r=0;"), "{reply:#?}");
    app.user_of(&GLOBEX, roles::VIEWER, &scopes::ALL).get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn rate_04_operations_count_against_the_quota_of_their_class() {
    let app = SERVICE.start_with(&DEFAULTS).await;
    let admin = app.user(roles::ADMIN);
    for row in MATRIX.iter().filter(|row| !matches!(row.callers, Callers::Public | Callers::Browser)) {
        let path = row.path.replace("{id}", "0190a001-0000-7000-8000-00000000ffff").replace("{code}", "NONE-SUCH");
        let method = Method::from_bytes(row.method.as_str().as_bytes()).unwrap();
        let reply = admin.send(admin.request(method, &path)).await;
        let policy = match row.quota {
            QuotaClass::Read => "\"read\";q=100;w=60, \"tenant\";q=2000;w=60",
            QuotaClass::Write => "\"write\";q=60;w=60, \"tenant\";q=2000;w=60",
            QuotaClass::Sensitive => "\"sensitive\";q=20;w=60, \"tenant\";q=2000;w=60",
            QuotaClass::Export => "\"export\";q=5;w=60, \"tenant\";q=2000;w=60",
            QuotaClass::Health | QuotaClass::Credential => panic!("{} is not public", row.operation),
        };
        assert_eq!(reply.header("ratelimit-policy"), Some(policy), "{}", row.operation);
    }
}

#[tokio::test]
async fn rate_04_default_quota_allows_100_reads_per_minute() {
    let app = SERVICE.start_with(&DEFAULTS).await;
    let user = app.user(roles::VIEWER);
    let mut rejected = 0;
    for _ in 0..130 {
        let reply = user.get("/v1/me").await;
        if reply.status == 429 {
            assert_exhausted(&reply, "read");
            rejected += 1;
        }
    }
    // The quota refills a little during the test.
    assert!((1..=30).contains(&rejected), "{rejected}");
}

#[tokio::test]
async fn rate_03_overrides_apply_on_every_replica_and_expire() {
    let database = SERVICE.database().await;
    let read = ("APP_QUOTA__READ_PER_MINUTE", "50");
    let first = SERVICE.start_on(database.clone(), &[read]).await;
    let second = SERVICE.start_on(database.clone(), &[read]).await;
    let policy = async |app: &TestApp, tenant: &people::Tenant| {
        let reply = app.user_of(tenant, roles::VIEWER, &scopes::ALL).get("/v1/me").await;
        reply.header("ratelimit-policy").unwrap().to_owned()
    };
    let acme = ACME.id.to_string();
    for (arguments, read, tenant) in [
        (vec![&*acme, "read", "7"], 7, 1_000_000),
        (vec![&*acme, "tenant", "60"], 7, 60),
        (vec![&*acme, "read", "90"], 90, 60),
        // This override expires at once.
        (vec![&*acme, "read", "1", "--hours", "0"], 50, 60),
    ] {
        incident(&SERVICE, &database, &[&["throttle"], &arguments[..]].concat());
        let expected = format!("\"read\";q={read};w=60, \"tenant\";q={tenant};w=60");
        for app in [&first, &second] {
            eventually(&expected, async || policy(app, &ACME).await == expected).await;
        }
    }
    assert_eq!(policy(&first, &GLOBEX).await, "\"read\";q=50;w=60, \"tenant\";q=1000000;w=60");
    // A new replica applies the overrides from its first request.
    let fresh = SERVICE.start_on(database.clone(), &[read]).await;
    assert_eq!(policy(&fresh, &ACME).await, "\"read\";q=50;w=60, \"tenant\";q=60;w=60");
    for (arguments, message) in [
        (vec!["acme", "read", "7"], "invalid value 'acme'"),
        (vec![&*acme, "health", "7"], "invalid value 'health'"),
        (vec![&*acme, "read", "0"], "only the limit `address` may be 0"),
        (vec![&*acme, "read", "1000001"], "invalid value '1000001'"),
        (vec![&*acme, "address", "7"], "a network has the limit `address`"),
        (vec!["203.0.113.0/24", "read", "7"], "a network has the limit `address`"),
        (vec![&*acme, "read", "7", "--hours", "9000"], "invalid value '9000'"),
        (vec![&*acme, "read", "7", "--reason", " "], "the reason must have 1 to 500 characters"),
    ] {
        let output = run_incident(&SERVICE, &database, &[&["throttle"], &arguments[..]].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(message), "{arguments:?}: {error}");
    }
    // Only the operator's login may set overrides.
    for login in [&database.writer, &database.reader, &database.authn, &database.auditor] {
        let call = format!("select palisade.set_tenant_quota('{acme}', 'read', 1, now(), 'a test')");
        assert!(run(login, &call).await.unwrap_err().to_string().contains("permission denied"));
    }
}

/// An operator who changes a quota during an attack must not hand the attacker a fresh one.
#[tokio::test]
async fn rate_03_changed_quota_hands_out_no_new_calls() {
    let app = SERVICE.start_with(&[("APP_QUOTA__READ_PER_MINUTE", "2")]).await;
    let user = app.user(roles::VIEWER);
    for _ in 0..2 {
        user.get("/v1/me").await.ok(200);
    }
    incident(&SERVICE, &app.database, &["throttle", &ACME.id.to_string(), "read", "1"]);
    eventually("the override applies", async || {
        let reply = user.get("/v1/me").await;
        assert_exhausted(&reply, "read");
        reply.header("ratelimit-policy").is_some_and(|policy| policy.starts_with("\"read\";q=1;"))
    })
    .await;
}

#[tokio::test]
async fn rate_06_authenticated_callers_are_limited_separately_from_their_address() {
    let app = SERVICE
        .start_with(&[
            ("APP_THROTTLE__ADDRESS_PER_SECOND", "0.02"),
            ("APP_THROTTLE__ADDRESS_BURST", "20"),
            ("APP_FAILURE_LIMIT__FREE_FAILURES", "1000"),
            ("APP_FAILURE_LIMIT__MAX_FAILURES", "1000"),
            // API keys are verified for each request, and still count as authenticated.
            ("APP_API_KEYS__CACHE_SECONDS", "0"),
        ])
        .await;
    let user = app.user(roles::VIEWER);
    let key = app.new_api_key(&[scopes::NOTES_READ]).await;
    let program = app.api_key(key_text(&key));
    user.get("/v1/me").await.ok(200);
    program.get("/v1/notes").await.ok(200);
    let attacker = app.bearer("e30.e30.e30");
    eventually("the limit of the address is exhausted", async || attacker.get("/v1/me").await.status == 429).await;
    for _ in 0..3 {
        user.get("/v1/me").await.ok(200);
        program.get("/v1/notes").await.ok(200);
    }
    for other in [app.anonymous(), attacker, app.user(roles::WRITER)] {
        let reply = other.get("/v1/me").await;
        assert_exhausted(&reply, "address");
        assert_eq!(reply.events()[0]["limit"], "address");
        assert!(!reply.events()[0].contains_key("subject"), "{reply:#?}");
    }
    // An authenticated caller has a limit too.
    eventually("the limit of the user is exhausted", async || user.get("/v1/me").await.status == 429).await;
    let reply = user.get("/v1/me").await;
    assert_exhausted(&reply, "address");
    let event = reply.event("excess_rate_limit_exceeded");
    let named = ["limit", "subject", "tenant", "client"].map(|field| &*event[field]);
    assert_eq!(named, ["address", "viewer@acme.example", &ACME.id.to_string(), "127.0.0.1"]);
}

/// A client that sends a forwarding header.
struct ForwardingClient<'a> {
    actor: &'a Actor,
    header: &'static str,
}

impl ForwardingClient<'_> {
    async fn get(&self, lines: &[&str]) -> Reply {
        let mut request = self.actor.request(Method::GET, "/v1/me");
        for line in lines {
            request = request.header(self.header, *line);
        }
        self.actor.send(request).await
    }
}

#[tokio::test]
async fn rate_07_forwarded_addresses_count_from_trusted_proxies_only() {
    for (header, prefix) in [("x-forwarded-for", ""), ("forwarded", "for=")] {
        let app = SERVICE
            .start_with(&[
                ("APP_THROTTLE__ADDRESS_PER_SECOND", "0.02"),
                ("APP_THROTTLE__ADDRESS_BURST", "30"),
                ("APP_HTTP__TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8"),
                ("APP_HTTP__PROXY_HEADER", header),
            ])
            .await;
        let forwarded = |chain: &str| chain.split(", ").map(|a| format!("{prefix}{a}")).collect::<Vec<_>>().join(", ");
        let anonymous = app.anonymous();
        let by_proxy = ForwardingClient { actor: &anonymous, header };
        let victim = forwarded("203.0.113.9");
        eventually("exhausted", async || by_proxy.get(&[&victim]).await.status == 429).await;
        // Another client of the proxy has its own limit. Addresses that a client puts before the
        // proxy's own entry do not count.
        by_proxy.get(&[&forwarded("203.0.113.10")]).await.problem(401);
        let claims = [forwarded("198.51.100.1, 203.0.113.9"), forwarded("10.1.1.1, 203.0.113.9, 10.0.0.7")];
        for claim in &claims {
            assert_exhausted(&by_proxy.get(&[claim]).await, "address");
        }
        assert_exhausted(&by_proxy.get(&[&forwarded("198.51.100.2"), &victim]).await, "address");
        by_proxy.get(&[&forwarded("203.0.113.9, 203.0.113.11")]).await.problem(401);
        // Invalid headers are rejected.
        for garbage in ["", "unknown", "203.0.113.9,", "for=\"203.0.113.9"] {
            assert_eq!(by_proxy.get(&[garbage]).await.problem(400), "malformed_request", "{garbage}");
        }
        // The other header does not count, and neither does this one without a trusted proxy.
        let other = ForwardingClient {
            actor: &anonymous,
            header: if prefix.is_empty() { "forwarded" } else { "x-forwarded-for" },
        };
        other.get(&["203.0.113.9"]).await.problem(401);
        let other_address = app.anonymous().at_address(std::net::Ipv4Addr::new(127, 0, 0, 9).into());
        let direct = ForwardingClient { actor: &other_address, header };
        direct.get(&[&victim]).await.problem(401);
        eventually("exhausted", async || direct.get(&[&forwarded("192.0.2.200")]).await.status == 429).await;
        // Invalid headers have a separate limit. It does not affect the proxy's own requests, and
        // these do not affect its probes.
        eventually("exhausted", async || by_proxy.get(&["unknown"]).await.status == 429).await;
        anonymous.get("/v1/me").await.problem(401);
        eventually("exhausted", async || anonymous.get("/v1/me").await.status == 429).await;
        for _ in 0..9 {
            anonymous.get("/health/ready").await.ok(200);
        }
        // Bytes that are not text invalidate one element, not the one that the proxy appended.
        let invalid = [b"\xc3\xa9\xff\", ", forwarded("203.0.113.12").as_bytes()].concat();
        let invalid = http::HeaderValue::from_bytes(&invalid).unwrap();
        let request = || anonymous.request(Method::GET, "/v1/me").header(header, invalid.clone());
        anonymous.send(request()).await.problem(401);
        eventually("exhausted", async || anonymous.send(request()).await.status == 429).await;
        by_proxy.get(&[&forwarded("203.0.113.13")]).await.problem(401);
    }
}
