//! Canaries (LOG-02): unique secrets and personal data, sent through every operation. They must
//! occur neither in the log, telemetry, error responses nor the audit trail, in any encoding.

use std::collections::BTreeMap;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use http::Method;
use palisade::model::Clock;
use serde_json::{Value, json};
use service::{
    access::{roles, scopes},
    demo,
};

use crate::support::{
    ACME, Actor, Collector, Credential, MATRIX, Reply, SERVICE, ServiceProcess, TestApp, UNTHROTTLED, id, person,
    query, start_issuer,
};

const EMAIL: &str = "canary-mail@canary.example";
const PHONE: &str = "+491769871234";
const TAX_ID: &str = "DE-CANARY-87";
const IBAN: &str = "DE89370400440532013000";
const ADDRESS: &str = "Canary Lane 17";
/// Sent where credentials, cookies and passwords belong.
const TEXT: &str = "CANARY-c0ffee-51";
/// Sent in paths, which error responses may repeat to the caller.
const PATH: &str = "CANARY_path_93";

/// The encodings in which a text may occur: verbatim, in upper and lower case, hexadecimal,
/// percent-encoded, and base64 at each of the three offsets.
fn forms(canary: &str) -> Vec<String> {
    let percent = |which: fn(u8) -> bool| -> String {
        canary.bytes().map(|b| if which(b) { format!("%{b:02X}") } else { char::from(b).to_string() }).collect()
    };
    let mut forms = vec![
        canary.to_owned(),
        canary.to_ascii_lowercase(),
        canary.to_ascii_uppercase(),
        percent(|b| !b.is_ascii_alphanumeric()),
        percent(|b| !b.is_ascii_alphanumeric() && !b"-_.~".contains(&b)),
        percent(|_| true),
        palisade::crypto::hex(canary.as_bytes()),
        url::form_urlencoded::byte_serialize(canary.as_bytes()).collect(),
    ];
    for offset in 0..3 {
        let text = [&vec![b'x'; offset][..], canary.as_bytes()].concat();
        for base64 in [STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
            // Without the ends, which depend on the neighbouring bytes.
            forms.push(base64[2 * offset..base64.len() - 2].to_owned());
        }
    }
    forms.sort();
    forms.dedup();
    forms
}

/// The canaries found in an output, each with the output's name and the form.
fn leaks(canaries: &BTreeMap<&'static str, String>, output: &str, bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let hits = canaries.iter().flat_map(|(name, canary)| forms(canary).into_iter().map(move |form| (name, form)));
    hits.filter(|(_, form)| text.contains(form)).map(|(name, form)| format!("{name} in {output}, as {form}")).collect()
}

/// A valid body of an operation, with canaries as its personal data.
fn body(operation: &str) -> Value {
    match operation {
        "putProduct" => json!({ "name": "Ink", "price": { "amount": 500, "currency": "EUR" } }),
        "createCustomer" => json!({
            "name": "Ann Example", "email": EMAIL, "phone": PHONE, "taxId": TAX_ID, "bankAccount": IBAN,
            "address": ADDRESS,
        }),
        "updateCustomer" => json!({ "phone": PHONE, "address": ADDRESS }),
        "createOrder" => json!({
            "lines": [{ "sku": "PAPER-A4", "quantity": 1 }], "shippingSpeed": "standard", "note": ADDRESS,
        }),
        "createPayment" | "createRefund" => json!({ "amount": { "amount": 1, "currency": "EUR" } }),
        "createApiKey" => json!({ "name": "a key", "scopes": ["orders:read"], "validForDays": 3 }),
        "rotateApiKey" => json!({ "validForDays": 3, "overlapHours": 1 }),
        "createExport" => {
            json!({ "kind": "orders", "from": "2020-01-01T00:00:00Z", "to": "2040-01-01T00:00:00Z" })
        }
        _ => Value::Null,
    }
}

/// Invalid variants of a body, each with canaries.
fn invalid_bodies(body: &Value) -> Vec<String> {
    let mut bodies = vec![TEXT.to_owned(), format!("{{\"{TEXT}\": 1}}"), format!("[\"{EMAIL}\", \"{IBAN}\"")];
    if let Some(members) = body.as_object() {
        for name in members.keys() {
            let mut wrong_type = body.clone();
            wrong_type[name] = json!({ TEXT: [EMAIL, PHONE, TAX_ID, IBAN, ADDRESS] });
            bodies.push(wrong_type.to_string());
            let mut wrong_text = body.clone();
            wrong_text[name] = json!(format!("{TEXT} {EMAIL} {IBAN}\u{202e}"));
            bodies.push(wrong_text.to_string());
        }
    }
    bodies
}

/// A service process with canaries as its secrets, and everything that could leak them.
struct CanaryService {
    process: ServiceProcess,
    collector: Collector,
    database: palisade::dev::database::Urls,
    /// The headers and bodies of all error responses.
    errors: Vec<u8>,
    canaries: BTreeMap<&'static str, String>,
    admin: String,
    viewer: String,
}

impl CanaryService {
    async fn start(filter: &str) -> Self {
        let database = SERVICE.database().await;
        let collector = Collector::start().await;
        let issuer = start_issuer(Clock::system()).await;
        let mut variables = TestApp::variables(&database, issuer.url());
        variables.extend(UNTHROTTLED.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let settings = [
            ("APP_OTLP__ENDPOINT", collector.url()),
            ("APP_OTLP__TOKEN", "CANARY-otlp-token-77".to_owned()),
            ("APP_OTLP__SAMPLE_RATIO", "1".to_owned()),
            ("APP_LOG__FILTER", filter.to_owned()),
            ("APP_FAILURE_LIMIT__MAX_FAILURES", "1000000".to_owned()),
            ("APP_FAILURE_LIMIT__FREE_FAILURES", "1000000".to_owned()),
        ];
        variables.extend(settings.map(|(name, value)| (name.to_owned(), value)));
        let token = |role| issuer.access_token(&person(&ACME, role), &scopes::ALL);
        let admin = token(roles::ADMIN);
        let viewer = token(roles::VIEWER);
        let part = |token: &str, at: usize| token.split('.').nth(at).unwrap().to_owned();
        let password = |name: &str| url::Url::parse(&variables[name]).unwrap().password().unwrap().to_owned();
        let canaries = BTreeMap::from([
            ("text", TEXT.to_owned()),
            ("path", PATH.to_owned()),
            ("e-mail", EMAIL.to_owned()),
            ("phone", PHONE.to_owned()),
            ("tax id", TAX_ID.to_owned()),
            ("bank account", IBAN.to_owned()),
            ("address", ADDRESS.to_owned()),
            ("token's claims", part(&admin, 1)),
            ("token's signature", part(&admin, 2)),
            ("another token's signature", part(&viewer, 2)),
            ("OTLP token", variables["APP_OTLP__TOKEN"].clone()),
            ("MAC key", variables["APP_SECRETS__MAC_KEY"].clone()),
            ("pepper", variables["APP_SECRETS__PEPPER"].clone()),
            ("master key", variables["APP_KEYS__MASTER"].split(':').nth(1).unwrap().to_owned()),
            ("index key", variables["APP_KEYS__INDEX"].split(':').nth(1).unwrap().to_owned()),
            ("writer's password", password("APP_DATABASE__WRITER_URL")),
            ("reader's password", password("APP_DATABASE__READER_URL")),
        ]);
        let process = ServiceProcess::start(&SERVICE, &variables).await;
        Self { process, collector, database, errors: Vec::new(), canaries, admin, viewer }
    }

    fn actor(&self, credential: Option<Credential>) -> Actor {
        Actor::with_credential(self.process.address, credential)
    }

    fn admin(&self) -> Actor {
        self.actor(Some(Credential::Token(self.admin.clone())))
    }

    /// Sends a request and keeps the response if it is an error.
    async fn send(&mut self, actor: &Actor, request: reqwest::RequestBuilder) -> Reply {
        let reply = actor.send(request).await;
        if !reply.status.is_success() {
            self.errors.extend(format!("{:?} {}\n", reply.headers, reply.text).into_bytes());
        }
        reply
    }

    /// Calls every operation with valid and invalid bodies, with sufficient, insufficient, invalid
    /// and missing credentials, and with canaries wherever a caller can send text.
    async fn call_everything(&mut self) {
        let admin = self.admin();
        let customer = id(&admin.post("/v1/customers", &body("createCustomer")).await.ok(201));
        let key = admin.post("/v1/api-keys", &body("createApiKey")).await.ok(201);
        let text = key["key"].as_str().unwrap().to_owned();
        self.canaries.insert("API key's secret", text.rsplit('_').next().unwrap().to_owned());
        let callers = [
            Some(Credential::Token(self.admin.clone())),
            Some(Credential::Token(self.viewer.clone())),
            Some(Credential::Token(format!("{}x", self.admin))),
            Some(Credential::Token(TEXT.to_owned())),
            Some(Credential::ApiKey(text.clone())),
            Some(Credential::ApiKey(text.replace('0', "1"))),
            None,
        ];
        let callers = callers.map(|credential| self.actor(credential));
        for row in MATRIX.iter() {
            let id = match row.operation {
                "getCustomer" | "updateCustomer" | "eraseCustomer" => customer.clone(),
                _ => demo::FIRST_ORDER.to_string(),
            };
            let path = row.path.replace("{id}", &id).replace("{sku}", "INK");
            let method: Method = row.method.as_str().parse().unwrap();
            let valid = body(row.operation);
            for actor in &callers {
                let request = actor.request(method.clone(), &path).header("idempotency-key", TEXT);
                let request = if valid.is_null() { request } else { request.json(&valid) };
                self.send(actor, request).await;
            }
            for invalid in invalid_bodies(&valid) {
                let request = admin.request(method.clone(), &path).header("content-type", "application/json");
                self.send(&admin, request.body(invalid)).await;
            }
            let odd_paths = [
                format!("{path}?access_token={TEXT}&email={EMAIL}"),
                format!("{path}?{TEXT}={IBAN}"),
                row.path.replace("{id}", PATH).replace("{sku}", &format!("{PATH}%40")),
                format!("{path}/{PATH}"),
            ];
            for path in odd_paths.iter().filter(|odd| *odd != &path) {
                self.send(&admin, admin.request(method.clone(), path)).await;
            }
            // The error response repeats the path to its caller, so it is not searched.
            admin.send(admin.request(method.clone(), &row.path.replace("{id}", IBAN).replace("{sku}", IBAN))).await;
            let headers = [
                ("cookie", format!("__Host-session={TEXT}; other={TEXT}")),
                ("authorization", format!("Basic {TEXT}")),
                ("x-api-key", TEXT.to_owned()),
                ("traceparent", TEXT.to_owned()),
                ("x-forwarded-for", TEXT.to_owned()),
                ("accept", TEXT.to_owned()),
                ("content-type", TEXT.to_owned()),
                ("user-agent", TEXT.to_owned()),
            ];
            for (name, value) in headers {
                self.send(&admin, admin.request(method.clone(), &path).header(name, value)).await;
            }
        }
    }
}

async fn assert_no_leaks(filter: &str) {
    let mut service = CanaryService::start(filter).await;
    service.call_everything().await;
    let CanaryService { process, collector, database, errors, canaries, .. } = service;
    let first_lines = serde_json::to_vec(&process.log_lines).unwrap();
    let (_, log) = process.terminate().await;
    let audit = query(&database.backup, "select audit_events::text from palisade.audit_events").await.join("\n");
    let bodies = collector.bodies();
    assert!(!log.is_empty() && !errors.is_empty() && !audit.is_empty() && bodies.len() > 3);
    let mut found = leaks(&canaries, "the first log lines", &first_lines);
    found.extend(leaks(&canaries, "the log", log.as_bytes()));
    let mut canaries_of_errors = canaries.clone();
    canaries_of_errors.remove("path");
    found.extend(leaks(&canaries_of_errors, "an error response", &errors));
    found.extend(leaks(&canaries, "the audit trail", audit.as_bytes()));
    found.extend(bodies.iter().flat_map(|body| leaks(&canaries, "telemetry", body)));
    found.sort();
    found.dedup();
    assert_eq!(found, Vec::<String>::new());
}

#[tokio::test]
async fn log_02_no_secrets_in_logs_telemetry_errors_or_audit_trail() {
    assert_no_leaks("info").await;
}

/// Operators raise the level to look for a fault.
#[tokio::test]
async fn log_02_no_secrets_at_debug_level() {
    assert_no_leaks("debug").await;
}

/// Proves that the other tests would find a leak.
#[test]
fn log_02_canaries_are_found_in_each_encoding() {
    let canaries = BTreeMap::from([("address", ADDRESS.to_owned())]);
    let base64 = |text: String| URL_SAFE_NO_PAD.encode(text);
    for output in [
        format!("at {ADDRESS}"),
        ADDRESS.to_uppercase(),
        "Canary%20Lane%2017".to_owned(),
        "Canary+Lane+17".to_owned(),
        base64(format!("{ADDRESS} and more")),
        base64(format!("1{ADDRESS} and more")),
        base64(format!("12{ADDRESS} and more")),
        base64(format!("123{ADDRESS}")),
    ] {
        assert!(!leaks(&canaries, "a test", output.as_bytes()).is_empty(), "{output}");
    }
    assert!(leaks(&canaries, "a test", b"Canary Lane 1").is_empty());
}
