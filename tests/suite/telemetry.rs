//! What is sent to a collector: traces, metrics, log records.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use rcgen::SanType;
use serde_json::json;
use service::{
    authz::{matrix::Scope, policy::Role},
    dev::{demo, issuer::DevIssuer},
    domain::Clock,
    settings::Settings,
};

use crate::support::{
    ACME, Actor, Authority, Collector, Forge, PemFiles, Record, Serving, Span, TestApp, UNTHROTTLED, eventually,
    person, start_issuer, test_database,
};

const TOKEN: &str = "a-token-for-the-collector";

/// A service that sends to a collector, and somebody who administers Acme.
struct Observed {
    serving: Serving,
    collector: Collector,
    issuer: DevIssuer,
}

impl Observed {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let (collector, issuer) = (Collector::start().await, start_issuer(Clock::system()).await);
        let mut all = TestApp::variables(&test_database().await, issuer.url());
        all.extend(UNTHROTTLED.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let own = [
            ("APP_OTLP__ENDPOINT", collector.url()),
            ("APP_OTLP__TOKEN", TOKEN.to_owned()),
            ("APP_OTLP__METRICS_EVERY_MS", "200".to_owned()),
            ("APP_OTLP__TIMEOUT_MS", "300".to_owned()),
            ("APP_OTLP__SAMPLE_RATIO", "1".to_owned()),
        ];
        all.extend(own.map(|(name, value)| (name.to_owned(), value)));
        all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        all.retain(|_, value| !value.is_empty());
        if !all.contains_key("APP_OTLP__ENDPOINT") {
            all.retain(|name, _| !name.starts_with("APP_OTLP__"));
        }
        let serving = Serving::start(&all).await;
        Self { serving, collector, issuer }
    }

    /// One that sends nothing and does not say when it is ready.
    async fn start_quiet(filter: &str) -> Self {
        let (collector, issuer) = (Collector::start().await, start_issuer(Clock::system()).await);
        let mut all = TestApp::variables(&test_database().await, issuer.url());
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        all.insert("APP_HTTP__LISTEN".to_owned(), port.to_string());
        all.insert("APP_LOG__FILTER".to_owned(), filter.to_owned());
        let serving = Serving::start_at(&all, port).await;
        Self { serving, collector, issuer }
    }

    fn admin(&self) -> Actor {
        Actor::new(self.serving.address, Some(self.issuer.access_token(&person(&ACME, Role::Admin), &Scope::ALL)))
    }

    /// The spans of a request, once its own is there: it is the last to end.
    async fn trace(&self, trace_id: &str) -> Vec<Span> {
        let of = || self.collector.spans().into_iter().filter(|span| span.trace_id == trace_id).collect::<Vec<_>>();
        eventually("the trace is there", async || of().iter().any(|span| span.kind == 2)).await;
        of()
    }
}

fn an_order() -> serde_json::Value {
    json!({ "lines": [{ "sku": "PAPER-A4", "quantity": 2 }], "shippingSpeed": "standard" })
}

#[tokio::test]
async fn log_04_a_request_is_one_trace_from_the_edge_to_sql_and_its_log_lines_are_in_it() {
    let observed = Observed::start(&[]).await;
    let reply = observed.admin().post("/v1/orders", &an_order()).await;
    let trace_id = reply.header("x-request-id").unwrap().to_owned();
    reply.ok(201);
    let spans = observed.trace(&trace_id).await;
    let root = spans.iter().find(|span| span.kind == 2).unwrap();
    assert_eq!((root.name.as_str(), root.parent.as_str()), ("POST /v1/orders", ""));
    let attribute = |span: &Span, name: &str| span.attributes.get(name).cloned().unwrap_or_default();
    assert_eq!(attribute(root, "operation"), "createOrder");
    assert_eq!(attribute(root, "http.route"), "/v1/orders");
    assert_eq!(attribute(root, "http.response.status_code"), "201");
    let statements: Vec<_> = spans.iter().filter(|span| span.attributes.contains_key("db.query.text")).collect();
    let names: Vec<_> = statements.iter().map(|span| span.name.as_str()).collect();
    assert!(names.contains(&"select read_order_inputs") && names.contains(&"with orders"), "{names:?}");
    assert!(spans.iter().any(|span| span.name == "authenticate" && span.parent == root.id), "{spans:#?}");
    // Each is inside another of the same trace.
    for span in spans.iter().filter(|span| span.id != root.id) {
        assert!(spans.iter().any(|other| other.id == span.parent), "{span:#?}");
    }
    eventually("its log lines are there", async || {
        let records = observed.collector.records();
        let of: Vec<_> = records.iter().filter(|record| record.trace_id == trace_id).collect();
        let has = |name: &str, value: &str| of.iter().any(|r| r.attributes.get(name).is_some_and(|v| v == value));
        has("event", "data_changed") && has("operation", "createOrder")
    })
    .await;
    let authorizations = observed.collector.authorizations();
    assert!(authorizations.iter().all(|a| a.as_deref() == Some(&format!("Bearer {TOKEN}"))), "{authorizations:?}");
}

#[tokio::test]
async fn log_04_what_failed_is_marked_in_its_trace_and_says_nothing_of_the_caller() {
    let observed = Observed::start(&[]).await;
    let anonymous = Actor::new(observed.serving.address, None);
    let refused = anonymous.get("/v1/orders?note=SOMETHING-PRIVATE").await;
    let trace_id = refused.header("x-request-id").unwrap().to_owned();
    assert_eq!(refused.problem(401), "unauthenticated");
    let spans = observed.trace(&trace_id).await;
    let root = spans.iter().find(|span| span.kind == 2).unwrap();
    assert_eq!((root.attributes["http.response.status_code"].as_str(), root.failed), ("401", false));
    let nowhere = anonymous.get("/SOMETHING-PRIVATE").await;
    let trace_id = nowhere.header("x-request-id").unwrap().to_owned();
    assert_eq!(nowhere.problem(404), "not_found");
    let spans = observed.trace(&trace_id).await;
    assert_eq!(spans[0].name, "GET");
    assert!(!format!("{:?}", observed.collector.spans()).contains("SOMETHING-PRIVATE"));
}

#[tokio::test]
async fn log_03_metrics_and_log_records_are_sent_whatever_is_sampled() {
    let observed = Observed::start(&[("APP_OTLP__SAMPLE_RATIO", "0")]).await;
    let (admin, anonymous) = (observed.admin(), Actor::new(observed.serving.address, None));
    admin.get(&format!("/v1/orders/{}", demo::FIRST_ORDER)).await.ok(200);
    let forged = Actor::new(observed.serving.address, Some("no.to.ken".to_owned()));
    assert_eq!(forged.get("/v1/orders").await.problem(401), "unauthenticated");
    assert_eq!(anonymous.get("/v1/orders").await.problem(401), "unauthenticated");
    let (collector, none) = (&observed.collector, &[][..]);
    eventually("the metrics are there", async || {
        let read = [("operation", "getOrder"), ("http.response.status_code", "200"), ("http.request.method", "GET")];
        collector.last("http.server.request.duration", &read) == 1
            && collector.last("security.events", &[("event", "authn_token_invalid")]) == 1
            && collector.last("authentications", &[("credential", "token"), ("result", "refused")]) == 1
            && collector.last("authentications", &[("credential", "token"), ("result", "accepted")]) == 1
            && collector.last("authentications", &[("credential", "none"), ("result", "missing")]) == 1
            && collector.last("db.client.connection.count", &[("login", "reader"), ("state", "max")]) == 2
            && collector.last("telemetry.items", none) > 0
    })
    .await;
    eventually("the event is there", async || {
        let is = |record: &Record| {
            record.attributes.get("event").is_some_and(|event| event == "authn_token_invalid")
                && record.trace_id.len() == 32
        };
        collector.records().iter().any(is)
    })
    .await;
    assert_eq!(collector.spans().len(), 0);
}

#[tokio::test]
async fn log_03_a_collector_that_is_silent_or_away_costs_no_request_and_what_is_lost_is_counted() {
    let observed = Observed::start(&[]).await;
    let admin = observed.admin();
    let path = format!("/v1/orders/{}", demo::FIRST_ORDER);
    admin.get(&path).await.ok(200);
    observed.collector.be_silent(true);
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    // Longer than the exporter waits for an answer.
    while begun.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        admin.get(&path).await.ok(200);
        slowest = slowest.max(asked.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    observed.collector.be_silent(false);
    eventually("what was lost is told", async || {
        let lost = |signal| observed.collector.last("telemetry.items", &[("signal", signal), ("outcome", "lost")]);
        lost("spans") > 0 && lost("logs") > 0
    })
    .await;
    // And it goes on.
    let reply = admin.get(&path).await;
    let trace_id = reply.header("x-request-id").unwrap().to_owned();
    assert!(!observed.trace(&trace_id).await.is_empty());
}

#[tokio::test]
async fn log_03_what_waits_is_sent_before_the_service_ends() {
    let observed = Observed::start(&[("APP_OTLP__METRICS_EVERY_MS", "3600000")]).await;
    let reply = observed.admin().post("/v1/orders", &an_order()).await;
    let trace_id = reply.header("x-request-id").unwrap().to_owned();
    reply.ok(201);
    let Observed { serving, collector, .. } = observed;
    let (status, _) = serving.terminate().await;
    assert!(status.success());
    assert!(collector.spans().iter().any(|span| span.trace_id == trace_id && span.kind == 2));
    assert!(
        collector.records().iter().any(|record| record.attributes.get("event").is_some_and(|e| e == "data_changed"))
    );
    assert_eq!(collector.last("http.server.request.duration", &[("operation", "createOrder")]), 1);
}

#[tokio::test]
async fn log_03_a_collector_that_would_be_told_in_the_clear_is_refused() {
    let urls = test_database().await;
    let faults = |more: &[(&str, &str)]| {
        let mut variables: BTreeMap<_, _> = TestApp::variables(&urls, "https://login.example.com");
        variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Settings::from_variables(variables).err().map(|faults| faults.to_string()).unwrap_or_default()
    };
    assert_eq!(faults(&[("APP_OTLP__ENDPOINT", "http://collector.example.com:4318")]), "");
    let plain = [("APP_PROFILE", "production"), ("APP_OTLP__ENDPOINT", "http://collector.example.com:4318")];
    assert!(faults(&plain).contains("must be an https URL"), "{}", faults(&plain));
    let alone = faults(&[("APP_OTLP__TOKEN", "x")]);
    assert!(alone.contains("is of no use without otlp.endpoint"), "{alone}");
    let ratio = faults(&[("APP_OTLP__ENDPOINT", "https://collector.example.com"), ("APP_OTLP__SAMPLE_RATIO", "2")]);
    assert!(ratio.contains("must be 0 to 1"), "{ratio}");
}

/// Filters that several readers of the log have must not take each other's lines.
#[tokio::test]
async fn log_01_no_line_is_lost_whether_or_not_telemetry_is_sent() {
    for sending in [true, false] {
        let more: &[(&str, &str)] = if sending { &[] } else { &[("APP_OTLP__ENDPOINT", "")] };
        let observed = Observed::start(more).await;
        let admin = observed.admin();
        let mut asked = BTreeSet::new();
        for _ in 0..100 {
            for path in ["/v1/products", "/v1/me", "/nowhere", "/v1/orders?unknown=1"] {
                asked.insert(admin.get(path).await.header("x-request-id").unwrap().to_owned());
            }
        }
        let (_, log) = observed.serving.terminate().await;
        let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |message: &str| -> BTreeSet<String> {
            let of = lines.iter().filter(|line| line["message"] == message);
            of.map(|line| line["span"]["trace_id"].as_str().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(of("request"), asked, "sending: {sending}");
        // Of one client: one has a line, and the others are counted.
        let refused = lines.iter().filter(|line| line["event"] == "input_validation_fail");
        let (first, repeated): (Vec<_>, Vec<_>) = refused.partition(|line| line["message"] == "input refused");
        let repeated = repeated.iter().map(|line| line["repeated"].as_u64().unwrap()).sum::<u64>();
        assert_eq!(first.len() as u64 + repeated, 100, "sending: {sending}");
        assert!(repeated > 0, "sending: {sending}");
    }
}

#[tokio::test]
async fn log_06_no_caller_forges_a_line_or_a_field() {
    let name = "eve\",\"event\":\"forged\",\"x\":\"\\u000a{}\\";
    let observed = Observed::start(&[("APP_OTLP__ENDPOINT", ""), ("APP_LOG__FILTER", "debug")]).await;
    let token = Forge::new(&observed.issuer).claim("sub", name).claim("roles", json!(["viewer"])).token();
    let eve = Actor::new(observed.serving.address, Some(token));
    // Refused by the role, so an event with the subject.
    assert_eq!(eve.post("/v1/orders", &an_order()).await.problem(403), "forbidden");
    for path in ["/%0a%7b%22event%22:%22forged%22%7d", "/v1/orders/%22,%22event%22:%22forged", "/v1/products/%1b%5b2J"]
    {
        assert!(!eve.get(path).await.status.is_success());
    }
    let odd = "x\t\"event\":\"forged\"";
    for header in ["user-agent", "x-forwarded-for", "traceparent", "x-request-id"] {
        eve.send(eve.request(http::Method::GET, "/v1/me").header(header, odd)).await.ok(200);
    }
    let (_, log) = observed.serving.terminate().await;
    assert!(log.contains("access denied"));
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["event"] != "forged"));
    let denied = lines.iter().find(|line| line["event"] == "authz_fail").unwrap();
    assert_eq!(denied["subject"], name);
}

#[tokio::test]
async fn log_01_security_events_are_written_whatever_else_is_left_out() {
    for filter in ["error", "off", "info,security=off"] {
        let observed = Observed::start_quiet(filter).await;
        let reply = observed.admin().post("/v1/orders", &an_order()).await;
        let trace_id = reply.header("x-request-id").unwrap().to_owned();
        reply.ok(201);
        let (_, log) = observed.serving.terminate().await;
        let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told = lines.iter().find(|line| line["event"] == "data_changed").unwrap();
        // With `off` nothing names the request but the event itself.
        assert!(filter == "off" || told["span"]["trace_id"] == trace_id, "{filter}: {told}");
    }
}

#[tokio::test]
async fn log_04_an_export_is_in_its_trace_to_its_end() {
    for ratio in ["0", "1"] {
        let observed = Observed::start(&[("APP_OTLP__SAMPLE_RATIO", ratio)]).await;
        let period = json!({ "kind": "orders", "from": "2020-01-01T00:00:00Z", "to": "2040-01-01T00:00:00Z" });
        let reply = observed.admin().post("/v1/exports", &period).await;
        let trace_id = reply.header("x-request-id").unwrap().to_owned();
        assert_eq!(reply.status, 200);
        let Observed { serving, collector, .. } = observed;
        let (_, log) = serving.terminate().await;
        let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let ended = lines.iter().find(|line| line["event"] == "data_exported").unwrap();
        assert_eq!(ended["span"]["trace_id"], trace_id, "{ratio}");
        let is = |record: &Record| record.attributes.get("event").is_some_and(|event| event == "data_exported");
        assert_eq!(collector.records().iter().find(|record| is(record)).unwrap().trace_id, trace_id, "{ratio}");
        let spans = collector.spans();
        let rows = spans.iter().any(|span| span.trace_id == trace_id && span.name == "select order_documents");
        assert_eq!(rows, ratio == "1", "{spans:#?}");
    }
}

/// Its trace goes on here, and its trace state, which is a text of whoever called it, does not.
#[tokio::test]
async fn log_04_the_trace_of_a_service_goes_on_without_its_state() {
    let (authority, job) = (Authority::new(), "spiffe://acme.example/job");
    let (files, roots) = (PemFiles::new(authority.sign()), PemFiles::new((authority.root.clone(), String::new())));
    let [certificate, key, root] =
        [files.certificate(), files.key(), roots.certificate()].map(|p| p.display().to_string());
    let internal = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let observed = Observed::start(&[
        ("APP_INTERNAL__LISTEN", &internal.to_string()),
        ("APP_INTERNAL__CERTIFICATE_PATH", &certificate),
        ("APP_INTERNAL__KEY_PATH", &key),
        ("APP_INTERNAL__CLIENT_CA_PATH", &root),
        ("APP_INTERNAL__SERVICES__JOB__CERTIFICATE_NAME", job),
        ("APP_INTERNAL__SERVICES__JOB__TENANT", &ACME.id.to_string()),
        ("APP_INTERNAL__SERVICES__JOB__SCOPES", "orders:read"),
    ])
    .await;
    let (certificate, key) = authority.sign_for([SanType::URI(job.try_into().unwrap())]);
    let identity = reqwest::Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap();
    let client = authority.client(internal).identity(identity).build().unwrap();
    let service = Actor::by_tls(client, internal.port(), None);
    let (trace_id, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let asked = service.request(http::Method::GET, "/v1/me").header("tracestate", "canary=eve");
    let asked = asked.header("traceparent", format!("00-{trace_id}-{parent}-01"));
    service.send(asked).await.ok(200);
    let spans = observed.trace(trace_id).await;
    assert_eq!(spans.iter().find(|span| span.kind == 2).unwrap().parent, parent);
    assert!(spans.iter().all(|span| span.state.is_empty()), "{spans:#?}");
}
