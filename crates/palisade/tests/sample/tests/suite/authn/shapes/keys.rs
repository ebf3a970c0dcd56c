//! Where an issuer's keys are, and which algorithms sign (AUTHN-02, AUTHN-03, AUTHN-04).

use serde_json::json;

use super::{Shape, changed};
use crate::support::{
    ACME, Authority, GLOBEX, MisbehavingIssuer, PemFiles, SERVICE, TestKey, TlsFront, UNTHROTTLED,
    authn::reject_reason, eventually,
};

#[tokio::test]
async fn authn_03_further_algorithms_need_a_setting() {
    let mut ed25519 = TestKey::eddsa("f");
    ed25519.alg = "Ed25519";
    let keys = [
        TestKey::es384("a"),
        TestKey::rsa("b", "RS384"),
        TestKey::rsa("c", "RS512"),
        TestKey::rsa("d", "PS384"),
        TestKey::rsa("e", "PS512"),
        ed25519,
    ];
    let issuer = MisbehavingIssuer::with_keys(&SERVICE, &keys.each_ref()).await;
    let strict = issuer.app(&UNTHROTTLED).await;
    let all = [UNTHROTTLED.as_slice(), &[("APP_OIDC__ALGORITHMS", "ES384, RS384, RS512, PS384, PS512, Ed25519")]];
    let relaxed = issuer.app(&all.concat()).await;
    for app in [&strict, &relaxed] {
        app.wait_until_ready().await;
    }
    let now = relaxed.clock.timestamp();
    for key in &keys {
        relaxed.bearer(issuer.token(key, now)).get("/v1/me").await.ok(200);
        let refused = strict.bearer(issuer.token(key, now)).get("/v1/me").await;
        assert_eq!(reject_reason(&refused), "algorithm", "{}", key.alg);
    }
    // The list replaces the default one.
    let eddsa = json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": "f" }).to_string();
    let token = keys[5].sign_text(&eddsa, &issuer.claims(now).to_string());
    assert_eq!(reject_reason(&relaxed.bearer(token).get("/v1/me").await), "algorithm");
    // EdDSA and Ed25519 are names of one algorithm (RFC 9864).
    let ed25519 = json!({ "alg": "Ed25519", "typ": "at+jwt", "kid": "g" }).to_string();
    let key = TestKey::eddsa("g");
    issuer.publish(&[&key]);
    let token = key.sign_text(&ed25519, &issuer.claims(now).to_string());
    eventually("the key is fetched", async || relaxed.bearer(token.clone()).get("/v1/me").await.status == 200).await;
}

/// The issuer of tokens is reached at another address than its name.
#[tokio::test]
async fn authn_04_issuer_has_another_address_than_its_name() {
    let key = TestKey::es256("a");
    let mut issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&key]).await;
    let reachable = std::mem::replace(&mut issuer.url, "https://login.example.com/realms/x".to_owned());
    issuer.set_metadata("issuer", issuer.url.as_str());
    let discovery = format!("{reachable}/.well-known/openid-configuration");
    let keys = format!("{reachable}/keys");
    for setting in [("APP_OIDC__DISCOVERY_URL", discovery.as_str()), ("APP_OIDC__JWKS_URL", keys.as_str())] {
        let app = issuer.app(&[&UNTHROTTLED[..], &[setting]].concat()).await;
        app.wait_until_ready().await;
        let me = async |iss: &str| {
            let claims = changed(issuer.claims(app.clock.timestamp()), &json!({ "iss": iss }));
            let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": "a" }).to_string();
            app.bearer(key.sign_text(&header, &claims.to_string())).get("/v1/me").await
        };
        me(&issuer.url).await.ok(200);
        for other in [reachable.as_str(), "https://login.example.com/realms/x/", "https://login.example.com/realms/y"] {
            assert_eq!(reject_reason(&me(other).await), "issuer", "{setting:?} {other}");
        }
    }
}

/// One issuer of many directories, which share its keys, as Entra ID is for multi-tenant
/// applications.
#[tokio::test]
async fn authn_04_templated_issuer_is_bound_to_its_tenants() {
    let key = TestKey::rs256("a");
    let of_directory = TestKey::rs256("b");
    let mut issuer = MisbehavingIssuer::with_keys(&SERVICE, &[]).await;
    let base = issuer.url.clone();
    let [acme, globex] = [&ACME, &GLOBEX].map(|tenant| tenant.id.to_string());
    let of = |tenant: &str| format!("{base}/{tenant}/v2.0");
    issuer.set_metadata("issuer", format!("{base}/{{tenantid}}/v2.0"));
    let mut shared = key.jwk();
    shared["issuer"] = json!(format!("{base}/{{tenantid}}/v2.0"));
    let mut single = of_directory.jwk();
    single["issuer"] = json!(of(&globex));
    issuer.publish_raw(json!({ "keys": [shared, single] }));
    issuer.url = format!("{base}/{{tid}}/v2.0");
    let discovery = format!("{base}/.well-known/openid-configuration");
    let settings =
        [("APP_OIDC__DISCOVERY_URL", &*discovery), ("APP_OIDC__TENANT_CLAIM", "tid"), ("APP_OIDC__TENANTS", &acme)];
    let app = issuer.app(&[&UNTHROTTLED[..], &settings].concat()).await;
    app.wait_until_ready().await;
    let me = async |key: &TestKey, iss: &str, tid: &str| {
        let claims = changed(issuer.claims(app.clock.timestamp()), &json!({ "iss": iss, "tid": tid }));
        let header = json!({ "alg": "RS256", "typ": "at+jwt", "kid": key.id }).to_string();
        app.bearer(key.sign_text(&header, &claims.to_string())).get("/v1/me").await
    };
    assert_eq!(me(&key, &of(&acme), &acme).await.ok(200)["tenantId"], acme);
    assert_eq!(reject_reason(&me(&key, &of(&globex), &globex).await), "tenant");
    // A key of one directory signs for no other.
    assert_eq!(reject_reason(&me(&of_directory, &of(&acme), &acme).await), "unknown_key");
    for (iss, tid) in [
        (of(&globex), &*acme),
        (of(&acme), &*globex),
        (of(""), ""),
        (format!("{base}/{{tid}}/v2.0"), &*acme),
        (format!("{base}/x/{acme}/v2.0"), &*acme),
        (format!("https://evil.example/{acme}/v2.0"), &*acme),
    ] {
        assert_eq!(reject_reason(&me(&key, &iss, tid).await), "issuer", "{iss} {tid}");
    }
}

#[tokio::test]
async fn authn_02_issuer_behind_a_private_authority_needs_its_certificate() {
    let authority = Authority::new();
    let shape = Shape::new(&[]).await;
    let server = shape.issuer.url.trim_start_matches("http://").parse().unwrap();
    let front = TlsFront::start(server, authority.sign()).await;
    let root = PemFiles::new((authority.root.clone(), String::new()));
    let other = PemFiles::new((Authority::new().root, String::new()));
    let keys = format!("https://localhost:{}/keys", front.address.port());
    for (file, is_trusted) in [(&root, true), (&other, false)] {
        let file = file.certificate();
        let settings = [("APP_OIDC__JWKS_URL", keys.as_str()), ("APP_OIDC__CA_PATH", file.to_str().unwrap())];
        let before = shape.issuer.key_requests();
        let app = shape.issuer.app(&settings).await;
        if is_trusted {
            app.wait_until_ready().await;
        } else {
            // The call waits for a fetch of the keys, which fails.
            let token = shape.issuer.token(&shape.key, app.clock.timestamp());
            assert_eq!(app.bearer(token).get("/v1/me").await.problem(503), "unavailable");
            assert_eq!(app.anonymous().get("/health/ready").await.problem(503), "unavailable");
            assert_eq!(shape.issuer.key_requests(), before);
        }
    }
}

/// A document of the issuer must not make the service call any other host.
#[tokio::test]
async fn input_12_keys_at_another_host_need_a_setting() {
    let key = TestKey::es256("a");
    let elsewhere = MisbehavingIssuer::with_keys(&SERVICE, &[&key]).await;
    let issuer = MisbehavingIssuer::with_keys(&SERVICE, &[]).await;
    let keys = format!("{}/keys", elsewhere.url);
    issuer.set_metadata("jwks_uri", keys.as_str());
    let app = issuer.app(&[]).await;
    // The call waits for a fetch of the document, which is refused.
    assert_eq!(app.bearer(issuer.token(&key, app.clock.timestamp())).get("/v1/me").await.problem(503), "unavailable");
    assert!(issuer.discoveries() > 0);
    assert_eq!(elsewhere.key_requests(), 0, "the service called a host that the document names");
    let app = issuer.app(&[("APP_OIDC__JWKS_URL", &keys)]).await;
    app.wait_until_ready().await;
    app.bearer(issuer.token(&key, app.clock.timestamp())).get("/v1/me").await.ok(200);
}

/// In production no network is allowed by default; in development, loopback is.
#[tokio::test]
async fn input_12_addresses_that_are_not_public_need_a_setting() {
    let key = TestKey::es256("a");
    let issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&key]).await;
    let port = issuer.url.rsplit(':').next().unwrap();
    let by_name = format!("http://localhost:{port}/.well-known/openid-configuration");
    for url in [by_name, format!("{}/.well-known/openid-configuration", issuer.url)] {
        let variables = [("APP_OIDC__DISCOVERY_URL", url.as_str()), ("APP_OUTBOUND__ALLOWED_NETWORKS", "192.0.2.0/24")];
        let app = issuer.app(&variables).await;
        // The call waits for a fetch of the document, which is refused.
        assert_eq!(
            app.bearer(issuer.token(&key, app.clock.timestamp())).get("/v1/me").await.problem(503),
            "unavailable",
            "{url}"
        );
        assert_eq!(issuer.discoveries(), 0, "{url}: the service called a private address");
    }
}
