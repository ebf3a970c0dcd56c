//! What a caller may do.

use serde_json::{Value, json};
use service::authz::{matrix::Scope, policy::Role};

use crate::support::{ACME, Actor, GLOBEX, TestApp};

fn an_order() -> Value {
    json!({ "lines": [{ "sku": "PAPER-A4", "quantity": 2 }], "shippingSpeed": "standard" })
}

async fn place(actor: &Actor) -> String {
    let order = actor.post("/v1/orders", &an_order()).await.ok(201);
    order["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn authz_02_a_scope_does_not_widen_a_role() {
    let app = TestApp::shared();
    for (role, may_write) in [
        (Role::Viewer, false),
        (Role::Sales, true),
        (Role::Billing, false),
        (Role::Auditor, false),
        (Role::Admin, true),
    ] {
        let user = app.user(role);
        user.get("/v1/orders").await.ok(200);
        let reply = user.post("/v1/orders", &an_order()).await;
        if may_write {
            reply.ok(201);
        } else {
            assert_eq!(reply.problem(403), "forbidden", "{role:?}");
        }
    }
    // Nor does an unknown role, or none, give anything.
    for roles in [json!([]), json!(["root"]), json!(["service"]), json!(["Admin"])] {
        let forged = app.forge().claim("sub", "nobody-else").claim("roles", roles.clone()).token();
        let reply = app.bearer(forged).get("/v1/orders").await;
        assert_eq!(reply.problem(403), "forbidden", "{roles}");
    }
}

#[tokio::test]
async fn authz_02_a_role_does_not_widen_a_scope() {
    let app = TestApp::shared();
    let admin = app.user_of(&ACME, Role::Admin, &[]);
    admin.get("/v1/me").await.ok(200);
    assert_eq!(admin.get("/v1/orders").await.problem(403), "insufficient_scope");
    // A scope counts only as a whole word of the claim.
    for scope in ["orders:read:all", "xorders:read", "orders:*", "*", "orders:read,orders:write"] {
        let reply = app.bearer(app.forge().claim("scope", scope).token()).get("/v1/orders").await;
        assert_eq!(reply.problem(403), "insufficient_scope", "{scope}");
    }
}

#[tokio::test]
async fn authz_03_lists_hold_the_callers_tenant_only() {
    let app = TestApp::start().await;
    let globex = app.user_of(&GLOBEX, Role::Admin, &Scope::ALL);
    let theirs = place(&globex).await;
    let ids = |page: Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|order| order["id"].as_str().unwrap().to_owned()).collect()
    };
    let ours = ids(app.user(Role::Admin).get("/v1/orders?limit=100").await.ok(200));
    assert!(!ours.is_empty() && !ours.contains(&theirs));
    assert!(ids(globex.get("/v1/orders?limit=100").await.ok(200)).contains(&theirs));
}

#[tokio::test]
async fn authz_03_a_cursor_of_another_tenant_or_list_is_refused() {
    let app = TestApp::shared();
    let acme = app.user(Role::Admin);
    let next = async |actor: &Actor, path: &str| -> String {
        actor.get(path).await.ok(200)["nextCursor"].as_str().unwrap().to_owned()
    };
    let globex = app.user_of(&GLOBEX, Role::Admin, &Scope::ALL);
    let own = next(&acme, "/v1/orders?limit=1").await;
    let mut changed = own.clone().into_bytes();
    changed[5] = if changed[5] == b'A' { b'B' } else { b'A' };
    for cursor in [
        next(&globex, "/v1/orders?limit=1").await,
        next(&acme, "/v1/products?limit=1").await,
        String::from_utf8(changed).unwrap(),
        own[..own.len() - 4].to_owned(),
        "A".repeat(26),
        "A".repeat(29),
    ] {
        let reply = acme.get(&format!("/v1/orders?limit=1&cursor={cursor}")).await;
        assert_eq!(reply.problem(422), "unprocessable");
        assert_eq!(reply.faults(), ["cursor invalid"]);
    }
    acme.get(&format!("/v1/orders?limit=1&cursor={own}")).await.ok(200);
}
