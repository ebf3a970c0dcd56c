//! What a key may do: no more than its scopes, than its maker, and than keys may at all.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use service::{
    authz::{
        matrix::{Callers, MATRIX, Scope},
        policy::Role,
    },
    dev::demo,
};

use super::{revoke, text};
use crate::{
    authn::assert_refused,
    support::{ACME, TestApp, UNTHROTTLED, eventually, query, run, superuser},
};

#[tokio::test]
async fn authn_12_a_key_gets_no_more_than_its_maker_has() {
    let app = TestApp::start().await;
    let maker = app.user_of(&ACME, Role::Admin, &[Scope::KeysManage, Scope::OrdersRead, Scope::BillingRefund]);
    let make = async |scopes: Value, days: i64| {
        maker.post("/v1/api-keys", &json!({ "name": "n", "scopes": scopes, "validForDays": days })).await
    };
    for (scopes, days, faults) in [
        (
            json!(["orders:read", "billing:refund", "keys:manage"]),
            1,
            vec!["/scopes/1 not_allowed", "/scopes/2 not_allowed"],
        ),
        (json!(["orders:read", "orders:read"]), 1, vec!["/scopes/1 duplicate"]),
        (json!(["orders:delete"]), 1, vec!["/scopes/0 not_allowed"]),
        (json!(["*"]), 1, vec!["/scopes/0 not_allowed"]),
        (json!([]), 1, vec!["/scopes too_few"]),
        (json!(["orders:read"]), 0, vec!["/validForDays too_small"]),
        (json!(["orders:read"]), 366, vec!["/validForDays too_large"]),
    ] {
        let reply = make(scopes, days).await;
        assert_eq!(reply.problem(400), "invalid_input");
        assert_eq!(reply.faults(), faults);
    }
    for (scopes, days, fault) in [
        (json!(["orders:read", "orders:write"]), 1, "/scopes/1 not_yours"),
        // More than the 90 days that this service allows.
        (json!(["orders:read"]), 91, "/validForDays too_large"),
    ] {
        let reply = make(scopes, days).await;
        assert_eq!(reply.problem(422), "unprocessable");
        assert_eq!(reply.faults(), [fault]);
    }
    let many = vec!["catalog:read"; 32];
    assert_eq!(make(json!(many), 1).await.faults(), ["/scopes/1 duplicate"]);
    let without_end = json!({ "name": "n", "scopes": ["orders:read"] });
    assert_eq!(maker.post("/v1/api-keys", &without_end).await.faults(), ["/validForDays required"]);
    make(json!(["orders:read"]), 90).await.ok(201);
    for role in [Role::Viewer, Role::Sales, Role::Billing, Role::Auditor] {
        let body = json!({ "name": "n", "scopes": ["orders:read"], "validForDays": 1 });
        assert_eq!(app.user(role).post("/v1/api-keys", &body).await.problem(403), "forbidden", "{role:?}");
    }
}

#[tokio::test]
async fn authn_12_a_key_can_do_no_more_than_its_maker_may_now() {
    let app = TestApp::start().await;
    let created = app.new_api_key(&[Scope::OrdersRead, Scope::OrdersWrite]).await;
    let program = app.api_key(text(&created));
    let order = json!({ "lines": [{ "sku": "PAPER-A4", "quantity": 1 }], "shippingSpeed": "standard" });
    let place = async || program.post("/v1/orders", &order).await;
    let by = place().await.ok(201)["createdBy"].clone();
    assert_eq!(by, format!("api-key:{}", created["id"].as_str().unwrap()));
    assert_eq!(program.get("/v1/customers").await.problem(403), "insufficient_scope");

    // The next token of whoever made it says that they are a viewer now.
    let maker = |roles: Value| app.bearer(app.forge().claim("roles", roles).token());
    let stale = maker(json!(["admin"]));
    let until = async |path: &str, status: u16| {
        let ask = async || if path == "place" { place().await } else { program.get(path).await };
        eventually(&format!("{status}"), async || ask().await.status == status).await;
    };
    app.clock.advance(Duration::from_secs(1));
    maker(json!(["viewer"])).get("/v1/me").await.ok(200);
    until("place", 403).await;
    program.get("/v1/orders").await.ok(200);
    // An older token changes nothing, though it is good still and seen for the first time.
    stale.get("/v1/me").await.ok(200);
    app.api_key(text(&created)).get("/v1/orders").await.ok(200);
    assert_eq!(roles_of(&app).await, ["{viewer}"]);
    // One that names no roles gives none.
    for none in [Value::Null, json!([])] {
        app.clock.advance(Duration::from_secs(1));
        maker(none).get("/v1/me").await.ok(200);
        until("/v1/orders", 403).await;
        app.clock.advance(Duration::from_secs(1));
        maker(json!(["admin"])).get("/v1/me").await.ok(200);
        until("place", 201).await;
    }
    // The same roles again are newer all the same.
    let stale = maker(json!(["viewer"]));
    app.clock.advance(Duration::from_secs(1));
    maker(json!(["admin"])).get("/v1/me").await.ok(200);
    stale.get("/v1/me").await.ok(200);
    assert_eq!(roles_of(&app).await, ["{admin}"]);
    // Another person's roles are nothing to it.
    app.user(Role::Viewer).get("/v1/me").await.ok(200);
    place().await.ok(201);
}

/// What the maker of the one key may do, as it is stored.
async fn roles_of(app: &TestApp) -> Vec<String> {
    let of_makers = "select r.roles::text from roles_seen r join api_keys k on k.created_by = r.subject";
    query(&app.database.authn, of_makers).await
}

#[tokio::test]
async fn authn_12_a_revoked_token_leaves_no_trace_in_keys() {
    let app = TestApp::start().await;
    let created = app.new_api_key(&[Scope::OrdersRead]).await;
    app.clock.advance(Duration::from_secs(1));
    let stolen = app.bearer(app.forge().claim("jti", "stolen").claim("roles", json!(["viewer"])).token());
    revoke(&app, "token", "stolen").await;
    assert_refused(&stolen.get("/v1/me").await, "revoked");
    assert_eq!(roles_of(&app).await, ["{admin}"]);
    app.api_key(text(&created)).get("/v1/orders").await.ok(200);
}

#[tokio::test]
async fn authn_13_what_is_closed_to_keys_stays_closed_whatever_a_key_says_it_may() {
    let app = TestApp::start_with(&UNTHROTTLED).await;
    let created = app.new_api_key(&[Scope::OrdersRead]).await;
    let all: Vec<String> = Scope::ALL.iter().map(|scope| format!("'{}'", scope.as_str())).collect();
    let widen = format!("update api_keys set scopes = array[{}]", all.join(", "));
    sqlx::raw_sql(sqlx::AssertSqlSafe(widen)).execute(&mut superuser(&app.database).await).await.unwrap();
    let program = app.api_key(text(&created));
    let closed: Vec<_> = MATRIX.iter().filter(|row| row.callers == Callers::NoKeys).collect();
    let names: Vec<&str> = closed.iter().map(|row| row.operation).collect();
    assert_eq!(
        names,
        [
            "eraseCustomer",
            "createRefund",
            "createApiKey",
            "listApiKeys",
            "rotateApiKey",
            "revokeApiKey",
            "createExport"
        ],
        "what keys may not do has changed"
    );
    for row in closed {
        let path = row.path.replace("{id}", &demo::FIRST_CUSTOMER.to_string());
        let method = Method::from_bytes(row.method.as_str().as_bytes()).unwrap();
        let reply = program.send(program.request(method, &path).json(&json!({}))).await;
        assert_eq!(reply.problem(403), "forbidden", "{}", row.operation);
        let event = &reply.events()[0];
        assert_eq!((event["event"].as_str(), event["reason"].as_str()), ("authz_fail", "api_key"), "{}", row.operation);
    }
    program.get("/v1/customers").await.ok(200);
}

#[tokio::test]
async fn authn_12_a_token_older_than_the_one_a_key_was_made_by_does_not_change_what_it_may() {
    let app = TestApp::start().await;
    let stale = app.bearer(app.forge().claim("roles", json!(["viewer"])).token());
    app.clock.advance(Duration::from_secs(2));
    let body = json!({ "name": "new", "scopes": ["orders:read"], "validForDays": 30 });
    app.bearer(app.forge().claim("roles", json!(["admin"])).token()).post("/v1/api-keys", &body).await.ok(201);
    stale.get("/v1/me").await.ok(200);
    assert_eq!(roles_of(&app).await, ["{admin}"]);
}

/// They had more rights when the older token was issued, and it is good still.
#[tokio::test]
async fn authn_12_an_older_token_makes_no_key_with_roles_that_were_taken_away() {
    let app = TestApp::start().await;
    let body = json!({ "name": "new", "scopes": ["orders:read", "orders:write"], "validForDays": 30 });
    let admin = app.bearer(app.forge().claim("roles", json!(["admin"])).token());
    admin.get("/v1/me").await.ok(200);
    app.clock.advance(Duration::from_secs(1));
    app.bearer(app.forge().claim("roles", json!(["viewer"])).token()).get("/v1/me").await.ok(200);
    let program = app.api_key(text(&admin.post("/v1/api-keys", &body).await.ok(201)));
    assert_eq!(program.get("/v1/me").await.ok(200)["roles"], json!(["viewer"]));
    let order = json!({ "lines": [{ "sku": "PAPER-A4", "quantity": 1 }], "shippingSpeed": "standard" });
    assert_eq!(program.post("/v1/orders", &order).await.problem(403), "forbidden");
}

/// A change of roles is one row, however many keys the maker has.
#[tokio::test]
async fn authn_12_a_change_of_roles_costs_the_same_for_a_thousand_keys() {
    let app = TestApp::start().await;
    let created = app.new_api_key(&[Scope::OrdersRead]).await;
    let program = app.api_key(text(&created));
    let copies = format!(
        "set app.tenant_id = '{}';
         -- More than may be made.
         set session_replication_role = replica;
         insert into api_keys (tenant_id, id, name, secret_hash, scopes, created_by, authorized_at, created_at, expires_at)
         select tenant_id, gen_random_uuid(), name, secret_hash, scopes, created_by, authorized_at, created_at, expires_at
         from api_keys, generate_series(1, 1000)",
        ACME.id
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(copies)).execute(&mut superuser(&app.database).await).await.unwrap();
    let seen_with = async |subject: &str, role: &str| {
        app.clock.advance(Duration::from_secs(1));
        let token = app.forge().claim("sub", subject).claim("roles", json!([role])).token();
        app.bearer(token).get("/v1/me").await.ok(200);
    };
    let maker = created["createdBy"].as_str().unwrap();
    program.get("/v1/orders").await.ok(200);
    seen_with(maker, "auditor").await;
    eventually("the key has the new role", async || program.get("/v1/me").await.ok(200)["roles"] == json!(["auditor"]))
        .await;
    // A revocation makes no cached key stale.
    revoke(&app, "token", "another").await;
    program.get("/v1/me").await.ok(200);
    run(&app.database.owner, "revoke execute on function read_api_key from app_authn").await.unwrap();
    program.get("/v1/me").await.ok(200);
}

/// Otherwise whoever lost a role would go on by their keys, and nobody would know.
#[tokio::test]
async fn authn_12_a_token_whose_roles_cannot_be_noted_is_not_accepted() {
    let app = TestApp::start().await;
    let created = app.new_api_key(&[Scope::OrdersRead, Scope::OrdersWrite]).await;
    let known = app.user(Role::Admin);
    known.get("/v1/me").await.ok(200);
    app.clock.advance(Duration::from_secs(1));
    let demoted = app.bearer(app.forge().claim("roles", json!(["viewer"])).token());
    let function = "function note_roles(uuid, text, text[], timestamptz)";
    run(&app.database.owner, &format!("revoke execute on {function} from app_authn")).await.unwrap();
    assert_eq!(demoted.get("/v1/me").await.problem(503), "unavailable");
    assert_eq!(roles_of(&app).await, ["{admin}"]);
    // Whoever is known goes on.
    known.get("/v1/me").await.ok(200);
    run(&app.database.owner, &format!("grant execute on {function} to app_authn")).await.unwrap();
    demoted.get("/v1/me").await.ok(200);
    assert_eq!(roles_of(&app).await, ["{viewer}"]);
    let program = app.api_key(text(&created));
    eventually("the key has the new role", async || program.get("/v1/me").await.ok(200)["roles"] == json!(["viewer"]))
        .await;
}

/// Of those who made no key, no more is kept than tokens need that are good still.
#[tokio::test]
async fn authn_12_whoever_made_no_key_is_forgotten() {
    let app = TestApp::start().await;
    app.new_api_key(&[Scope::OrdersRead]).await;
    app.bearer(app.forge().claim("sub", "without keys").token()).get("/v1/me").await.ok(200);
    app.bearer(app.forge().claim("sub", "seen lately").token()).get("/v1/me").await.ok(200);
    let age = "update roles_seen set as_of = as_of - interval '4 days' where subject <> 'seen lately'";
    sqlx::raw_sql(age).execute(&mut superuser(&app.database).await).await.unwrap();
    app.bearer(app.forge().claim("sub", "another").token()).get("/v1/me").await.ok(200);
    let left = query(&app.database.authn, "select subject from roles_seen order by subject").await;
    assert_eq!(left, ["admin@acme.example", "another", "seen lately"]);
}

/// Which of two is newer nobody can say, so no order of them gives more than both.
#[tokio::test]
async fn authn_12_of_two_tokens_of_one_second_what_both_say_counts() {
    let app = TestApp::start().await;
    let created = app.new_api_key(&[Scope::OrdersRead]).await;
    let now = app.clock.timestamp() + 1;
    app.clock.advance(Duration::from_secs(2));
    let seen_with = async |roles: Value, jti: &str| {
        let forge = app.forge().claim("iat", now).claim("exp", now + 300).claim("roles", roles).claim("jti", jti);
        app.bearer(forge.token()).get("/v1/me").await.ok(200);
    };
    seen_with(json!(["admin", "auditor"]), "one").await;
    seen_with(json!(["auditor", "viewer"]), "two").await;
    assert_eq!(roles_of(&app).await, ["{auditor}"]);
    seen_with(json!(["admin", "auditor", "viewer"]), "three").await;
    assert_eq!(roles_of(&app).await, ["{auditor}"]);
    let program = app.api_key(text(&created));
    assert_eq!(program.get("/v1/me").await.ok(200)["roles"], json!(["auditor"]));
}
