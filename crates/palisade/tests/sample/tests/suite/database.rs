//! Protections of the database that hold even if the code above it is wrong: row-level security
//! (AUTHZ-07), rights of the logins (AUTHZ-08), and the startup checks of both.

use sample::demo;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection, PgConnection};

use crate::support::{ACME, GLOBEX, SERVICE, TestApp, run, start_error_after, superuser};

/// Counts a table's rows without a filter, as a query that forgot it would.
async fn count(url: &SecretString, tenant: Option<&str>, table: &str) -> i64 {
    let mut connection = PgConnection::connect(url.expose_secret()).await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    if let Some(tenant) = tenant {
        let set = "select set_config('app.tenant_id', $1, true)";
        sqlx::query(set).bind(tenant).execute(&mut *tx).await.unwrap();
    }
    let sql = sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
    sqlx::query_scalar(sql).fetch_one(&mut *tx).await.unwrap()
}

const TABLES: [&str; 2] = ["notes", "palisade.row_keys"];

/// Selects a note for the visible tenant.
const ONE_MORE: &str = "
    select tenant_id, gen_random_uuid(), status, items, priority, null, null, null, null, 'x', created_at, updated_at
    from notes limit 1";

#[tokio::test]
async fn authz_07_unfiltered_queries_see_their_tenant_only() {
    let urls = SERVICE.database().await;
    let acme = ACME.id.to_string();
    let globex = GLOBEX.id.to_string();
    // One more note for Acme, so that the counts of the tenants differ.
    let extra = format!(
        "set local app.tenant_id = '{acme}';
         insert into notes {ONE_MORE};
         insert into palisade.row_keys (tenant_id, sealed_table, row_id, data_key, wrapped)
         select tenant_id, sealed_table, (select id from notes where created_by = 'x'), data_key, wrapped
         from palisade.row_keys limit 1"
    );
    run(&urls.owner, &extra).await.unwrap();
    for url in [&urls.writer, &urls.reader] {
        for table in TABLES {
            let acme_rows = count(url, Some(&acme), table).await;
            let globex_rows = count(url, Some(&globex), table).await;
            assert!(globex_rows > 0, "{table} is empty, so this proves nothing");
            assert_eq!(acme_rows, globex_rows + 1, "{table}");
        }
    }
}

#[tokio::test]
async fn authz_07_no_rows_are_visible_without_a_tenant() {
    let urls = SERVICE.database().await;
    // Forced row-level security applies to the owner too.
    for url in [&urls.writer, &urls.reader, &urls.owner] {
        for table in TABLES {
            assert_eq!(count(url, None, table).await, 0, "{table}");
            assert_eq!(count(url, Some(""), table).await, 0, "{table}");
        }
    }
}

#[tokio::test]
async fn authz_07_rows_of_another_tenant_cannot_be_written() {
    let urls = SERVICE.database().await;
    let acme = ACME.id;
    let globex = GLOBEX.id;
    let insert = format!(
        "set local app.tenant_id = '{acme}';
         insert into notes (tenant_id, id, status, items, priority, created_by, created_at, updated_at)
         select '{globex}', gen_random_uuid(), status, items, priority, 'x', now(), now() from notes limit 1"
    );
    assert_sql_error(run(&urls.writer, &insert).await, "42501");
    let foreign = "0190a002-0000-7000-8000-000000000001";
    let update =
        format!("set local app.tenant_id = '{acme}'; update notes set status = 'archived' where id = '{foreign}'");
    assert_eq!(run(&urls.writer, &update).await.unwrap(), 0);
}

/// Asserts an error with this SQLSTATE, such as 42501 (insufficient privilege).
#[track_caller]
fn assert_sql_error(result: Result<u64, sqlx::Error>, code: &str) {
    match result {
        Err(sqlx::Error::Database(error)) => assert_eq!(error.code().as_deref(), Some(code), "{error}"),
        other => panic!("no SQL error: {other:?}"),
    }
}

#[tokio::test]
async fn authz_08_logins_have_only_the_rights_they_need() {
    let urls = SERVICE.database().await;
    let acme = ACME.id;
    let tenant = format!("set local app.tenant_id = '{acme}'; ");
    for denied in [
        "create table stray (x int)",
        "alter table notes disable row level security",
        "drop policy tenant_isolation on notes",
        "delete from notes",
        "truncate notes",
        "update notes set created_by = 'x'",
        "update notes set items = '[]'",
        "update palisade.idempotency_keys set fingerprint = ''",
        "insert into _sqlx_migrations select * from _sqlx_migrations",
        "delete from palisade._sqlx_migrations",
        "set role app_owner",
    ] {
        assert_sql_error(run(&urls.writer, &format!("{tenant}{denied}")).await, "42501");
    }
    for denied in [
        "update notes set status = 'archived'",
        "insert into notes select * from notes",
        "select from notes for update",
    ] {
        assert_sql_error(run(&urls.reader, &format!("{tenant}{denied}")).await, "42501");
    }
    run(&urls.writer, &format!("{tenant}update notes set status = 'archived' where id = '{}'", demo::FIRST_NOTE))
        .await
        .unwrap();
}

/// The timeouts hold even if a connection pooler drops the options that the service sends.
#[tokio::test]
async fn authz_08_timeouts_are_set_on_the_logins() {
    let urls = SERVICE.database().await;
    let settings = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"];
    let service = [&urls.writer, &urls.reader, &urls.authn, &urls.keys, &urls.incidents];
    // Migrations, backups and audits have no timeouts; operator commands set one for each
    // statement.
    let others = [&urls.owner, &urls.backup, &urls.auditor].map(|login| (login, ["0", "0", "0"]));
    let all = service.map(|login| (login, ["5s"; 3])).into_iter().chain(others);
    for (login, expected) in all.chain([(&urls.operator, ["0", "5s", "1min"])]) {
        for (setting, expected) in settings.into_iter().zip(expected) {
            let mut connection = PgConnection::connect(login.expose_secret()).await.unwrap();
            let show = sqlx::AssertSqlSafe(format!("select current_user || ' ' || current_setting('{setting}')"));
            let shown: String = sqlx::query_scalar(show).fetch_one(&mut connection).await.unwrap();
            assert!(shown.ends_with(&format!(" {expected}")), "{setting}: {shown}");
        }
    }
}

/// The error of startup with these logins.
async fn start_error(writer: &SecretString, reader: &SecretString) -> String {
    let urls = SERVICE.database().await;
    let mut variables = TestApp::variables(&urls, "http://127.0.0.1:9");
    for (name, url) in [("APP_DATABASE__WRITER_URL", writer), ("APP_DATABASE__READER_URL", reader)] {
        variables.insert(name.to_owned(), url.expose_secret().to_owned());
    }
    SERVICE.try_start(variables).await.unwrap_err()
}

#[tokio::test]
async fn authz_08_excessive_login_rights_prevent_startup() {
    let urls = SERVICE.database().await;
    let error = start_error(&urls.owner, &urls.reader).await;
    assert!(error.contains("login app_owner has rights that rights.txt does not list"), "{error}");
    let error = start_error(&urls.writer, &urls.owner).await;
    assert!(error.contains("login app_owner has rights that rights.txt does not list"), "{error}");
    for (grant, login, excess) in [
        ("insert on notes", "app_reader", "table public.notes: insert"),
        ("update (status) on notes", "app_reader", "table public.notes (status): update"),
        ("create on schema public", "app_writer", "schema public: create"),
        ("update (roles) on palisade.subject_roles", "app_writer", "table palisade.subject_roles (roles): update"),
        ("insert on palisade.subject_roles", "app_keys", "table palisade.subject_roles: insert"),
        ("truncate on palisade.subject_roles", "app_authn", "table palisade.subject_roles: truncate"),
        ("trigger on palisade.audit_events", "app_writer", "table palisade.audit_events: trigger"),
        ("update (expires_at) on palisade.api_keys", "app_authn", "table palisade.api_keys (expires_at): update"),
        ("select (email) on notes", "app_authn", "table public.notes (email): select"),
        ("select on palisade.data_keys", "app_writer", "table palisade.data_keys: select"),
        ("delete on palisade.index_keys", "app_keys", "table palisade.index_keys: delete"),
        (
            "execute on function palisade.clear_blind_indexes",
            "app_keys",
            "function palisade.clear_blind_indexes: execute",
        ),
        (
            "execute on function palisade.insert_audit_event(palisade.audit_events)",
            "app_writer",
            "function palisade.insert_audit_event: execute",
        ),
    ] {
        let error = start_error_after(&format!("grant {grant} to {login}")).await;
        let expected = format!("login {login} has rights that rights.txt does not list: {excess};");
        assert!(error.contains(&expected), "{grant}: {error}");
    }
    let error = start_error_after("revoke select on notes from app_reader").await;
    assert!(error.contains("login app_reader lacks rights of rights.txt: table public.notes: select"), "{error}");
    // Attributes of a role hold in the whole cluster, so this takes a new login.
    for (options, excess) in [
        ("superuser in role app_writer", "cluster: superuser"),
        ("bypassrls in role app_writer", "cluster: bypassrls"),
        ("in role app_writer, pg_monitor", "role pg_monitor: member"),
        ("in role app_writer, pg_execute_server_program", "role pg_execute_server_program: member"),
        (
            "in role app_writer; grant set on parameter session_replication_role to ROLE",
            "parameter session_replication_role: set",
        ),
        // No role inherits time-outs.
        ("in role app_writer", "session: without statement_timeout"),
        // Nor does a setting for another database hold.
        (
            "in role app_writer; alter role ROLE in database postgres set statement_timeout = '5s'",
            "session: without statement_timeout",
        ),
    ] {
        let mut admin = superuser(&urls).await;
        let role = format!("strong_{}", uuid::Uuid::now_v7().simple());
        let options = options.replace("ROLE", &role);
        let create = format!("create role {role} login password '0123456789abcdef' {options}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut admin).await.unwrap();
        let mut url = url::Url::parse(urls.writer.expose_secret()).unwrap();
        url.set_username(&role).unwrap();
        url.set_password(Some("0123456789abcdef")).unwrap();
        let error = start_error(&url.to_string().into(), &urls.reader).await;
        let drop = format!("drop owned by {role}; drop role {role}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut admin).await.unwrap();
        assert!(error.contains(excess), "{error}");
    }
}

#[tokio::test]
async fn authz_07_missing_row_level_security_prevents_startup() {
    for change in [
        "alter table notes no force row level security",
        "alter table notes disable row level security",
        "drop policy tenant_isolation on notes",
        "create policy everything on notes using (true)",
        "alter policy tenant_isolation on notes using (true)",
        "alter table palisade.row_keys no force row level security",
    ] {
        let table = if change.contains("row_keys") { "palisade.row_keys" } else { "public.notes" };
        let error = start_error_after(change).await;
        assert!(error.contains(&format!("table {table} lacks forced row-level security")), "{change}: {error}");
    }
}

#[tokio::test]
async fn log_05_changeable_audit_trail_prevents_startup() {
    for change in [
        "alter table palisade.audit_events disable trigger append_only",
        "drop trigger append_only on palisade.audit_journal",
        "drop trigger append_only on palisade.audit_seals;
         create trigger append_only before delete on palisade.audit_seals
         for each statement execute function palisade.reject_audit_change()",
    ] {
        let error = start_error_after(change).await;
        assert!(error.contains("is not append-only"), "{change}: {error}");
    }
}

#[tokio::test]
async fn authz_08_missing_migrations_prevent_startup() {
    for (change, expected) in [
        ("delete from _sqlx_migrations", "the schema public is older than this binary: migration 1 is missing"),
        (
            "delete from palisade._sqlx_migrations where version > 1000",
            "the schema palisade is older than this binary: migration 1001 is missing",
        ),
        ("drop table palisade._sqlx_migrations", "the schema palisade is older than this binary: migration 1 is"),
        (
            "insert into _sqlx_migrations select 9000, '', now(), true, '', 0",
            "the schema public is newer than this binary, which lacks migration 9000",
        ),
        (
            "insert into palisade._sqlx_migrations select 900, '', now(), true, '', 0",
            "the schema palisade is newer than this binary, which lacks migration 900",
        ),
    ] {
        let error = start_error_after(change).await;
        assert!(error.contains(expected), "{change}: {error}");
    }
}

/// Otherwise keys of deleted notes would stay.
#[tokio::test]
async fn crypto_08_sealed_table_without_the_key_trigger_prevents_startup() {
    for change in ["drop trigger delete_row_key on notes", "alter table notes disable trigger delete_row_key"] {
        let error = start_error_after(change).await;
        assert!(error.ends_with("`App::sealed`: notes (delete_row_key) is missing"), "{change}: {error}");
    }
}
