//! Several issuers, and claims that are not where RFC 9068 has them.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use service::authz::{matrix::Scope, policy::Role};

use crate::support::{ACME, GLOBEX, OddIssuer, Reply, TestApp, TestKey, eventually};

use super::keys::{EVERY_SECOND, until};

/// The reason in the event of a refusal.
pub(super) fn reason(reply: &Reply) -> String {
    reply.problem(401);
    reply.events()[0]["reason"].clone()
}

/// A service with a first issuer and a further one for Globex, called `partner`.
async fn two() -> (OddIssuer, OddIssuer, TestKey, TestKey, TestApp) {
    two_with("PARTNER").await
}

async fn two_with(name: &str) -> (OddIssuer, OddIssuer, TestKey, TestKey, TestApp) {
    let (first_key, partner_key) = (TestKey::es256("same"), TestKey::es256("same"));
    let first = OddIssuer::with_keys(&[&first_key]).await;
    let partner = OddIssuer::with_keys(&[&partner_key]).await;
    let setting = |leaf: &str| format!("APP_OIDC__FURTHER__{name}__{leaf}");
    let further =
        [("ISSUER", partner.url.clone()), ("TENANTS", GLOBEX.id.to_string()), ("SERVICE_CLIENTS", "job".into())];
    let further = further.map(|(leaf, value)| (setting(leaf), value));
    let further = further.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let variables: Vec<_> = EVERY_SECOND.into_iter().chain(further).collect();
    let app = first.app(&variables).await;
    app.wait_until_ready().await;
    (first, partner, first_key, partner_key, app)
}

fn signed(key: &TestKey, claims: &Value) -> String {
    key.sign_text(&json!({ "alg": key.alg, "typ": "at+jwt", "kid": key.id }).to_string(), &claims.to_string())
}

#[tokio::test]
async fn authn_04_each_issuer_speaks_for_its_own_tenants_and_people() {
    let (first, partner, first_key, partner_key, app) = two().await;
    let now = app.clock.timestamp();
    let me = async |token: String| app.bearer(token).get("/v1/me").await;
    let with = |issuer: &OddIssuer, changes: Value| {
        let mut claims = issuer.claims(now);
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let (acme, globex) = (ACME.id.to_string(), GLOBEX.id.to_string());

    let theirs = signed(&partner_key, &with(&partner, json!({ "tenant_id": globex, "sub": "alice" })));
    // The further issuer may be known a moment after the first.
    eventually("it is known", async || me(theirs.clone()).await.status != 503).await;
    let found = me(theirs).await.ok(200);
    assert_eq!(found["subject"], "issuer:partner:alice");
    assert_eq!(found["clientId"], "issuer:partner:some-client");
    let ours = me(signed(&first_key, &with(&first, json!({ "tenant_id": globex, "sub": "alice" })))).await.ok(200);
    assert_eq!(ours["subject"], "alice");
    let job = with(&partner, json!({ "tenant_id": globex, "sub": "job", "client_id": "job" }));
    assert_eq!(me(signed(&partner_key, &job)).await.ok(200)["kind"], "service");

    let foreign = me(signed(&partner_key, &with(&partner, json!({ "tenant_id": acme })))).await;
    assert_eq!(reason(&foreign), "tenant");
    // The same key id at both: each issuer's tokens are verified with its own key.
    let crossed = me(signed(&first_key, &with(&partner, json!({ "tenant_id": globex })))).await;
    assert_eq!(reason(&crossed), "signature");
    let crossed = me(signed(&partner_key, &with(&first, json!({ "tenant_id": acme })))).await;
    assert_eq!(reason(&crossed), "signature");
    // A client that may act for itself at one of them may not at the other.
    let posing = me(signed(&first_key, &with(&first, json!({ "sub": "job", "client_id": "job" })))).await;
    assert_eq!(reason(&posing), "service_client");
}

/// Subjects of an Auth0 database begin with `auth0|`, so the name of the issuer is a natural one.
#[tokio::test]
async fn authn_04_subjects_of_two_issuers_never_collide() {
    let (first, further, first_key, further_key, app) = two_with("AUTH0").await;
    let now = app.clock.timestamp();
    let me = async |is_first: bool, name: &str, value: &str| {
        let (issuer, key) = if is_first { (&first, &first_key) } else { (&further, &further_key) };
        let mut claims = issuer.claims(now);
        claims["tenant_id"] = json!(GLOBEX.id.to_string());
        claims[name] = json!(value);
        app.bearer(signed(key, &claims)).get("/v1/me").await
    };
    eventually("the further issuer is known", async || me(false, "sub", "x").await.status == 200).await;
    let accepted = [
        "x",
        "auth0|x",
        "auth0|auth0|x",
        "AUTH0|x",
        "auth0:x",
        "auth0",
        "|x",
        ":x",
        "issuer",
        "issuer|auth0|x",
        "okta|connection|x",
        "google-oauth2|x",
        "@auth0:x",
        "x@clients",
    ];
    for (name, shown) in [("sub", "subject"), ("client_id", "clientId")] {
        let mut seen = BTreeSet::new();
        for value in accepted {
            for is_first in [true, false] {
                let found = me(is_first, name, value).await.ok(200)[shown].as_str().unwrap().to_owned();
                let expected = if is_first { value.to_owned() } else { format!("issuer:auth0:{value}") };
                assert_eq!(found, expected);
                assert!(seen.insert(found), "{value} is another issuer's {shown} too");
            }
        }
        for value in [
            "issuer:auth0:x",
            "issuer:auth0:auth0|x",
            "ISSUER:auth0:x",
            "Issuer:",
            "issuer:other:x",
            "service:job",
            "Service:job",
            "api-key:0190a000-0000-7000-8000-00000000ac3e",
            "operator:x",
            "is\u{200b}suer:auth0:x",
        ] {
            for is_first in [true, false] {
                assert_eq!(reason(&me(is_first, name, value).await), "claims", "{value}");
            }
        }
    }
    // The longest that is recorded has 255 bytes with its prefix.
    let longest = "s".repeat(255 - "issuer:auth0:".len());
    me(false, "sub", &longest).await.ok(200);
    assert_eq!(reason(&me(false, "sub", &format!("{longest}s")).await), "claims");
}

#[tokio::test]
async fn authn_10_one_issuers_outage_is_not_the_others() {
    let (first, partner, first_key, partner_key, app) = two().await;
    partner.set_down(true);
    app.clock.advance(std::time::Duration::from_secs(3_601));
    until(&app.bearer(first.token(&first_key, app.clock.timestamp())), 200).await;
    let theirs = app.bearer(partner.token(&partner_key, app.clock.timestamp())).get("/v1/me").await;
    assert_eq!(theirs.problem(503), "unavailable");
    app.anonymous().get("/health/ready").await.ok(200);
}

#[tokio::test]
async fn authn_07_a_program_is_recognised_only_if_it_is_listed() {
    let app = TestApp::start_with(&[("APP_OIDC__SERVICE_CLIENTS", "another, demo-service")]).await;
    let forge = || app.forge().claim("sub", "demo-service").claim("client_id", "demo-service");
    let me = app.bearer(forge().token()).get("/v1/me").await.ok(200);
    assert_eq!((&me["kind"], &me["roles"]), (&json!("service"), &json!(["service"])));
    // What the token says of roles is nothing to a program; what `azp` says makes no program.
    let person = app.forge().claim("azp", "admin@acme.example").claim("client_id", "web").token();
    assert_eq!(app.bearer(person).get("/v1/me").await.ok(200)["kind"], "user");
    let without = TestApp::start_with(&[("APP_OIDC__SERVICE_CLIENTS", "")]).await;
    let token = without.forge().claim("sub", "demo-service").claim("client_id", "demo-service").token();
    assert_eq!(reason(&without.bearer(token).get("/v1/me").await), "service_client");
    without.user_of(&ACME, Role::Viewer, &[Scope::OrdersRead]).get("/v1/me").await.ok(200);
}
