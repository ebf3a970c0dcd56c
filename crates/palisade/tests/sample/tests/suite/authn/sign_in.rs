//! Age and strength of a sign-in (RFC 9470), and actors (RFC 8693), by the settings of the issuer
//! (AUTHN-13). The control suite checks the default for every operation.

use serde_json::{Value, json};

use crate::support::{Actor, Reply, SERVICE, TestApp, note, query};

/// An operation with a step-up that needs no object.
async fn export(actor: &Actor) -> Reply {
    let body = json!({ "kind": "notes", "from": "2000-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z" });
    actor.post("/v1/exports", &body).await
}

fn with(app: &TestApp, claims: &[(&str, Value)]) -> Actor {
    app.bearer(claims.iter().fold(app.forge(), |forge, (name, value)| forge.claim(name, value.clone())).token())
}

#[tokio::test]
async fn authn_13_challenge_names_what_the_sign_in_lacks() {
    let app =
        SERVICE.start_with(&[("APP_OIDC__ACR_VALUES", "mfa,hardware"), ("APP_OIDC__REQUIRE_AUTH_TIME", "true")]).await;
    let now = app.clock.timestamp();
    let both = "max_age=\"900\", acr_values=\"mfa hardware\"";
    for (claims, lacks) in [
        (vec![], both),
        (vec![("auth_time", json!(now))], "acr_values=\"mfa hardware\""),
        (vec![("auth_time", json!(now)), ("acr", json!("password"))], "acr_values=\"mfa hardware\""),
        (vec![("acr", json!("mfa"))], "max_age=\"900\""),
        (vec![("auth_time", json!(now - 901)), ("acr", json!("mfa"))], "max_age=\"900\""),
        // From a clock that no issuer has.
        (vec![("auth_time", json!(now + 600)), ("acr", json!("mfa"))], "max_age=\"900\""),
    ] {
        let caller = with(&app, &claims);
        let reply = export(&caller).await;
        assert_eq!(reply.problem(401), "insufficient_user_authentication", "{claims:?}");
        let challenge = format!(
            "Bearer realm=\"palisade-sample\", error=\"insufficient_user_authentication\", {lacks}, \
             resource_metadata=\"http://{}/.well-known/oauth-protected-resource\"",
            app.address
        );
        assert_eq!(reply.header("www-authenticate"), Some(&*challenge), "{claims:?}");
        assert_eq!(reply.event("authz_fail")["reason"], "sign_in");
        caller.get("/v1/notes").await.ok(200);
    }
    for acr in ["mfa", "hardware"] {
        let caller = with(&app, &[("auth_time", json!(now - 890)), ("acr", json!(acr))]);
        assert_eq!(export(&caller).await.status, 200, "{acr}");
    }
    // A caller without the rights is not asked to sign in.
    let reader = app.user(sample::access::roles::VIEWER);
    assert_eq!(export(&reader).await.problem(403), "forbidden");
}

#[tokio::test]
async fn authn_13_malformed_claims_of_a_sign_in_are_rejected() {
    let app = SERVICE.shared();
    for (claim, value) in [("auth_time", json!("1")), ("auth_time", json!(1.5)), ("acr", json!(1)), ("acr", json!([]))]
    {
        let reply = with(app, &[(claim, value)]).get("/v1/me").await;
        assert_eq!(reply.problem(401), "unauthenticated");
        assert_eq!(reply.event("authn_token_invalid")["claim"], claim);
    }
}

#[tokio::test]
async fn authn_13_actors_are_rejected_unless_the_issuer_may_name_them() {
    let act = json!({ "sub": "helpdesk", "act": { "sub": "an-earlier-one" } });
    let reply = with(SERVICE.shared(), &[("act", act.clone())]).get("/v1/me").await;
    assert_eq!(reply.problem(401), "unauthenticated");
    assert_eq!(reply.event("authn_token_invalid")["reason"], "actor");

    let app = SERVICE.start_with(&[("APP_OIDC__ACCEPT_ACTORS", "true")]).await;
    let actor = with(&app, &[("act", act)]);
    assert_eq!(actor.get("/v1/me").await.ok(200)["actor"], "helpdesk");
    assert_eq!(app.admin().get("/v1/me").await.ok(200).get("actor"), None);
    let created = actor.post("/v1/notes", &note(1)).await;
    assert_eq!(created.event("data_changed")["actor"], "helpdesk", "the event names the actor");
    created.ok(201);
    let trail = query(
        &app.database.owner,
        "select client from palisade.audit_events where action = 'note_created' order by at desc limit 1",
    );
    assert!(trail.await[0].ends_with(" actor:helpdesk"));
    let refused = export(&actor).await;
    assert_eq!(refused.problem(403), "forbidden");
    assert_eq!(refused.event("authz_fail")["reason"], "actor");
    for act in [
        json!("helpdesk"),
        json!({}),
        json!({ "sub": 1 }),
        json!({ "sub": "" }),
        json!({ "sub": "a\u{200b}b" }),
        json!({ "sub": "operator:root" }),
        json!({ "sub": "x".repeat(250) }),
        json!({ "sub": "helpdesk", "iss": "https://other.example.com" }),
    ] {
        let reply = with(&app, &[("act", act.clone())]).get("/v1/me").await;
        assert_eq!(reply.problem(401), "unauthenticated", "{act}");
        assert_eq!(reply.event("authn_token_invalid")["claim"], "act", "{act}");
    }
    // A client that looks like one with an actor.
    let reply = with(&app, &[("client_id", json!("a-client actor:boss"))]).get("/v1/me").await;
    assert_eq!(reply.event("authn_token_invalid")["claim"], "client");
}
