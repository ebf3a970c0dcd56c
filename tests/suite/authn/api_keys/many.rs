//! How many keys there may be, and what becomes of one whose maker is not known.

use http::Method;
use serde_json::json;
use service::authz::{matrix::Scope, policy::Role};
use sqlx::AssertSqlSafe;

use super::{delete, path, text, with_secret};
use crate::support::{ACME, Actor, Reply, TestApp, superuser};

async fn make(maker: &Actor) -> Reply {
    maker.post("/v1/api-keys", &json!({ "name": "one more", "scopes": ["orders:read"], "validForDays": 1 })).await
}

/// Otherwise one person makes hashes without end for the service to check.
#[tokio::test]
async fn authn_12_somebody_has_a_hundred_live_keys_at_most() {
    let app = TestApp::start().await;
    let first = app.new_api_key(&[Scope::OrdersRead]).await;
    let copies = format!(
        "set app.tenant_id = '{}';
         insert into api_keys (tenant_id, id, name, secret_hash, scopes, created_by, authorized_at, created_at,
                               expires_at, revoked_at)
         select tenant_id, gen_random_uuid(), name, secret_hash, scopes, created_by, authorized_at, created_at,
                case when n = 1 then created_at + interval '1 second' else expires_at end,
                case when n = 2 then created_at end
         from api_keys, generate_series(1, 100) n",
        ACME.id
    );
    sqlx::raw_sql(AssertSqlSafe(copies)).execute(&mut superuser(&app.database).await).await.unwrap();
    app.clock.advance(std::time::Duration::from_secs(2));
    let (maker, another) = (app.user(Role::Admin), app.bearer(app.forge().claim("sub", "another").token()));
    // One has ended and one was revoked: they are not live.
    let last = make(&maker).await.ok(201);
    let refused = make(&maker).await;
    assert_eq!(refused.problem(409), "conflict");
    assert!(refused.text.contains("as many live API keys as one may have"), "{}", refused.text);
    let theirs = make(&another).await.ok(201);
    // Whoever has so many can replace each of them all the same.
    let rotation = json!({ "validForDays": 1, "overlapHours": 1 });
    let rotate = format!("{}/rotate", path(&first));
    maker.post(&rotate, &rotation).await.ok(201);
    // But each once, and not those of others.
    assert_eq!(maker.post(&rotate, &rotation).await.problem(409), "conflict");
    assert_eq!(maker.post(&format!("{}/rotate", path(&theirs)), &rotation).await.problem(409), "conflict");
    assert_eq!(make(&maker).await.problem(409), "conflict");
    for key in [&first, &last] {
        assert_eq!(delete(&maker, &path(key)).await.status, 204);
    }
    make(&maker).await.ok(201);
}

/// As in a copy that took over and lacks what was noted last.
#[tokio::test]
async fn authn_12_what_a_maker_may_do_is_noted_when_a_key_is_made() {
    let app = TestApp::start().await;
    let maker = app.user(Role::Admin);
    maker.get("/v1/me").await.ok(200);
    let lose = format!("set app.tenant_id = '{}'; delete from roles_seen", ACME.id);
    sqlx::raw_sql(AssertSqlSafe(lose)).execute(&mut superuser(&app.database).await).await.unwrap();
    let key = make(&maker).await.ok(201);
    assert_eq!(app.api_key(text(&key)).get("/v1/me").await.ok(200)["roles"], json!(["admin"]));
}

/// Whoever has the text of a revoked key would otherwise have the service hash for nothing.
#[tokio::test]
async fn authn_12_a_revoked_key_is_refused_before_its_hash_is_made() {
    let app = TestApp::start().await;
    let key = app.new_api_key(&[Scope::OrdersRead]).await;
    let wrong = app.api_key(&with_secret(text(&key), &"A".repeat(44)));
    let reason = async || wrong.send(wrong.request(Method::GET, "/v1/me")).await.events()[0]["reason"].clone();
    assert_eq!(reason().await, "api_key_secret");
    assert_eq!(delete(&app.user(Role::Admin), &path(&key)).await.status, 204);
    assert_eq!(reason().await, "revoked");
}
