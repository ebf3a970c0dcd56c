//! Who is calling. Every refusal is the same opaque 401, whatever was wrong.

mod api_keys;
mod attacks;
mod blocking;
mod documented;
mod issuers;
mod keys;
mod marks;
mod penalties;
mod revocation;

use std::time::Duration;

use serde_json::{Value, json};
use service::{
    authz::{
        matrix::{self, Callers, Scope},
        policy::Role,
    },
    dev::demo,
};

use crate::support::{ACME, Reply, TestApp};

/// One answer for every bad credential.
#[track_caller]
pub fn assert_refused(reply: &Reply, case: &str) {
    assert_eq!(reply.status, 401, "{case}: {reply:#?}");
    assert_eq!(reply.problem(401), "unauthenticated", "{case}");
    assert_eq!(reply.header("www-authenticate"), Some("Bearer error=\"invalid_token\""), "{case}");
    assert_eq!(reply.body["detail"], Value::Null, "{case}");
}

#[tokio::test]
async fn authn_01_every_operation_refuses_anonymous_callers() {
    let app = TestApp::shared();
    let anonymous = app.anonymous();
    let mut refused = 0;
    // From the router, so that what the document hides is tried as well.
    for (method, path) in &app.served {
        let row = matrix::find(method, path).unwrap();
        let filled: Vec<String> = path
            .split('/')
            .map(|part| if part.starts_with(':') { demo::FIRST_ORDER.to_string() } else { part.to_owned() })
            .collect();
        let request = anonymous.request(method.clone(), &filled.join("/"));
        if row.callers == Callers::Public {
            let reply = anonymous.send(request).await;
            assert_eq!(reply.status, 200, "{method} {path}: {reply:#?}");
        } else {
            let request = request.header("content-type", "text/plain").body("not even JSON");
            let reply = anonymous.send(request).await;
            assert_eq!(reply.problem(401), "unauthenticated", "{method} {path}");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"), "{method} {path}");
            assert_eq!(reply.body["errors"], Value::Null, "{method} {path} told an anonymous caller about the body");
            refused += 1;
        }
    }
    assert!(refused >= 7, "only {refused} operations were tried");
}

#[tokio::test]
async fn authn_02_a_token_of_the_issuer_is_accepted() {
    let app = TestApp::shared();
    let me = app.user_of(&ACME, Role::Sales, &[Scope::OrdersRead]).get("/v1/me").await.ok(200);
    let expected = json!({
        "subject": "sales@acme.example", "clientId": "demo-web", "kind": "user",
        "tenantId": ACME.id.to_string(), "roles": ["sales"], "scopes": ["orders:read"],
    });
    assert_eq!(me, expected);
}

#[tokio::test]
async fn authn_06_a_cached_token_ends_when_it_says() {
    let app = TestApp::start().await;
    let user = app.user(Role::Viewer);
    user.get("/v1/me").await.ok(200);
    user.get("/v1/me").await.ok(200);
    app.clock.advance(Duration::from_secs(900 + 31));
    assert_refused(&user.get("/v1/me").await, "after exp");
}
