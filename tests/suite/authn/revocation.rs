//! Credentials that are refused before they end, at every replica.

use std::time::{Duration, Instant};

use secrecy::ExposeSecret as _;
use service::{
    authz::{matrix::Scope, policy::Role},
    dev::{database::Urls, demo},
};
use sqlx::Executor as _;

use crate::support::{
    ACME, Actor, GLOBEX, OddIssuer, TestApp, TestKey, UNTHROTTLED, Wire, binary, eventually, run, superuser,
    test_database,
};

/// `incident revoke` as an operator runs it.
fn revoke(database: &Urls, arguments: &[&str]) -> std::process::Output {
    let mut command = binary();
    command.args(["incident", "revoke", "--reason", "a test"]).args(arguments);
    command.env("APP_DATABASE__OPERATOR_URL", database.operator.expose_secret()).env("APP_PROFILE", "development");
    command.output().unwrap()
}

fn revoked(database: &Urls, arguments: &[&str]) {
    let output = revoke(database, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn refused_soon(actor: &Actor) {
    eventually("refused", async || actor.get("/v1/me").await.status == 401).await;
    let reply = actor.get("/v1/me").await;
    assert_eq!(reply.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    assert_eq!(reply.events()[0]["event"], "authn_token_reuse");
}

#[tokio::test]
async fn authn_11_each_kind_refuses_what_it_names_and_nothing_else() {
    let app = TestApp::start_with(&UNTHROTTLED).await;
    let holder = |subject: &str, client: &str, jti: &str, tenant: &demo::Tenant| {
        let forge = app.forge().claim("sub", subject).claim("client_id", client).claim("jti", jti);
        app.bearer(forge.claim("tenant_id", tenant.id.to_string()).token())
    };
    let other = holder("bob", "web", "token-3", &GLOBEX);
    let acme = ACME.id.to_string().to_uppercase();
    for (arguments, gone, kept) in [
        (vec!["token", "token-1"], vec![("alice", "web", "token-1")], vec![("alice", "web", "token-2")]),
        (vec!["subject", "alice"], vec![("alice", "web", "token-2")], vec![("carol", "web", "token-4")]),
        (vec!["client", "web-2"], vec![("carol", "web-2", "token-5")], vec![("carol", "web", "token-4")]),
        (vec!["tenant", &acme], vec![("carol", "web", "token-4"), ("dave", "app", "token-6")], vec![]),
    ] {
        let of = |names: &[(&str, &str, &str)]| -> Vec<Actor> {
            names.iter().map(|(subject, client, jti)| holder(subject, client, jti, &ACME)).collect()
        };
        let (gone, kept) = (of(&gone), of(&kept));
        for actor in gone.iter().chain(&kept) {
            actor.get("/v1/me").await.ok(200);
        }
        revoked(&app.database, &arguments);
        for actor in &gone {
            refused_soon(actor).await;
        }
        for actor in kept.iter().chain([&other]) {
            actor.get("/v1/me").await.ok(200);
        }
    }
    revoked(&app.database, &["everything"]);
    refused_soon(&other).await;
    // Who signs in again is let in: nothing is banned but what was issued before.
    app.clock.advance(Duration::from_secs(2));
    for (subject, jti) in [("alice", "token-7"), ("bob", "token-8")] {
        holder(subject, "web", jti, &ACME).get("/v1/me").await.ok(200);
    }
    // A token named by its id is refused whenever it was issued.
    refused_soon(&holder("alice", "web", "token-1", &ACME)).await;
}

#[tokio::test]
async fn authn_11_an_instant_in_the_past_spares_what_came_after() {
    let app = TestApp::start_with(&[("APP_OIDC__MAX_TOKEN_LIFETIME_SECONDS", "1200")]).await;
    let now = app.clock.timestamp();
    let issued = |ago: i64| app.bearer(app.forge().claim("sub", "alice").claim("iat", now - ago).token());
    let (earlier, later) = (issued(120), issued(30));
    for actor in [&earlier, &later] {
        actor.get("/v1/me").await.ok(200);
    }
    let between = app.clock.now() - chrono::TimeDelta::seconds(60);
    revoked(&app.database, &["subject", "alice", "--before", &between.to_rfc3339()]);
    refused_soon(&earlier).await;
    later.get("/v1/me").await.ok(200);
}

/// What an issuer dated ahead is issued later than now.
#[tokio::test]
async fn authn_11_an_instant_ahead_takes_what_an_issuer_dated_so() {
    let app = TestApp::start().await;
    let ahead = app.clock.timestamp() + 20;
    let user = app.bearer(app.forge().claim("sub", "alice").claim("iat", ahead).token());
    user.get("/v1/me").await.ok(200);
    let until = app.clock.now() + chrono::TimeDelta::seconds(60);
    revoked(&app.database, &["subject", "alice", "--before", &until.to_rfc3339()]);
    refused_soon(&user).await;
}

#[tokio::test]
async fn authn_11_every_replica_knows_soon() {
    let database = test_database().await;
    let key = TestKey::es256("a");
    let issuer = OddIssuer::with_keys(&[&key]).await;
    let from = [("APP_OIDC__ISSUER", issuer.url.as_str())];
    let mut replicas = Vec::new();
    for _ in 0..3 {
        let app = TestApp::start_on(database.clone(), &from).await;
        app.wait_until_ready().await;
        replicas.push(app);
    }
    let token = issuer.token(&key, replicas[0].clock.timestamp());
    let holders: Vec<Actor> = replicas.iter().map(|app| app.bearer(token.clone())).collect();
    for holder in &holders {
        holder.get("/v1/me").await.ok(200);
    }
    // Their connections are lost, all at once, just before.
    let mut superuser = superuser(&database).await;
    superuser
        .execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app_authn' and datname = current_database()")
        .await
        .unwrap();
    revoked(&database, &["subject", "somebody"]);
    for holder in &holders {
        refused_soon(holder).await;
    }
}

#[tokio::test]
async fn authn_11_a_notice_that_is_lost_is_made_up_for() {
    let app = TestApp::start().await;
    let user = app.user(Role::Viewer);
    user.get("/v1/me").await.ok(200);
    // As it stands in the table, but nobody was told.
    let silently = "insert into revocations (kind, value, issued_before, reason, noted_by, noted_at, expires_at)
                    values ('everything', '', now(), 'a test', 'a test', now(), now() + interval '1 hour')";
    superuser(&app.database).await.execute(silently).await.unwrap();
    refused_soon(&user).await;
}

/// A backup is restored, or a copy takes over that had not got everything.
#[tokio::test]
async fn authn_11_what_was_known_stays_known_when_the_database_forgets() {
    let app = TestApp::start().await;
    // Their tokens are issued now: what is issued a second after a revocation is accepted.
    let of = |subject: &str| app.bearer(app.forge().claim("sub", subject).token());
    let (carol, dave, erin) = (of("carol"), of("dave"), of("erin"));
    for subject in ["alice", "bob", "carol"] {
        revoked(&app.database, &["subject", subject]);
    }
    refused_soon(&carol).await;
    let mut superuser = superuser(&app.database).await;
    let forget = "truncate revocations restart identity;
        select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app_authn' and datname = current_database()";
    sqlx::raw_sql(forget).execute(&mut superuser).await.unwrap();
    // At a position that was read before.
    revoked(&app.database, &["subject", "dave"]);
    refused_soon(&dave).await;
    refused_soon(&carol).await;
    erin.get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn authn_11_what_has_ended_by_itself_is_forgotten() {
    let app = TestApp::start().await;
    let entry = |subject: &str, until: &str| {
        format!(
            "insert into revocations (kind, value, issued_before, reason, noted_by, noted_at, expires_at)
             values ('subject', '{subject}', now() + interval '1 hour', 'a test', 'a test', now(), now() {until});"
        )
    };
    let mut superuser = superuser(&app.database).await;
    let both = format!("{}{}", entry("ended", "- interval '1 s'"), entry("going on", "+ interval '30 minutes'"));
    sqlx::raw_sql(sqlx::AssertSqlSafe(both)).execute(&mut superuser).await.unwrap();
    let of = |subject: &str| app.bearer(app.forge().claim("sub", subject).token());
    refused_soon(&of("going on")).await;
    of("ended").get("/v1/me").await.ok(200);
    // The replica forgets by its own clock.
    app.clock.advance(Duration::from_secs(1_900));
    eventually("forgotten", async || of("going on").get("/v1/me").await.status == 200).await;
    // The next revocation takes what has ended out of the table.
    revoked(&app.database, &["subject", "another"]);
    let left: Vec<String> =
        sqlx::query_scalar("select value from revocations order by position").fetch_all(&mut superuser).await.unwrap();
    assert_eq!(left, ["going on", "another"]);
}

#[tokio::test]
async fn authn_11_a_replica_that_lost_sight_refuses_or_serves_as_it_is_told() {
    let database = test_database().await;
    let age = ("APP_REVOCATION__MAX_FEED_AGE_SECONDS", "2");
    let refuses = TestApp::start_on(database.clone(), &[age]).await;
    let serves = TestApp::start_on(database.clone(), &[age, ("APP_REVOCATION__WHEN_LOST", "serve")]).await;
    run(&database.owner, "revoke select on revocations from app_authn").await.unwrap();
    let user = refuses.user(Role::Viewer);
    let until = async |status: u16| {
        eventually(&format!("{status}"), async || user.get("/v1/me").await.status == status).await;
    };
    until(503).await;
    assert_eq!(refuses.anonymous().get("/health/ready").await.problem(503), "unavailable");
    serves.user(Role::Viewer).get("/v1/me").await.ok(200);
    serves.anonymous().get("/health/ready").await.ok(200);
    run(&database.owner, "grant select on revocations to app_authn").await.unwrap();
    until(200).await;
}

/// No end of it is ever heard of, so what was revoked in the meantime is learnt on another.
#[tokio::test]
async fn authn_11_a_connection_that_went_silent_is_given_up() {
    let database = test_database().await;
    let wire = Wire::to(&database.authn).await;
    let app = TestApp::start_on(database, &[("APP_DATABASE__AUTHN_URL", wire.url())]).await;
    let user = app.bearer(app.forge().claim("sub", "alice").token());
    user.get("/v1/me").await.ok(200);
    wire.silence();
    revoked(&app.database, &["subject", "alice"]);
    refused_soon(&user).await;
}

/// Read in pages, all of them before anybody is let in.
#[tokio::test]
async fn authn_11_however_much_was_revoked_all_of_it_is_known_at_the_start() {
    let database = test_database().await;
    let many = "insert into revocations (kind, value, issued_before, reason, noted_by, noted_at, expires_at)
                select 'token', n::text, now(), 'many', 'a test', now(), now() + interval '1 day'
                from generate_series(1, 20001) n";
    sqlx::raw_sql(many).execute(&mut superuser(&database).await).await.unwrap();
    let app = TestApp::start_on(database, &[]).await;
    let status = async |jti: &str| app.bearer(app.forge().claim("jti", jti).token()).get("/v1/me").await.status;
    for revoked in ["1", "10000", "10001", "20001"] {
        assert_eq!(status(revoked).await, 401, "{revoked}");
    }
    assert_eq!(status("20002").await, 200);
}

/// No further connection is allowed, so none can listen; revocations can be read, and keys are read
/// again and again.
#[tokio::test]
async fn authn_11_without_notifications_revocations_and_key_changes_are_read() {
    let app = TestApp::start_with(&UNTHROTTLED).await;
    let (key, other) = (app.new_api_key(&[Scope::OrdersRead]).await, app.new_api_key(&[Scope::OrdersRead]).await);
    let of = |key: &serde_json::Value| app.api_key(key["key"].as_str().unwrap());
    let (program, kept, user) = (of(&key), of(&other), app.user(Role::Viewer));
    for actor in [&program, &kept, &user] {
        actor.get("/v1/me").await.ok(200);
    }
    let mut superuser = superuser(&app.database).await;
    let mut order = async |sql: &str| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut superuser).await.unwrap();
    };
    order(
        "do $$ begin execute format('alter database %I connection limit 0', current_database()); end $$;
         -- The one that listens looked last.
         select pg_terminate_backend(pid)
         from (select pid from pg_stat_activity
               where datname = current_database() and usename = 'app_authn' and query like '%from revocations%'
               order by query_start desc limit 1) as listening",
    )
    .await;
    let id = key["id"].as_str().unwrap();
    order(&format!("update api_keys set revoked_at = now() where id = '{id}'")).await;
    refused_soon(&program).await;
    kept.get("/v1/me").await.ok(200);
    order("select note_revocation('everything', '', now(), 'a test')").await;
    refused_soon(&user).await;
}

#[tokio::test]
async fn authn_11_asking_costs_no_message_to_the_database() {
    let database = test_database().await;
    let wire = Wire::to(&database.authn).await;
    let app = TestApp::start_on(database, &[("APP_DATABASE__AUTHN_URL", wire.url())]).await;
    let user = app.user_of(&ACME, Role::Viewer, &[Scope::OrdersRead]);
    user.get("/v1/me").await.ok(200);
    let key = app.new_api_key(&[Scope::OrdersRead]).await;
    let program = app.api_key(key["key"].as_str().unwrap());
    program.get("/v1/me").await.ok(200);
    let (before, started) = (wire.take().len(), Instant::now());
    for _ in 0..40 {
        user.get("/v1/me").await.ok(200);
        program.get("/v1/me").await.ok(200);
    }
    // Once a second it looks for revocations and for overrides: a statement, and the pool's test of
    // a connection.
    let allowed = 4 * (2 + started.elapsed().as_secs());
    let messages = wire.take();
    assert!(messages.len() as u64 <= allowed, "{messages:?} after {before}");
}

#[tokio::test]
async fn authn_11_what_names_nothing_is_refused() {
    let database = test_database().await;
    for (arguments, message) in [
        (vec!["subject"], "a value is required"),
        (vec!["everything", "else"], "`everything` takes no value"),
        (vec!["tenant", "acme"], "a tenant is named by its UUID"),
        (vec!["nobody", "alice"], "invalid value 'nobody'"),
        (vec!["subject", "alice", "--before", "soon"], "invalid value 'soon'"),
        (vec!["token", "a", "--before", "2020-01-01T00:00:00Z"], "no instant is needed"),
        (vec!["subject", "API-key:x"], "an API key is named by its id"),
        (vec!["subject", "alice", "--before", "2999-01-01T00:00:00Z"], "cannot be revoked yet"),
        (vec!["subject", "alice", "--before", "+262142-12-31T00:00:00Z"], "cannot be revoked yet"),
    ] {
        let output = revoke(&database, &arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(message), "{arguments:?}: {error}");
    }
    // Whoever asks the database itself gets no further.
    for before in ["'infinity'", "'-infinity'", "now() + interval '6 minutes'"] {
        let call = format!("select note_revocation('everything', '', {before}, 'a test')");
        let error = run(&database.operator, &call).await.unwrap_err().to_string();
        assert!(error.contains("cannot be revoked yet") || error.contains("check constraint"), "{before}: {error}");
    }
    // Only the operator's login may.
    for login in [&database.writer, &database.reader, &database.authn, &database.auditor] {
        let call = "select note_revocation('everything', '', now(), 'a test')";
        assert!(run(login, call).await.unwrap_err().to_string().contains("permission denied"));
        let insert = "insert into revocations (kind) values ('everything')";
        assert!(run(login, insert).await.unwrap_err().to_string().contains("permission denied"));
    }
}
