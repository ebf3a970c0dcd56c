//! Revocation (AUTHN-11): credentials are rejected before they expire, on every replica, also after
//! lost notifications, lost connections and a database that lost revocations.

use std::time::{Duration, Instant};

use palisade::dev::people;
use sample::access::{roles, scopes};
use sqlx::Executor as _;

use crate::support::{
    ACME, Actor, GLOBEX, MisbehavingIssuer, PgProxy, SERVICE, TestKey, UNTHROTTLED,
    api_keys::key_text,
    authn::{challenge, until_status},
    incident, run, run_incident, superuser,
};

/// Waits until the credential is rejected as revoked.
async fn until_revoked(actor: &Actor) {
    until_status(actor, 401).await;
    let reply = actor.get("/v1/me").await;
    assert_eq!(challenge(&reply)["error"], "invalid_token");
    assert_eq!(reply.events()[0]["event"], "authn_token_reuse");
}

#[tokio::test]
async fn authn_11_each_kind_of_revocation_covers_only_its_target() {
    let app = SERVICE.start_with(&UNTHROTTLED).await;
    let holder = |subject: &str, client: &str, jti: &str, tenant: &people::Tenant| {
        let forge = app.forge().claim("sub", subject).claim("client_id", client).claim("jti", jti);
        app.bearer(forge.claim("tenant_id", tenant.id.to_string()).token())
    };
    let other = holder("bob", "web", "token-3", &GLOBEX);
    let acme = ACME.id.to_string().to_uppercase();
    for (arguments, revoked, kept) in [
        (vec!["token", "token-1"], vec![("alice", "web", "token-1")], vec![("alice", "web", "token-2")]),
        (vec!["subject", "alice"], vec![("alice", "web", "token-2")], vec![("carol", "web", "token-4")]),
        (vec!["client", "web-2"], vec![("carol", "web-2", "token-5")], vec![("carol", "web", "token-4")]),
        (vec!["tenant", &acme], vec![("carol", "web", "token-4"), ("dave", "app", "token-6")], vec![]),
    ] {
        let holders = |names: &[(&str, &str, &str)]| -> Vec<Actor> {
            names.iter().map(|(subject, client, jti)| holder(subject, client, jti, &ACME)).collect()
        };
        let revoked = holders(&revoked);
        let kept = holders(&kept);
        for actor in revoked.iter().chain(&kept) {
            actor.get("/v1/me").await.ok(200);
        }
        incident(&SERVICE, &app.database, &[&["revoke"], &arguments[..]].concat());
        for actor in &revoked {
            until_revoked(actor).await;
        }
        for actor in kept.iter().chain([&other]) {
            actor.get("/v1/me").await.ok(200);
        }
    }
    incident(&SERVICE, &app.database, &["revoke", "everything"]);
    until_revoked(&other).await;
    // Tokens issued after the revocation are accepted.
    app.clock.advance(Duration::from_secs(2));
    for (subject, jti) in [("alice", "token-7"), ("bob", "token-8")] {
        holder(subject, "web", jti, &ACME).get("/v1/me").await.ok(200);
    }
    // A token revoked by its id is rejected whenever it was issued.
    until_revoked(&holder("alice", "web", "token-1", &ACME)).await;
}

#[tokio::test]
async fn authn_11_revocation_before_a_past_time_spares_later_tokens() {
    let app = SERVICE.start_with(&[("APP_OIDC__MAX_TOKEN_LIFETIME_SECONDS", "1200")]).await;
    let now = app.clock.timestamp();
    let issued =
        |seconds_ago: i64| app.bearer(app.forge().claim("sub", "alice").claim("iat", now - seconds_ago).token());
    let earlier = issued(120);
    let later = issued(30);
    for actor in [&earlier, &later] {
        actor.get("/v1/me").await.ok(200);
    }
    let between = app.clock.now() - chrono::TimeDelta::seconds(60);
    incident(&SERVICE, &app.database, &["revoke", "subject", "alice", "--before", &between.to_rfc3339()]);
    until_revoked(&earlier).await;
    later.get("/v1/me").await.ok(200);
}

/// The clock of an issuer may be ahead, so that its tokens are issued in the future.
#[tokio::test]
async fn authn_11_revocation_before_a_future_time_covers_postdated_tokens() {
    let app = SERVICE.start().await;
    let ahead = app.clock.timestamp() + 20;
    let user = app.bearer(app.forge().claim("sub", "alice").claim("iat", ahead).token());
    user.get("/v1/me").await.ok(200);
    let until = app.clock.now() + chrono::TimeDelta::seconds(60);
    incident(&SERVICE, &app.database, &["revoke", "subject", "alice", "--before", &until.to_rfc3339()]);
    until_revoked(&user).await;
}

#[tokio::test]
async fn authn_11_replicas_load_revocations_after_lost_connections() {
    let database = SERVICE.database().await;
    let key = TestKey::es256("a");
    let issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&key]).await;
    let variables = [("APP_OIDC__ISSUER", issuer.url.as_str())];
    let mut replicas = Vec::new();
    for _ in 0..3 {
        let app = SERVICE.start_on(database.clone(), &variables).await;
        app.wait_until_ready().await;
        replicas.push(app);
    }
    let token = issuer.token(&key, replicas[0].clock.timestamp());
    let holders: Vec<Actor> = replicas.iter().map(|app| app.bearer(token.clone())).collect();
    for holder in &holders {
        holder.get("/v1/me").await.ok(200);
    }
    // All replicas lose their connections just before the revocation.
    let mut superuser = superuser(&database).await;
    superuser
        .execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app_authn' and datname = current_database()")
        .await
        .unwrap();
    incident(&SERVICE, &database, &["revoke", "subject", "a-caller"]);
    for holder in &holders {
        until_revoked(holder).await;
    }
}

#[tokio::test]
async fn authn_11_revocation_without_a_notification_is_loaded() {
    let app = SERVICE.start().await;
    let user = app.user(roles::VIEWER);
    user.get("/v1/me").await.ok(200);
    // A row without the notification that `record_revocation` sends.
    let insert =
        "insert into palisade.revocations (kind, value, issued_before, reason, recorded_by, recorded_at, expires_at)
                    values ('everything', '', now(), 'a test', 'a test', now(), now() + interval '1 hour')";
    superuser(&app.database).await.execute(insert).await.unwrap();
    until_revoked(&user).await;
}

/// As after the restore of a backup, or a failover to a standby that lags behind.
#[tokio::test]
async fn authn_11_revocations_stay_effective_after_the_database_loses_them() {
    let app = SERVICE.start().await;
    // The tokens are issued before the revocations: later ones are accepted.
    let [carol, dave, erin] =
        ["carol", "dave", "erin"].map(|subject| app.bearer(app.forge().claim("sub", subject).token()));
    for subject in ["alice", "bob", "carol"] {
        incident(&SERVICE, &app.database, &["revoke", "subject", subject]);
    }
    until_revoked(&carol).await;
    let mut superuser = superuser(&app.database).await;
    let lose = "truncate palisade.revocations restart identity;
        select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app_authn' and datname = current_database()";
    sqlx::raw_sql(lose).execute(&mut superuser).await.unwrap();
    // The new row gets a position that the replica has read before.
    incident(&SERVICE, &app.database, &["revoke", "subject", "dave"]);
    until_revoked(&dave).await;
    until_revoked(&carol).await;
    erin.get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn authn_11_expired_revocations_are_removed() {
    let app = SERVICE.start().await;
    let row = |subject: &str, until: &str| {
        format!(
            "insert into palisade.revocations (kind, value, issued_before, reason, recorded_by, recorded_at, expires_at)
             values ('subject', '{subject}', now() + interval '1 hour', 'a test', 'a test', now(), now() {until});"
        )
    };
    let mut superuser = superuser(&app.database).await;
    let both = format!("{}{}", row("ended", "- interval '1 s'"), row("in force", "+ interval '30 minutes'"));
    sqlx::raw_sql(sqlx::AssertSqlSafe(both)).execute(&mut superuser).await.unwrap();
    let user = |subject: &str| app.bearer(app.forge().claim("sub", subject).token());
    until_revoked(&user("in force")).await;
    user("ended").get("/v1/me").await.ok(200);
    // The replica removes it by its own clock.
    app.clock.advance(Duration::from_secs(1_900));
    until_status(&user("in force"), 200).await;
    // The next revocation deletes expired rows from the table.
    incident(&SERVICE, &app.database, &["revoke", "subject", "another"]);
    let left: Vec<String> = sqlx::query_scalar("select value from palisade.revocations order by position")
        .fetch_all(&mut superuser)
        .await
        .unwrap();
    assert_eq!(left, ["in force", "another"]);
}

#[tokio::test]
async fn authn_11_stale_revocations_reject_or_serve_as_configured() {
    let database = SERVICE.database().await;
    let max_age = ("APP_REVOCATION__MAX_FEED_AGE_SECONDS", "2");
    let refuses = SERVICE.start_on(database.clone(), &[max_age]).await;
    let serves = SERVICE.start_on(database.clone(), &[max_age, ("APP_REVOCATION__ON_STALE_FEED", "serve")]).await;
    run(&database.owner, "revoke select on palisade.revocations from app_authn").await.unwrap();
    let user = refuses.user(roles::VIEWER);
    until_status(&user, 503).await;
    assert_eq!(refuses.anonymous().get("/health/ready").await.problem(503), "unavailable");
    serves.user(roles::VIEWER).get("/v1/me").await.ok(200);
    serves.anonymous().get("/health/ready").await.ok(200);
    run(&database.owner, "grant select on palisade.revocations to app_authn").await.unwrap();
    until_status(&user, 200).await;
}

/// The connection never reports an error, so revocations must be loaded over another one.
#[tokio::test]
async fn authn_11_silent_connection_is_replaced() {
    let database = SERVICE.database().await;
    let proxy = PgProxy::start(&database.authn).await;
    let app = SERVICE.start_on(database, &[("APP_DATABASE__AUTHN_URL", proxy.url())]).await;
    let user = app.bearer(app.forge().claim("sub", "alice").token());
    user.get("/v1/me").await.ok(200);
    proxy.silence();
    incident(&SERVICE, &app.database, &["revoke", "subject", "alice"]);
    until_revoked(&user).await;
}

/// Revocations are read in pages, all of them before the first request is served.
#[tokio::test]
async fn authn_11_all_pages_of_revocations_are_loaded_at_the_start() {
    let database = SERVICE.database().await;
    let many =
        "insert into palisade.revocations (kind, value, issued_before, reason, recorded_by, recorded_at, expires_at)
                select 'token', n::text, now(), 'many', 'a test', now(), now() + interval '1 day'
                from generate_series(1, 20001) n";
    sqlx::raw_sql(many).execute(&mut superuser(&database).await).await.unwrap();
    let app = SERVICE.start_on(database, &[]).await;
    let status = async |jti: &str| app.bearer(app.forge().claim("jti", jti).token()).get("/v1/me").await.status;
    for revoked in ["1", "10000", "10001", "20001"] {
        assert_eq!(status(revoked).await, 401, "{revoked}");
    }
    assert_eq!(status("20002").await, 200);
}

/// The database refuses further connections, so that none can listen. The replica polls revocations
/// and reads API keys again.
#[tokio::test]
async fn authn_11_revocations_are_polled_without_a_listening_connection() {
    let app = SERVICE.start_with(&UNTHROTTLED).await;
    let key = app.new_api_key(&[scopes::NOTES_READ]).await;
    let other = app.new_api_key(&[scopes::NOTES_READ]).await;
    let program = app.api_key(key_text(&key));
    let kept = app.api_key(key_text(&other));
    let user = app.user(roles::VIEWER);
    for actor in [&program, &kept, &user] {
        actor.get("/v1/me").await.ok(200);
    }
    let mut superuser = superuser(&app.database).await;
    let mut execute = async |sql: &str| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut superuser).await.unwrap();
    };
    execute(
        "do $$ begin execute format('alter database %I connection limit 0', current_database()); end $$;
         -- The listening connection queried last.
         select pg_terminate_backend(pid)
         from (select pid from pg_stat_activity
               where datname = current_database() and usename = 'app_authn' and query like '%from palisade.revocations%'
               order by query_start desc limit 1) as listening",
    )
    .await;
    let id = key["id"].as_str().unwrap();
    execute(&format!("update palisade.api_keys set revoked_at = now() where id = '{id}'")).await;
    until_revoked(&program).await;
    kept.get("/v1/me").await.ok(200);
    execute("select palisade.record_revocation('everything', '', now(), 'a test')").await;
    until_revoked(&user).await;
}

#[tokio::test]
async fn authn_11_revocation_checks_send_no_database_message() {
    let database = SERVICE.database().await;
    let proxy = PgProxy::start(&database.authn).await;
    let app = SERVICE.start_on(database, &[("APP_DATABASE__AUTHN_URL", proxy.url())]).await;
    let user = app.user_of(&ACME, roles::VIEWER, &[scopes::NOTES_READ]);
    user.get("/v1/me").await.ok(200);
    let key = app.new_api_key(&[scopes::NOTES_READ]).await;
    let program = app.api_key(key_text(&key));
    program.get("/v1/me").await.ok(200);
    let before = proxy.take_messages().len();
    let started = Instant::now();
    for _ in 0..40 {
        user.get("/v1/me").await.ok(200);
        program.get("/v1/me").await.ok(200);
    }
    // Once a second the replica loads revocations and overrides. Each load is a statement and the
    // pool's test of the connection.
    let allowed = 4 * (2 + started.elapsed().as_secs());
    let messages = proxy.take_messages();
    assert!(messages.len() as u64 <= allowed, "{messages:?} after {before}");
}

#[tokio::test]
async fn authn_11_invalid_revocations_are_rejected() {
    let database = SERVICE.database().await;
    for (arguments, message) in [
        (vec!["subject"], "a value is required"),
        (vec!["everything", "else"], "`everything` takes no value"),
        (vec!["tenant", "acme"], "a tenant is identified by its UUID"),
        (vec!["nobody", "alice"], "invalid value 'nobody'"),
        (vec!["subject", "alice", "--before", "soon"], "invalid value 'soon'"),
        (vec!["token", "a", "--before", "2020-01-01T00:00:00Z"], "`before` does not apply to a token"),
        (vec!["subject", "API-key:x"], "an API key is identified by its id"),
        (vec!["subject", "alice", "--before", "2999-01-01T00:00:00Z"], "cannot be revoked yet"),
        (vec!["subject", "alice", "--before", "+262142-12-31T00:00:00Z"], "cannot be revoked yet"),
    ] {
        let output = run_incident(&SERVICE, &database, &[&["revoke"], &arguments[..]].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(message), "{arguments:?}: {error}");
    }
    // The database rejects these too.
    for before in ["'infinity'", "'-infinity'", "now() + interval '6 minutes'"] {
        let call = format!("select palisade.record_revocation('everything', '', {before}, 'a test')");
        let error = run(&database.operator, &call).await.unwrap_err().to_string();
        assert!(error.contains("cannot be revoked yet") || error.contains("check constraint"), "{before}: {error}");
    }
    // Only the operator's login may revoke.
    for login in [&database.writer, &database.reader, &database.authn, &database.auditor] {
        let call = "select palisade.record_revocation('everything', '', now(), 'a test')";
        assert!(run(login, call).await.unwrap_err().to_string().contains("permission denied"));
        let insert = "insert into palisade.revocations (kind) values ('everything')";
        assert!(run(login, insert).await.unwrap_err().to_string().contains("permission denied"));
    }
}
