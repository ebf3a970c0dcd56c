//! The token controls (AUTHN-02 to AUTHN-09) with an independent OpenID provider: the npm package
//! `oidc-provider`, configured by `tests/interop/provider.mjs`.
//!
//! `TEST_INTEROP_ISSUER` and `TEST_INTEROP_SECRET`, the secret of its client `job`, run the test of
//! client credentials with another provider. `tests/interop/keycloak-realm.json` prepares Keycloak.

mod client;
mod provider;
mod sessions;

use std::{path::Path, sync::OnceLock};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use client::{Client, text};
use palisade::dev::issuer::SigningKey;
use provider::Provider;
use sample::access::scopes;
use serde_json::{Value, json};

use crate::support::{
    ACME, SERVICE, TestApp, UNTHROTTLED,
    authn::{assert_rejected, until_status},
    interop_provider, note_body,
};

/// All algorithms that the service accepts. The provider has a client for each.
const ALGORITHMS: [&str; 4] = ["RS256", "PS256", "ES256", "EdDSA"];

/// The service, and the provider that it trusts.
struct Setup {
    app: TestApp,
    provider: Provider,
}

impl Setup {
    /// A provider with these algorithms, and a service with these variables.
    async fn start(folder: &Path, algorithms: &[&str], variables: &[(&str, &str)]) -> Self {
        let provider = Provider::start(folder, algorithms);
        let app = start_app(&provider.issuer, variables).await;
        Self { app, provider }
    }

    /// The setup that tests without side effects share. `None` if the interop tests are skipped.
    fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Setup> = OnceLock::new();
        let folder = interop_provider::folder()?;
        Some(SHARED.get_or_init(|| {
            // A separate runtime outlives the test that comes first.
            let (sender, receiver) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    sender.send(Self::start(folder, &ALGORITHMS, &[]).await).unwrap();
                    std::future::pending::<()>().await;
                });
            });
            receiver.recv().expect("the shared setup starts")
        }))
    }

    /// An access token of the service client `job`.
    async fn job(&self, scope: &str) -> String {
        let client = Client::discover(&self.provider.issuer).await;
        client.client_credentials("job", &self.provider.secret, &[("scope", scope)]).await
    }
}

/// A service that trusts this issuer, when it is ready.
async fn start_app(issuer: &str, variables: &[(&str, &str)]) -> TestApp {
    let trust = [("APP_OIDC__ISSUER", issuer), ("APP_OIDC__SERVICE_CLIENTS", "job,job-ps256,job-es256,job-eddsa")];
    let app = SERVICE.start_with(&[&UNTHROTTLED[..], &trust, variables].concat()).await;
    app.wait_until_ready().await;
    app
}

/// The decoded header (0) or claims (1) of a token.
fn part(token: &str, index: usize) -> Value {
    let encoded = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap()
}

#[tokio::test]
async fn authn_02_interop_a_program_is_accepted_with_client_credentials() {
    let scope = [("scope", "notes:read notes:write")];
    if let Ok(issuer) = std::env::var("TEST_INTEROP_ISSUER") {
        let secret = std::env::var("TEST_INTEROP_SECRET").expect("TEST_INTEROP_SECRET is set");
        let token = Client::discover(&issuer).await.client_credentials("job", &secret, &scope).await;
        assert_is_job(&start_app(&issuer, &[]).await, &token).await;
    } else if let Some(setup) = Setup::shared() {
        let token = setup.job(scope[0].1).await;
        assert_is_job(&setup.app, &token).await;
    }
}

async fn assert_is_job(app: &TestApp, token: &str) {
    let job = app.bearer(token);
    let expected = json!({
        "subject": "job", "clientId": "job", "kind": "service",
        "tenantId": ACME.id.to_string(), "roles": ["service"], "scopes": ["notes:read", "notes:write"],
    });
    assert_eq!(job.get("/v1/me").await.ok(200), expected);
    job.get("/v1/notes").await.ok(200);
    assert_eq!(job.get("/v1/audit-events").await.problem(403), "insufficient_scope");
}

#[tokio::test]
async fn authn_02_interop_user_is_accepted_with_code_and_pkce() {
    let Some(Setup { app, provider }) = Setup::shared() else { return };
    let client = Client::discover(&provider.issuer).await;
    let tokens = client.sign_in("writer@acme.example", "openid notes:read notes:write").await;
    let writer = app.bearer(text(&tokens["access_token"]));
    let expected = json!({
        "subject": "writer@acme.example", "clientId": "web", "kind": "user",
        "tenantId": ACME.id.to_string(), "roles": ["writer"], "scopes": ["notes:read", "notes:write"],
    });
    assert_eq!(writer.get("/v1/me").await.ok(200), expected);
    writer.get("/v1/notes").await.ok(200);
    assert_eq!(writer.get("/v1/audit-events").await.problem(403), "insufficient_scope");

    // The scope alone does not permit a viewer to create notes.
    let tokens = client.sign_in("viewer@acme.example", "openid notes:write").await;
    let viewer = app.bearer(text(&tokens["access_token"]));
    assert_eq!(viewer.post("/v1/notes", &note_body("any", 1)).await.problem(403), "forbidden");
}

#[tokio::test]
async fn authn_02_interop_changed_tokens_are_rejected() {
    let Some(Setup { app, provider }) = Setup::shared() else { return };
    let tokens = Client::discover(&provider.issuer).await.sign_in("writer@acme.example", "openid notes:read").await;
    let good = text(&tokens["access_token"]);
    let parts: Vec<&str> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("{good}") };

    let mut escalated = part(&good, 1);
    escalated["roles"] = json!(["admin"]);
    let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let stranger = SigningKey::generate().unwrap();
    let kid = &part(&good, 0)["kid"];
    let mut cases = vec![
        ("changed claims", format!("{header}.{}.{signature}", encode(&escalated))),
        ("no signature", format!("{header}.{claims}.")),
        ("two parts", format!("{header}.{claims}")),
        ("a stranger's key", stranger.sign(&part(&good, 0), &escalated)),
        (
            "a stranger's key and algorithm",
            stranger.sign(&json!({ "alg": "ES256", "typ": "at+jwt", "kid": kid }), &escalated),
        ),
    ];
    for alg in ["none", "None", "NONE"] {
        let header = encode(&json!({ "alg": alg, "typ": "at+jwt", "kid": kid }));
        cases.push((alg, format!("{header}.{}.", encode(&escalated))));
        cases.push((alg, format!("{header}.{}.{signature}", encode(&escalated))));
    }
    let other = Provider::start(interop_provider::folder().unwrap(), &["ES256"]);
    let client = Client::discover(&other.issuer).await;
    let foreign = client.client_credentials("job", &other.secret, &[("scope", "notes:read")]).await;
    cases.push(("another issuer", foreign));
    // Each character of the token is replaced in turn.
    for (at, character) in good.char_indices().filter(|(_, character)| *character != '.') {
        let other = if character == 'A' { "B" } else { "A" };
        cases.push(("a changed character", format!("{}{other}{}", &good[..at], &good[at + 1..])));
    }

    let anonymous = app.anonymous();
    let request = |token: &str| anonymous.request(http::Method::GET, "/v1/me").bearer_auth(token);
    let expected = anonymous.send(request("no.token.at-all")).await;
    assert_rejected(&expected, "no token at all");
    for (case, token) in cases {
        let reply = anonymous.send(request(&token)).await;
        assert_eq!(reply.comparable(), expected.comparable(), "{case}: {token}");
    }
    anonymous.send(request(&good)).await.ok(200);
}

#[tokio::test]
async fn authn_03_interop_listed_algorithms_are_accepted() {
    let Some(Setup { app, provider }) = Setup::shared() else { return };
    let client = Client::discover(&provider.issuer).await;
    for (index, alg) in ALGORITHMS.into_iter().enumerate() {
        let id = if index == 0 { "job".to_owned() } else { format!("job-{}", alg.to_lowercase()) };
        let token = client.client_credentials(&id, &provider.secret, &[("scope", "notes:read")]).await;
        assert_eq!(part(&token, 0)["alg"], alg);
        let me = app.bearer(token).get("/v1/me").await.ok(200);
        assert_eq!((&me["clientId"], &me["kind"]), (&json!(id), &json!("service")), "{alg}");
    }
}

#[tokio::test]
async fn authn_05_interop_tokens_for_another_api_are_rejected() {
    let Some(Setup { app, provider }) = Setup::shared() else { return };
    let client = Client::discover(&provider.issuer).await;
    for (audience, accepted) in [("api://under-test", true), ("api://another", false), ("api://under-test/v1", false)] {
        let parameters = [("scope", "notes:read"), ("resource", audience)];
        let token = client.client_credentials("job", &provider.secret, &parameters).await;
        assert_eq!(part(&token, 1)["aud"], audience);
        let reply = app.bearer(token).get("/v1/me").await;
        if accepted {
            reply.ok(200);
        } else {
            assert_rejected(&reply, audience);
        }
    }
}

#[tokio::test]
async fn authn_07_interop_id_and_refresh_tokens_are_rejected() {
    let Some(Setup { app, provider }) = Setup::shared() else { return };
    let client = Client::discover(&provider.issuer).await;
    let tokens = client.sign_in("admin@acme.example", "openid offline_access notes:read").await;
    assert_eq!(part(&text(&tokens["id_token"]), 1)["sub"], "admin@acme.example");
    for name in ["id_token", "refresh_token"] {
        assert_rejected(&app.bearer(text(&tokens[name])).get("/v1/me").await, name);
    }
    app.bearer(text(&tokens["access_token"])).get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn authn_09_interop_keys_rotate_without_a_restart() {
    let Some(folder) = interop_provider::folder() else { return };
    let mut setup = Setup::start(folder, &["ES256"], &[("APP_OIDC__REFRESH_SECONDS", "1")]).await;
    let old = setup.job("notes:read").await;
    let with_old_key = setup.app.bearer(&*old);
    with_old_key.get("/v1/me").await.ok(200);

    setup.provider.rotate();
    let new = setup.job("notes:read").await;
    assert_ne!(part(&new, 0)["kid"], part(&old, 0)["kid"]);
    let with_new_key = setup.app.bearer(new);
    // The unknown key id makes the service fetch the keys at once.
    with_new_key.get("/v1/me").await.ok(200);
    with_old_key.get("/v1/me").await.ok(200);

    setup.provider.withdraw();
    until_status(&with_old_key, 401).await;
    assert_rejected(&with_old_key.get("/v1/me").await, "a withdrawn key, though the token was cached");
    with_new_key.get("/v1/me").await.ok(200);
}

/// The independent provider behaves as the development issuer, which has the same test.
#[tokio::test]
async fn interop_refresh_token_reuse_ends_the_family() {
    let Some(Setup { app, provider }) = Setup::shared() else { return };
    let client = Client::discover(&provider.issuer).await;
    let first = client.sign_in("writer@acme.example", "openid offline_access notes:read").await;
    let old = text(&first["refresh_token"]);
    let (status, second) = client.refresh(&old).await;
    assert_eq!(status, 200, "{second}");
    let new = text(&second["refresh_token"]);
    assert_ne!(new, old);
    app.bearer(text(&second["access_token"])).get("/v1/notes").await.ok(200);
    let (status, reused) = client.refresh(&old).await;
    assert_eq!((status, &reused["error"]), (400, &json!("invalid_grant")));
    assert_eq!(client.refresh(&new).await.0, 400, "the successor ends with its family");
}

/// CI runs Keycloak with this realm; here its settings are compared with the service.
#[test]
fn keycloak_realm_matches_the_service() {
    let realm: Value = serde_json::from_str(include_str!("../../interop/keycloak-realm.json")).unwrap();
    let scopes: Vec<Value> = scopes::ALL.into_iter().map(|scope| json!(scope.as_str())).collect();
    let offered: Vec<Value> = realm["clientScopes"].as_array().unwrap().iter().map(|s| s["name"].clone()).collect();
    let job = &realm["clients"][0];
    assert_eq!((&offered, &job["optionalClientScopes"]), (&scopes, &json!(scopes)));
    assert!(realm["accessTokenLifespan"].as_i64().unwrap() <= 900);
    // The subject of a service is its client id (RFC 9068 section 2.2); Keycloak defaults to the id
    // of a user.
    let hard_coded = |claim: &str| {
        let mappers = job["protocolMappers"].as_array().unwrap();
        mappers.iter().find(|m| m["config"]["claim.name"] == claim).unwrap()["config"]["claim.value"].clone()
    };
    assert_eq!([hard_coded("sub"), hard_coded("client_id")], [job["clientId"].clone(), job["clientId"].clone()]);
    assert_eq!(hard_coded("tenant_id"), ACME.id.to_string());
    assert_eq!(job["protocolMappers"][0]["config"]["included.custom.audience"], "api://under-test");
    assert_eq!(job["attributes"]["access.token.header.type.rfc9068"], "true");
}
