//! The alert rules in `deploy/observability`, tested with the metrics of a service under attack
//! (LOG-07).
//!
//! Each test is some minutes of normal use, then an attack over the network, and a scrape of the
//! metrics page for each minute. `promtool` evaluates the rules on these pages, and exactly the
//! attack's alert must fire. `synthetic` and `thresholds` do the same with generated pages.

mod synthetic;
mod thresholds;

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path};

use palisade::{
    authz::Role,
    crypto,
    dev::{SOURCES, database::Urls, issuer::DevIssuer},
    model::Clock,
};
use rcgen::SanType;
use serde_json::{Value, json};
use service::{
    access::{roles, scopes},
    demo,
};
use uuid::Uuid;

use crate::support::{
    ACME, Actor, Authority, Collector, Credential, PemFiles, PgProxy, SERVICE, ServiceProcess, TestApp, UNTHROTTLED,
    eventually, person,
    promtool::{self, RULES_TEXT, Scrapes, captures, expressions, metrics_and_labels},
    start_issuer,
};

const PROMETHEUS: &str = "prometheus.acme.example";
/// The number of scrapes during an attack.
const ATTACK_SCRAPES: u32 = 3;

/// A service process, the client that scrapes its metrics, and the pages so far.
struct MonitoredService {
    process: ServiceProcess,
    issuer: DevIssuer,
    prometheus: Actor,
    scrapes: Scrapes,
    /// The service checks these files for changes, so they must stay.
    _files: [PemFiles; 2],
}

impl MonitoredService {
    /// `None` without promtool, or if its tests are to be skipped.
    async fn start_if_tested(variables: &[(&str, &str)]) -> Option<Self> {
        promtool::promtool()?;
        Some(Self::start(&SERVICE.database().await, variables).await)
    }

    async fn start(database: &Urls, variables: &[(&str, &str)]) -> Self {
        let authority = Authority::new();
        let issuer = start_issuer(Clock::system()).await;
        let files = PemFiles::new(authority.sign());
        let roots = PemFiles::new((authority.root.clone(), String::new()));
        let [certificate, key, root] =
            [files.certificate(), files.key(), roots.certificate()].map(|path| path.display().to_string());
        let name = format!("dns:{PROMETHEUS}");
        let internal = [
            ("APP_INTERNAL__LISTEN", "127.0.0.1:0"),
            ("APP_INTERNAL__CERTIFICATE_PATH", &certificate),
            ("APP_INTERNAL__KEY_PATH", &key),
            ("APP_INTERNAL__CLIENT_CA_PATH", &root),
            ("APP_INTERNAL__SERVICES__PROMETHEUS__CERTIFICATE_NAME", &name),
            ("APP_INTERNAL__SERVICES__PROMETHEUS__RIGHTS", "metrics"),
        ];
        let mut all: BTreeMap<_, _> = TestApp::variables(database, issuer.url());
        let more = UNTHROTTLED.iter().chain(&internal).chain(variables);
        all.extend(more.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        all.retain(|_, value| !value.is_empty());
        let process = ServiceProcess::start(&SERVICE, &all).await;
        let listening = process.log_lines.iter().find(|line| line["message"] == "listening").unwrap();
        let address: SocketAddr = listening["internal"].as_str().unwrap().parse().unwrap();
        let (certificate, key) = authority.sign_for([SanType::DnsName(PROMETHEUS.try_into().unwrap())]);
        let identity = reqwest::Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap();
        let client = authority.client(address).identity(identity).build().unwrap();
        let prometheus = Actor::over_tls(client, address.port(), None);
        Self { process, issuer, prometheus, scrapes: Scrapes::default(), _files: [files, roots] }
    }

    async fn page(&self) -> String {
        let reply = self.prometheus.get("/metrics").await;
        assert_eq!(reply.status, 200, "{reply:#?}");
        reply.text
    }

    async fn scrape(&mut self) {
        let page = self.page().await;
        self.scrapes.add(&page);
    }

    fn caller(&self, credential: Option<Credential>) -> Actor {
        Actor::with_credential(self.process.address, credential)
    }

    fn token(&self, role: Role) -> String {
        self.issuer.access_token(&person(&ACME, role), &scopes::ALL)
    }

    fn user(&self, role: Role) -> Actor {
        self.caller(Some(Credential::Token(self.token(role))))
    }

    /// Normal use, with the mistakes that callers make.
    async fn normal_use(&self) {
        let admin = self.user(roles::ADMIN);
        let sales = self.user(roles::SALES);
        let viewer = self.user(roles::VIEWER);
        for user in [&admin, &sales, &viewer] {
            for path in ["/v1/me", "/v1/products", "/v1/orders", "/v1/customers", "/health/ready"] {
                user.get(path).await.ok(200);
            }
        }
        let order = json!({ "lines": [{ "sku": "PAPER-A4", "quantity": 2 }], "shippingSpeed": "standard" });
        sales.post("/v1/orders", &order).await.ok(201);
        viewer.post("/v1/orders", &order).await.problem(403);
        viewer.get("/v1/orders?limit=0").await.problem(400);
        viewer.get(&format!("/v1/orders/{}", Uuid::now_v7())).await.problem(404);
        viewer.get("/favicon.ico").await.problem(404);
        admin.get(&format!("/v1/customers/{}", demo::FIRST_CUSTOMER)).await.ok(200);
        let mistakes =
            [None, Some(Credential::Token("e30.e30.e30".to_owned())), Some(Credential::ApiKey("none".to_owned()))];
        for mistake in mistakes {
            self.caller(mistake).get("/v1/orders").await.problem(401);
        }
    }

    /// Minutes of normal use, in which no alert may fire.
    async fn normal_minutes(&mut self, minutes: u32) {
        for _ in 0..minutes {
            self.normal_use().await;
            self.scrape().await;
            self.scrapes.expect(&[]);
        }
    }

    /// Asserts that exactly these alerts fire after the last scrape.
    fn assert_firing(mut self, alerts: &[&str]) {
        self.scrapes.expect(alerts);
        self.scrapes.check();
    }
}

#[tokio::test]
async fn log_07_normal_use_fires_no_alert() {
    let Some(mut service) = MonitoredService::start_if_tested(&[]).await else { return };
    service.normal_minutes(8).await;
    service.assert_firing(&[]);
}

#[tokio::test]
async fn log_07_forged_tokens_fire_their_alert() {
    let Some(mut service) = MonitoredService::start_if_tested(&[("APP_FAILURE_LIMIT__MAX_FAILURES", "20")]).await
    else {
        return;
    };
    service.normal_minutes(2).await;
    let admin = service.token(roles::ADMIN);
    let viewer = service.token(roles::VIEWER);
    let (claims, _) = admin.rsplit_once('.').unwrap();
    let (_, signature) = viewer.rsplit_once('.').unwrap();
    let forger = service.caller(Some(Credential::Token(format!("{claims}.{signature}"))));
    let mut blocked = 0;
    for _ in 0..ATTACK_SCRAPES {
        for _ in 0..40 {
            blocked += u32::from(forger.get("/v1/orders").await.status == 429);
        }
        service.scrape().await;
    }
    // The 429 responses of the failure limiter must not fire the alert on exceeded quotas.
    assert!(blocked > 50, "{blocked}");
    service.assert_firing(&["TokenForgery"]);
}

/// An API key with another secret and a valid checksum, which any attacker can compute.
fn guess(key: &str, n: u32) -> String {
    let text = format!("{}_{n:044}", key.rsplit_once('_').unwrap().0);
    let sum = crypto::sha256(text.as_bytes());
    let digits = crypto::base62(u128::from(u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]])));
    format!("{text}{}", &digits[16..])
}

#[tokio::test]
async fn log_07_api_key_guessing_fires_its_alert() {
    let Some(mut service) = MonitoredService::start_if_tested(&[]).await else { return };
    let body = json!({ "name": "for a test", "scopes": ["orders:read"], "validForDays": 3 });
    let created = service.user(roles::ADMIN).post("/v1/api-keys", &body).await.ok(201);
    let key = created["key"].as_str().unwrap();
    service.caller(Some(Credential::ApiKey(key.to_owned()))).get("/v1/orders").await.ok(200);
    service.normal_minutes(2).await;
    for scrape in 0..ATTACK_SCRAPES {
        for n in 0..20 {
            let guess = guess(key, scrape * 20 + n);
            service.caller(Some(Credential::ApiKey(guess))).get("/v1/orders").await.problem(401);
        }
        service.scrape().await;
    }
    service.assert_firing(&["CredentialStuffing"]);
}

#[tokio::test]
async fn log_07_object_enumeration_fires_its_alert() {
    let Some(mut service) = MonitoredService::start_if_tested(&[]).await else { return };
    service.normal_minutes(2).await;
    let viewer = service.user(roles::VIEWER);
    for _ in 0..ATTACK_SCRAPES {
        for _ in 0..40 {
            viewer.get(&format!("/v1/orders/{}", Uuid::now_v7())).await.problem(404);
            viewer.get("/v1/audit-events").await.problem(403);
        }
        service.scrape().await;
    }
    service.assert_firing(&["ObjectsTriedOut"]);
}

#[tokio::test]
async fn log_07_scraping_past_the_quota_fires_its_alert() {
    // The default read quota.
    let Some(mut service) = MonitoredService::start_if_tested(&[("APP_QUOTA__READ_PER_MINUTE", "")]).await else {
        return;
    };
    service.normal_minutes(2).await;
    let viewer = service.user(roles::VIEWER);
    let mut refused = 0;
    for _ in 0..ATTACK_SCRAPES {
        for _ in 0..120 {
            refused += u32::from(viewer.get("/v1/orders?limit=100").await.status == 429);
        }
        service.scrape().await;
    }
    assert!(refused > 150, "{refused}");
    service.assert_firing(&["Scraping"]);
}

#[tokio::test]
async fn log_07_mass_reads_of_personal_data_fire_their_alerts() {
    let Some(mut service) = MonitoredService::start_if_tested(&[]).await else { return };
    service.normal_minutes(2).await;
    let admin = service.user(roles::ADMIN);
    let path = format!("/v1/customers/{}", demo::FIRST_CUSTOMER);
    for _ in 0..ATTACK_SCRAPES {
        for _ in 0..400 {
            admin.get(&path).await.ok(200);
        }
        service.scrape().await;
    }
    service.assert_firing(&["DecryptSpike", "DecryptSpikeOfTenant"]);
}

#[tokio::test]
async fn log_07_server_errors_fire_their_alert() {
    if promtool::promtool().is_none() {
        return;
    }
    let database = SERVICE.database().await;
    let proxy = PgProxy::start(&database.reader).await;
    let mut service = MonitoredService::start(&database, &[("APP_DATABASE__READER_URL", proxy.url())]).await;
    service.normal_minutes(2).await;
    proxy.set_down(true);
    let sales = service.user(roles::SALES);
    let path = format!("/v1/orders/{}", demo::FIRST_ORDER);
    for _ in 0..ATTACK_SCRAPES {
        for _ in 0..20 {
            sales.get(&path).await.problem(503);
        }
        service.scrape().await;
    }
    service.assert_firing(&["ServerErrors"]);
}

#[tokio::test]
async fn log_07_rules_and_dashboard_use_existing_metrics_and_labels() {
    let collector = Collector::start().await;
    let service = MonitoredService::start(&SERVICE.database().await, &[("APP_OTLP__ENDPOINT", &collector.url())]).await;
    service.normal_use().await;
    eventually("all metrics are present", async || service.page().await.contains("telemetry_items_total{")).await;
    let page = service.page().await;
    let (all, records) = expressions();
    let known_events = fs::read_to_string(format!("{SOURCES}/src/telemetry/event.rs")).unwrap();
    let mut metrics = captures(r"(?m)^# TYPE (\S+)", &page);
    for histogram in captures(r"(?m)^# TYPE (\S+) histogram", &page) {
        metrics.extend(["bucket", "sum", "count"].map(|part| format!("{histogram}_{part}")));
    }
    metrics.extend(records);
    let mut labels = captures(r#"([a-z_]+)=""#, &page);
    labels.extend(["job", "instance"].map(str::to_owned));
    for expression in &all {
        let (used_metrics, used_labels) = metrics_and_labels(expression);
        let unknown: Vec<_> = used_metrics.difference(&metrics).chain(used_labels.difference(&labels)).collect();
        assert!(!used_metrics.is_empty() && unknown.is_empty(), "{unknown:?} in {expression}");
        let events = captures(r#"\bevent=~?"([^"]+)""#, expression);
        for event in events.iter().flat_map(|events| events.split('|')).filter(|event| !event.contains('*')) {
            assert!(known_events.contains(&format!("\"{event}\"")), "{event} in {expression}");
        }
    }
}

#[test]
fn log_07_rules_are_valid_and_their_runbooks_exist() {
    let rule = |(n, expression): (usize, &String)| json!({ "record": format!("expression:{n}"), "expr": expression });
    let rules: Vec<Value> = expressions().0.iter().enumerate().map(rule).collect();
    promtool::run(&["check", "rules", promtool::RULES], &json!({ "groups": [{ "name": "all", "rules": rules }] }));
    let count = |part: &str| RULES_TEXT.matches(part).count();
    assert_eq!(count("- alert: "), count("runbook: "));
    assert_eq!(count("- alert: "), count("severity: page }") + count("severity: ticket }"));
    for runbook in captures(r"runbook: (\S+)", RULES_TEXT) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(&runbook);
        assert!(fs::read_to_string(file).is_ok_and(|text| !text.is_empty()), "{runbook}");
    }
}
