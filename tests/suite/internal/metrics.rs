//! What the internal listener tells about the service, and to whom.

use http::Method;
use service::authz::policy::Role;

use super::{JOB, PROMETHEUS, Stage, dns, uri};
use crate::support::{Wire, eventually, test_database};

#[tokio::test]
async fn authn_18_metrics_are_inside_only_and_for_those_with_the_right() {
    let stage = Stage::start(&[("APP_HTTP__TRUSTED_PROXIES", "127.0.0.1")]).await;
    stage.app.bearer("e30.e30.e30").get("/v1/me").await.problem(401);
    let prometheus = stage.named([dns(PROMETHEUS)]);
    let reply = prometheus.get("/metrics").await;
    assert_eq!(reply.status, 200, "{reply:#?}");
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let value = |text: &str, name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let refused = "security_events_total{event=\"authn_token_invalid\"";
    let before = value(&reply.text, refused);
    stage.app.bearer("e30.e30.e30").get("/v1/me").await.problem(401);
    assert!(value(&prometheus.get("/metrics").await.text, refused) >= before + 1.0);
    assert!(reply.text.contains("http_server_request_duration_seconds_bucket{http_request_method=\"GET\""));
    // What callers write is no label.
    let odd = Method::from_bytes(b"CANARY-METHOD").unwrap();
    stage.app.anonymous().send(stage.app.anonymous().request(odd, "/canary-path")).await;
    let text = prometheus.get("/metrics").await.text;
    assert!(!text.to_lowercase().contains("canary"), "{text}");
    // Nobody else, and nowhere else.
    let reply = stage.job().get("/metrics").await;
    assert_eq!(reply.problem(403), "forbidden");
    assert_eq!((&*reply.events()[0]["event"], &*reply.events()[0]["subject"]), ("authz_fail", "service:job"));
    let certificate = stage.authority.sign_for([uri(JOB)]);
    stage.with(&certificate, Some(stage.app.forge().token())).get("/metrics").await.problem(401);
    assert_eq!(prometheus.get("/metrics?a=b").await.problem(400), "invalid_input");
    let body = prometheus.request(Method::GET, "/metrics").body("a body");
    assert_eq!(prometheus.send(body).await.problem(400), "malformed_request");
    stage.app.anonymous().get("/metrics").await.problem(404);
    stage.app.user(Role::Admin).get("/metrics").await.problem(404);
    let reply = prometheus.send(prometheus.request(Method::POST, "/metrics")).await;
    assert_eq!((reply.problem(405), reply.header("allow")), ("method_not_allowed", Some("GET, HEAD")));
    prometheus.get("/metrics/").await.problem(404);
    // No proxy is believed there: it would say who calls.
    let forwarded = prometheus.request(Method::GET, "/metrics").header("x-forwarded-for", "nonsense");
    assert_eq!(prometheus.send(forwarded).await.status, 200);
}

#[tokio::test]
async fn rate_06_services_do_not_pay_for_each_other() {
    let throttle = [("APP_THROTTLE__ADDRESS_PER_SECOND", "0.02"), ("APP_THROTTLE__ADDRESS_BURST", "20")];
    let stage = Stage::start(&throttle).await;
    let (job, prometheus) = (stage.job(), stage.named([dns(PROMETHEUS)]));
    eventually("used up", async || prometheus.get("/metrics").await.status == 429).await;
    job.get("/v1/me").await.ok(200);
}

/// When the database is away, who watches the service must see it.
#[tokio::test]
async fn authn_18_metrics_are_read_while_the_database_is_away() {
    let database = test_database().await;
    let wire = Wire::to(&database.authn).await;
    let away = [("APP_DATABASE__AUTHN_URL", wire.url()), ("APP_REVOCATION__MAX_FEED_AGE_SECONDS", "2")];
    // The wire leads to that database: so do the other logins.
    let urls = database.variables();
    let others = urls.iter().filter(|(name, _)| *name != "APP_DATABASE__AUTHN_URL");
    let others: Vec<_> = others.map(|(name, url)| (name.as_str(), url.as_str())).collect();
    let stage = Stage::start(&[&others[..], &away].concat()).await;
    let (job, prometheus) = (stage.job(), stage.named([dns(PROMETHEUS)]));
    wire.down(true);
    eventually("it lets nobody in", async || job.get("/v1/me").await.status == 503).await;
    assert_eq!(prometheus.get("/metrics").await.status, 200);
}
