//! Open transactions, silent connections and lost connections do not delay revocations (AUTHN-11)
//! and changes of API keys (AUTHN-12).

use std::time::Duration;

use palisade::dev::{database::Urls, people};
use sample::access::{roles, scopes};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::{
    ACME, Actor, GLOBEX, PgProxy, SERVICE, TestApp, UNTHROTTLED,
    api_keys::{delete, key_path, key_text},
    authn::{assert_rejected, until_status},
    eventually, id_of, incident, query, run, superuser,
};

/// A session that keeps a transaction open, as an attacker with a login of the service could.
async fn hold(login: &SecretString, sql: &str) -> PgConnection {
    let mut session = PgConnection::connect(login.expose_secret()).await.unwrap();
    let begin = format!(
        "set statement_timeout = 0; set idle_in_transaction_session_timeout = 0;
         begin; set local app.tenant_id = '{}'; {sql}",
        ACME.id
    );
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut session).await.unwrap();
    session
}

/// Creates an API key: its text and its path.
async fn create_key(creator: &Actor) -> (String, String) {
    let body = json!({ "name": "a test", "scopes": ["notes:read"], "validForDays": 30 });
    let created = creator.post("/v1/api-keys", &body).await.ok(201);
    (key_text(&created).to_owned(), key_path(&created))
}

/// A user of a tenant, with a token issued now.
fn signed_in(app: &TestApp, tenant: &people::Tenant, subject: &str, role: &str) -> Actor {
    let forge = app.forge().claim("sub", subject).claim("tenant_id", tenant.id.to_string());
    app.bearer(forge.claim("roles", json!([role])).token())
}

/// Waits until these API keys are accepted without a read of their rows. A replica that has just
/// started may read them twice.
async fn until_cached(database: &Urls, programs: &[&Actor]) {
    eventually("the keys are cached", async || {
        let mut cached = true;
        for program in programs {
            program.get("/v1/me").await.ok(200);
        }
        run(&database.owner, "revoke execute on function palisade.read_api_key from app_authn").await.unwrap();
        for program in programs {
            cached &= program.get("/v1/me").await.status == 200;
        }
        run(&database.owner, "grant execute on function palisade.read_api_key to app_authn").await.unwrap();
        cached
    })
    .await;
}

/// The transactions hold all locks that a change of an API key or of roles takes.
#[tokio::test]
async fn authn_11_open_transactions_of_service_logins_do_not_delay_revocations() {
    let roles = format!(
        "select palisade.record_roles('{}', 'admin@acme.example', '{{viewer}}', now() + interval '1 hour')",
        ACME.id
    );
    for (login, change) in
        [("writer", "update palisade.api_keys set expires_at = expires_at - interval '1 second'"), ("authn", &*roles)]
    {
        let app = SERVICE.start_with(&UNTHROTTLED).await;
        app.new_api_key(&[scopes::NOTES_READ]).await;
        let creator = signed_in(&app, &GLOBEX, "creator", "admin");
        let deleted = create_key(&creator).await;
        let rotated = create_key(&creator).await;
        let program = app.api_key(&rotated.0);
        program.get("/v1/me").await.ok(200);
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(|subject| signed_in(&app, &GLOBEX, subject, "viewer"));
        for user in [&alice, &bob, &carol] {
            user.get("/v1/me").await.ok(200);
        }
        let login = if login == "writer" { &app.database.writer } else { &app.database.authn };
        let _held = hold(login, change).await;

        incident(&SERVICE, &app.database, &["revoke", "subject", "alice"]);
        until_status(&alice, 401).await;
        incident(&SERVICE, &app.database, &["sessions", "bob"]);
        until_status(&bob, 401).await;
        // API keys of another tenant change too: deletion, rotation, and new roles of the creator.
        delete(&creator, &deleted.1).await.ok(204);
        let body = json!({ "validForDays": 1, "overlapHours": 1 });
        creator.post(&format!("{}/rotate", rotated.1), &body).await.ok(201);
        app.clock.advance(Duration::from_secs(1));
        signed_in(&app, &GLOBEX, "creator", "viewer").get("/v1/me").await.ok(200);
        eventually("the API key has the new role", async || {
            program.get("/v1/me").await.ok(200)["roles"] == json!(["viewer"])
        })
        .await;
        carol.get("/v1/me").await.ok(200);
        incident(&SERVICE, &app.database, &["revoke", "everything"]);
        until_status(&carol, 401).await;
    }
}

/// A login may lock a table that it may delete from, or update in all columns.
#[tokio::test]
async fn authn_11_service_logins_cannot_lock_tables_of_operators() {
    let database = SERVICE.database().await;
    let logins = [&database.writer, &database.reader, &database.authn, &database.keys, &database.incidents];
    for table in
        ["revocations", "overrides", "tenant_quotas", "audit_events", "audit_journal", "api_keys", "subject_roles"]
    {
        for login in logins {
            let error = run(login, &format!("lock table palisade.{table} in row exclusive mode")).await.unwrap_err();
            assert!(error.to_string().contains("permission denied"), "{table}: {error}");
        }
    }
}

/// The session of one operator hangs with a revocation of a lower position, after it deleted
/// expired rows.
#[tokio::test]
async fn authn_11_uncommitted_revocation_does_not_delay_others() {
    let app = SERVICE.start_with(&UNTHROTTLED).await;
    let [alice, bob] = ["alice", "bob"].map(|subject| signed_in(&app, &ACME, subject, "viewer"));
    let expired = "insert into palisade.revocations
                     (kind, value, issued_before, reason, recorded_by, recorded_at, expires_at)
                 values ('token', 'ended', now(), 'a test', 'a test', now(), now() - interval '1 minute');
                 insert into palisade.overrides (kind, target, per_minute, reason, recorded_by, recorded_at, expires_at)
                 values ('class', 'read', 1, 'a test', 'a test', now(), now() - interval '1 minute');
                 insert into palisade.tenant_quotas
                     (of_tenant, quota, per_minute, reason, recorded_by, recorded_at, expires_at)
                 values (gen_random_uuid(), 'read', 1, 'a test', 'a test', now(), now() - interval '1 minute')";
    sqlx::raw_sql(expired).execute(&mut superuser(&app.database).await).await.unwrap();
    let all = "select palisade.record_revocation('subject', 'alice', now(), 'a test');
               select palisade.set_override('address', '192.0.2.0/24', 1, 1, 'a test');
               select palisade.set_tenant_quota(gen_random_uuid(), 'read', 1, now() + interval '1 hour', 'a test')";
    let mut held = hold(&app.database.incidents, all).await;
    incident(&SERVICE, &app.database, &["revoke", "subject", "bob"]);
    incident(&SERVICE, &app.database, &["read-only", "true"]);
    incident(&SERVICE, &app.database, &["throttle", &ACME.id.to_string(), "read", "50"]);
    until_status(&bob, 401).await;
    alice.get("/v1/me").await.ok(200);
    sqlx::raw_sql("commit").execute(&mut held).await.unwrap();
    until_status(&alice, 401).await;
}

/// All connections of the second replica go silent. Its reads of API keys get new ones; its
/// listener must detect the silence itself.
#[tokio::test]
async fn authn_12_changed_api_keys_are_loaded_after_the_listener_went_silent() {
    let database = SERVICE.database().await;
    let first = SERVICE.start_on(database.clone(), &UNTHROTTLED).await;
    let proxy = PgProxy::start(&database.authn).await;
    let variables = [("APP_DATABASE__AUTHN_URL", proxy.url()), ("APP_SECRETS__PEPPER", first.pepper.as_str())];
    let second = SERVICE.start_on(database.clone(), &[&UNTHROTTLED[..], &variables].concat()).await;
    let admin = first.user(roles::ADMIN);
    let revoked = create_key(&admin).await;
    let kept = create_key(&admin).await;
    let program = second.api_key(&revoked.0);
    let demoted = second.api_key(&kept.0);
    until_cached(&database, &[&program, &demoted]).await;
    proxy.silence();
    let end_reads = "select pg_terminate_backend(pid) from pg_stat_activity
                      where datname = current_database() and usename = 'app_authn' and query like '%read_api_key%'";
    sqlx::raw_sql(end_reads).execute(&mut superuser(&database).await).await.unwrap();
    delete(&admin, &revoked.1).await.ok(204);
    first.clock.advance(Duration::from_secs(1));
    signed_in(&first, &ACME, "admin@acme.example", "viewer").get("/v1/me").await.ok(200);
    until_status(&program, 401).await;
    assert_rejected(&program.get("/v1/me").await, "revoked");
    eventually("the other API key has the role", async || {
        demoted.get("/v1/me").await.body["roles"] == json!(["viewer"])
    })
    .await;
}

/// Neither the API key deleted during the outage nor the revoked subject is accepted after it.
#[tokio::test]
async fn authn_12_changes_during_a_lost_connection_are_loaded_after_it() {
    let database = SERVICE.database().await;
    let first = SERVICE.start_on(database.clone(), &UNTHROTTLED).await;
    let proxy = PgProxy::start(&database.authn).await;
    let variables = [("APP_DATABASE__AUTHN_URL", proxy.url()), ("APP_SECRETS__PEPPER", first.pepper.as_str())];
    let second = SERVICE.start_on(database.clone(), &[&UNTHROTTLED[..], &variables].concat()).await;
    // Each replica has two: one that listens, and one that read all revocations at startup.
    let sessions = "select count(*)::text from pg_stat_activity
                    where datname = current_database() and pid <> pg_backend_pid()
                    and (query like '%from palisade.revocations%' or query like '%from palisade.tenants%')";
    let are_open = async |count: &str| query(&database.authn, sessions).await == [count];
    let admin = first.user(roles::ADMIN);
    let (text, path) = create_key(&admin).await;
    let program = second.api_key(&text);
    let alice = signed_in(&second, &ACME, "alice", "viewer");
    alice.get("/v1/me").await.ok(200);
    until_cached(&database, &[&program]).await;
    proxy.set_down(true);
    eventually("the second replica is disconnected", async || are_open("2").await).await;
    delete(&admin, &path).await.ok(204);
    incident(&SERVICE, &database, &["revoke", "subject", "alice"]);
    // Both stay cached until the loaded revocations are too old.
    for actor in [&program, &alice] {
        actor.get("/v1/me").await.ok(200);
    }
    // As after a failover: new positions are lower than those that the replica has read.
    let restart = "alter table palisade.revocations alter column position restart with 1";
    sqlx::raw_sql(restart).execute(&mut superuser(&database).await).await.unwrap();
    proxy.set_down(false);
    until_status(&program, 401).await;
    until_status(&alice, 401).await;
}

/// The cache of verified hashes compares the hash, not just the id of the API key.
#[tokio::test]
async fn authn_12_api_key_is_verified_again_after_its_hash_changed() {
    let app = SERVICE.start_with(&UNTHROTTLED).await;
    let admin = app.user(roles::ADMIN);
    let first = create_key(&admin).await;
    let second = create_key(&admin).await;
    let third = create_key(&admin).await;
    let program = app.api_key(&first.0);
    program.get("/v1/me").await.ok(200);
    let exchange = format!(
        "update palisade.api_keys k set secret_hash = o.secret_hash from palisade.api_keys o
         where k.id = '{}' and o.id = '{}'",
        id_of(&first.1),
        id_of(&second.1)
    );
    sqlx::raw_sql(AssertSqlSafe(exchange)).execute(&mut superuser(&app.database).await).await.unwrap();
    // A change of any API key of the tenant makes the replica read their rows again.
    delete(&admin, &third.1).await.ok(204);
    assert_rejected(&program.get("/v1/me").await, "another hash");
}

/// Every login of the database can listen. One notification covers all API keys of a creator.
#[tokio::test]
async fn authn_12_notifications_contain_the_tenant_only() {
    let app = SERVICE.start_with(&UNTHROTTLED).await;
    let mut listener = sqlx::postgres::PgListener::connect(app.database.reader.expose_secret()).await.unwrap();
    listener.listen("revocations").await.unwrap();
    let creator = signed_in(&app, &GLOBEX, "creator", "admin");
    create_key(&creator).await;
    let (_, path) = create_key(&creator).await;
    let sign_in = async |subject: &str, role: &str| {
        app.clock.advance(Duration::from_secs(1));
        signed_in(&app, &GLOBEX, subject, role).get("/v1/me").await.ok(200);
    };
    // Unchanged roles and subjects without API keys cause no notification.
    sign_in("creator", "admin").await;
    sign_in("another", "admin").await;
    sign_in("another", "viewer").await;
    sign_in("creator", "viewer").await;
    delete(&app.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL), &path).await.ok(204);
    run(&app.database.reader, "select pg_notify('revocations', 'the end')").await.unwrap();
    let mut payloads = Vec::new();
    while payloads.last().is_none_or(|payload| payload != "the end") {
        payloads.push(listener.recv().await.unwrap().payload().to_owned());
    }
    let globex = GLOBEX.id.to_string();
    assert_eq!(payloads, [&*globex, &globex, "the end"]);
}
