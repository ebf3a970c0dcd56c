//! The alert rules that ship, on what a service really shows while it is attacked (LOG-07). Each test is some ordinary
//! use, then an attack over the socket. Prometheus' own tool says which alerts fire on the pages that were read.

mod made_up;
mod numbers;

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path};

use rcgen::SanType;
use serde_json::{Value, json};
use service::{
    authz::{matrix::Scope, policy::Role},
    crypto,
    dev::{database::Urls, demo, issuer::DevIssuer},
    domain::Clock,
};
use uuid::Uuid;

use crate::support::{
    ACME, Actor, Authority, Collector, Credential, PemFiles, Serving, TestApp, UNTHROTTLED, Wire, eventually, person,
    promtool::{self, RULES_TEXT, Scrapes, captures, expressions, names},
    start_issuer, test_database,
};

const PROMETHEUS: &str = "prometheus.acme.example";
const EVENTS: &str = include_str!("../../../../src/telemetry/event.rs");
/// How many pages are read during an attack.
const PORTIONS: u32 = 3;

/// A service in a process of its own, and who reads its metrics.
struct Watched {
    serving: Serving,
    issuer: DevIssuer,
    prometheus: Actor,
    scrapes: Scrapes,
    /// The service looks at them while it runs.
    _files: [PemFiles; 2],
}

impl Watched {
    /// `None` without the tool that the test is for.
    async fn start_if_tested(variables: &[(&str, &str)]) -> Option<Self> {
        promtool::promtool()?;
        Some(Self::start(&test_database().await, variables).await)
    }

    async fn start(database: &Urls, variables: &[(&str, &str)]) -> Self {
        let (authority, issuer) = (Authority::new(), start_issuer(Clock::system()).await);
        let (own, roots) = (PemFiles::new(authority.sign()), PemFiles::new((authority.root.clone(), String::new())));
        let [certificate, key, root] =
            [own.certificate(), own.key(), roots.certificate()].map(|path| path.display().to_string());
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
        let serving = Serving::start(&all).await;
        let listening = serving.said.iter().find(|line| line["message"] == "listening").unwrap();
        let address: SocketAddr = listening["internal"].as_str().unwrap().parse().unwrap();
        let (certificate, key) = authority.sign_for([SanType::DnsName(PROMETHEUS.try_into().unwrap())]);
        let identity = reqwest::Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap();
        let client = authority.client(address).identity(identity).build().unwrap();
        let prometheus = Actor::by_tls(client, address.port(), None);
        Self { serving, issuer, prometheus, scrapes: Scrapes::default(), _files: [own, roots] }
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
        Actor::with(self.serving.address, credential)
    }

    fn token(&self, role: Role) -> String {
        self.issuer.access_token(&person(&ACME, role), &Scope::ALL)
    }

    fn user(&self, role: Role) -> Actor {
        self.caller(Some(Credential::Token(self.token(role))))
    }

    /// What people do all day, mistakes included.
    async fn ordinary(&self) {
        let (admin, sales, viewer) = (self.user(Role::Admin), self.user(Role::Sales), self.user(Role::Viewer));
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
        let mistakes =
            [None, Some(Credential::Token("e30.e30.e30".to_owned())), Some(Credential::ApiKey("none".to_owned()))];
        for mistake in mistakes {
            self.caller(mistake).get("/v1/orders").await.problem(401);
        }
    }

    /// Some minutes in which nothing fires.
    async fn ordinary_minutes(&mut self, minutes: u32) {
        for _ in 0..minutes {
            self.ordinary().await;
            self.scrape().await;
            self.scrapes.expect(&[]);
        }
    }

    /// Exactly these fire now.
    fn fires(mut self, alerts: &[&str]) {
        self.scrapes.expect(alerts);
        self.scrapes.check();
    }
}

#[tokio::test]
async fn log_07_ordinary_use_with_its_mistakes_fires_nothing() {
    let Some(mut watched) = Watched::start_if_tested(&[]).await else { return };
    watched.ordinary_minutes(8).await;
    watched.fires(&[]);
}

#[tokio::test]
async fn log_07_forged_tokens_fire() {
    let Some(mut watched) = Watched::start_if_tested(&[("APP_PENALTY__FAILURES", "20")]).await else { return };
    watched.ordinary_minutes(2).await;
    let (admin, viewer) = (watched.token(Role::Admin), watched.token(Role::Viewer));
    let (claims, signature) = (admin.rsplit_once('.').unwrap().0, viewer.rsplit_once('.').unwrap().1);
    let forger = watched.caller(Some(Credential::Token(format!("{claims}.{signature}"))));
    let mut shut_out = 0;
    for _ in 0..PORTIONS {
        for _ in 0..40 {
            shut_out += u32::from(forger.get("/v1/orders").await.status == 429);
        }
        watched.scrape().await;
    }
    // That the source was shut out is this attack, and none on quotas.
    assert!(shut_out > 50, "{shut_out}");
    watched.fires(&["TokenForgery"]);
}

/// A key's text with another secret, and the checksum that goes with it, which anybody can make.
fn guess(key: &str, n: u32) -> String {
    let text = format!("{}_{n:044}", key.rsplit_once('_').unwrap().0);
    let sum = crypto::sha256(text.as_bytes());
    let digits = crypto::base62(u128::from(u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]])));
    format!("{text}{}", &digits[16..])
}

#[tokio::test]
async fn log_07_guessing_at_api_keys_fires() {
    let Some(mut watched) = Watched::start_if_tested(&[]).await else { return };
    let wanted = json!({ "name": "for a test", "scopes": ["orders:read"], "validForDays": 3 });
    let made = watched.user(Role::Admin).post("/v1/api-keys", &wanted).await.ok(201);
    let key = made["key"].as_str().unwrap();
    watched.caller(Some(Credential::ApiKey(key.to_owned()))).get("/v1/orders").await.ok(200);
    watched.ordinary_minutes(2).await;
    for portion in 0..PORTIONS {
        for n in 0..20 {
            let guess = guess(key, portion * 20 + n);
            watched.caller(Some(Credential::ApiKey(guess))).get("/v1/orders").await.problem(401);
        }
        watched.scrape().await;
    }
    watched.fires(&["CredentialStuffing"]);
}

#[tokio::test]
async fn log_07_going_through_objects_fires() {
    let Some(mut watched) = Watched::start_if_tested(&[]).await else { return };
    watched.ordinary_minutes(2).await;
    let viewer = watched.user(Role::Viewer);
    for _ in 0..PORTIONS {
        for _ in 0..40 {
            viewer.get(&format!("/v1/orders/{}", Uuid::now_v7())).await.problem(404);
            viewer.get("/v1/audit-events").await.problem(403);
        }
        watched.scrape().await;
    }
    watched.fires(&["ObjectsTriedOut"]);
}

#[tokio::test]
async fn log_07_scraping_past_the_quota_fires() {
    // As the settings have it when nobody says otherwise.
    let Some(mut watched) = Watched::start_if_tested(&[("APP_QUOTA__READ_PER_MINUTE", "")]).await else { return };
    watched.ordinary_minutes(2).await;
    let viewer = watched.user(Role::Viewer);
    let mut refused = 0;
    for _ in 0..PORTIONS {
        for _ in 0..120 {
            refused += u32::from(viewer.get("/v1/orders?limit=100").await.status == 429);
        }
        watched.scrape().await;
    }
    assert!(refused > 150, "{refused}");
    watched.fires(&["Scraping"]);
}

#[tokio::test]
async fn log_07_customers_read_in_plain_text_over_and_over_fire() {
    let Some(mut watched) = Watched::start_if_tested(&[]).await else { return };
    watched.ordinary_minutes(2).await;
    let admin = watched.user(Role::Admin);
    for n in 0..97 {
        let customer = json!({ "name": "Somebody", "email": format!("customer-{n}@example.com") });
        admin.post("/v1/customers", &customer).await.ok(201);
    }
    for _ in 0..PORTIONS {
        for _ in 0..12 {
            let page = admin.get("/v1/customers?limit=100").await.ok(200);
            assert_eq!(page["items"].as_array().unwrap().len(), 100);
        }
        watched.scrape().await;
    }
    watched.fires(&["DecryptSpike", "DecryptSpikeOfTenant"]);
}

#[tokio::test]
async fn log_07_a_burst_of_server_errors_fires() {
    if promtool::promtool().is_none() {
        return;
    }
    let database = test_database().await;
    let wire = Wire::to(&database.reader).await;
    let mut watched = Watched::start(&database, &[("APP_DATABASE__READER_URL", wire.url())]).await;
    watched.ordinary_minutes(2).await;
    wire.down(true);
    let (sales, path) = (watched.user(Role::Sales), format!("/v1/orders/{}", demo::FIRST_ORDER));
    for _ in 0..PORTIONS {
        for _ in 0..20 {
            sales.get(&path).await.problem(503);
        }
        watched.scrape().await;
    }
    watched.fires(&["ServerErrors"]);
}

#[tokio::test]
async fn log_07_rules_and_dashboard_name_only_what_the_page_has() {
    let collector = Collector::start().await;
    let watched = Watched::start(&test_database().await, &[("APP_OTLP__ENDPOINT", &collector.url())]).await;
    watched.ordinary().await;
    eventually("all is counted", async || watched.page().await.contains("telemetry_items_total{")).await;
    let (page, (all, records)) = (watched.page().await, expressions());
    let mut metrics = captures(r"(?m)^# TYPE (\S+)", &page);
    for histogram in captures(r"(?m)^# TYPE (\S+) histogram", &page) {
        metrics.extend(["bucket", "sum", "count"].map(|part| format!("{histogram}_{part}")));
    }
    metrics.extend(records);
    let mut labels = captures(r#"([a-z_]+)=""#, &page);
    labels.extend(["job", "instance"].map(str::to_owned));
    for expression in &all {
        let (named, labelled) = names(expression);
        assert!(!named.is_empty() && named.is_subset(&metrics), "{named:?} in {expression}");
        assert!(labelled.is_subset(&labels), "{labelled:?} in {expression}");
        let events = captures(r#"\bevent=~?"([^"]+)""#, expression);
        for event in events.iter().flat_map(|events| events.split('|')).filter(|event| !event.contains('*')) {
            assert!(EVENTS.contains(&format!("\"{event}\"")), "{event} in {expression}");
        }
    }
}

#[test]
fn log_07_rules_and_dashboard_are_sound_and_every_runbook_is_there() {
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
