//! The limit of 100 active API keys per creator, recorded roles of creators, and deleted API keys,
//! which cost no hash, and unknown ones, which cost new tokens no connection (AUTHN-12).

use futures_util::future::join_all;
use http::Method;
use sample::access::{roles, scopes};
use serde_json::json;
use sqlx::AssertSqlSafe;

use crate::support::{
    ACME, Actor, Reply, SERVICE, UNTHROTTLED,
    api_keys::{delete, key_path, key_text, with_secret},
    eventually, superuser,
};

async fn create(creator: &Actor) -> Reply {
    creator.post("/v1/api-keys", &json!({ "name": "one more", "scopes": ["notes:read"], "validForDays": 1 })).await
}

/// Without the limit, one user could create any number of hashes for the service to verify.
#[tokio::test]
async fn authn_12_creator_has_at_most_100_active_api_keys() {
    let app = SERVICE.start().await;
    let first = app.new_api_key(&[scopes::NOTES_READ]).await;
    let copies = format!(
        "set app.tenant_id = '{}';
         insert into palisade.api_keys (tenant_id, id, name, secret_hash, scopes, created_by, authorized_at, created_at,
                               expires_at, revoked_at)
         select tenant_id, gen_random_uuid(), name, secret_hash, scopes, created_by, authorized_at, created_at,
                case when n = 1 then created_at + interval '1 second' else expires_at end,
                case when n = 2 then created_at end
         from palisade.api_keys, generate_series(1, 100) n",
        ACME.id
    );
    sqlx::raw_sql(AssertSqlSafe(copies)).execute(&mut superuser(&app.database).await).await.unwrap();
    app.clock.advance(std::time::Duration::from_secs(2));
    let creator = app.user(roles::ADMIN);
    let another = app.bearer(app.forge().claim("sub", "another").token());
    // One API key has expired and one is revoked: they are not active.
    let last = create(&creator).await.ok(201);
    let rejected = create(&creator).await;
    assert_eq!(rejected.problem(409), "conflict");
    assert!(rejected.text.contains("API key limit reached"), "{}", rejected.text);
    let other_key = create(&another).await.ok(201);
    // At the limit, each API key of the creator can be rotated once.
    let rotation = json!({ "validForDays": 1, "overlapHours": 1 });
    let rotate = format!("{}/rotate", key_path(&first));
    creator.post(&rotate, &rotation).await.ok(201);
    assert_eq!(creator.post(&rotate, &rotation).await.problem(409), "conflict");
    assert_eq!(creator.post(&format!("{}/rotate", key_path(&other_key)), &rotation).await.problem(409), "conflict");
    assert_eq!(create(&creator).await.problem(409), "conflict");
    for key in [&first, &last] {
        assert_eq!(delete(&creator, &key_path(key)).await.status, 204);
    }
    create(&creator).await.ok(201);
}

/// As after a failover to a standby that lacks the last recorded roles.
#[tokio::test]
async fn authn_12_creating_an_api_key_records_the_roles_of_its_creator() {
    let app = SERVICE.start().await;
    let creator = app.user(roles::ADMIN);
    creator.get("/v1/me").await.ok(200);
    let lose = format!("set app.tenant_id = '{}'; delete from palisade.subject_roles", ACME.id);
    sqlx::raw_sql(AssertSqlSafe(lose)).execute(&mut superuser(&app.database).await).await.unwrap();
    let key = create(&creator).await.ok(201);
    assert_eq!(app.api_key(key_text(&key)).get("/v1/me").await.ok(200)["roles"], json!(["admin"]));
}

/// Otherwise an attacker with a deleted API key could make the service compute hashes.
#[tokio::test]
async fn authn_12_deleted_api_key_is_rejected_without_hashing() {
    let app = SERVICE.start().await;
    let key = app.new_api_key(&[scopes::NOTES_READ]).await;
    let wrong = app.api_key(&with_secret(key_text(&key), &"A".repeat(44)));
    let reason = async || wrong.send(wrong.request(Method::GET, "/v1/me")).await.events()[0]["reason"].clone();
    assert_eq!(reason().await, "api_key_secret");
    assert_eq!(delete(&app.user(roles::ADMIN), &key_path(&key)).await.status, 204);
    assert_eq!(reason().await, "revoked");
}

/// Keys that no replica knows take some of the connections on which the roles in new tokens are
/// recorded, never all.
#[tokio::test]
async fn authn_12_lookups_of_unknown_keys_leave_connections_for_new_tokens() {
    let variables = [&UNTHROTTLED[..], &[("APP_DATABASE__MAX_CONNECTIONS", "4")]].concat();
    let app = SERVICE.start_with(&variables).await;
    let key = app.new_api_key(&[scopes::NOTES_READ]).await;
    // Look-ups of API keys wait for this lock.
    let mut lock = superuser(&app.database).await;
    sqlx::raw_sql("begin; lock table palisade.api_keys in access exclusive mode").execute(&mut lock).await.unwrap();
    let guess = |n: u32| app.api_key(&with_secret(key_text(&key), &format!("{n:044}")));
    let guesses = async {
        join_all((0..8).map(async |n| guess(n).get("/v1/me").await.status)).await;
    };
    let waiting = "select count(*) from pg_stat_activity
                   where wait_event_type = 'Lock' and datname = current_database() and query like '%read_api_key%'";
    let tokens = async {
        eventually("look-ups wait", async || {
            let count: i64 = sqlx::query_scalar(waiting).fetch_one(&mut superuser(&app.database).await).await.unwrap();
            count >= 2
        })
        .await;
        for n in 0..10 {
            let user = app.bearer(app.forge().claim("sub", format!("person-{n}")).token());
            user.get("/v1/me").await.ok(200);
        }
        sqlx::raw_sql("rollback").execute(&mut lock).await.unwrap();
    };
    tokio::join!(guesses, tokens);
}
