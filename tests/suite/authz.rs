//! Scopes and roles (AUTHZ-02), lists and cursors of one tenant (AUTHZ-03), and the kernel that the
//! service compiles against (AUTHZ-04).

use serde_json::{Value, json};
use service::access::{roles, scopes};

use crate::support::{ACME, Actor, BillingFixture, GLOBEX, SERVICE, order_body};

#[tokio::test]
async fn authz_02_scope_does_not_widen_a_role() {
    let app = SERVICE.shared();
    for (role, may_write) in [
        (roles::VIEWER, false),
        (roles::SALES, true),
        (roles::BILLING, false),
        (roles::AUDITOR, false),
        (roles::ADMIN, true),
    ] {
        let user = app.user(role);
        user.get("/v1/orders").await.ok(200);
        let reply = user.post("/v1/orders", &order_body("PAPER-A4", 2)).await;
        if may_write {
            reply.ok(201);
        } else {
            assert_eq!(reply.problem(403), "forbidden", "{role:?}");
        }
    }
    // Unknown roles give no rights, and neither does a token without roles.
    for roles in [json!([]), json!(["root"]), json!(["service"]), json!(["Admin"])] {
        let forged = app.forge().claim("sub", "without-roles").claim("roles", roles.clone()).token();
        let reply = app.bearer(forged).get("/v1/orders").await;
        assert_eq!(reply.problem(403), "forbidden", "{roles}");
    }
}

#[tokio::test]
async fn authz_02_role_does_not_widen_a_scope() {
    let app = SERVICE.shared();
    let admin = app.user_of(&ACME, roles::ADMIN, &[]);
    admin.get("/v1/me").await.ok(200);
    assert_eq!(admin.get("/v1/orders").await.problem(403), "insufficient_scope");
    // A scope must be a complete word of the claim (RFC 6749 section 3.3).
    for scope in ["orders:read:all", "xorders:read", "orders:*", "*", "orders:read,orders:write"] {
        let reply = app.bearer(app.forge().claim("scope", scope).token()).get("/v1/orders").await;
        assert_eq!(reply.problem(403), "insufficient_scope", "{scope}");
    }
}

#[tokio::test]
async fn authz_03_lists_contain_only_the_callers_tenant() {
    let app = SERVICE.start().await;
    let globex = BillingFixture::for_tenant(&app, &GLOBEX);
    let globex_order = globex.order("PAPER-A4", 2).await;
    let ids = |page: Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|order| order["id"].as_str().unwrap().to_owned()).collect()
    };
    let acme_orders = ids(app.user(roles::ADMIN).get("/v1/orders?limit=100").await.ok(200));
    assert!(!acme_orders.is_empty() && !acme_orders.contains(&globex_order));
    assert!(ids(globex.admin.get("/v1/orders?limit=100").await.ok(200)).contains(&globex_order));
}

#[tokio::test]
async fn authz_03_cursors_of_another_tenant_or_list_are_rejected() {
    let app = SERVICE.shared();
    let acme = app.user(roles::ADMIN);
    let next = async |actor: &Actor, path: &str| -> String {
        actor.get(path).await.ok(200)["nextCursor"].as_str().unwrap().to_owned()
    };
    let globex = app.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL);
    let cursor = next(&acme, "/v1/orders?limit=1").await;
    let mut changed = cursor.clone().into_bytes();
    changed[5] = if changed[5] == b'A' { b'B' } else { b'A' };
    for wrong in [
        next(&globex, "/v1/orders?limit=1").await,
        next(&acme, "/v1/products?limit=1").await,
        String::from_utf8(changed).unwrap(),
        cursor[..cursor.len() - 4].to_owned(),
        "A".repeat(26),
        "A".repeat(29),
    ] {
        let reply = acme.get(&format!("/v1/orders?limit=1&cursor={wrong}")).await;
        assert_eq!(reply.problem(422), "unprocessable");
        assert_eq!(reply.faults(), ["cursor invalid"]);
    }
    acme.get(&format!("/v1/orders?limit=1&cursor={cursor}")).await.ok(200);
}

/// The feature `internals` makes public what needs no permit.
#[test]
fn authz_04_only_tests_have_the_internals_of_the_kernel() {
    let manifest = std::fs::read_to_string("Cargo.toml").unwrap();
    let service = manifest.split("[dev-dependencies]").next().unwrap();
    assert!(service.contains("\npalisade = {"), "{service}");
    assert!(!service.contains("internals"), "the service switches on `internals`: {service}");
}
