//! Open transactions, silent connections and lost connections that must not delay a revocation
//! (AUTHN-11, AUTHN-12).

use std::time::Duration;

use http::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use service::{
    authz::{matrix::Scope, policy::Role},
    dev::{database::Urls, demo},
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::assert_refused;
use crate::support::{
    ACME, Actor, GLOBEX, TestApp, UNTHROTTLED, Wire, binary, eventually, query, run, superuser, test_database,
};

/// A session with a transaction that it keeps open, as an attacker with a service's login would.
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

/// Runs a command of operators, which gives up after five seconds of waiting.
fn incident(database: &Urls, arguments: &[&str]) {
    let mut command = binary();
    command.arg("incident").args(arguments).args(["--reason", "a test"]).env("APP_PROFILE", "development");
    command.env("APP_DATABASE__OPERATOR_URL", database.operator.expose_secret());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn refused_soon(actor: &Actor) {
    eventually("refused", async || actor.get("/v1/me").await.status == 401).await;
}

async fn make_key(maker: &Actor) -> (String, String) {
    let body = json!({ "name": "a test", "scopes": ["orders:read"], "validForDays": 30 });
    let created = maker.post("/v1/api-keys", &body).await.ok(201);
    let text = |field: &str| created[field].as_str().unwrap().to_owned();
    (text("key"), format!("/v1/api-keys/{}", text("id")))
}

async fn delete(actor: &Actor, path: &str) {
    assert_eq!(actor.send(actor.request(Method::DELETE, path)).await.status, 204, "{path}");
}

/// A person of a tenant who signs in now, with a role.
fn signed_in(app: &TestApp, tenant: &demo::Tenant, subject: &str, role: &str) -> Actor {
    let forge = app.forge().claim("sub", subject).claim("tenant_id", tenant.id.to_string());
    app.bearer(forge.claim("roles", json!([role])).token())
}

/// Until these keys are answered for without their rows. A replica that just started may read them
/// twice.
async fn until_cached(database: &Urls, programs: &[&Actor]) {
    eventually("the keys are cached", async || {
        let mut cached = true;
        for program in programs {
            program.get("/v1/me").await.ok(200);
        }
        run(&database.owner, "revoke execute on function read_api_key from app_authn").await.unwrap();
        for program in programs {
            cached &= program.get("/v1/me").await.status == 200;
        }
        run(&database.owner, "grant execute on function read_api_key to app_authn").await.unwrap();
        cached
    })
    .await;
}

/// Whichever login it is, with every lock that a change of a key or of roles takes.
#[tokio::test]
async fn authn_11_open_key_changes_of_service_logins_delay_no_revocation() {
    let roles =
        format!("select note_roles('{}', 'admin@acme.example', '{{viewer}}', now() + interval '1 hour')", ACME.id);
    for (login, change) in
        [("writer", "update api_keys set expires_at = expires_at - interval '1 second'"), ("authn", &*roles)]
    {
        let app = TestApp::start_with(&UNTHROTTLED).await;
        app.new_api_key(&[Scope::OrdersRead]).await;
        let maker = signed_in(&app, &GLOBEX, "maker", "admin");
        let (deleted, rotated) = (make_key(&maker).await, make_key(&maker).await);
        let program = app.api_key(&rotated.0);
        program.get("/v1/me").await.ok(200);
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(|subject| signed_in(&app, &GLOBEX, subject, "viewer"));
        for person in [&alice, &bob, &carol] {
            person.get("/v1/me").await.ok(200);
        }
        let login = if login == "writer" { &app.database.writer } else { &app.database.authn };
        let _held = hold(login, change).await;

        incident(&app.database, &["revoke", "subject", "alice"]);
        refused_soon(&alice).await;
        incident(&app.database, &["sessions", "bob"]);
        refused_soon(&bob).await;
        // Another tenant's keys, and a new sign-in that changes what they may do.
        delete(&maker, &deleted.1).await;
        let body = json!({ "validForDays": 1, "overlapHours": 1 });
        maker.post(&format!("{}/rotate", rotated.1), &body).await.ok(201);
        app.clock.advance(Duration::from_secs(1));
        signed_in(&app, &GLOBEX, "maker", "viewer").get("/v1/me").await.ok(200);
        eventually("the role", async || program.get("/v1/me").await.ok(200)["roles"] == json!(["viewer"])).await;
        carol.get("/v1/me").await.ok(200);
        incident(&app.database, &["revoke", "everything"]);
        refused_soon(&carol).await;
    }
}

/// A login that may delete from a table, or change all of it, may also lock it.
#[tokio::test]
async fn authn_11_service_logins_cannot_lock_tables_that_operators_write() {
    let database = test_database().await;
    let logins = [&database.writer, &database.reader, &database.authn, &database.keys, &database.incidents];
    for table in ["revocations", "measures", "tenant_quotas", "audit_events", "audit_journal", "api_keys", "roles_seen"]
    {
        for login in logins {
            let error = run(login, &format!("lock table {table} in row exclusive mode")).await.unwrap_err();
            assert!(error.to_string().contains("permission denied"), "{table}: {error}");
        }
    }
}

/// One operator's session hangs, also one with a lower position, and after it deleted what has
/// ended.
#[tokio::test]
async fn authn_11_an_open_revocation_delays_no_other_and_is_learnt_when_it_commits() {
    let app = TestApp::start_with(&UNTHROTTLED).await;
    let [alice, bob] = ["alice", "bob"].map(|subject| signed_in(&app, &ACME, subject, "viewer"));
    let ended = "insert into revocations (kind, value, issued_before, reason, noted_by, noted_at, expires_at)
                 values ('token', 'ended', now(), 'a test', 'a test', now(), now() - interval '1 minute');
                 insert into measures (kind, target, per_minute, reason, noted_by, noted_at, expires_at)
                 values ('class', 'read', 1, 'a test', 'a test', now(), now() - interval '1 minute');
                 insert into tenant_quotas (of_tenant, quota, per_minute, reason, noted_by, noted_at, expires_at)
                 values (gen_random_uuid(), 'read', 1, 'a test', 'a test', now(), now() - interval '1 minute')";
    sqlx::raw_sql(ended).execute(&mut superuser(&app.database).await).await.unwrap();
    let all = "select note_revocation('subject', 'alice', now(), 'a test');
               select note_measure('address', '192.0.2.0/24', 1, 1, 'a test');
               select note_tenant_quota(gen_random_uuid(), 'read', 1, now() + interval '1 hour', 'a test')";
    let mut held = hold(&app.database.incidents, all).await;
    incident(&app.database, &["revoke", "subject", "bob"]);
    incident(&app.database, &["read-only", "true"]);
    incident(&app.database, &["throttle", &ACME.id.to_string(), "read", "50"]);
    refused_soon(&bob).await;
    alice.get("/v1/me").await.ok(200);
    sqlx::raw_sql("commit").execute(&mut held).await.unwrap();
    refused_soon(&alice).await;
}

/// The second replica's connections are silenced; its look-ups of keys get new ones, its listener
/// has to notice.
#[tokio::test]
async fn authn_12_a_silent_listener_keeps_no_changed_key_accepted() {
    let database = test_database().await;
    let first = TestApp::start_on(database.clone(), &UNTHROTTLED).await;
    let wire = Wire::to(&database.authn).await;
    let own = [("APP_DATABASE__AUTHN_URL", wire.url()), ("APP_SECRETS__PEPPER", first.pepper.as_str())];
    let second = TestApp::start_on(database.clone(), &[&UNTHROTTLED[..], &own].concat()).await;
    let admin = first.user(Role::Admin);
    let (revoked, kept) = (make_key(&admin).await, make_key(&admin).await);
    let (program, demoted) = (second.api_key(&revoked.0), second.api_key(&kept.0));
    until_cached(&database, &[&program, &demoted]).await;
    wire.silence();
    let looking_up = "select pg_terminate_backend(pid) from pg_stat_activity
                      where datname = current_database() and usename = 'app_authn' and query like '%read_api_key%'";
    sqlx::raw_sql(looking_up).execute(&mut superuser(&database).await).await.unwrap();
    delete(&admin, &revoked.1).await;
    first.clock.advance(Duration::from_secs(1));
    signed_in(&first, &ACME, "admin@acme.example", "viewer").get("/v1/me").await.ok(200);
    refused_soon(&program).await;
    assert_refused(&program.get("/v1/me").await, "revoked");
    eventually("the other key has the role", async || demoted.get("/v1/me").await.body["roles"] == json!(["viewer"]))
        .await;
}

/// Neither the key that was deleted meanwhile nor the revocation is accepted once the database is
/// back.
#[tokio::test]
async fn authn_12_changes_during_a_lost_connection_are_learnt_after_it() {
    let database = test_database().await;
    let first = TestApp::start_on(database.clone(), &UNTHROTTLED).await;
    let wire = Wire::to(&database.authn).await;
    let own = [("APP_DATABASE__AUTHN_URL", wire.url()), ("APP_SECRETS__PEPPER", first.pepper.as_str())];
    let second = TestApp::start_on(database.clone(), &[&UNTHROTTLED[..], &own].concat()).await;
    // At each replica, one that listens and one that read all revocations at the start.
    let sessions = "select count(*)::text from pg_stat_activity
                    where datname = current_database() and pid <> pg_backend_pid() and query like '%from revocations%'";
    let are_open = async |count: &str| query(&database.authn, sessions).await == [count];
    let admin = first.user(Role::Admin);
    let (text, path) = make_key(&admin).await;
    let (program, alice) = (second.api_key(&text), signed_in(&second, &ACME, "alice", "viewer"));
    alice.get("/v1/me").await.ok(200);
    until_cached(&database, &[&program]).await;
    wire.down(true);
    eventually("the second is cut off", async || are_open("2").await).await;
    delete(&admin, &path).await;
    incident(&database, &["revoke", "subject", "alice"]);
    // They are cached, for as long as revocations may be out of date.
    for actor in [&program, &alice] {
        actor.get("/v1/me").await.ok(200);
    }
    // As in a copy that took over: positions are lower than those that were read.
    let restart = "alter table revocations alter column position restart with 1";
    sqlx::raw_sql(restart).execute(&mut superuser(&database).await).await.unwrap();
    wire.down(false);
    refused_soon(&program).await;
    refused_soon(&alice).await;
}

/// A hash that was checked is one hash of one key.
#[tokio::test]
async fn authn_12_a_key_whose_hash_changed_is_hashed_again() {
    let app = TestApp::start_with(&UNTHROTTLED).await;
    let admin = app.user(Role::Admin);
    let (first, second, third) = (make_key(&admin).await, make_key(&admin).await, make_key(&admin).await);
    let program = app.api_key(&first.0);
    program.get("/v1/me").await.ok(200);
    let id = |path: &str| path.rsplit_once('/').unwrap().1.to_owned();
    let exchange = format!(
        "update api_keys k set secret_hash = o.secret_hash from api_keys o where k.id = '{}' and o.id = '{}'",
        id(&first.1),
        id(&second.1)
    );
    sqlx::raw_sql(AssertSqlSafe(exchange)).execute(&mut superuser(&app.database).await).await.unwrap();
    // Any change of a key of the tenant has the rows read again.
    delete(&admin, &third.1).await;
    assert_refused(&program.get("/v1/me").await, "another hash");
}

/// A notification names the tenant and no person: every login of the database can listen.
#[tokio::test]
async fn authn_12_notifications_name_no_subject_and_come_once_for_all_keys() {
    let app = TestApp::start_with(&UNTHROTTLED).await;
    let mut listener = sqlx::postgres::PgListener::connect(app.database.reader.expose_secret()).await.unwrap();
    listener.listen("revocations").await.unwrap();
    let maker = signed_in(&app, &GLOBEX, "maker", "admin");
    make_key(&maker).await;
    let (_, path) = make_key(&maker).await;
    let sign_in = async |subject: &str, role: &str| {
        app.clock.advance(Duration::from_secs(1));
        signed_in(&app, &GLOBEX, subject, role).get("/v1/me").await.ok(200);
    };
    // Not for the same roles, nor for a subject without keys.
    sign_in("maker", "admin").await;
    sign_in("another", "admin").await;
    sign_in("another", "viewer").await;
    sign_in("maker", "viewer").await;
    delete(&app.user_of(&GLOBEX, Role::Admin, &Scope::ALL), &path).await;
    run(&app.database.reader, "select pg_notify('revocations', 'the end')").await.unwrap();
    let mut payloads = Vec::new();
    while payloads.last().is_none_or(|payload| payload != "the end") {
        payloads.push(listener.recv().await.unwrap().payload().to_owned());
    }
    let globex = GLOBEX.id.to_string();
    assert_eq!(payloads, [&*globex, &globex, "the end"]);
}
