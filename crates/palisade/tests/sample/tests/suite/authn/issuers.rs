//! Several issuers (AUTHN-04, AUTHN-10), and clients that count as services (AUTHN-07). Each issuer
//! has its own tenants, keys and service clients, and its subjects cannot collide with others.

use std::collections::BTreeSet;

use sample::access::{roles, scopes};
use serde_json::{Value, json};

use crate::support::{
    ACME, GLOBEX, MisbehavingIssuer, SERVICE, TestApp, TestKey,
    authn::{REFRESH_EVERY_SECOND, reject_reason, until_status},
    eventually,
};

/// A service with a first issuer for these tenants (empty: no list) and a further one of this name
/// for Globex. Their keys have the same id.
async fn two_issuers(
    name: &str,
    tenants_of_first: &str,
) -> (MisbehavingIssuer, MisbehavingIssuer, TestKey, TestKey, TestApp) {
    let first_key = TestKey::es256("same");
    let partner_key = TestKey::es256("same");
    let first = MisbehavingIssuer::with_keys(&SERVICE, &[&first_key]).await;
    let partner = MisbehavingIssuer::with_keys(&SERVICE, &[&partner_key]).await;
    let setting = |field: &str| format!("APP_OIDC__FURTHER__{name}__{field}");
    let further =
        [("ISSUER", partner.url.clone()), ("TENANTS", GLOBEX.id.to_string()), ("SERVICE_CLIENTS", "job".into())];
    let further = further.map(|(field, value)| (setting(field), value));
    let further = further.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let own = Some(("APP_OIDC__TENANTS", tenants_of_first)).filter(|(_, tenants)| !tenants.is_empty());
    let variables: Vec<_> = REFRESH_EVERY_SECOND.into_iter().chain(further).chain(own).collect();
    let app = first.app(&variables).await;
    app.wait_until_ready().await;
    (first, partner, first_key, partner_key, app)
}

fn signed(key: &TestKey, claims: &Value) -> String {
    key.sign_text(&json!({ "alg": key.alg, "typ": "at+jwt", "kid": key.id }).to_string(), &claims.to_string())
}

#[tokio::test]
async fn authn_04_issuers_assert_only_their_own_tenants_and_clients() {
    let (first, partner, first_key, partner_key, app) = two_issuers("PARTNER", "").await;
    let now = app.clock.timestamp();
    let me = async |token: String| app.bearer(token).get("/v1/me").await;
    let with = |issuer: &MisbehavingIssuer, changes: Value| {
        let mut claims = issuer.claims(now);
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let acme = ACME.id.to_string();
    let globex = GLOBEX.id.to_string();

    let partner_token = signed(&partner_key, &with(&partner, json!({ "tenant_id": globex, "sub": "alice" })));
    // The keys of the further issuer may load after those of the first.
    eventually("its keys are loaded", async || me(partner_token.clone()).await.status != 503).await;
    let partner_user = me(partner_token).await.ok(200);
    assert_eq!(partner_user["subject"], "issuer:partner:alice");
    assert_eq!(partner_user["clientId"], "issuer:partner:some-client");
    // An issuer without a list speaks for the tenants that no other one lists.
    let user = me(signed(&first_key, &with(&first, json!({ "tenant_id": acme, "sub": "alice" })))).await.ok(200);
    assert_eq!(user["subject"], "alice");
    let listed = me(signed(&first_key, &with(&first, json!({ "tenant_id": globex, "sub": "alice" })))).await;
    assert_eq!(reject_reason(&listed), "tenant");
    let job = with(&partner, json!({ "tenant_id": globex, "sub": "job", "client_id": "job" }));
    assert_eq!(me(signed(&partner_key, &job)).await.ok(200)["kind"], "service");

    let foreign_tenant = me(signed(&partner_key, &with(&partner, json!({ "tenant_id": acme })))).await;
    assert_eq!(reject_reason(&foreign_tenant), "tenant");
    // Both keys have the same id: tokens are verified with the key of their own issuer.
    let wrong_key = me(signed(&first_key, &with(&partner, json!({ "tenant_id": globex })))).await;
    assert_eq!(reject_reason(&wrong_key), "signature");
    let wrong_key = me(signed(&partner_key, &with(&first, json!({ "tenant_id": acme })))).await;
    assert_eq!(reject_reason(&wrong_key), "signature");
    // A service client of one issuer is none at the other.
    let wrong_issuer = me(signed(&first_key, &with(&first, json!({ "sub": "job", "client_id": "job" })))).await;
    assert_eq!(reject_reason(&wrong_issuer), "service_client");
}

/// Subjects of an Auth0 database begin with `auth0|`, and `auth0` is a likely name for that issuer.
#[tokio::test]
async fn authn_04_subjects_of_two_issuers_never_collide() {
    let (first, further, first_key, further_key, app) = two_issuers("AUTH0", &GLOBEX.id.to_string()).await;
    let now = app.clock.timestamp();
    let me = async |is_first: bool, name: &str, value: &str| {
        let (issuer, key) = if is_first { (&first, &first_key) } else { (&further, &further_key) };
        let mut claims = issuer.claims(now);
        claims["tenant_id"] = json!(GLOBEX.id.to_string());
        claims[name] = json!(value);
        app.bearer(signed(key, &claims)).get("/v1/me").await
    };
    eventually("its keys are loaded", async || me(false, "sub", "x").await.status == 200).await;
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
                assert!(seen.insert(found), "both issuers have the {shown} {value}");
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
                assert_eq!(reject_reason(&me(is_first, name, value).await), "claims", "{value}");
            }
        }
    }
    // With its prefix, a subject has at most 255 bytes.
    let longest = "s".repeat(255 - "issuer:auth0:".len());
    me(false, "sub", &longest).await.ok(200);
    assert_eq!(reject_reason(&me(false, "sub", &format!("{longest}s")).await), "claims");
}

#[tokio::test]
async fn authn_10_outage_of_one_issuer_does_not_affect_another() {
    let (first, partner, first_key, partner_key, app) = two_issuers("PARTNER", "").await;
    partner.set_down(true);
    app.clock.advance(std::time::Duration::from_secs(3_601));
    until_status(&app.bearer(first.token(&first_key, app.clock.timestamp())), 200).await;
    let partner_reply = app.bearer(partner.token(&partner_key, app.clock.timestamp())).get("/v1/me").await;
    assert_eq!(partner_reply.problem(503), "unavailable");
    app.anonymous().get("/health/ready").await.ok(200);
}

#[tokio::test]
async fn authn_07_only_listed_clients_are_services() {
    let app = SERVICE.start_with(&[("APP_OIDC__SERVICE_CLIENTS", "another, demo-service")]).await;
    let forge = || app.forge().claim("sub", "demo-service").claim("client_id", "demo-service");
    let me = app.bearer(forge().token()).get("/v1/me").await.ok(200);
    assert_eq!((&me["kind"], &me["roles"]), (&json!("service"), &json!(["service"])));
    // A service has the role `service` whatever its token says, and `azp` alone makes no service.
    let user = app.forge().claim("azp", "admin@acme.example").claim("client_id", "web").token();
    assert_eq!(app.bearer(user).get("/v1/me").await.ok(200)["kind"], "user");
    let unlisted = SERVICE.start_with(&[("APP_OIDC__SERVICE_CLIENTS", "")]).await;
    let token = unlisted.forge().claim("sub", "demo-service").claim("client_id", "demo-service").token();
    assert_eq!(reject_reason(&unlisted.bearer(token).get("/v1/me").await), "service_client");
    unlisted.user_of(&ACME, roles::VIEWER, &[scopes::NOTES_READ]).get("/v1/me").await.ok(200);
}
