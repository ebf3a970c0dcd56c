//! Access rules of every operation, called with the examples of the OpenAPI document: scopes
//! (AUTHZ-01), foreign objects (AUTHZ-03), roles (AUTHZ-05, `matrix.txt`), read-only properties
//! (AUTHZ-06), claimed identities (AUTHZ-09), retries (INPUT-10). It covers new operations at once.

use std::fmt::Write as _;

use http::{HeaderName, Method};
use palisade::{authz::Scope, dev::issuer::SERVICE_CLIENT};
use serde_json::{Value, json};
use service::access::{roles, scopes};
use uuid::Uuid;

use crate::support::{
    ACME, Actor, BillingFixture, GLOBEX, MATRIX, Operation, SERVICE, TestApp, UNTHROTTLED, api_keys::key_text,
    order_body, query, run, unused_id,
};

const SNAPSHOT: &str = "tests/suite/access/matrix.txt";

/// Every kind of caller, by the columns of the snapshot.
async fn callers(app: &TestApp) -> Vec<(&'static str, Actor)> {
    let service =
        app.forge().claim("sub", SERVICE_CLIENT).claim("client_id", SERVICE_CLIENT).claim("roles", Value::Null);
    let mut callers = vec![("anonymous", app.anonymous())];
    callers.extend(roles::ALL.map(|role| (role.as_str(), app.user(role))));
    callers.push(("service", app.bearer(service.token())));
    let key_scopes = MATRIX.key_scopes();
    callers.push(("api key", app.api_key(key_text(&app.new_api_key(&key_scopes).await))));
    callers
}

#[tokio::test]
async fn authz_05_every_operation_and_role_matches_the_reviewed_table() {
    let app = SERVICE.shared();
    let acme = BillingFixture::new(app);
    let globex = BillingFixture::for_tenant(app, &GLOBEX);
    let callers = callers(app).await;
    let mut table = format!("{:<36} {:<8}", "operation", "object");
    for (name, _) in &callers {
        let _ = write!(table, " {name:<9}");
    }
    for operation in Operation::all(&SERVICE) {
        let kinds: &[&str] = if operation.has_object() { &["own", "other's", "missing"] } else { &["-"] };
        for kind in kinds {
            let _ = write!(table, "\n{:<36} {kind:<8}", format!("{} {}", operation.method, operation.path));
            for (_, caller) in &callers {
                // A new object for each caller: the previous one may have changed it.
                let object = match *kind {
                    "own" => acme.object_for(&operation.path).await,
                    "other's" => globex.object_for(&operation.path).await,
                    _ => unused_id(&operation.path),
                };
                let status = operation.call(caller, &object).await.status.as_u16();
                let _ = write!(table, " {status:<9}");
            }
            table.truncate(table.trim_end().len());
        }
    }
    table.push('\n');
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(SNAPSHOT, &table).unwrap();
    }
    let expected = std::fs::read_to_string(SNAPSHOT).unwrap_or_default();
    let changed: Vec<&str> = table.lines().filter(|line| !expected.lines().any(|row| row == *line)).collect();
    assert!(
        table == expected,
        "access rights have changed:\n{}\n\nIf that is intended: `UPDATE_SNAPSHOTS=1 cargo test authz_05`, and \
         review the difference in {SNAPSHOT} as a change of rights.",
        changed.join("\n")
    );
}

#[tokio::test]
async fn authz_03_foreign_object_is_answered_like_a_missing_one() {
    let app = SERVICE.shared();
    let globex = BillingFixture::for_tenant(app, &GLOBEX);
    let admin = app.user(roles::ADMIN);
    for operation in Operation::all_with_object(&SERVICE) {
        let object = globex.object_for(&operation.path).await;
        let before = globex.read(&operation.path, &object).await;
        let foreign = operation.call(&admin, &object).await;
        let missing = operation.call(&admin, &unused_id(&operation.path)).await;
        assert_eq!(foreign.problem(404), "not_found", "{operation:?}");
        assert_eq!(foreign.comparable(), missing.comparable(), "{operation:?}");
        assert_eq!(globex.read(&operation.path, &object).await, before, "{operation:?} changed the object");
    }
}

#[tokio::test]
async fn authz_03_queries_filter_tenants_without_row_level_security() {
    let app = SERVICE.start_with(&UNTHROTTLED).await;
    let globex = BillingFixture::for_tenant(&app, &GLOBEX);
    let customer = globex.object_for("/v1/customers/{id}").await;
    let globex_sku = globex.object_for("/v1/products/{sku}").await;
    let tables = "select oid::regclass::text from pg_class where relrowsecurity and relkind = 'r'";
    for table in query(&app.database.owner, tables).await {
        run(&app.database.owner, &format!("alter table {table} disable row level security")).await.unwrap();
    }
    let admin = app.user(roles::ADMIN);
    for operation in Operation::all_with_object(&SERVICE) {
        let object = globex.object_for(&operation.path).await;
        let before = globex.read(&operation.path, &object).await;
        assert_eq!(operation.call(&admin, &object).await.problem(404), "not_found", "{operation:?}");
        assert_eq!(globex.read(&operation.path, &object).await, before, "{operation:?} changed the object");
    }
    for operation in Operation::all(&SERVICE).iter().filter(|o| o.is_read() && !o.has_object() && o.scope.is_some()) {
        let ids = async |actor: &Actor| -> Vec<String> {
            let page = operation.call(actor, "").await.ok(200);
            let items = page["items"].as_array().unwrap().iter();
            items.map(|item| item.get("id").unwrap_or(&item["sku"]).to_string()).collect()
        };
        let acme_ids = ids(&admin).await;
        let globex_ids = ids(&globex.admin).await;
        // Both tenants have products with the same SKUs.
        if operation.path != "/v1/products" {
            assert!(!globex_ids.iter().any(|id| acme_ids.contains(id)), "{operation:?}");
        }
        assert!(!acme_ids.contains(&json!(globex_sku).to_string()), "{operation:?}");
    }
    let reply = admin.post("/v1/orders", &order_body(&globex_sku, 1)).await;
    assert_eq!(reply.faults(), ["/lines/0/sku unknown_product"]);
    let mut order = order_body("PAPER-A4", 1);
    order["customerId"] = json!(customer);
    assert_eq!(admin.post("/v1/orders", &order).await.faults(), ["/customerId unknown_customer"]);
    // A stored response is not replayed to a subject of the same name in another tenant.
    let place = async |actor: &Actor| {
        let request = actor.request(Method::POST, "/v1/orders").header("idempotency-key", "same");
        actor.send(request.json(&order_body("PAPER-A4", 1))).await.ok(201)["id"].clone()
    };
    let namesake = app.forge().claim("sub", "admin@globex.example").token();
    assert_ne!(place(&globex.admin).await, place(&app.bearer(namesake)).await);
}

#[tokio::test]
async fn authz_01_scope_of_an_operation_is_necessary_and_sufficient() {
    let app = SERVICE.shared();
    let acme = BillingFixture::new(app);
    for operation in Operation::all(&SERVICE) {
        let Some(needed) = operation.scope else { continue };
        let others: Vec<Scope> = scopes::ALL.into_iter().filter(|scope| *scope != needed).collect();
        let object = acme.own_object(&operation).await;
        let reply = operation.call(&app.user_of(&ACME, roles::ADMIN, &others), &object).await;
        assert_eq!(reply.problem(403), "insufficient_scope", "{operation:?}");
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{}\"", needed.as_str());
        assert_eq!(reply.header("www-authenticate"), Some(challenge.as_str()));
        // An API key gets scopes that its creator has.
        let key_scopes = if needed == scopes::KEYS_MANAGE {
            vec![scopes::AUDIT_READ, scopes::ORDERS_READ, scopes::ORDERS_WRITE]
        } else {
            vec![]
        };
        let sufficient = [vec![needed], key_scopes].concat();
        let reply = operation.call(&app.user_of(&ACME, roles::ADMIN, &sufficient), &object).await;
        assert!(reply.status.is_success(), "{operation:?} {reply:#?}");
    }
}

#[tokio::test]
async fn authz_06_unknown_and_read_only_properties_are_rejected() {
    let app = SERVICE.shared();
    let acme = BillingFixture::new(app);
    let admin = app.user(roles::ADMIN);
    let id = json!(Uuid::now_v7().to_string());
    let money = json!({ "amount": 1, "currency": "EUR" });
    for operation in Operation::all(&SERVICE) {
        let Some(example) = &operation.example else { continue };
        let object = acme.own_object(&operation).await;
        for (name, value) in [
            ("id", id.clone()),
            ("tenantId", json!(GLOBEX.id.to_string())),
            ("tenant_id", json!(GLOBEX.id.to_string())),
            ("status", json!("paid")),
            ("total", money.clone()),
            ("paid", money.clone()),
            ("refunded", money.clone()),
            ("number", json!(1)),
            ("masked", json!(false)),
            ("createdBy", json!("somebody-else")),
            ("createdAt", json!("2020-01-01T00:00:00Z")),
            ("role", json!("admin")),
            ("__proto__", json!({ "admin": true })),
        ] {
            let mut body = example.clone();
            body[name] = value;
            let reply = operation.call_with(&admin, &object, Some(&body), &[]).await;
            assert_eq!(reply.problem(400), "invalid_input", "{operation:?} {name}");
            assert_eq!(reply.faults(), [" unknown_field"], "{operation:?} {name}");
        }
    }
}

#[tokio::test]
async fn input_10_creating_operations_replay_their_response() {
    let app = SERVICE.shared();
    let acme = BillingFixture::new(app);
    let admin = app.user(roles::ADMIN);
    let mut tried = 0;
    for operation in Operation::all(&SERVICE) {
        let object = acme.own_object(&operation).await;
        let key = [("idempotency-key", "once")];
        let call = async || operation.call_with(&admin, &object, operation.example.as_ref(), &key).await;
        if operation.takes_key {
            let first = call().await;
            let again = call().await;
            assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201), "{operation:?} {again:?}");
            // The replay does not contain a secret that the first response returned.
            let mut replayed = first.body.clone();
            let secret = replayed.as_object_mut().unwrap().remove("key");
            assert_eq!(replayed, again.body, "{operation:?}");
            assert!(secret.is_none_or(|secret| !again.text.contains(secret.as_str().unwrap())), "{operation:?}");
            assert_eq!(first.header("location"), again.header("location"), "{operation:?}");
            assert_eq!(again.header("idempotent-replayed"), Some("true"), "{operation:?}");
            tried += 1;
        } else if operation.method == Method::POST {
            // Operations that create nothing change a state, which can happen only once.
            assert_ne!(call().await.status, 201, "{operation:?} creates an object and takes no idempotency key");
        }
    }
    assert!(tried >= 5, "only {tried} operations were tried");
}

#[tokio::test]
async fn authz_09_identity_comes_from_the_credential_alone() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::for_tenant(app, &GLOBEX);
    let globex = GLOBEX.id.to_string();
    let claims = [
        ("x-tenant-id", globex.as_str()),
        ("x-tenant", globex.as_str()),
        ("tenant_id", globex.as_str()),
        ("x-user-id", "admin@globex.example"),
        ("x-forwarded-user", "admin@globex.example"),
        ("x-remote-user", "admin@globex.example"),
        ("x-roles", "admin"),
        ("x-scope", "orders:write"),
        ("x-original-url", "/v1/me"),
        ("x-http-method-override", "GET"),
        ("cookie", "tenant_id=globex"),
    ];
    let admin = app.user(roles::ADMIN);
    let viewer = app.user(roles::VIEWER);
    for operation in Operation::all_with_object(&SERVICE) {
        let object = fixture.object_for(&operation.path).await;
        let reply = operation.call_with(&admin, &object, operation.example.as_ref(), &claims).await;
        assert_eq!(reply.problem(404), "not_found", "{operation:?}");
        if !operation.is_read() {
            let reply = operation.call_with(&viewer, &object, operation.example.as_ref(), &claims).await;
            assert_eq!(reply.problem(403), "forbidden", "{operation:?}");
        }
    }
    // Query parameters that claim an identity are rejected.
    for name in ["tenantId", "tenant_id", "sub", "role"] {
        let reply = admin.get(&format!("/v1/orders?{name}={globex}")).await;
        assert_eq!(reply.faults(), [" unknown_parameter"], "{name}");
    }
    let me = viewer.send(viewer.request(Method::GET, "/v1/me").headers(headers(&claims))).await.ok(200);
    assert_eq!(me["tenantId"], ACME.id.to_string());
    assert_eq!(me["subject"], "viewer@acme.example");
    assert_eq!(me["roles"], json!(["viewer"]));
    let request = admin.request(Method::POST, "/v1/orders").headers(headers(&claims)).json(&order_body("PAPER-A4", 1));
    assert_eq!(admin.send(request).await.ok(201)["createdBy"], "admin@acme.example");
}

fn headers(pairs: &[(&'static str, &str)]) -> http::HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
    pairs.iter().map(pair).collect()
}
