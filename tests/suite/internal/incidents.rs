//! What operators order at the internal listener (LOG-08).

use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use service::{
    authz::{
        matrix::{MATRIX, Method as MatrixMethod, Scope},
        policy::Role,
    },
    dev::database::Urls,
    settings::Settings,
    store,
};
use uuid::Uuid;

use super::{JOB, PROMETHEUS, Stage, dns, uri};
use crate::support::{ACME, Actor, TestApp, eventually, query, superuser, test_database};

const ONCALL: &str = "spiffe://acme.example/oncall";

/// With a service that may order what operators do.
async fn stage() -> (Stage, Urls) {
    stage_with(&[]).await
}

async fn stage_with(further: &[(&str, &str)]) -> (Stage, Urls) {
    let database = test_database().await;
    let mut variables: Vec<_> = database.variables().into_iter().collect();
    let own = [
        ("APP_DATABASE__INCIDENTS_URL", database.incidents.expose_secret()),
        ("APP_INTERNAL__SERVICES__ONCALL__CERTIFICATE_NAME", ONCALL),
        ("APP_INTERNAL__SERVICES__ONCALL__RIGHTS", "incidents"),
    ];
    variables.extend(own.iter().chain(further).map(|&(name, value)| (name.to_owned(), value.to_owned())));
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    (Stage::start(&variables).await, database)
}

async fn order(actor: &Actor, command: Value) -> String {
    actor.post("/incidents", &command).await.ok(200)["outcome"].as_str().unwrap().to_owned()
}

/// Action, client and reason of operators' acts, in their order.
async fn acts(database: &Urls) -> Vec<String> {
    let acts = "select concat_ws(' ', subject, client, action, reason) from audit_events
                where subject like 'operator:%' order by at, id";
    query(&database.backup, acts).await
}

#[tokio::test]
async fn log_08_a_service_orders_what_operators_do_and_the_trail_names_it() {
    let (stage, database) = stage().await;
    let oncall = stage.named([uri(ONCALL)]);
    let sales = stage.app.user(Role::Sales);
    let me = sales.get("/v1/me").await.ok(200)["subject"].as_str().unwrap().to_owned();
    let read =
        json!({ "command": "throttle", "whom": "everyone", "limit": "read", "perMinute": 70, "reason": "a test" });
    assert!(order(&oncall, read).await.starts_with("read of everyone: 70 a minute until "));
    eventually("less for everyone", async || {
        sales.get("/v1/me").await.header("ratelimit-policy").unwrap().starts_with("\"read\";q=70;")
    })
    .await;
    // The tenant's own goes before.
    let own =
        json!({ "command": "throttle", "whom": ACME.id.to_string(), "limit": "read", "perMinute": 500, "reason": "x" });
    order(&oncall, own).await;
    eventually("the tenant's own", async || {
        sales.get("/v1/me").await.header("ratelimit-policy").unwrap().starts_with("\"read\";q=500;")
    })
    .await;
    let sessions = json!({ "command": "sessions", "subject": me, "reason": "a test" });
    assert!(order(&oncall, sessions).await.starts_with("sign-ins of "));
    eventually("signed out", async || sales.get("/v1/me").await.status == 401).await;
    let revoke = json!({ "command": "revoke", "kind": "token", "value": "no-such", "reason": "a test" });
    assert!(order(&oncall, revoke).await.starts_with("revoked token no-such (entry "));
    let nobody = json!({ "command": "rotate", "tenant": Uuid::now_v7().to_string(), "reason": "a test" });
    assert_eq!(oncall.post("/incidents", &nobody).await.problem(400), "invalid_input");
    let rotate = json!({ "command": "rotate", "reason": "a test" });
    let newest = "select max(version)::text from data_keys";
    let before = query(&database.owner, newest).await;
    oncall.post("/incidents", &rotate).await.ok(202);
    assert_eq!(oncall.post("/incidents", &rotate).await.problem(409), "conflict");
    eventually("there are new keys", async || query(&database.owner, newest).await != before).await;
    let acts = acts(&database).await;
    let expected = [
        "measure_ordered a test",
        "quota_set x",
        "credentials_revoked a test",
        "credentials_revoked a test",
        "key_rotation_ordered a test",
    ];
    assert_eq!(acts, expected.map(|act| format!("operator:app_incidents service:oncall {act}")));
}

/// Of all operations, whatever they are: nothing that would change something is begun.
#[tokio::test]
async fn log_08_read_only_is_for_every_operation_that_changes_something() {
    let (stage, database) = stage().await;
    let (oncall, admin) = (stage.named([uri(ONCALL)]), stage.app.user_of(&ACME, Role::Admin, &Scope::ALL));
    let read_only = json!({ "command": "read-only", "on": true, "reason": "a test" });
    assert!(order(&oncall, read_only).await.starts_with("read-only until "));
    let is_refused = async |row: &service::authz::matrix::Row| {
        let path = row.path.replace("{id}", "0190a000-0000-7000-8000-000000000001").replace("{sku}", "INK");
        let method = Method::from_bytes(row.method.as_str().as_bytes()).unwrap();
        let reply = admin.send(admin.request(method, &path)).await;
        reply.status == 503 && reply.body["detail"] == "The service is read-only for now."
    };
    let put = MATRIX.iter().find(|row| row.operation == "putProduct").unwrap();
    eventually("read-only", async || is_refused(put).await).await;
    for row in &MATRIX {
        // An export takes out and changes nothing, and who revokes a key defends themselves.
        let changes = row.method != MatrixMethod::Get && !["createExport", "revokeApiKey"].contains(&row.operation);
        assert_eq!(is_refused(row).await, changes, "{}", row.operation);
    }
    // Nobody learns of it who may not do it anyway.
    let viewer = stage.app.user(Role::Viewer);
    assert_eq!(viewer.post("/v1/orders", &json!({})).await.problem(403), "forbidden");
    // What ends by itself is not waited for here: as usual, at once.
    order(&oncall, json!({ "command": "read-only", "on": false, "reason": "over" })).await;
    eventually("as usual", async || !is_refused(put).await).await;
    assert_eq!(acts(&database).await.len(), 2);
}

#[tokio::test]
async fn log_08_nobody_else_orders_anything_and_nothing_odd_is_done() {
    let (stage, database) = stage().await;
    let command = json!({ "command": "read-only", "on": true, "reason": "a test" });
    let reply = stage.job().post("/incidents", &command).await;
    assert_eq!(reply.problem(403), "forbidden");
    assert_eq!((&*reply.events()[0]["event"], &*reply.events()[0]["operation"]), ("authz_fail", "handleIncident"));
    stage.app.user(Role::Admin).post("/incidents", &command).await.problem(404);
    let certificate = stage.authority.sign_for([uri(ONCALL)]);
    stage.with(&certificate, Some(stage.app.forge().token())).post("/incidents", &command).await.problem(401);
    stage.named([uri(JOB), uri(ONCALL)]).post("/incidents", &command).await.problem(401);
    let oncall = stage.named([uri(ONCALL)]);
    assert_eq!(oncall.get("/metrics").await.problem(403), "forbidden");
    let reply = oncall.get("/incidents").await;
    assert_eq!((reply.problem(405), reply.header("allow")), ("method_not_allowed", Some("POST")));
    for (command, detail) in [
        (json!({}), "none of the commands"),
        (json!([]), "none of the commands"),
        (json!({ "command": "destroy", "reason": "x" }), "none of the commands"),
        (json!({ "command": "read-only", "on": true, "reason": "x", "for": 1 }), "none of the commands"),
        (json!({ "command": "read-only", "on": true }), "none of the commands"),
        (json!({ "command": "read-only", "on": true, "reason": " " }), "a reason has"),
        (json!({ "command": "read-only", "on": true, "hours": 9000, "reason": "x" }), "0 to 8784 hours"),
        (json!({ "command": "sessions", "subject": "api-key:1", "reason": "x" }), "only persons sign in"),
        (json!({ "command": "revoke", "kind": "everything", "value": "x", "reason": "x" }), "takes no value"),
        (json!({ "command": "revoke", "kind": "tenant", "value": "acme", "reason": "x" }), "by its UUID"),
        (
            json!({ "command": "throttle", "whom": "acme", "limit": "read", "perMinute": 1, "reason": "x" }),
            "none of the",
        ),
        (
            json!({ "command": "throttle", "whom": "everyone", "limit": "read", "perMinute": 0, "reason": "x" }),
            "only addresses",
        ),
        (
            json!({ "command": "throttle", "whom": "everyone", "limit": "address", "perMinute": 1, "reason": "x" }),
            "a network has",
        ),
        (
            json!({ "command": "throttle", "whom": "10.0.0.0/8", "limit": "read", "perMinute": 1, "reason": "x" }),
            "a network has",
        ),
        (
            json!({ "command": "throttle", "whom": "everyone", "limit": "read", "perMinute": 1_000_001, "reason": "x" }),
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
    assert_eq!(acts(&database).await, [""; 0]);
    assert_eq!(query(&database.owner, "select kind from measures").await, [""; 0]);
}

/// Whoever shuts everybody out, by address or by credential, is not shut out, and neither is who watches.
#[tokio::test]
async fn log_08_whoever_handles_incidents_is_not_shut_out_with_everybody() {
    let (stage, database) = stage().await;
    let (oncall, prometheus) = (stage.named([uri(ONCALL)]), stage.named([dns(PROMETHEUS)]));
    let (sales, network) = (stage.app.user(Role::Sales), "127.0.0.0/8");
    let shut =
        json!({ "command": "throttle", "whom": network, "limit": "address", "perMinute": 0, "reason": "a test" });
    assert!(order(&oncall, shut).await.starts_with("each address of 127.0.0.0/8: 0 a minute until "));
    eventually("shut out", async || sales.get("/v1/me").await.status == 429).await;
    sales.get("/health/live").await.ok(200);
    order(&oncall, json!({ "command": "revoke", "kind": "everything", "reason": "a test" })).await;
    let job = stage.job();
    eventually("everything is revoked", async || job.get("/v1/me").await.status == 401).await;
    assert_eq!(prometheus.get("/metrics").await.status, 200);
    let open = json!({ "command": "throttle", "whom": network, "limit": "address", "perMinute": 0, "hours": 0, "reason": "x" });
    order(&oncall, open).await;
    // To be told that its credential is revoked.
    eventually("let in again", async || sales.get("/v1/me").await.status == 401).await;
    // By its name it is.
    order(&oncall, json!({ "command": "revoke", "kind": "subject", "value": "service:oncall", "reason": "a test" }))
        .await;
    let read_only = json!({ "command": "read-only", "on": true, "reason": "a test" });
    eventually("it is", async || oncall.post("/incidents", &read_only).await.status == 401).await;
    drop(database);
}

/// Each address of it, also of who is known, and wherever the proxies that stand between are.
#[tokio::test]
async fn log_08_each_address_of_a_network_has_the_limit_that_was_ordered() {
    let (stage, _database) = stage_with(&[("APP_HTTP__TRUSTED_PROXIES", "127.0.0.1")]).await;
    let sales = stage.app.user(Role::Sales);
    let from =
        async |address: &str| sales.send(sales.request(Method::GET, "/v1/me").header("x-forwarded-for", address)).await;
    from("203.0.113.1").await.ok(200);
    let oncall = stage.named([uri(ONCALL)]);
    let limit =
        json!({ "command": "throttle", "whom": "203.0.113.0/24", "limit": "address", "perMinute": 3, "reason": "x" });
    assert!(order(&oncall, limit).await.starts_with("each address of 203.0.113.0/24: 3 a minute until "));
    eventually("limited", async || from("203.0.113.1").await.status == 429).await;
    for _ in 0..3 {
        from("203.0.113.2").await.ok(200);
    }
    let refused = from("203.0.113.2").await;
    assert_eq!((refused.problem(429), &refused.body["limit"]), ("rate_limited", &json!("address")));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "one is free again in {wait} s");
    // What a caller wrote in front of the proxy makes it nobody else.
    assert_eq!(from("198.51.100.1, 203.0.113.2").await.problem(429), "rate_limited");
    from("203.0.114.2").await.ok(200);
    sales.get("/v1/me").await.ok(200);
}

/// With as many networks as there may be, only a further one is refused.
#[tokio::test]
async fn log_08_the_limit_of_network_overrides_refuses_new_networks_only() {
    let (stage, database) = stage().await;
    let oncall = stage.named([uri(ONCALL)]);
    let many = "insert into measures (kind, target, per_minute, reason, noted_by, noted_at, expires_at)
                select 'address', format('10.%s.%s.0/24', n / 250, n % 250), 0, 'a test', 'a test', now(), now() + '1 hour'
                from generate_series(0, 999) n";
    sqlx::raw_sql(many).execute(&mut superuser(&database).await).await.unwrap();
    let throttle = |whom: &str, limit: &str, calls: u32, hours: i32| json!({ "command": "throttle", "whom": whom, "limit": limit, "perMinute": calls, "hours": hours, "reason": "x" });
    let new = throttle("192.0.2.0/24", "address", 0, 1);
    let refused = async || oncall.post("/incidents", &new).await.status != 200;
    assert!(refused().await);
    for on in [true, false] {
        order(&oncall, json!({ "command": "read-only", "on": on, "reason": "x" })).await;
    }
    order(&oncall, throttle("everyone", "read", 70, 1)).await;
    order(&oncall, throttle("10.0.1.0/24", "address", 500, 1)).await;
    // Ending one that does not exist adds none.
    order(&oncall, throttle("198.51.100.0/24", "address", 0, 0)).await;
    assert!(refused().await);
    order(&oncall, throttle("10.0.2.0/24", "address", 0, 0)).await;
    order(&oncall, new.clone()).await;
    let in_force = "select count(*)::text from measures where kind = 'address' and expires_at > now()";
    assert_eq!(query(&database.owner, in_force).await, ["1000"]);
}

#[tokio::test]
async fn log_08_a_login_of_incidents_that_may_do_more_is_refused() {
    let database = test_database().await;
    let own = [
        ("APP_INTERNAL__LISTEN", "127.0.0.1:0"),
        ("APP_INTERNAL__CERTIFICATE_PATH", "c.pem"),
        ("APP_INTERNAL__KEY_PATH", "k.pem"),
        ("APP_INTERNAL__CLIENT_CA_PATH", "r.pem"),
        ("APP_INTERNAL__SERVICES__ONCALL__CERTIFICATE_NAME", ONCALL),
        ("APP_INTERNAL__SERVICES__ONCALL__RIGHTS", "incidents"),
    ];
    let with = |url: &str| {
        let mut variables = TestApp::variables(&database, "http://127.0.0.1:9");
        variables.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        variables.insert("APP_DATABASE__INCIDENTS_URL".to_owned(), url.to_owned());
        variables.retain(|_, value| !value.is_empty());
        Settings::from_variables(variables)
    };
    assert!(with("").unwrap_err().to_string().contains("APP_DATABASE__INCIDENTS_URL"));
    let writer = with(database.writer.expose_secret()).unwrap_err().to_string();
    assert!(writer.contains("a login of its own"), "{writer}");
    for (login, fault) in [
        (&database.incidents, None),
        (&database.operator, Some("may reach data keys")),
        (&database.auditor, Some("may reach tables, and is for incidents")),
    ] {
        let fit = store::check_incidents_login(&with(login.expose_secret()).unwrap()).await;
        let said = fit.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(fault.map_or(said.is_empty(), |fault| said.contains(fault)), "{fault:?}: {said}");
    }
}
