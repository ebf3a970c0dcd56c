//! The same controls with tokens of an OpenID provider that nobody here wrote: the npm package `oidc-provider`,
//! set up by `tests/interop/provider.mjs`. What its author and the authors of this service both understand is
//! more likely what the standards mean.
//!
//! `TEST_INTEROP_ISSUER`, with the secret of its client `job` in `TEST_INTEROP_SECRET`, takes the test of client
//! credentials to yet another provider; `tests/interop/keycloak-realm.json` prepares Keycloak for it.

mod client;
mod install;
mod provider;

use std::{path::Path, sync::OnceLock};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use service::{authz::matrix::Scope, dev::issuer::SigningKey};

use crate::{
    authn::assert_refused,
    support::{ACME, TestApp, UNTHROTTLED, eventually},
};
use client::{Client, text};
pub use install::begin;
use provider::Provider;

/// All that the service allows. The provider has a client for each.
const ALGORITHMS: [&str; 4] = ["RS256", "PS256", "ES256", "EdDSA"];

/// The service, and the provider that it trusts.
struct Stage {
    app: TestApp,
    provider: Provider,
}

impl Stage {
    /// Signing with these algorithms; with some variables of the service set otherwise.
    async fn start(folder: &Path, algorithms: &[&str], variables: &[(&str, &str)]) -> Self {
        let provider = Provider::start(folder, algorithms);
        let app = trusting(&provider.issuer, variables).await;
        Self { app, provider }
    }

    /// One for all the tests that leave nothing behind which another could notice; `None` if the interop tests
    /// are left out.
    fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Stage> = OnceLock::new();
        let folder = install::folder()?;
        Some(SHARED.get_or_init(|| {
            // On a runtime of its own, which outlives the test that happens to be first.
            let (sender, receiver) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    sender.send(Self::start(folder, &ALGORITHMS, &[]).await).unwrap();
                    std::future::pending::<()>().await;
                });
            });
            receiver.recv().expect("the shared stage starts")
        }))
    }

    /// An access token of the program `job`.
    async fn job(&self, scope: &str) -> String {
        let client = Client::of(&self.provider.issuer).await;
        client.client_credentials("job", &self.provider.secret, &[("scope", scope)]).await
    }
}

/// The service, ready to take the tokens of this issuer.
async fn trusting(issuer: &str, variables: &[(&str, &str)]) -> TestApp {
    let own = [("APP_OIDC__ISSUER", issuer), ("APP_OIDC__SERVICE_CLIENTS", "job,job-ps256,job-es256,job-eddsa")];
    let app = TestApp::start_with(&[&UNTHROTTLED[..], &own, variables].concat()).await;
    app.wait_until_ready().await;
    app
}

/// A part of a token, read.
fn part(token: &str, index: usize) -> Value {
    let encoded = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap()
}

#[tokio::test]
async fn authn_02_interop_a_program_is_let_in_with_client_credentials() {
    let scope = [("scope", "orders:read orders:write")];
    if let Ok(issuer) = std::env::var("TEST_INTEROP_ISSUER") {
        let secret = std::env::var("TEST_INTEROP_SECRET").expect("TEST_INTEROP_SECRET is the client's");
        let token = Client::of(&issuer).await.client_credentials("job", &secret, &scope).await;
        assert_is_job(&trusting(&issuer, &[]).await, &token).await;
    } else if let Some(stage) = Stage::shared() {
        let token = stage.job(scope[0].1).await;
        assert_is_job(&stage.app, &token).await;
    }
}

async fn assert_is_job(app: &TestApp, token: &str) {
    let job = app.bearer(token);
    let expected = json!({
        "subject": "job", "clientId": "job", "kind": "service",
        "tenantId": ACME.id.to_string(), "roles": ["service"], "scopes": ["orders:read", "orders:write"],
    });
    assert_eq!(job.get("/v1/me").await.ok(200), expected);
    job.get("/v1/orders").await.ok(200);
    assert_eq!(job.get("/v1/products").await.problem(403), "insufficient_scope");
}

#[tokio::test]
async fn authn_02_interop_a_person_is_let_in_with_code_and_pkce() {
    let Some(Stage { app, provider }) = Stage::shared() else { return };
    let client = Client::of(&provider.issuer).await;
    let tokens = client.sign_in("sales@acme.example", "openid orders:read orders:write").await;
    let sales = app.bearer(text(&tokens["access_token"]));
    let expected = json!({
        "subject": "sales@acme.example", "clientId": "web", "kind": "user",
        "tenantId": ACME.id.to_string(), "roles": ["sales"], "scopes": ["orders:read", "orders:write"],
    });
    assert_eq!(sales.get("/v1/me").await.ok(200), expected);
    sales.get("/v1/orders").await.ok(200);
    assert_eq!(sales.get("/v1/products").await.problem(403), "insufficient_scope");

    // Who may not place orders does not by having the scope.
    let tokens = client.sign_in("viewer@acme.example", "openid orders:write").await;
    let viewer = app.bearer(text(&tokens["access_token"]));
    let order = json!({ "lines": [{ "sku": "any", "quantity": 1 }], "shippingSpeed": "standard" });
    assert_eq!(viewer.post("/v1/orders", &order).await.problem(403), "forbidden");
}

#[tokio::test]
async fn authn_02_interop_a_changed_token_is_refused_whatever_was_changed() {
    let Some(Stage { app, provider }) = Stage::shared() else { return };
    let tokens = Client::of(&provider.issuer).await.sign_in("sales@acme.example", "openid orders:read").await;
    let good = text(&tokens["access_token"]);
    let parts: Vec<&str> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("{good}") };

    let mut promoted = part(&good, 1);
    promoted["roles"] = json!(["admin"]);
    let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let stranger = SigningKey::generate().unwrap();
    let kid = &part(&good, 0)["kid"];
    let mut cases = vec![
        ("changed claims", format!("{header}.{}.{signature}", encode(&promoted))),
        ("no signature", format!("{header}.{claims}.")),
        ("two parts", format!("{header}.{claims}")),
        ("a stranger's key", stranger.sign(&part(&good, 0), &promoted)),
        (
            "a stranger's key and algorithm",
            stranger.sign(&json!({ "alg": "ES256", "typ": "at+jwt", "kid": kid }), &promoted),
        ),
    ];
    for alg in ["none", "None", "NONE"] {
        let header = encode(&json!({ "alg": alg, "typ": "at+jwt", "kid": kid }));
        cases.push((alg, format!("{header}.{}.", encode(&promoted))));
        cases.push((alg, format!("{header}.{}.{signature}", encode(&promoted))));
    }
    let other = Provider::start(install::folder().unwrap(), &["ES256"]);
    let client = Client::of(&other.issuer).await;
    let foreign = client.client_credentials("job", &other.secret, &[("scope", "orders:read")]).await;
    cases.push(("another issuer's", foreign));
    // Each letter of it, replaced by another one of the alphabet.
    for (at, letter) in good.char_indices().filter(|(_, letter)| *letter != '.') {
        let other = if letter == 'A' { "B" } else { "A" };
        cases.push(("a letter", format!("{}{other}{}", &good[..at], &good[at + 1..])));
    }

    let caller = app.anonymous();
    let send = |token: &str| caller.request(http::Method::GET, "/v1/me").bearer_auth(token);
    let expected = caller.send(send("no.token.at-all")).await;
    assert_refused(&expected, "no token at all");
    for (case, token) in cases {
        let reply = caller.send(send(&token)).await;
        assert_eq!(reply.comparable(), expected.comparable(), "{case}: {token}");
    }
    caller.send(send(&good)).await.ok(200);
}

#[tokio::test]
async fn authn_03_interop_each_algorithm_of_the_list_is_accepted() {
    let Some(Stage { app, provider }) = Stage::shared() else { return };
    let client = Client::of(&provider.issuer).await;
    for (index, alg) in ALGORITHMS.into_iter().enumerate() {
        let id = if index == 0 { "job".to_owned() } else { format!("job-{}", alg.to_lowercase()) };
        let token = client.client_credentials(&id, &provider.secret, &[("scope", "orders:read")]).await;
        assert_eq!(part(&token, 0)["alg"], alg);
        let me = app.bearer(token).get("/v1/me").await.ok(200);
        assert_eq!((&me["clientId"], &me["kind"]), (&json!(id), &json!("service")), "{alg}");
    }
}

#[tokio::test]
async fn authn_05_interop_a_token_for_another_api_is_refused() {
    let Some(Stage { app, provider }) = Stage::shared() else { return };
    let client = Client::of(&provider.issuer).await;
    for (audience, accepted) in [("api://under-test", true), ("api://another", false), ("api://under-test/v1", false)] {
        let parameters = [("scope", "orders:read"), ("resource", audience)];
        let token = client.client_credentials("job", &provider.secret, &parameters).await;
        assert_eq!(part(&token, 1)["aud"], audience);
        let reply = app.bearer(token).get("/v1/me").await;
        if accepted {
            reply.ok(200);
        } else {
            assert_refused(&reply, audience);
        }
    }
}

#[tokio::test]
async fn authn_07_interop_an_id_token_and_a_refresh_token_open_nothing() {
    let Some(Stage { app, provider }) = Stage::shared() else { return };
    let client = Client::of(&provider.issuer).await;
    let tokens = client.sign_in("admin@acme.example", "openid offline_access orders:read").await;
    assert_eq!(part(&text(&tokens["id_token"]), 1)["sub"], "admin@acme.example");
    for name in ["id_token", "refresh_token"] {
        assert_refused(&app.bearer(text(&tokens[name])).get("/v1/me").await, name);
    }
    app.bearer(text(&tokens["access_token"])).get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn authn_09_interop_keys_are_rotated_while_the_service_runs() {
    let Some(folder) = install::folder() else { return };
    let mut stage = Stage::start(folder, &["ES256"], &[("APP_OIDC__REFRESH_SECONDS", "1")]).await;
    let old = stage.job("orders:read").await;
    let with_old_key = stage.app.bearer(&*old);
    with_old_key.get("/v1/me").await.ok(200);

    stage.provider.rotate();
    let new = stage.job("orders:read").await;
    assert_ne!(part(&new, 0)["kid"], part(&old, 0)["kid"]);
    let with_new_key = stage.app.bearer(new);
    // At once: the key that nobody knows is what makes the service look.
    with_new_key.get("/v1/me").await.ok(200);
    with_old_key.get("/v1/me").await.ok(200);

    stage.provider.withdraw();
    eventually("a withdrawn key counts no more", async || with_old_key.get("/v1/me").await.status == 401).await;
    assert_refused(&with_old_key.get("/v1/me").await, "a withdrawn key, though the token was cached");
    with_new_key.get("/v1/me").await.ok(200);
}

/// Of the provider, not of the service: what the suite asks of an issuer, an issuer of others does too.
#[tokio::test]
async fn interop_refresh_rotates_and_reuse_ends_the_family() {
    let Some(Stage { app, provider }) = Stage::shared() else { return };
    let client = Client::of(&provider.issuer).await;
    let first = client.sign_in("sales@acme.example", "openid offline_access orders:read").await;
    let old = text(&first["refresh_token"]);
    let (status, second) = client.refresh(&old).await;
    assert_eq!(status, 200, "{second}");
    let new = text(&second["refresh_token"]);
    assert_ne!(new, old);
    app.bearer(text(&second["access_token"])).get("/v1/orders").await.ok(200);
    let (status, reused) = client.refresh(&old).await;
    assert_eq!((status, &reused["error"]), (400, &json!("invalid_grant")));
    assert_eq!(client.refresh(&new).await.0, 400, "the successor ends with its family");
}

/// Keycloak itself is met elsewhere; that its realm is for this service can be seen here.
#[test]
fn the_realm_of_keycloak_is_what_the_service_expects() {
    let realm: Value = serde_json::from_str(include_str!("../../interop/keycloak-realm.json")).unwrap();
    let scopes: Vec<Value> = Scope::ALL.into_iter().map(|scope| json!(scope.as_str())).collect();
    let offered: Vec<Value> = realm["clientScopes"].as_array().unwrap().iter().map(|s| s["name"].clone()).collect();
    let job = &realm["clients"][0];
    assert_eq!((&offered, &job["optionalClientScopes"]), (&scopes, &json!(scopes)));
    assert!(realm["accessTokenLifespan"].as_i64().unwrap() <= 900);
    // A program's subject is its client id (RFC 9068 section 2.2); Keycloak would say the id of a user it makes up.
    let hard_coded = |claim: &str| {
        let mappers = job["protocolMappers"].as_array().unwrap();
        mappers.iter().find(|m| m["config"]["claim.name"] == claim).unwrap()["config"]["claim.value"].clone()
    };
    assert_eq!([hard_coded("sub"), hard_coded("client_id")], [job["clientId"].clone(), job["clientId"].clone()]);
    assert_eq!(hard_coded("tenant_id"), ACME.id.to_string());
    assert_eq!(job["protocolMappers"][0]["config"]["included.custom.audience"], "api://under-test");
    assert_eq!(job["attributes"]["access.token.header.type.rfc9068"], "true");
}
