//! Incident commands at the internal listener (LOG-08): rights, validation, effects, audit events,
//! and the limits of network overrides.

use http::Method;
use palisade::{
    authz::{Callers, Method as MatrixMethod},
    db,
    dev::database::Urls,
};
use sample::access::roles;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    ACME, Actor, MATRIX, SERVICE, TestApp, eventually,
    mtls::{JOB, MtlsSetup, PROMETHEUS, dns, uri},
    query, send_raw, status, superuser,
};

const ONCALL: &str = "spiffe://acme.example/oncall";

/// A service with an internal listener, and `ONCALL` with the right to incident commands.
async fn start() -> (MtlsSetup, Urls) {
    start_with(&[]).await
}

async fn start_with(further: &[(&str, &str)]) -> (MtlsSetup, Urls) {
    let database = SERVICE.database().await;
    let mut variables: Vec<_> = database.variables().into_iter().collect();
    let oncall = [
        ("APP_DATABASE__INCIDENTS_URL", database.incidents.expose_secret()),
        ("APP_INTERNAL__SERVICES__ONCALL__CERTIFICATE_NAME", ONCALL),
        ("APP_INTERNAL__SERVICES__ONCALL__RIGHTS", "incidents"),
    ];
    variables.extend(oncall.iter().chain(further).map(|&(name, value)| (name.to_owned(), value.to_owned())));
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    (MtlsSetup::internal(&SERVICE, "notes:read", &variables).await, database)
}

/// Runs a command; its outcome.
async fn run_command(actor: &Actor, command: Value) -> String {
    actor.post("/incidents", &command).await.ok(200)["outcome"].as_str().unwrap().to_owned()
}

/// Subject, client, action and reason of the events of operators, oldest first.
async fn operator_events(database: &Urls) -> Vec<String> {
    let events = "select concat_ws(' ', subject, client, action, reason) from palisade.audit_events
                where subject like 'operator:%' order by at, id";
    query(&database.backup, events).await
}

#[tokio::test]
async fn log_08_service_runs_incident_commands_and_the_trail_names_it() {
    let (setup, database) = start().await;
    let oncall = setup.service([uri(ONCALL)]);
    let writer = setup.app.user(roles::WRITER);
    let me = writer.get("/v1/me").await.ok(200)["subject"].as_str().unwrap().to_owned();
    let read =
        json!({ "command": "throttle", "target": "everyone", "limit": "read", "perMinute": 70, "reason": "a test" });
    assert!(run_command(&oncall, read).await.starts_with("read quota of all tenants: 70 per minute until "));
    eventually("the quota of all tenants", async || {
        writer.get("/v1/me").await.header("ratelimit-policy").unwrap().starts_with("\"read\";q=70;")
    })
    .await;
    // The override of a tenant takes precedence.
    let tenant = json!({ "command": "throttle", "target": ACME.id.to_string(), "limit": "read", "perMinute": 500, "reason": "x" });
    run_command(&oncall, tenant).await;
    eventually("the quota of the tenant", async || {
        writer.get("/v1/me").await.header("ratelimit-policy").unwrap().starts_with("\"read\";q=500;")
    })
    .await;
    let sessions = json!({ "command": "sessions", "subject": me, "reason": "a test" });
    assert!(run_command(&oncall, sessions).await.starts_with("sign-ins of "));
    eventually("signed out", async || writer.get("/v1/me").await.status == 401).await;
    let revoke = json!({ "command": "revoke", "kind": "token", "value": "no-such", "reason": "a test" });
    assert!(run_command(&oncall, revoke).await.starts_with("revoked token no-such (entry "));
    let unknown_tenant = json!({ "command": "rotate", "tenant": Uuid::now_v7().to_string(), "reason": "a test" });
    assert_eq!(oncall.post("/incidents", &unknown_tenant).await.problem(400), "invalid_input");
    let rotate = json!({ "command": "rotate", "reason": "a test" });
    let newest = "select max(version)::text from palisade.data_keys";
    let before = query(&database.owner, newest).await;
    oncall.post("/incidents", &rotate).await.ok(202);
    assert_eq!(oncall.post("/incidents", &rotate).await.problem(409), "conflict");
    eventually("there are new keys", async || query(&database.owner, newest).await != before).await;
    let events = operator_events(&database).await;
    let expected = [
        "override_set a test",
        "quota_set x",
        "credentials_revoked a test",
        "credentials_revoked a test",
        "key_rotation_ordered a test",
    ];
    assert_eq!(events, expected.map(|event| format!("operator:app_incidents service:oncall {event}")));
}

/// The test calls every operation of the matrix.
#[tokio::test]
async fn log_08_read_only_mode_stops_every_change() {
    let (setup, database) = start().await;
    let oncall = setup.service([uri(ONCALL)]);
    let admin = setup.app.user(roles::ADMIN);
    let read_only = json!({ "command": "read-only", "on": true, "reason": "a test" });
    assert!(run_command(&oncall, read_only).await.starts_with("read-only mode until "));
    let is_stopped = async |row: &palisade::authz::matrix::Row| {
        let path = row.path.replace("{id}", "0190a000-0000-7000-8000-000000000001").replace("{code}", "PAPER-A4");
        let method = Method::from_bytes(row.method.as_str().as_bytes()).unwrap();
        let reply = admin.send(admin.request(method, &path)).await;
        reply.status == 503 && reply.body["detail"] == "The service is read-only for now."
    };
    let update = MATRIX.iter().find(|row| row.operation == "updateNote").unwrap();
    eventually("read-only", async || is_stopped(update).await).await;
    for row in MATRIX.iter() {
        // Searches and exports change nothing, and revoking an API key and ending a session must stay
        // possible in an incident.
        let served = ["searchNotes", "createExport", "revokeApiKey", "endMySession", "endSession"];
        let is_served = served.contains(&row.operation) || row.callers == Callers::Browser;
        let changes = row.method != MatrixMethod::Get && !is_served;
        assert_eq!(is_stopped(row).await, changes, "{}", row.operation);
    }
    // Callers without the right still get 403.
    let viewer = setup.app.user(roles::VIEWER);
    assert_eq!(viewer.post("/v1/notes", &json!({})).await.problem(403), "forbidden");
    // Turned off by command, before it expires.
    run_command(&oncall, json!({ "command": "read-only", "on": false, "reason": "over" })).await;
    eventually("read-only mode is off", async || !is_stopped(update).await).await;
    assert_eq!(operator_events(&database).await.len(), 2);
}

#[tokio::test]
async fn log_08_callers_without_the_right_and_invalid_commands_are_rejected() {
    let (setup, database) = start().await;
    let command = json!({ "command": "read-only", "on": true, "reason": "a test" });
    let reply = setup.job().post("/incidents", &command).await;
    assert_eq!(reply.problem(403), "forbidden");
    assert_eq!(reply.event("authz_fail")["operation"], "handleIncident");
    setup.app.user(roles::ADMIN).post("/incidents", &command).await.problem(404);
    let certificate = setup.authority.sign_for([uri(ONCALL)]);
    setup.client(&certificate, Some(setup.app.forge().token())).post("/incidents", &command).await.problem(400);
    setup.service([uri(JOB), uri(ONCALL)]).post("/incidents", &command).await.problem(401);
    let oncall = setup.service([uri(ONCALL)]);
    assert_eq!(oncall.get("/metrics").await.problem(403), "forbidden");
    let reply = oncall.get("/incidents").await;
    assert_eq!((reply.problem(405), reply.header("allow")), ("method_not_allowed", Some("POST")));
    for (command, detail) in [
        (json!({}), "Unknown command"),
        (json!([]), "Unknown command"),
        (json!({ "command": "destroy", "reason": "x" }), "Unknown command"),
        (json!({ "command": "read-only", "on": true, "reason": "x", "for": 1 }), "Unknown command"),
        (json!({ "command": "read-only", "on": true }), "Unknown command"),
        (json!({ "command": "read-only", "on": true, "reason": " " }), "the reason must have"),
        (json!({ "command": "read-only", "on": true, "hours": 9000, "reason": "x" }), "0 to 8784 hours"),
        (json!({ "command": "sessions", "subject": "api-key:1", "reason": "x" }), "only people have sign-ins"),
        (json!({ "command": "revoke", "kind": "everything", "value": "x", "reason": "x" }), "takes no value"),
        (json!({ "command": "revoke", "kind": "tenant", "value": "acme", "reason": "x" }), "by its UUID"),
        (
            json!({ "command": "throttle", "target": "acme", "limit": "read", "perMinute": 1, "reason": "x" }),
            "Unknown command",
        ),
        (
            json!({ "command": "throttle", "target": "everyone", "limit": "read", "perMinute": 0, "reason": "x" }),
            "only the limit `address`",
        ),
        (
            json!({ "command": "throttle", "target": "everyone", "limit": "address", "perMinute": 1, "reason": "x" }),
            "a network has",
        ),
        (
            json!({ "command": "throttle", "target": "10.0.0.0/8", "limit": "read", "perMinute": 1, "reason": "x" }),
            "a network has",
        ),
        (
            json!({ "command": "throttle", "target": "everyone", "limit": "read", "perMinute": 1_000_001, "reason": "x" }),
            "at most",
        ),
    ] {
        let reply = oncall.post("/incidents", &command).await;
        assert_eq!(reply.problem(400), "invalid_input", "{command}");
        assert!(reply.body["detail"].as_str().unwrap().contains(detail), "{command}: {reply:#?}");
    }
    let twice = "{\"command\":\"read-only\",\"on\":false,\"on\":true,\"reason\":\"x\"}";
    assert_eq!(oncall.post_raw("/incidents", "application/json", twice).await.problem(400), "malformed_request");
    assert_eq!(oncall.post_raw("/incidents", "text/plain", twice).await.problem(415), "unsupported_media_type");
    assert_eq!(operator_events(&database).await, [""; 0]);
    assert_eq!(query(&database.owner, "select kind from palisade.overrides").await, [""; 0]);
}

/// Incident handling and monitoring survive a block of all addresses and of all credentials.
/// The strict parser of bodies reads commands too.
#[tokio::test]
async fn input_06_half_an_emoji_in_a_command_is_rejected() {
    let (setup, _) = start().await;
    let oncall = setup.service([uri(ONCALL)]);
    for command in [
        r#"{"command":"read-only","on":true,"reason":"\ud83d"}"#,
        r#"{"command":"read-only","on":true,"reason":"a test","\ude00":1}"#,
        r#"{"command":"revoke","kind":"subject","value":"\ud83d\ud83d","reason":"a test"}"#,
    ] {
        let reply = oncall.post_raw("/incidents", "application/json", command).await;
        assert_eq!(reply.problem(400), "malformed_request", "{command}");
    }
}

#[tokio::test]
async fn log_08_blocking_everyone_does_not_block_incident_handling() {
    let (setup, database) = start().await;
    let oncall = setup.service([uri(ONCALL)]);
    let prometheus = setup.service([dns(PROMETHEUS)]);
    let writer = setup.app.user(roles::WRITER);
    let network = "127.0.0.0/8";
    let block =
        json!({ "command": "throttle", "target": network, "limit": "address", "perMinute": 0, "reason": "a test" });
    assert!(run_command(&oncall, block).await.starts_with("each address of 127.0.0.0/8: 0 per minute until "));
    eventually("blocked", async || writer.get("/v1/me").await.status == 429).await;
    writer.get("/health/live").await.ok(200);
    run_command(&oncall, json!({ "command": "revoke", "kind": "everything", "reason": "a test" })).await;
    let job = setup.job();
    eventually("everything is revoked", async || job.get("/v1/me").await.status == 401).await;
    assert_eq!(prometheus.get("/metrics").await.status, 200);
    let unblock = json!({ "command": "throttle", "target": network, "limit": "address", "perMinute": 0, "hours": 0, "reason": "x" });
    run_command(&oncall, unblock).await;
    // The address is no longer blocked; the token is revoked.
    eventually("unblocked", async || writer.get("/v1/me").await.status == 401).await;
    // A revocation by its name does cover the service.
    run_command(
        &oncall,
        json!({ "command": "revoke", "kind": "subject", "value": "service:oncall", "reason": "a test" }),
    )
    .await;
    let read_only = json!({ "command": "read-only", "on": true, "reason": "a test" });
    eventually("the service is revoked", async || oncall.post("/incidents", &read_only).await.status == 401).await;
    drop(database);
}

/// The override covers authenticated callers, and addresses that a proxy forwards.
#[tokio::test]
async fn log_08_network_override_limits_each_address() {
    let (setup, _database) = start_with(&[("APP_HTTP__TRUSTED_PROXIES", "127.0.0.1")]).await;
    let writer = setup.app.user(roles::WRITER);
    let from = async |address: &str| {
        writer.send(writer.request(Method::GET, "/v1/me").header("x-forwarded-for", address)).await
    };
    from("203.0.113.1").await.ok(200);
    let oncall = setup.service([uri(ONCALL)]);
    let limit =
        json!({ "command": "throttle", "target": "203.0.113.0/24", "limit": "address", "perMinute": 3, "reason": "x" });
    assert!(run_command(&oncall, limit).await.starts_with("each address of 203.0.113.0/24: 3 per minute until "));
    eventually("limited", async || from("203.0.113.1").await.status == 429).await;
    for _ in 0..3 {
        from("203.0.113.2").await.ok(200);
    }
    let rejected = from("203.0.113.2").await;
    assert_eq!((rejected.problem(429), &rejected.body["limit"]), ("rate_limited", &json!("address")));
    // A request whose length is ambiguous is the last of its connection (INPUT-06).
    let next = "GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let ambiguous = "X-Forwarded-For: 203.0.113.2\r\nTransfer-Encoding: gzip, chunked";
    let request = format!("POST /v1/notes HTTP/1.1\r\nHost: x\r\n{ambiguous}\r\n\r\n0\r\n\r\n{next}");
    let response = send_raw(&setup.app, request.as_bytes()).await;
    assert_eq!((status(&response), response.matches("HTTP/1.1 ").count()), (429, 1), "{response}");
    let wait: u64 = rejected.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "one is free again in {wait} s");
    // An address that the caller puts before the proxy's own entry does not count.
    assert_eq!(from("198.51.100.1, 203.0.113.2").await.problem(429), "rate_limited");
    from("203.0.114.2").await.ok(200);
    writer.get("/v1/me").await.ok(200);
}

/// At the limit of 1,000 networks, only a further network is rejected.
#[tokio::test]
async fn log_08_the_limit_of_network_overrides_refuses_new_networks_only() {
    let (setup, database) = start().await;
    let oncall = setup.service([uri(ONCALL)]);
    let many = "insert into palisade.overrides (kind, target, per_minute, reason, recorded_by, recorded_at, expires_at)
                select 'address', format('10.%s.%s.0/24', n / 250, n % 250), 0, 'a test', 'a test', now(), now() + '1 hour'
                from generate_series(0, 999) n";
    sqlx::raw_sql(many).execute(&mut superuser(&database).await).await.unwrap();
    let throttle = |target: &str, limit: &str, calls: u32, hours: i32| json!({ "command": "throttle", "target": target, "limit": limit, "perMinute": calls, "hours": hours, "reason": "x" });
    let new = throttle("192.0.2.0/24", "address", 0, 1);
    let is_refused = async || oncall.post("/incidents", &new).await.status != 200;
    assert!(is_refused().await);
    for on in [true, false] {
        run_command(&oncall, json!({ "command": "read-only", "on": on, "reason": "x" })).await;
    }
    run_command(&oncall, throttle("everyone", "read", 70, 1)).await;
    run_command(&oncall, throttle("10.0.1.0/24", "address", 500, 1)).await;
    // Ending an override that does not exist adds no row.
    run_command(&oncall, throttle("198.51.100.0/24", "address", 0, 0)).await;
    assert!(is_refused().await);
    run_command(&oncall, throttle("10.0.2.0/24", "address", 0, 0)).await;
    run_command(&oncall, new.clone()).await;
    let in_force = "select count(*)::text from palisade.overrides where kind = 'address' and expires_at > now()";
    assert_eq!(query(&database.owner, in_force).await, ["1000"]);
}

#[tokio::test]
async fn log_08_incidents_login_with_other_rights_is_rejected() {
    let database = SERVICE.database().await;
    let oncall = [
        ("APP_INTERNAL__LISTEN", "127.0.0.1:0"),
        ("APP_INTERNAL__CERTIFICATE_PATH", "c.pem"),
        ("APP_INTERNAL__KEY_PATH", "k.pem"),
        ("APP_INTERNAL__CLIENT_CA_PATH", "r.pem"),
        ("APP_INTERNAL__SERVICES__ONCALL__CERTIFICATE_NAME", ONCALL),
        ("APP_INTERNAL__SERVICES__ONCALL__RIGHTS", "incidents"),
    ];
    let with = |url: &str| {
        let mut variables = TestApp::variables(&database, "http://127.0.0.1:9");
        variables.extend(oncall.map(|(name, value)| (name.to_owned(), value.to_owned())));
        variables.insert("APP_DATABASE__INCIDENTS_URL".to_owned(), url.to_owned());
        variables.retain(|_, value| !value.is_empty());
        sample::app().read_settings(variables)
    };
    assert!(with("").unwrap_err().to_string().contains("APP_DATABASE__INCIDENTS_URL"));
    let writer = with(database.writer.expose_secret()).unwrap_err().to_string();
    assert!(writer.contains("its own role"), "{writer}");
    for (login, fault) in [
        (&database.incidents, None),
        (&database.operator, Some("login app_operator has rights")),
        (&database.auditor, Some("login app_auditor has rights")),
    ] {
        let check = db::check_incidents_login(&with(login.expose_secret()).unwrap()).await;
        let error = check.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(fault.map_or(error.is_empty(), |fault| error.contains(fault)), "{fault:?}: {error}");
    }
}
