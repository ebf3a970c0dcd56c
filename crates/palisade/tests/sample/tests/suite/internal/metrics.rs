//! The metrics page of the internal listener: access (AUTHN-18), also during an outage of the
//! database, and one rate limit per service (RATE-06).

use http::Method;
use sample::access::roles;

use crate::support::{
    PgProxy, SERVICE, eventually,
    mtls::{JOB, MtlsSetup, PROMETHEUS, dns, uri},
};

#[tokio::test]
async fn authn_18_metrics_need_the_right_and_the_internal_listener() {
    let setup = MtlsSetup::internal(&SERVICE, "notes:read", &[("APP_HTTP__TRUSTED_PROXIES", "127.0.0.1")]).await;
    setup.app.bearer("e30.e30.e30").get("/v1/me").await.problem(401);
    let prometheus = setup.service([dns(PROMETHEUS)]);
    let reply = prometheus.get("/metrics").await;
    assert_eq!(reply.status, 200, "{reply:#?}");
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let value = |text: &str, name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let rejections = "security_events_total{event=\"authn_token_invalid\"";
    let before = value(&reply.text, rejections);
    setup.app.bearer("e30.e30.e30").get("/v1/me").await.problem(401);
    assert!(value(&prometheus.get("/metrics").await.text, rejections) >= before + 1.0);
    assert!(reply.text.contains("http_server_request_duration_seconds_bucket{http_request_method=\"GET\""));
    // The test's certificate is valid for years.
    assert!(value(&reply.text, "tls_certificate_remaining_seconds{listener=\"internal\"") > 86_400.0);
    assert!(reply.text.contains("http_server_refusals_total{budget=\"connections\""), "{}", reply.text);
    // Text from callers does not become a label.
    let unknown_method = Method::from_bytes(b"CANARY-METHOD").unwrap();
    setup.app.anonymous().send(setup.app.anonymous().request(unknown_method, "/canary-path")).await;
    let text = prometheus.get("/metrics").await.text;
    assert!(!text.to_lowercase().contains("canary"), "{text}");
    // Other callers and the public listener have no access.
    let reply = setup.job().get("/metrics").await;
    assert_eq!(reply.problem(403), "forbidden");
    assert_eq!(reply.event("authz_fail")["subject"], "service:job");
    let certificate = setup.authority.sign_for([uri(JOB)]);
    setup.client(&certificate, Some(setup.app.forge().token())).get("/metrics").await.problem(400);
    assert_eq!(prometheus.get("/metrics?a=b").await.problem(400), "invalid_input");
    let body = prometheus.request(Method::GET, "/metrics").body("a body");
    assert_eq!(prometheus.send(body).await.problem(400), "malformed_request");
    setup.app.anonymous().get("/metrics").await.problem(404);
    setup.app.user(roles::ADMIN).get("/metrics").await.problem(404);
    let reply = prometheus.send(prometheus.request(Method::POST, "/metrics")).await;
    assert_eq!((reply.problem(405), reply.header("allow")), ("method_not_allowed", Some("GET, HEAD")));
    prometheus.get("/metrics/").await.problem(404);
    // The internal listener trusts no proxy.
    let forwarded = prometheus.request(Method::GET, "/metrics").header("x-forwarded-for", "nonsense");
    assert_eq!(prometheus.send(forwarded).await.status, 200);
}

#[tokio::test]
async fn rate_06_services_have_separate_rate_limits() {
    let throttle = [("APP_THROTTLE__ADDRESS_PER_SECOND", "0.02"), ("APP_THROTTLE__ADDRESS_BURST", "20")];
    let setup = MtlsSetup::internal(&SERVICE, "notes:read", &throttle).await;
    let job = setup.job();
    let prometheus = setup.service([dns(PROMETHEUS)]);
    eventually("the rate limit is exhausted", async || prometheus.get("/metrics").await.status == 429).await;
    job.get("/v1/me").await.ok(200);
}

/// Monitoring must see the outage.
#[tokio::test]
async fn authn_18_metrics_are_readable_during_a_database_outage() {
    let database = SERVICE.database().await;
    let proxy = PgProxy::start(&database.authn).await;
    let variables = [("APP_DATABASE__AUTHN_URL", proxy.url()), ("APP_REVOCATION__MAX_FEED_AGE_SECONDS", "2")];
    // The other logins use the same database directly.
    let urls = database.variables();
    let others = urls.iter().filter(|(name, _)| *name != "APP_DATABASE__AUTHN_URL");
    let others: Vec<_> = others.map(|(name, url)| (name.as_str(), url.as_str())).collect();
    let setup = MtlsSetup::internal(&SERVICE, "notes:read", &[&others[..], &variables].concat()).await;
    let job = setup.job();
    let prometheus = setup.service([dns(PROMETHEUS)]);
    proxy.set_down(true);
    eventually("authentication is unavailable", async || job.get("/v1/me").await.status == 503).await;
    assert_eq!(prometheus.get("/metrics").await.status, 200);
}
