//! The internal listener: client certificates instead of tokens (AUTHN-18), revocation of services
//! (AUTHN-11), its settings (SECRET-03), and traces of its callers (LOG-04).

mod bound_tokens;
mod incidents;
mod metrics;

use std::time::Duration;

use http::Method;
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use reqwest::Identity;
use serde_json::json;

use crate::support::{
    ACME, Actor, Authority, SERVICE, TestApp, events, eventually, incident,
    mtls::{JOB, MtlsSetup, PROMETHEUS, dns, uri},
};

#[tokio::test]
async fn authn_18_connections_need_a_valid_client_certificate() {
    let setup = MtlsSetup::internal(&SERVICE, "notes:read", &[]).await;
    let address = setup.app.internal.unwrap();
    assert!(setup.job().can_connect().await);
    assert!(!setup.client_at(address, None, None).can_connect().await, "without a certificate");
    assert!(!Actor::new(address, None).can_connect().await, "in plain text");
    let stranger = Authority::new().sign_for([uri(JOB)]);
    assert!(!setup.client(&stranger, None).can_connect().await, "of another authority");
    let expired = setup.authority.sign_with([uri(JOB)], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    assert!(!setup.client(&expired, None).can_connect().await, "expired");
    let server = setup.authority.sign_with([uri(JOB)], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert!(!setup.client(&server, None).can_connect().await, "a server certificate");
    // TLS 1.2 is refused.
    let certificate = setup.authority.sign_for([uri(JOB)]);
    let old = setup.authority.client(address).tls_version_max(reqwest::tls::Version::TLS_1_2);
    let old = old.identity(Identity::from_pem(format!("{}{}", certificate.0, certificate.1).as_bytes()).unwrap());
    assert!(!Actor::over_tls(old.build().unwrap(), address.port(), None).can_connect().await, "TLS 1.2");
}

/// A client that tries certificates is visible, although it never gets to send a request.
#[tokio::test]
async fn log_01_connections_without_a_valid_client_certificate_are_events() {
    let setup = MtlsSetup::internal(&SERVICE, "notes:read", &[]).await;
    let address = setup.app.internal.unwrap();
    let stranger = Authority::new().sign_for([uri(JOB)]);
    let stranger = Identity::from_pem(format!("{}{}", stranger.0, stranger.1).as_bytes()).unwrap();
    for (last, identity, reason) in [(1, None, "certificate_missing"), (2, Some(stranger), "certificate_untrusted")] {
        let source = std::net::Ipv4Addr::new(127, 0, 18, last);
        let client = setup.authority.client(address).local_address(std::net::IpAddr::V4(source));
        let client = identity.into_iter().fold(client, reqwest::ClientBuilder::identity);
        assert!(!Actor::over_tls(client.build().unwrap(), address.port(), None).can_connect().await, "{reason}");
        let is_reported = || {
            let events = events::for_trace_id("").into_iter();
            let mut of_source = events.filter(|event| event.get("source") == Some(&source.to_string()));
            of_source.any(|event| event["event"] == "authn_token_invalid" && event["reason"] == reason)
        };
        eventually(reason, async || is_reported()).await;
    }
    let page = setup.service([dns(PROMETHEUS)]).get("/metrics").await.text;
    let counted =
        |result: &str| page.contains(&format!("authentications_total{{credential=\"certificate\",result=\"{result}\""));
    assert!(counted("missing") && counted("rejected"), "{page}");
}

/// The alert `CertificatesRefused` counts them.
#[tokio::test]
async fn log_01_refused_certificates_are_counted_whatever_the_request() {
    let setup = MtlsSetup::internal(&SERVICE, "notes:read", &[]).await;
    let prometheus = setup.service([dns(PROMETHEUS)]);
    let rejected = async || {
        let page = prometheus.get("/metrics").await.text;
        let label = "authentications_total{credential=\"certificate\",result=\"rejected\"";
        let line = page.lines().find(|line| line.starts_with(label));
        line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
    };
    let certificate = setup.authority.sign_for([uri("spiffe://acme.example/other")]);
    for path in ["/v1/me", "/metrics", "/incidents"] {
        for token in [None, Some("x".into()), Some(setup.app.forge().token())] {
            let before = rejected().await;
            // Tokens have no use here but for operations.
            let status = if token.is_some() && path != "/v1/me" { 400 } else { 401 };
            setup.client(&certificate, token).get(path).await.problem(status);
            assert!(rejected().await > before, "{path}");
        }
    }
}

#[tokio::test]
async fn authn_18_caller_is_the_service_named_in_the_certificate() {
    let setup = MtlsSetup::internal(&SERVICE, "notes:read", &[]).await;
    let expected = json!({
        "subject": "service:job", "clientId": "service:job", "kind": "service",
        "tenantId": ACME.id.to_string(), "roles": ["service"], "scopes": ["notes:read"],
    });
    assert_eq!(setup.job().get("/v1/me").await.ok(200), expected);
    setup.service([dns("elsewhere.example"), uri(JOB)]).get("/v1/notes").await.ok(200);
    assert_eq!(setup.job().get("/v1/audit-events").await.problem(403), "insufficient_scope");
    // A service without a tenant cannot call operations of the API.
    let reply = setup.service([dns("PROMETHEUS.acme.example")]).get("/v1/me").await;
    assert_eq!(reply.problem(401), "unauthenticated");
    assert_eq!(reply.event("authn_token_invalid")["reason"], "tenant");
    // Names of no service, and of two.
    let invalid_names: [Vec<SanType>; 6] = [
        vec![uri("spiffe://acme.example/job/"), uri("spiffe://ACME.example/job")],
        vec![uri("spiffe://acme.example/other")],
        vec![dns("job")],
        vec![dns("*.acme.example")],
        vec![uri(JOB), dns(PROMETHEUS)],
        vec![],
    ];
    for names in invalid_names {
        for path in ["/v1/me", "/metrics"] {
            let reply = setup.service(names.clone()).get(path).await;
            assert_eq!(reply.problem(401), "unauthenticated", "{names:?}");
            assert_eq!(reply.events()[0]["reason"], "certificate", "{names:?}");
        }
        // A token does not help.
        let certificate = setup.authority.sign_for(names);
        let user = setup.app.forge().token();
        for path in ["/v1/me", "/metrics"] {
            let status = if path == "/v1/me" { 401 } else { 400 };
            setup.client(&certificate, Some(user.clone())).get(path).await.problem(status);
        }
    }
    // Revocations would expire before a certificate with such a long lifetime.
    let long_lived =
        setup.authority.sign_with([uri(JOB)], |params| params.not_after = rcgen::date_time_ymd(2099, 1, 1));
    let reply = setup.client(&long_lived, None).get("/v1/me").await;
    assert_eq!((reply.problem(401), &*reply.events()[0]["reason"]), ("unauthenticated", "lifetime"));
    // With a token, the caller is its user: the service relays a request.
    let certificate = setup.authority.sign_for([uri(JOB)]);
    let me = setup.client(&certificate, Some(setup.app.forge().token())).get("/v1/me").await.ok(200);
    assert_eq!(me["kind"], "user");
    // A token cannot claim the name of a service.
    let forged = setup.app.forge().claim("sub", "service:job").token();
    setup.app.bearer(forged).get("/v1/me").await.problem(401);
}

#[tokio::test]
async fn authn_18_open_connections_lose_their_rights_when_the_certificate_expires() {
    let setup = MtlsSetup::internal(&SERVICE, "notes:read", &[]).await;
    let soon = std::time::SystemTime::from(setup.app.clock.now()) + Duration::from_hours(1);
    let job = setup.authority.sign_with([uri(JOB)], |params| params.not_after = soon.into());
    let job = setup.client(&job, None);
    job.get("/v1/me").await.ok(200);
    setup.app.clock.advance(Duration::from_secs(3_700));
    let reply = job.get("/v1/me").await;
    assert_eq!((reply.problem(401), &*reply.events()[0]["reason"]), ("unauthenticated", "expired"));
    job.get("/metrics").await.problem(401);
}

#[tokio::test]
async fn authn_11_services_are_revoked_by_name() {
    let setup = MtlsSetup::internal(&SERVICE, "notes:read", &[]).await;
    let job = setup.job();
    let prometheus = setup.service([dns(PROMETHEUS)]);
    job.get("/v1/me").await.ok(200);
    for (subject, actor, path) in [("Service:Job", &job, "/v1/me"), ("service:prometheus", &prometheus, "/metrics")] {
        incident(&SERVICE, &setup.app.database, &["revoke", "subject", subject]);
        eventually("rejected", async || actor.get(path).await.status == 401).await;
    }
    // A revoked service cannot relay requests with a user's token.
    let certificate = setup.authority.sign_for([uri(JOB)]);
    let relayed = setup.client(&certificate, Some(setup.app.forge().token())).get("/v1/me").await;
    assert_eq!((relayed.problem(401), &*relayed.events()[0]["event"]), ("unauthenticated", "authn_token_reuse"));
}

#[tokio::test]
async fn authn_18_client_authorities_change_without_a_restart() {
    let setup = MtlsSetup::internal(&SERVICE, "notes:read", &[]).await;
    let old = setup.authority.sign_for([uri(JOB)]);
    let next = Authority::new();
    let open = setup.client(&old, None);
    open.get("/v1/me").await.ok(200);
    let new = next.sign_for([uri(JOB)]);
    assert!(!setup.client(&new, None).can_connect().await);
    setup.roots.write(&next.root, "");
    eventually("the new authority is trusted", async || setup.client(&new, None).can_connect().await).await;
    assert!(!setup.client(&old, None).can_connect().await, "of the previous authority");
    // Open connections stay.
    open.get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn secret_03_invalid_internal_listener_settings_are_rejected() {
    let database = SERVICE.database().await;
    let faults = |variables: &[(&str, &str)]| {
        let mut all = TestApp::variables(&database, "http://127.0.0.1:9");
        all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        sample::app().read_settings(all).err().map(|faults| faults.to_string()).unwrap_or_default()
    };
    let complete = [
        ("APP_INTERNAL__LISTEN", "0.0.0.0:8443"),
        ("APP_INTERNAL__CERTIFICATE_PATH", "c.pem"),
        ("APP_INTERNAL__KEY_PATH", "k.pem"),
        ("APP_INTERNAL__CLIENT_CA_PATH", "r.pem"),
        ("APP_INTERNAL__SERVICES__JOB__CERTIFICATE_NAME", JOB),
    ];
    assert_eq!(faults(&complete), "");
    for omitted in 0..complete.len() {
        let rest: Vec<_> =
            complete.iter().copied().enumerate().filter(|(at, _)| *at != omitted).map(|(_, v)| v).collect();
        let expected = if omitted == 4 { "APP_INTERNAL__SERVICES" } else { complete[omitted].0 };
        assert!(faults(&rest).contains(expected), "{omitted}: {}", faults(&rest));
    }
    for (name, value, setting) in [
        ("APP_INTERNAL__SERVICES__JOB__CERTIFICATE_NAME", "job", "CERTIFICATE_NAME"),
        ("APP_INTERNAL__SERVICES__JOB__CERTIFICATE_NAME", "dns:*.example", "CERTIFICATE_NAME"),
        ("APP_INTERNAL__SERVICES__JOB__RIGHTS", "everything", "RIGHTS"),
        ("APP_INTERNAL__SERVICES__JOB__SCOPES", "notes:read", "TENANT"),
        ("APP_INTERNAL__SERVICES__JOB__SCOPES", "notes:everything", "SCOPES: unknown scope"),
        ("APP_INTERNAL__SERVICES__OTHER__CERTIFICATE_NAME", JOB, "SERVICES"),
        ("APP_INTERNAL__SERVICES__JOB__COLOUR", "red", "COLOUR"),
    ] {
        let faults = faults(&[&complete[..], &[(name, value)]].concat());
        assert!(faults.contains(setting), "{name}={value}: {faults}");
    }
    assert!(faults(&[("APP_OIDC__REQUIRE_BOUND_TOKENS", "true")]).contains("APP_OIDC__REQUIRE_BOUND_TOKENS"));
    assert_eq!(faults(&[&complete[..], &[("APP_OIDC__REQUIRE_BOUND_TOKENS", "true")]].concat()), "");
}

#[tokio::test]
async fn log_04_only_internal_services_set_the_trace_id() {
    let setup = MtlsSetup::internal(&SERVICE, "notes:read", &[]).await;
    let trace_id = "0af7651916cd43dd8448eb211c80319c";
    let span = "b7ad6b7169203331";
    let parent = format!("00-{trace_id}-{span}-01");
    let anonymous = setup.app.anonymous();
    let request = anonymous.request(Method::GET, "/v1/me").header("traceparent", &parent);
    assert_ne!(anonymous.send(request).await.header("x-request-id"), Some(trace_id));
    let service = setup.job();
    let trace_id_of = async |parents: &[&str]| {
        let mut request = service.request(Method::GET, "/v1/me");
        for parent in parents {
            request = request.header("traceparent", *parent);
        }
        service.send(request).await.header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(trace_id_of(&[&parent]).await, trace_id);
    let nil = format!("00-{}-{span}-01", "0".repeat(32));
    for headers in [&[parent.as_str(), &parent][..], &["00-xyz"], &[&nil], &[]] {
        let new = trace_id_of(headers).await;
        assert!(new != trace_id && new.len() == 32 && new != "0".repeat(32), "{headers:?}: {new}");
    }
}
