//! Authentication (AUTHN-01 to AUTHN-17): tokens, API keys, issuers, revocation and the failure
//! limiter. Every rejected credential gets the same 401, which does not name the reason; the event
//! does.

mod api_keys;
mod attacks;
mod blocking;
mod caller_kind;
mod dpop;
mod failure_limiter;
mod issuers;
mod keys;
mod revocation;
mod shapes;
mod sign_in;

use std::time::Duration;

use palisade::authz::{Callers, Scope};
use sample::{
    access::{roles, scopes},
    demo,
};
use serde_json::{Value, json};

use crate::support::{
    ACME, MATRIX, SERVICE,
    authn::{assert_rejected, challenge},
};

#[tokio::test]
async fn authn_01_protected_operations_reject_anonymous_callers() {
    let app = SERVICE.shared();
    let anonymous = app.anonymous();
    let mut rejected = 0;
    // The routes of the router include those that the OpenAPI document omits.
    for (method, path) in &app.served {
        let row = MATRIX.find(method, path).unwrap();
        let segments: Vec<String> = path
            .split('/')
            .map(|part| if part.starts_with(':') { demo::FIRST_NOTE.to_string() } else { part.to_owned() })
            .collect();
        let request = anonymous.request(method.clone(), &segments.join("/"));
        if row.callers == Callers::Browser {
            // The settings have no client, so there is no sign-in. One of them checks its body first.
            let expected = if path.ends_with("backchannel-logout") { 415 } else { 404 };
            anonymous.send(request).await.problem(expected);
        } else if row.callers == Callers::Public {
            let reply = anonymous.send(request).await;
            assert_eq!(reply.status, 200, "{method} {path}: {reply:#?}");
        } else {
            let request = request.header("content-type", "text/plain").body("not even JSON");
            let reply = anonymous.send(request).await;
            assert_eq!(reply.problem(401), "unauthenticated", "{method} {path}");
            let challenge = challenge(&reply);
            assert_eq!(challenge.get("error"), None, "{method} {path}");
            assert_eq!(challenge.get("scope").map(String::as_str), row.scope.map(Scope::as_str), "{method} {path}");
            assert_eq!(reply.body["errors"], Value::Null, "{method} {path} reports faults of the body");
            rejected += 1;
        }
    }
    assert!(rejected >= 7, "only {rejected} operations were tried");
}

#[tokio::test]
async fn authn_02_token_of_the_issuer_is_accepted() {
    let app = SERVICE.shared();
    let me = app.user_of(&ACME, roles::WRITER, &[scopes::NOTES_READ]).get("/v1/me").await.ok(200);
    let expected = json!({
        "subject": "writer@acme.example", "clientId": "demo-web", "kind": "user",
        "tenantId": ACME.id.to_string(), "roles": ["writer"], "scopes": ["notes:read"],
    });
    assert_eq!(me, expected);
}

#[tokio::test]
async fn authn_06_cached_token_expires() {
    let app = SERVICE.start().await;
    let user = app.user(roles::VIEWER);
    user.get("/v1/me").await.ok(200);
    user.get("/v1/me").await.ok(200);
    app.clock.advance(Duration::from_secs(900 + 31));
    assert_rejected(&user.get("/v1/me").await, "after exp");
}

/// The document of RFC 9728, which challenges name: a client learns the issuer from it.
#[tokio::test]
async fn authn_01_challenges_name_the_metadata_of_the_api() {
    let app = SERVICE.shared();
    let reply = app.anonymous().get("/v1/notes").await;
    let metadata = challenge(&reply)["resource_metadata"].clone();
    let (resource, path) = metadata.split_at(metadata.find("/.well-known").unwrap());
    let document = app.anonymous().get(path).await.ok(200);
    let scopes: Vec<&str> = scopes::ALL.iter().map(|scope| scope.as_str()).collect();
    assert_eq!(document["resource"], resource);
    assert_eq!(document["authorization_servers"], json!([app.issuer.url()]));
    assert_eq!(document["bearer_methods_supported"], json!(["header"]));
    for scope in scopes {
        assert!(document["scopes_supported"].as_array().unwrap().contains(&json!(scope)), "{scope}");
    }
}
