//! The configuration that ships is the one that is tested (SUPPLY-04).
//!
//! Starts the binary with the production profile and the settings of `deploy/example.env`, and sends
//! a few requests to each group of controls. Other tests prove the controls; this one proves that
//! they are in force as shipped. `.ci/check-release` runs it on the release binary, by `TEST_BINARY`.

use http::Method;
use palisade::dev::people::Person;
use serde_json::{Value, json};
use service::access::roles;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use uuid::Uuid;

use crate::support::{
    ACME, Authority, GLOBEX, Production, SERVICE, authn::challenge, id, order_body, parse_log, person, query,
};

fn admin() -> Person {
    person(&ACME, roles::ADMIN)
}

#[tokio::test]
async fn supply_04_shipped_configuration_enforces_each_group_of_controls() {
    let example = std::fs::read_to_string("deploy/example.env").unwrap();
    let production = Production::start(&SERVICE, &example).await;
    transport_is_encrypted(&production).await;
    let secret_token = credentials_are_verified(&production).await;
    let order = access_is_limited(&production).await;
    input_is_strict(&production).await;
    retries_are_replayed_and_audited(&production).await;
    personal_data_is_masked(&production).await;
    responses_are_hardened(&production).await;
    quotas_are_the_shipped_ones(&production).await;
    metrics_are_internal(&production).await;
    unsafe_settings_are_refused(&production).await;
    let user = production.user(&admin());
    let (status, log) = production.process.terminate().await;
    assert!(status.success(), "{status} {log}");
    assert!(!user.can_connect().await, "{order}");
    let lines = parse_log(&log);
    assert!(lines.iter().any(|line| line["event"] == "authn_token_invalid"), "{log}");
    assert!(lines.iter().any(|line| line["event"] == "authz_fail"), "{log}");
    assert!(!log.contains(&secret_token) && !log.contains("US-98-7654321"), "{log}");
}

/// CRYPTO-01: plain HTTP gets no response. PostgreSQL and Redis of this test accept TLS only.
async fn transport_is_encrypted(production: &Production) {
    let mut socket = TcpStream::connect(production.address()).await.unwrap();
    socket.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The end may be a reset.
    let _ = socket.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/"), "plain HTTP was answered");
}

/// AUTHN: tokens are verified. Returns one that was refused.
async fn credentials_are_verified(production: &Production) -> String {
    let anonymous = production.actor(None).get("/v1/orders").await;
    anonymous.problem(401);
    assert_eq!(challenge(&anonymous).get("error"), None);
    let expired = |claims: &mut Value| {
        claims["exp"] = json!(claims["iat"].as_i64().unwrap() - 60);
        claims["iat"] = json!(claims["iat"].as_i64().unwrap() - 600);
    };
    let expired = production.token(&admin(), expired);
    let other_audience = production.token(&admin(), |claims| claims["aud"] = json!("api://other"));
    // Longer than the shipped limit of 15 minutes.
    let long_lived =
        production.token(&admin(), |claims| claims["exp"] = json!(claims["iat"].as_i64().unwrap() + 3_600));
    for token in [&expired, &other_audience, &long_lived] {
        production.actor(Some(token.clone())).get("/v1/orders").await.problem(401);
    }
    assert_eq!(production.user(&admin()).get("/v1/me").await.ok(200)["subject"], admin().subject);
    expired
}

/// AUTHZ: roles and tenants. Returns an order of Acme.
async fn access_is_limited(production: &Production) -> String {
    let viewer = production.user(&person(&ACME, roles::VIEWER));
    assert_eq!(viewer.post("/v1/orders", &order_body("PAPER-A4", 1)).await.problem(403), "forbidden");
    let order = id(&production.user(&admin()).post("/v1/orders", &order_body("PAPER-A4", 1)).await.ok(201));
    let path = format!("/v1/orders/{order}");
    viewer.get(&path).await.ok(200);
    let foreign = production.user(&person(&GLOBEX, roles::ADMIN));
    assert_eq!(foreign.get(&path).await.problem(404), "not_found");
    order
}

/// INPUT: bodies outside the published schema are refused.
async fn input_is_strict(production: &Production) {
    let admin = production.user(&admin());
    let mut unknown = order_body("PAPER-A4", 1);
    unknown["discount"] = json!(100);
    let reply = admin.post("/v1/orders", &unknown).await;
    reply.problem(400);
    assert_eq!(reply.faults(), [" unknown_field"]);
    admin.post_raw("/v1/orders", "application/json", " ".repeat(65_537)).await.problem(413);
    admin.post_raw("/v1/orders", "text/plain", order_body("PAPER-A4", 1).to_string()).await.problem(415);
}

/// INPUT-10, LOG-05: a retry gets the first response, and leaves one audit event.
async fn retries_are_replayed_and_audited(production: &Production) {
    let admin = production.user(&admin());
    let key = Uuid::now_v7().to_string();
    let create = async || {
        let request = admin.request(Method::POST, "/v1/orders").header("idempotency-key", &key);
        admin.send(request.json(&order_body("PAPER-A4", 2))).await
    };
    let first = create().await.ok(201);
    let retry = create().await;
    assert_eq!(retry.header("idempotent-replayed"), Some("true"));
    assert_eq!(retry.ok(201), first);
    let events = format!("select action from palisade.audit_events where object like '%{}'", id(&first));
    assert_eq!(query(&production.database().owner, &events).await, ["order_created"]);
}

/// AUTHZ-06, CRYPTO-02: personal data is masked in responses and encrypted in the database.
async fn personal_data_is_masked(production: &Production) {
    let sales = production.user(&person(&ACME, roles::SALES));
    let customer = json!({
        "name": "Ann Example", "email": "ann@example.com", "phone": "+15550100200", "taxId": "US-98-7654321",
        "bankAccount": "GB82WEST12345698765432", "address": "7 Side Street\nDublin",
    });
    let created = sales.post("/v1/customers", &customer).await.ok(201);
    assert_eq!((&created["taxId"], &created["email"]), (&json!("****4321"), &json!("****.com")));
    let shown = sales.get(&format!("/v1/customers/{}", id(&created))).await.ok(200);
    assert_eq!(shown, created);
    let stored = "select customers::text from customers where name = 'Ann Example'";
    let stored = query(&production.database().reader, stored).await;
    assert!(stored.len() == 1 && !stored[0].contains("7654321") && !stored[0].contains("ann@"), "{stored:?}");
}

/// INPUT-08: headers, and no pages of documentation.
async fn responses_are_hardened(production: &Production) {
    let anonymous = production.actor(None);
    let reply = anonymous.get("/health/live").await;
    for (name, value) in [
        ("strict-transport-security", "max-age=63072000; includeSubDomains"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(reply.header(name), Some(value), "{name}");
    }
    assert_eq!(reply.header("server"), None);
    for page in ["/", "/docs", "/openapi.json", "/metrics", "/demo", "/demo/demo.js"] {
        anonymous.get(page).await.problem(404);
    }
}

/// RATE-02, RATE-05, RATE-08: the quotas of docs/settings.md, also in the shared store.
async fn quotas_are_the_shipped_ones(production: &Production) {
    let viewer = production.user(&person(&GLOBEX, roles::VIEWER));
    let policy = "\"read\";q=100;w=60, \"tenant\";q=2000;w=60";
    let mut refused = 0;
    for _ in 0..120 {
        let reply = viewer.get("/v1/me").await;
        if reply.status == 429 {
            assert!(reply.header("retry-after").is_some(), "{reply:#?}");
            refused += 1;
        } else {
            assert_eq!(reply.header("ratelimit-policy"), Some(policy));
            reply.ok(200);
        }
    }
    // The bucket refills a call every 600 ms.
    assert!(refused > 0, "120 reads in a row were served");
}

/// AUTHN-18: metrics are on the internal listener, for a service with the right to read them.
async fn metrics_are_internal(production: &Production) {
    let page = production.prometheus().get("/metrics").await;
    assert_eq!(page.status, 200, "{page:#?}");
    assert!(page.text.contains("security_events_total{event=\"authn_token_invalid\""), "{}", page.text);
    assert!(page.text.contains("tls_certificate_remaining_seconds{listener=\"public\""), "{}", page.text);
}

/// SECRET-03: the process does not start with less.
async fn unsafe_settings_are_refused(production: &Production) {
    let plain_issuer = production.refusal(&[("APP_OIDC__ISSUER", "http://login.example.com")]).await;
    assert!(plain_issuer.contains("must be an https URL"), "{plain_issuer}");
    let plain_listener =
        [("APP_TLS__CERTIFICATE_PATH", ""), ("APP_TLS__KEY_PATH", ""), ("APP_HTTP__TRUSTED_PROXIES", "")];
    let plain_listener = production.refusal(&plain_listener).await;
    assert!(plain_listener.contains("plain HTTP is only served on a loopback address"), "{plain_listener}");
    // The certificate of the database is of another authority.
    let file = &production.variables["APP_DATABASE__WRITER_URL_FILE"];
    let url = std::fs::read_to_string(file).unwrap();
    let (server, _) = url.split_once("&sslrootcert=").unwrap();
    let other = production.write_file("other-root.pem", &Authority::new().root);
    let url = production.write_file("other-writer-url", &format!("{server}&sslrootcert={other}"));
    let refused = production.refusal(&[("APP_DATABASE__WRITER_URL_FILE", &url)]).await;
    assert!(refused.contains("the database is unavailable") && refused.contains("certificate"), "{refused}");
}
