//! Retention (INPUT-10, AUTHN-12): rows that have expired are deleted, of tenants that send no more
//! requests too.

use std::fs;

use http::Method;
use palisade::dev::SOURCES;
use sample::access::{roles, scopes};
use serde_json::json;
use sqlx::AssertSqlSafe;

use crate::support::{
    ACME, Actor, GLOBEX, SERVICE, TestApp, api_keys::key_path, eventually, id, note_body, run_as_superuser, superuser,
};

async fn count(app: &TestApp, rows: &str) -> i64 {
    let count = format!("select count(*) from palisade.{rows}");
    sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut superuser(&app.database).await).await.unwrap()
}

async fn create(actor: &Actor, key: &str) {
    let request = actor.request(Method::POST, "/v1/notes").header("idempotency-key", key);
    actor.send(request.json(&note_body("PAPER-A4", 1))).await.ok(201);
}

#[tokio::test]
async fn input_10_expired_responses_of_silent_tenants_are_deleted() {
    let app = SERVICE.start().await;
    for tenant in [&ACME, &GLOBEX] {
        let writer = app.user_of(tenant, roles::WRITER, &scopes::ALL);
        create(&writer, "expired").await;
        create(&writer, "kept").await;
    }
    // More than a batch of one tenant, and more tenants than a batch.
    let age = "update palisade.idempotency_keys set created_at = now() - interval '2 days',
                                                    expires_at = now() - interval '1 day' where key = 'expired';
               insert into palisade.idempotency_keys
               select case when n < 2500 then tenant_id else gen_random_uuid() end, subject, client, operation,
                      'copy' || n, fingerprint, body, location, created_at, expires_at
               from (select * from palisade.idempotency_keys where key = 'expired' limit 1) k,
                    generate_series(1, 2700) n";
    run_as_superuser(
        &app,
        format!(
            "alter table palisade.idempotency_keys
        disable trigger reject_new_response; {age};
        alter table palisade.idempotency_keys enable trigger reject_new_response"
        ),
    )
    .await;
    assert_eq!(count(&app, "idempotency_keys").await, 2704);
    // Every replica sweeps at its start, and then each hour.
    let replica = SERVICE.start_on(app.database.clone(), &[]).await;
    eventually("all expired rows are deleted", async || count(&replica, "idempotency_keys").await == 2).await;
    assert_eq!(count(&replica, "idempotency_keys where key = 'kept'").await, 2);
}

#[tokio::test]
async fn authn_12_api_keys_are_deleted_a_year_after_their_end() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let mut created = Vec::new();
    for _ in 0..3 {
        created.push(app.new_api_key(&[scopes::NOTES_READ]).await);
    }
    let rotated =
        admin.post(&format!("{}/rotate", key_path(&created[0])), &json!({ "validForDays": 30 })).await.ok(201);
    let long_ago = |keys: &[String], days: i32| {
        let keys = keys.join("', '");
        format!(
            "update palisade.api_keys set created_at = now() - interval '500 days', revoked_at = null,
                     expires_at = now() - interval '{days} days' where id in ('{keys}')"
        )
    };
    // Two keys ended more than a year ago, one of them replaced by a live one; another subject has
    // only such a key, and one more a key that ended later.
    let sql = format!(
        "alter table palisade.api_keys disable trigger user;
         alter table palisade.subject_roles disable trigger user;
         {}; {};
         insert into palisade.subject_roles values
             ('{tenant}', 'left', '{{admin}}', now() - interval '400 days', true),
             ('{tenant}', 'leaving', '{{admin}}', now() - interval '400 days', true),
             ('{tenant}', 'reader', '{{viewer}}', now() - interval '4 days', false);
         insert into palisade.api_keys (tenant_id, id, name, secret_hash, scopes, created_by, authorized_at, created_at,
                                        expires_at)
         select tenant_id, gen_random_uuid(), 'copy', secret_hash, scopes, by, authorized_at, created_at - interval '600 days',
                now() - age
         from palisade.api_keys, (values ('left', interval '367 days'), ('leaving', interval '365 days')) n (by, age)
         where id = '{}';
         alter table palisade.api_keys enable trigger user;
         alter table palisade.subject_roles enable trigger user",
        long_ago(&[id(&created[0]), id(&created[1])], 367),
        long_ago(&[id(&created[2])], 365),
        id(&rotated),
        tenant = ACME.id,
    );
    run_as_superuser(&app, sql).await;
    let replica = SERVICE.start_on(app.database.clone(), &[]).await;
    eventually("ended API keys are deleted", async || count(&replica, "api_keys").await == 3).await;
    assert_eq!(count(&replica, "api_keys where replaces is not null").await, 0);
    let subjects = "subject_roles where subject in ('left', 'leaving', 'reader')";
    eventually("roles without API keys are deleted", async || count(&replica, subjects).await == 1).await;
    let live = replica.user(roles::ADMIN).get(&key_path(&rotated)).await;
    assert_ne!(live.status, 500);
    assert_eq!(count(&replica, &format!("api_keys where id = '{}'", id(&rotated))).await, 1);
}

#[tokio::test]
async fn crypto_08_erasure_finds_stored_responses_by_an_index() {
    let app = SERVICE.start().await;
    let files = fs::read_dir(format!("{SOURCES}/.sqlx")).unwrap();
    let statements = files.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    let statement = statements
        .map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap()["query"].as_str().unwrap().to_owned())
        .find(|sql| sql.starts_with("update palisade.idempotency_keys set body = null"))
        .expect("the statement that empties stored responses");
    let rows = format!(
        "insert into palisade.idempotency_keys (tenant_id, subject, client, operation, key, fingerprint, body, location,
                                                created_at, expires_at)
         select '{}', 's', 'c', 'o', n::text, sha256(''), '{{}}', '/v1/notes/' || gen_random_uuid(), now(),
                now() + interval '1 day'
         from generate_series(1, 20000) n",
        ACME.id
    );
    run_as_superuser(&app, format!("{rows}; analyze palisade.idempotency_keys")).await;
    let mut root = superuser(&app.database).await;
    let explain = format!(
        "prepare erase as {statement}; set plan_cache_mode = force_generic_plan; explain execute erase('{}', 'none')",
        ACME.id
    );
    let plan = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut root).await.unwrap();
    let plan: Vec<String> = plan.iter().map(|row| sqlx::Row::try_get_unchecked(row, 0).unwrap()).collect();
    assert!(plan.iter().any(|line| line.contains("idempotency_keys_by_location")), "{plan:#?}");
}
