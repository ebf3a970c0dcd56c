//! Telemetry: traces (LOG-04), metrics and log records (LOG-03) that a collector receives, and the
//! service's own log (LOG-01, LOG-06).

mod callers;
mod losses;

use std::collections::{BTreeMap, BTreeSet};

use palisade::{dev::issuer::DevIssuer, model::Clock};
use rcgen::SanType;
use sample::{
    access::{roles, scopes},
    demo,
};
use serde_json::json;

use crate::support::{
    ACME, Actor, Authority, Collector, Forge, PemFiles, Record, SERVICE, ServiceProcess, Span, TestApp, UNTHROTTLED,
    eventually, free_address, note_body, parse_log, person, start_issuer,
};

const TOKEN: &str = "a-token-for-the-collector";

/// A service process that exports to a collector, and its issuer.
struct Observed {
    process: ServiceProcess,
    collector: Collector,
    issuer: DevIssuer,
}

impl Observed {
    /// Starts with these variables changed. An empty `APP_OTLP__ENDPOINT` turns the export off.
    async fn start(variables: &[(&str, &str)]) -> Self {
        let collector = Collector::start().await;
        let issuer = start_issuer(Clock::system()).await;
        let mut all = TestApp::variables(&SERVICE.database().await, issuer.url());
        all.extend(UNTHROTTLED.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let export = [
            ("APP_OTLP__ENDPOINT", collector.url()),
            ("APP_OTLP__TOKEN", TOKEN.to_owned()),
            ("APP_OTLP__METRICS_INTERVAL_MS", "200".to_owned()),
            ("APP_OTLP__TIMEOUT_MS", "300".to_owned()),
            ("APP_OTLP__SAMPLE_RATIO", "1".to_owned()),
        ];
        all.extend(export.map(|(name, value)| (name.to_owned(), value)));
        all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        all.retain(|_, value| !value.is_empty());
        if !all.contains_key("APP_OTLP__ENDPOINT") {
            all.retain(|name, _| !name.starts_with("APP_OTLP__"));
        }
        let process = ServiceProcess::start(&SERVICE, &all).await;
        Self { process, collector, issuer }
    }

    /// Starts without the export and with this log filter, which may drop the line that says
    /// "ready".
    async fn start_with_filter(filter: &str) -> Self {
        let collector = Collector::start().await;
        let issuer = start_issuer(Clock::system()).await;
        let mut all = TestApp::variables(&SERVICE.database().await, issuer.url());
        let port = free_address();
        all.insert("APP_HTTP__LISTEN".to_owned(), port.to_string());
        all.insert("APP_LOG__FILTER".to_owned(), filter.to_owned());
        let process = ServiceProcess::start_at(&SERVICE, &all, port).await;
        Self { process, collector, issuer }
    }

    fn admin(&self) -> Actor {
        Actor::new(self.process.address, Some(self.issuer.access_token(&person(&ACME, roles::ADMIN), &scopes::ALL)))
    }

    /// Waits for the server span of this trace, which ends last; returns all spans of the trace.
    async fn trace(&self, trace_id: &str) -> Vec<Span> {
        let spans = || self.collector.spans().into_iter().filter(|span| span.trace_id == trace_id).collect::<Vec<_>>();
        eventually("the trace arrives", async || spans().iter().any(|span| span.kind == 2)).await;
        spans()
    }
}

#[tokio::test]
async fn log_04_one_trace_covers_a_request_from_edge_to_sql_with_its_log_lines() {
    let observed = Observed::start(&[]).await;
    let reply = observed.admin().post("/v1/notes", &note_body("PAPER-A4", 2)).await;
    let trace_id = reply.header("x-request-id").unwrap().to_owned();
    reply.ok(201);
    let spans = observed.trace(&trace_id).await;
    let root = spans.iter().find(|span| span.kind == 2).unwrap();
    assert_eq!((root.name.as_str(), root.parent.as_str()), ("POST /v1/notes", ""));
    let attribute = |span: &Span, name: &str| span.attributes.get(name).cloned().unwrap_or_default();
    assert_eq!(attribute(root, "operation"), "createNote");
    assert_eq!(attribute(root, "http.route"), "/v1/notes");
    assert_eq!(attribute(root, "http.response.status_code"), "201");
    let statements: Vec<_> = spans.iter().filter(|span| span.attributes.contains_key("db.query.text")).collect();
    let names: Vec<_> = statements.iter().map(|span| span.name.as_str()).collect();
    assert!(names.contains(&"with palisade.stored_response") && names.contains(&"with notes"), "{names:?}");
    assert!(spans.iter().any(|span| span.name == "authenticate" && span.parent == root.id), "{spans:#?}");
    // Each span's parent is a span of the same trace.
    for span in spans.iter().filter(|span| span.id != root.id) {
        assert!(spans.iter().any(|other| other.id == span.parent), "{span:#?}");
    }
    eventually("the request's log records arrive", async || {
        let records = observed.collector.records();
        let records: Vec<_> = records.iter().filter(|record| record.trace_id == trace_id).collect();
        let has = |name: &str, value: &str| records.iter().any(|r| r.attributes.get(name).is_some_and(|v| v == value));
        has("event", "data_changed") && has("operation", "createNote")
    })
    .await;
    let authorizations = observed.collector.authorizations();
    assert!(authorizations.iter().all(|a| a.as_deref() == Some(&format!("Bearer {TOKEN}"))), "{authorizations:?}");
}

#[tokio::test]
async fn log_04_traces_of_rejected_requests_contain_no_text_of_the_caller() {
    let observed = Observed::start(&[]).await;
    let anonymous = Actor::new(observed.process.address, None);
    let rejected = anonymous.get("/v1/notes?note=SOMETHING-PRIVATE").await;
    let trace_id = rejected.header("x-request-id").unwrap().to_owned();
    assert_eq!(rejected.problem(401), "unauthenticated");
    let spans = observed.trace(&trace_id).await;
    let root = spans.iter().find(|span| span.kind == 2).unwrap();
    assert_eq!((root.attributes["http.response.status_code"].as_str(), root.failed), ("401", false));
    let unknown = anonymous.get("/SOMETHING-PRIVATE").await;
    let trace_id = unknown.header("x-request-id").unwrap().to_owned();
    assert_eq!(unknown.problem(404), "not_found");
    let spans = observed.trace(&trace_id).await;
    assert_eq!(spans[0].name, "GET");
    assert!(!format!("{:?}", observed.collector.spans()).contains("SOMETHING-PRIVATE"));
}

#[tokio::test]
async fn log_03_metrics_and_log_records_do_not_depend_on_sampling() {
    let observed = Observed::start(&[("APP_OTLP__SAMPLE_RATIO", "0")]).await;
    let admin = observed.admin();
    let anonymous = Actor::new(observed.process.address, None);
    admin.get(&format!("/v1/notes/{}", demo::FIRST_NOTE)).await.ok(200);
    let forged = Actor::new(observed.process.address, Some("no.to.ken".to_owned()));
    assert_eq!(forged.get("/v1/notes").await.problem(401), "unauthenticated");
    assert_eq!(anonymous.get("/v1/notes").await.problem(401), "unauthenticated");
    let collector = &observed.collector;
    eventually("the metrics arrive", async || {
        let read = [("operation", "getNote"), ("http.response.status_code", "200"), ("http.request.method", "GET")];
        collector.latest("http.server.request.duration", &read) == 1
            && collector.latest("security.events", &[("event", "authn_token_invalid")]) == 1
            && collector.latest("authentications", &[("credential", "token"), ("result", "rejected")]) == 1
            && collector.latest("authentications", &[("credential", "token"), ("result", "accepted")]) == 1
            && collector.latest("authentications", &[("credential", "none"), ("result", "missing")]) == 1
            && collector.latest("db.client.connection.count", &[("login", "reader"), ("state", "max")]) == 2
            && collector.latest("telemetry.items", &[]) > 0
    })
    .await;
    eventually("the event arrives", async || {
        let is_event = |record: &Record| {
            record.attributes.get("event").is_some_and(|event| event == "authn_token_invalid")
                && record.trace_id.len() == 32
        };
        collector.records().iter().any(is_event)
    })
    .await;
    assert_eq!(collector.spans().len(), 0);
}

#[tokio::test]
async fn log_03_production_rejects_a_collector_without_tls() {
    let urls = SERVICE.database().await;
    let faults = |more: &[(&str, &str)]| {
        let mut variables: BTreeMap<_, _> = TestApp::variables(&urls, "https://login.example.com");
        variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        sample::app().read_settings(variables).err().map(|faults| faults.to_string()).unwrap_or_default()
    };
    assert_eq!(faults(&[("APP_OTLP__ENDPOINT", "http://collector.example.com:4318")]), "");
    let plain_http = [("APP_PROFILE", "production"), ("APP_OTLP__ENDPOINT", "http://collector.example.com:4318")];
    assert!(faults(&plain_http).contains("must be an https URL"), "{}", faults(&plain_http));
    let token_only = faults(&[("APP_OTLP__TOKEN", "x")]);
    assert!(token_only.contains("has no effect without APP_OTLP__ENDPOINT"), "{token_only}");
    let ratio = faults(&[("APP_OTLP__ENDPOINT", "https://collector.example.com"), ("APP_OTLP__SAMPLE_RATIO", "2")]);
    assert!(ratio.contains("must be 0 to 1"), "{ratio}");
}

/// The filter of one log layer must not drop the lines of another.
#[tokio::test]
async fn log_01_every_request_is_logged_with_and_without_telemetry_export() {
    for exports in [true, false] {
        let variables: &[(&str, &str)] = if exports { &[] } else { &[("APP_OTLP__ENDPOINT", "")] };
        let observed = Observed::start(variables).await;
        let admin = observed.admin();
        let mut sent = BTreeSet::new();
        for _ in 0..100 {
            for path in ["/v1/notes", "/v1/me", "/nowhere", "/v1/notes?unknown=1"] {
                sent.insert(admin.get(path).await.header("x-request-id").unwrap().to_owned());
            }
        }
        let (_, log) = observed.process.terminate().await;
        let lines = parse_log(&log);
        let requests = lines.iter().filter(|line| line["message"] == "request");
        let logged: BTreeSet<String> =
            requests.map(|line| line["trace_id"].as_str().unwrap_or_default().to_owned()).collect();
        assert_eq!(logged.symmetric_difference(&sent).collect::<Vec<_>>(), Vec::<&String>::new(), "{exports}");
        // Repeated rejections of one client are coalesced: one line for the first, a count for
        // others.
        let rejected = lines.iter().filter(|line| line["event"] == "input_validation_fail");
        let (first, repeated): (Vec<_>, Vec<_>) = rejected.partition(|line| line["message"] == "input rejected");
        let repeated = repeated.iter().map(|line| line["repeated"].as_u64().unwrap()).sum::<u64>();
        assert_eq!(first.len() as u64 + repeated, 100, "{exports}");
        assert!(repeated > 0, "{exports}");
    }
}

#[tokio::test]
async fn log_06_callers_cannot_forge_log_lines_or_fields() {
    let name = "eve\",\"event\":\"forged\",\"x\":\"\\u000a{}\\";
    let observed = Observed::start(&[("APP_OTLP__ENDPOINT", ""), ("APP_LOG__FILTER", "debug")]).await;
    let token = Forge::new(&SERVICE, &observed.issuer).claim("sub", name).claim("roles", json!(["viewer"])).token();
    let eve = Actor::new(observed.process.address, Some(token));
    // The role is not sufficient, which raises an event with the subject.
    assert_eq!(eve.post("/v1/notes", &note_body("PAPER-A4", 2)).await.problem(403), "forbidden");
    for path in ["/%0a%7b%22event%22:%22forged%22%7d", "/v1/notes/%22,%22event%22:%22forged", "/v1/items/%1b%5b2J"] {
        assert!(!eve.get(path).await.status.is_success());
    }
    let forged = "x\t\"event\":\"forged\"";
    for header in ["user-agent", "x-forwarded-for", "traceparent", "x-request-id"] {
        eve.send(eve.request(http::Method::GET, "/v1/me").header(header, forged)).await.ok(200);
    }
    let (_, log) = observed.process.terminate().await;
    assert!(log.contains("access denied"));
    let lines = parse_log(&log);
    assert!(lines.iter().all(|line| line["event"] != "forged"));
    let denied = lines.iter().find(|line| line["event"] == "authz_fail").unwrap();
    assert_eq!(denied["subject"], name);
}

#[tokio::test]
async fn log_01_log_filters_cannot_drop_security_events() {
    for filter in ["error", "off", "info,security=off"] {
        let observed = Observed::start_with_filter(filter).await;
        let reply = observed.admin().post("/v1/notes", &note_body("PAPER-A4", 2)).await;
        let trace_id = reply.header("x-request-id").unwrap().to_owned();
        reply.ok(201);
        let (_, log) = observed.process.terminate().await;
        let lines = parse_log(&log);
        let event = lines.iter().find(|line| line["event"] == "data_changed").unwrap();
        assert_eq!(event["trace_id"], trace_id, "{filter}: {event}");
    }
}

#[tokio::test]
async fn log_04_trace_of_an_export_covers_its_streamed_rows() {
    for ratio in ["0", "1"] {
        let observed = Observed::start(&[("APP_OTLP__SAMPLE_RATIO", ratio)]).await;
        let period = json!({ "kind": "notes", "from": "2020-01-01T00:00:00Z", "to": "2040-01-01T00:00:00Z" });
        let reply = observed.admin().post("/v1/exports", &period).await;
        let trace_id = reply.header("x-request-id").unwrap().to_owned();
        assert_eq!(reply.status, 200);
        let Observed { process, collector, .. } = observed;
        let (_, log) = process.terminate().await;
        let lines = parse_log(&log);
        let ended = lines.iter().find(|line| line["event"] == "data_exported").unwrap();
        assert_eq!(ended["trace_id"], trace_id, "{ratio}");
        let records = collector.records();
        let is_exported = |record: &&Record| record.attributes.get("event").is_some_and(|e| e == "data_exported");
        assert_eq!(records.iter().find(is_exported).unwrap().trace_id, trace_id, "{ratio}");
        let spans = collector.spans();
        // The count before the stream has no order.
        let is_page = |span: &Span| {
            span.name == "with notes" && span.attributes["db.query.text"].contains("order by created_at desc")
        };
        let has_rows = spans.iter().any(|span| span.trace_id == trace_id && is_page(span));
        assert_eq!(has_rows, ratio == "1", "{spans:#?}");
    }
}

/// The trace of a calling service continues here. Its `tracestate`, which may contain text of its
/// own callers, does not.
#[tokio::test]
async fn log_04_internal_callers_traces_continue_without_tracestate() {
    let authority = Authority::new();
    let job = "spiffe://acme.example/job";
    let files = PemFiles::new(authority.sign());
    let roots = PemFiles::new((authority.root.clone(), String::new()));
    let [certificate, key, root] =
        [files.certificate(), files.key(), roots.certificate()].map(|p| p.display().to_string());
    let internal = free_address();
    let observed = Observed::start(&[
        ("APP_INTERNAL__LISTEN", &internal.to_string()),
        ("APP_INTERNAL__CERTIFICATE_PATH", &certificate),
        ("APP_INTERNAL__KEY_PATH", &key),
        ("APP_INTERNAL__CLIENT_CA_PATH", &root),
        ("APP_INTERNAL__SERVICES__JOB__CERTIFICATE_NAME", job),
        ("APP_INTERNAL__SERVICES__JOB__TENANT", &ACME.id.to_string()),
        ("APP_INTERNAL__SERVICES__JOB__SCOPES", "notes:read"),
    ])
    .await;
    let (certificate, key) = authority.sign_for([SanType::URI(job.try_into().unwrap())]);
    let identity = reqwest::Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap();
    let client = authority.client(internal).identity(identity).build().unwrap();
    let service = Actor::over_tls(client, internal.port(), None);
    let trace_id = "0af7651916cd43dd8448eb211c80319c";
    let parent = "b7ad6b7169203331";
    let request = service.request(http::Method::GET, "/v1/me").header("tracestate", "canary=eve");
    service.send(request.header("traceparent", format!("00-{trace_id}-{parent}-01"))).await.ok(200);
    let spans = observed.trace(trace_id).await;
    assert_eq!(spans.iter().find(|span| span.kind == 2).unwrap().parent, parent);
    assert!(spans.iter().all(|span| span.state.is_empty()), "{spans:#?}");
}
