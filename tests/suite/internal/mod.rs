//! The internal listener, client certificates, and tokens bound to them (AUTHN-18).

mod bound;
mod incidents;
mod metrics;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Method;
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use reqwest::Identity;
use secrecy::ExposeSecret as _;
use serde_json::json;
use service::{crypto, settings::Settings};

use crate::support::{ACME, Actor, Authority, PemFiles, TestApp, binary, eventually, test_database};

const JOB: &str = "spiffe://acme.example/job";
const PROMETHEUS: &str = "prometheus.acme.example";

fn uri(id: &str) -> SanType {
    SanType::URI(id.try_into().unwrap())
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// A service with an internal listener, and who signs for it.
struct Stage {
    app: TestApp,
    authority: Authority,
    files: PemFiles,
    /// The authorities of clients.
    roots: PemFiles,
}

impl Stage {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let tenant = ACME.id.to_string();
        let own = [
            ("APP_INTERNAL__LISTEN", "127.0.0.1:0"),
            ("APP_INTERNAL__SERVICES__JOB__CERTIFICATE_NAME", JOB),
            ("APP_INTERNAL__SERVICES__JOB__TENANT", &tenant),
            ("APP_INTERNAL__SERVICES__JOB__SCOPES", "orders:read"),
            ("APP_INTERNAL__SERVICES__PROMETHEUS__CERTIFICATE_NAME", "dns:Prometheus.acme.example"),
            ("APP_INTERNAL__SERVICES__PROMETHEUS__RIGHTS", "metrics"),
        ];
        let variables = [&own[..], variables].concat();
        Self::with_files("APP_INTERNAL", async |files, _| TestApp::start_with(&[files, &variables].concat()).await)
            .await
    }

    /// One without an internal listener, whose public one asks for certificates.
    async fn public(variables: &[(&str, &str)]) -> Self {
        let start = async |files: &[(&str, &str)], authority: &Authority| {
            TestApp::start_by_tls(&[files, variables].concat(), authority).await
        };
        Self::with_files("APP_TLS", start).await
    }

    /// What is started with the files of a listener.
    async fn with_files(prefix: &str, start: impl AsyncFnOnce(&[(&str, &str)], &Authority) -> TestApp) -> Self {
        let authority = Authority::new();
        let (files, roots) = (PemFiles::new(authority.sign()), PemFiles::new((authority.root.clone(), String::new())));
        let paths = [files.certificate(), files.key(), roots.certificate()].map(|path| path.display().to_string());
        let names = ["CERTIFICATE", "KEY", "CLIENT_CA"].map(|name| format!("{prefix}__{name}_PATH"));
        let variables: Vec<_> = names.iter().zip(&paths).map(|(name, path)| (name.as_str(), path.as_str())).collect();
        let app = start(&variables, &authority).await;
        Self { app, authority, files, roots }
    }

    /// Who shows this certificate on the internal listener, and perhaps a token.
    fn with(&self, certificate: &(String, String), token: Option<String>) -> Actor {
        self.at(self.app.internal.unwrap(), Some(certificate), token)
    }

    /// Who calls there, and what they show.
    fn at(&self, address: SocketAddr, certificate: Option<&(String, String)>, token: Option<String>) -> Actor {
        let mut client = self.authority.client(SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())));
        if let Some((certificate, key)) = certificate {
            client = client.identity(Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap());
        }
        Actor::by_tls(client.build().unwrap(), address.port(), token)
    }

    fn named(&self, names: impl IntoIterator<Item = SanType>) -> Actor {
        self.with(&self.authority.sign_for(names), None)
    }

    fn job(&self) -> Actor {
        self.named([uri(JOB)])
    }

    /// A token of the sales person's, bound to a certificate.
    fn bound_to(&self, (certificate, _): &(String, String)) -> String {
        let thumbprint = URL_SAFE_NO_PAD.encode(crypto::sha256(&der(certificate)));
        self.app.forge().claim("cnf", json!({ "x5t#S256": thumbprint })).token()
    }
}

fn der(certificate: &str) -> Vec<u8> {
    let base64: String = certificate.lines().filter(|line| !line.starts_with("-----")).collect();
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, base64).unwrap()
}

#[tokio::test]
async fn authn_18_without_a_certificate_of_the_authority_there_is_no_connection() {
    let stage = Stage::start(&[]).await;
    let address = stage.app.internal.unwrap();
    assert!(stage.job().is_let_in().await);
    assert!(!stage.at(address, None, None).is_let_in().await, "without a certificate");
    assert!(!Actor::new(address, None).is_let_in().await, "in plain text");
    let stranger = Authority::new().sign_for([uri(JOB)]);
    assert!(!stage.with(&stranger, None).is_let_in().await, "of another authority");
    let ended = stage.authority.sign_with([uri(JOB)], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    assert!(!stage.with(&ended, None).is_let_in().await, "past its end");
    let server = stage.authority.sign_with([uri(JOB)], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert!(!stage.with(&server, None).is_let_in().await, "a server's");
    // TLS 1.2 is spoken to nobody.
    let certificate = stage.authority.sign_for([uri(JOB)]);
    let old = stage.authority.client(address).tls_version_max(reqwest::tls::Version::TLS_1_2);
    let old = old.identity(Identity::from_pem(format!("{}{}", certificate.0, certificate.1).as_bytes()).unwrap());
    assert!(!Actor::by_tls(old.build().unwrap(), address.port(), None).is_let_in().await, "TLS 1.2");
}

#[tokio::test]
async fn authn_18_the_name_in_the_certificate_is_who_calls() {
    let stage = Stage::start(&[]).await;
    let expected = json!({
        "subject": "service:job", "clientId": "service:job", "kind": "service",
        "tenantId": ACME.id.to_string(), "roles": ["service"], "scopes": ["orders:read"],
    });
    assert_eq!(stage.job().get("/v1/me").await.ok(200), expected);
    stage.named([dns("elsewhere.example"), uri(JOB)]).get("/v1/orders").await.ok(200);
    assert_eq!(stage.job().get("/v1/products").await.problem(403), "insufficient_scope");
    // Whoever calls for no tenant calls none of its operations.
    let reply = stage.named([dns("PROMETHEUS.acme.example")]).get("/v1/me").await;
    assert_eq!(reply.problem(401), "unauthenticated");
    assert_eq!(reply.events()[0]["reason"], "tenant");
    // Nobody, or two.
    let nobody: [Vec<SanType>; 6] = [
        vec![uri("spiffe://acme.example/job/"), uri("spiffe://ACME.example/job")],
        vec![uri("spiffe://acme.example/other")],
        vec![dns("job")],
        vec![dns("*.acme.example")],
        vec![uri(JOB), dns(PROMETHEUS)],
        vec![],
    ];
    for names in nobody {
        for path in ["/v1/me", "/metrics"] {
            let reply = stage.named(names.clone()).get(path).await;
            assert_eq!(reply.problem(401), "unauthenticated", "{names:?}");
            assert_eq!(reply.events()[0]["reason"], "certificate", "{names:?}");
        }
        // Not with a token either.
        let certificate = stage.authority.sign_for(names);
        let user = stage.app.forge().token();
        stage.with(&certificate, Some(user)).get("/v1/me").await.problem(401);
    }
    // Nor who would outlive every revocation.
    let long = stage.authority.sign_with([uri(JOB)], |params| params.not_after = rcgen::date_time_ymd(2099, 1, 1));
    let reply = stage.with(&long, None).get("/v1/me").await;
    assert_eq!((reply.problem(401), &*reply.events()[0]["reason"]), ("unauthenticated", "lifetime"));
    // With a token, the token says who: the service calls for somebody.
    let certificate = stage.authority.sign_for([uri(JOB)]);
    let me = stage.with(&certificate, Some(stage.app.forge().token())).get("/v1/me").await.ok(200);
    assert_eq!(me["kind"], "user");
    // And no token says what only a certificate does.
    let forged = stage.app.forge().claim("sub", "service:job").token();
    stage.app.bearer(forged).get("/v1/me").await.problem(401);
}

#[tokio::test]
async fn authn_18_a_certificate_that_ends_ends_its_connections_rights() {
    let stage = Stage::start(&[]).await;
    let soon = std::time::SystemTime::from(stage.app.clock.now()) + Duration::from_hours(1);
    let job = stage.authority.sign_with([uri(JOB)], |params| params.not_after = soon.into());
    let job = stage.with(&job, None);
    job.get("/v1/me").await.ok(200);
    stage.app.clock.advance(Duration::from_secs(3_700));
    let reply = job.get("/v1/me").await;
    assert_eq!((reply.problem(401), &*reply.events()[0]["reason"]), ("unauthenticated", "expired"));
    job.get("/metrics").await.problem(401);
}

#[tokio::test]
async fn authn_11_a_service_is_revoked_by_its_name() {
    let stage = Stage::start(&[]).await;
    let (job, prometheus) = (stage.job(), stage.named([dns(PROMETHEUS)]));
    job.get("/v1/me").await.ok(200);
    for (subject, actor, path) in [("Service:Job", &job, "/v1/me"), ("service:prometheus", &prometheus, "/metrics")] {
        let mut command = binary();
        command.args(["incident", "revoke", "subject", subject, "--reason", "a test"]);
        command.env("APP_DATABASE__OPERATOR_URL", stage.app.database.operator.expose_secret());
        command.env("APP_PROFILE", "development");
        assert!(command.output().unwrap().status.success());
        eventually("refused", async || actor.get(path).await.status == 401).await;
    }
    // Nor does it come in with somebody's token.
    let certificate = stage.authority.sign_for([uri(JOB)]);
    let relayed = stage.with(&certificate, Some(stage.app.forge().token())).get("/v1/me").await;
    assert_eq!((relayed.problem(401), &*relayed.events()[0]["event"]), ("unauthenticated", "authn_token_reuse"));
}

#[tokio::test]
async fn authn_18_authorities_are_changed_without_a_new_start() {
    let stage = Stage::start(&[]).await;
    let (old, next) = (stage.authority.sign_for([uri(JOB)]), Authority::new());
    let open = stage.with(&old, None);
    open.get("/v1/me").await.ok(200);
    let new = next.sign_for([uri(JOB)]);
    assert!(!stage.with(&new, None).is_let_in().await);
    stage.roots.write(&next.root, "");
    eventually("the new authority counts", async || stage.with(&new, None).is_let_in().await).await;
    assert!(!stage.with(&old, None).is_let_in().await, "the old one does not");
    // Who was connected stays so.
    open.get("/v1/me").await.ok(200);
    drop(stage.files);
}

#[tokio::test]
async fn secret_03_faults_of_the_internal_listener_are_told() {
    let database = test_database().await;
    let faults = |variables: &[(&str, &str)]| {
        let mut all = TestApp::variables(&database, "http://127.0.0.1:9");
        all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Settings::from_variables(all).err().map(|faults| faults.to_string()).unwrap_or_default()
    };
    let whole = [
        ("APP_INTERNAL__LISTEN", "0.0.0.0:8443"),
        ("APP_INTERNAL__CERTIFICATE_PATH", "c.pem"),
        ("APP_INTERNAL__KEY_PATH", "k.pem"),
        ("APP_INTERNAL__CLIENT_CA_PATH", "r.pem"),
        ("APP_INTERNAL__SERVICES__JOB__CERTIFICATE_NAME", JOB),
    ];
    assert_eq!(faults(&whole), "");
    for left_out in 0..whole.len() {
        let rest: Vec<_> =
            whole.iter().copied().enumerate().filter(|(at, _)| *at != left_out).map(|(_, v)| v).collect();
        let expected = if left_out == 4 { "APP_INTERNAL__SERVICES" } else { whole[left_out].0 };
        assert!(faults(&rest).contains(expected), "{left_out}: {}", faults(&rest));
    }
    for (name, value, wrong) in [
        ("APP_INTERNAL__SERVICES__JOB__CERTIFICATE_NAME", "job", "CERTIFICATE_NAME"),
        ("APP_INTERNAL__SERVICES__JOB__CERTIFICATE_NAME", "dns:*.example", "CERTIFICATE_NAME"),
        ("APP_INTERNAL__SERVICES__JOB__RIGHTS", "everything", "RIGHTS"),
        ("APP_INTERNAL__SERVICES__JOB__SCOPES", "orders:read", "TENANT"),
        ("APP_INTERNAL__SERVICES__JOB__SCOPES", "orders:everything", "SCOPES"),
        ("APP_INTERNAL__SERVICES__OTHER__CERTIFICATE_NAME", JOB, "SERVICES"),
        ("APP_INTERNAL__SERVICES__JOB__COLOUR", "red", "COLOUR"),
    ] {
        let faults = faults(&[&whole[..], &[(name, value)]].concat());
        assert!(faults.contains(wrong), "{name}={value}: {faults}");
    }
    assert!(faults(&[("APP_OIDC__REQUIRE_BOUND_TOKENS", "true")]).contains("APP_OIDC__REQUIRE_BOUND_TOKENS"));
    assert_eq!(faults(&[&whole[..], &[("APP_OIDC__REQUIRE_BOUND_TOKENS", "true")]].concat()), "");
}

#[tokio::test]
async fn log_04_only_a_service_of_ones_own_says_which_trace_it_is_in() {
    let stage = Stage::start(&[]).await;
    let (trace_id, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let parent = format!("00-{trace_id}-{span}-01");
    let stranger = stage.app.anonymous();
    let asked = stranger.request(Method::GET, "/v1/me").header("traceparent", &parent);
    assert_ne!(stranger.send(asked).await.header("x-request-id"), Some(trace_id));
    let service = stage.job();
    let ask = async |parents: &[&str]| {
        let mut asked = service.request(Method::GET, "/v1/me");
        for parent in parents {
            asked = asked.header("traceparent", *parent);
        }
        service.send(asked).await.header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(ask(&[&parent]).await, trace_id);
    let nobody = format!("00-{}-{span}-01", "0".repeat(32));
    for odd in [&[parent.as_str(), &parent][..], &["00-xyz"], &[&nobody], &[]] {
        let given = ask(odd).await;
        assert!(given != trace_id && given.len() == 32 && given != "0".repeat(32), "{odd:?}: {given}");
    }
}
