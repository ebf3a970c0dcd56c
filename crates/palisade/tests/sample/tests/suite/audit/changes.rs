//! What an audit event says about changed rows (LOG-05), and events of changes that no request made.

use http::Method;
use palisade::{
    dev::database::Urls,
    model::Clock,
    ops::{Keys, ResealOptions},
};
use sample::access::{roles, scopes};
use serde_json::{Value, json};

use super::archive;
use crate::support::{
    ACME, Actor, SERVICE, ServiceProcess, TestApp,
    audit_trail::{SEAL_OFTEN, read_trail, until_all_is_sealed, verify},
    id, person, query, run, run_keys, start_error_after, start_issuer,
};

/// A note with personal data, by its id.
async fn note(admin: &Actor) -> String {
    let body = json!({ "items": [{ "code": "INK", "count": 1 }], "priority": "standard", "remark": "Ada at home",
                       "email": "ada@nowhere.example", "phone": "+15550100200" });
    id(&admin.post("/v1/notes", &body).await.ok(201))
}

/// The changes of an event, as `column before after`, in order.
fn changes(event: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let changes = event["changes"].as_array().unwrap().iter();
    let mut changes: Vec<_> = changes.map(|c| [&c["column"], &c["before"], &c["after"]].map(text).join(" ")).collect();
    changes.sort_unstable();
    changes
}

#[tokio::test]
async fn log_05_events_name_changed_columns_and_no_personal_value() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let note = note(&admin).await;
    let path = format!("/v1/notes/{note}");
    let change = json!({ "remark": "Grace at work", "email": "grace@nowhere.example", "priority": "express" });
    admin.send(admin.request(Method::PATCH, &path).json(&change)).await.ok(200);
    archive(&admin, &path).await.ok(201);
    admin.send(admin.request(Method::DELETE, &path)).await.ok(204);
    let trail = read_trail(&app, &format!("&object={note}")).await;
    let found: Vec<_> = trail.iter().rev().map(|event| (event["action"].as_str().unwrap(), changes(event))).collect();
    let columns = |text: &[&str]| text.iter().map(|&column| column.to_owned()).collect::<Vec<_>>();
    assert_eq!(found[0], ("note_created", vec![]));
    assert_eq!(found[1], ("note_updated", columns(&["email - -", "email_index - -", "priority - -", "remark - -"])));
    assert_eq!(found[2], ("note_archived", columns(&["status draft archived"])));
    assert_eq!(found[3].0, "note_erased");
    assert!(
        ["remark - -", "email - -", "phone - -", "erased_at - -"].iter().all(|c| found[3].1.contains(&(*c).into()))
    );
    for changed in trail[0]["changes"].as_array().unwrap() {
        assert_eq!((changed["table"].as_str(), changed["key"].as_str()), (Some("notes"), Some(&*note)));
    }
    let stored = query(&app.database.backup, "select audit_events::text from palisade.audit_events").await.join("\n");
    for personal in ["Ada at", "Grace at", "nowhere", "15550100200", "express"] {
        assert!(!stored.contains(personal), "{personal}: {stored}");
    }
    assert_eq!(verify(&SERVICE, &app.database, None).0, Ok(()));
}

/// Runs SQL with the writer's login in the tenant of the tests.
async fn write(urls: &Urls, sql: &str) {
    run(&urls.writer, &format!("set local app.tenant_id = '{}'; {sql}", ACME.id)).await.unwrap();
}

#[tokio::test]
async fn log_05_changes_without_an_event_get_one_at_the_commit() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let note = note(&admin).await;
    let before = read_trail(&app, "").await.len();
    let urls = &app.database;
    for (sql, expected) in [
        ("update notes set status = 'archived' where id = NOTE", &["status draft archived"][..]),
        ("set constraints all immediate; update notes set phone = null where id = NOTE", &["phone - -"]),
        // Neither the tenant of the session nor the hint of the trigger matters at the commit.
        (
            "update notes set remark = 'x' where id = NOTE; set local app.tenant_id = '';
             set local palisade.has_changes = ''",
            &["remark - -"],
        ),
    ] {
        write(urls, &sql.replace("NOTE", &format!("'{note}'"))).await;
        let trail = read_trail(&app, &format!("&object={note}")).await;
        assert_eq!(
            (trail[0]["action"].as_str(), trail[0]["subject"].as_str()),
            (Some("row_changed"), Some("operator:app_writer")),
            "{sql}"
        );
        assert_eq!(changes(&trail[0]), expected, "{sql}");
    }
    // Changes nothing; and a rotation of keys changes no data.
    write(urls, "update notes set status = status").await;
    run_keys(&app, Keys::Rotate { options: ResealOptions::new(None) }, &[]).await.unwrap();
    run(&urls.owner, &format!("set local app.tenant_id = '{}'; delete from notes where id = '{note}'", ACME.id))
        .await
        .unwrap();
    let trail = read_trail(&app, "").await;
    assert_eq!(trail.len(), before + 4, "{trail:#?}");
    assert_eq!(trail[0]["subject"], "operator:app_owner");
    assert!(changes(&trail[0]).contains(&"status archived -".to_owned()), "{:#?}", trail[0]);
    let (found, summary) = verify(&SERVICE, urls, None);
    assert_eq!(found, Ok(()));
    for counted in [
        "3 rows changed past the service by operator:app_writer",
        "1 rows changed past the service by operator:app_owner",
    ] {
        assert!(summary.contains(counted), "{summary}");
    }
}

#[tokio::test]
async fn log_05_change_past_the_service_is_logged_when_it_is_sealed() {
    let urls = SERVICE.database().await;
    let issuer = start_issuer(Clock::system()).await;
    let mut variables = TestApp::variables(&urls, issuer.url());
    variables.insert(SEAL_OFTEN.0.to_owned(), SEAL_OFTEN.1.to_owned());
    let mut serving = ServiceProcess::start(&SERVICE, &variables).await;
    let admin = Actor::new(serving.address, Some(issuer.access_token(&person(&ACME, roles::ADMIN), &scopes::ALL)));
    let note = note(&admin).await;
    // The owner's changes, by migrations, are expected.
    let change = format!("set local app.tenant_id = '{}'; update notes set remark = 'x' where id = '{note}'", ACME.id);
    run(&urls.owner, &change).await.unwrap();
    until_all_is_sealed(&urls).await;
    write(&urls, &format!("update notes set status = 'archived' where id = '{note}'")).await;
    serving.wait_for_line("a changed row", |line| line["event"] == "audit_row_changed" && line["rows"] == 1).await;
    let counted = "select sum(palisade.count_left_over(number))::text from palisade.audit_seals";
    assert_eq!(query(&urls.owner, counted).await, ["1"]);
}

#[tokio::test]
async fn log_05_replaced_ciphertexts_and_row_keys_leave_an_event() {
    let app = SERVICE.start().await;
    let note = note(&app.user(roles::ADMIN)).await;
    let key = format!("where row_id = '{note}'");
    for (sql, column) in [
        ("update notes set email = phone", "email"),
        ("update notes set email_index = null", "email_index"),
        // A row key that changes too, but not as in a rotation.
        ("update palisade.row_keys set wrapped = wrapped KEY; update notes set phone = email", "wrapped"),
        ("update palisade.row_keys set wrapped = wrapped || '\\x00' KEY", "wrapped"),
        ("update palisade.row_keys set index_key = null KEY", "wrapped"),
        ("delete from palisade.row_keys KEY", "wrapped"),
    ] {
        let before = read_trail(&app, &format!("&object={note}")).await.len();
        let of_note = if sql.contains("KEY") { String::new() } else { format!(" where id = '{note}'") };
        let sql = format!("{}{of_note}", sql.replace("KEY", &key));
        let sql = sql.replace("phone = email", &format!("phone = email where id = '{note}'"));
        write(&app.database, &sql).await;
        let trail = read_trail(&app, &format!("&object={note}")).await;
        assert_eq!((trail.len(), trail[0]["action"].as_str()), (before + 1, Some("row_changed")), "{sql}");
        assert_eq!(changes(&trail[0]), [format!("{column} - -")], "{sql}");
    }
}

#[tokio::test]
async fn log_05_keys_and_json_of_persons_stay_out_of_the_trail() {
    let app = SERVICE.start().await;
    let owner = &app.database.owner;
    let tenant = format!("set local app.tenant_id = '{}';", ACME.id);
    let table = "create table people (tenant_id uuid, email text, age integer, data jsonb,
                                      primary key (tenant_id, email));
                 select palisade.isolate_tenants('people');";
    let insert = "insert into people values (palisade.current_tenant(), 'ada@nowhere.example', 1, '\"Ada Lovelace\"'),
                                            (palisade.current_tenant(), 'INK-4', 1, '7');";
    run(owner, &format!("{table} {tenant} {insert}")).await.unwrap();
    let before = read_trail(&app, "").await.len();
    for data in ["3", "\"Ada Lovelace\"", "true", "null"] {
        run(owner, &format!("{tenant} update people set age = age + 1, data = '{data}'")).await.unwrap();
    }
    let trail = read_trail(&app, "").await;
    assert_eq!(trail.len(), before + 8, "{trail:#?}");
    assert!(trail.iter().any(|e| e["object"] == "INK-4" && changes(e) == ["age 1 2", "data - -"]), "{trail:#?}");
    assert!(trail[0]["object"].as_str().unwrap().starts_with("sha256:") || trail[0]["object"] == "INK-4");
    let stored = query(&app.database.backup, "select audit_events::text from palisade.audit_events").await.join("\n");
    assert!(!stored.contains("ada@") && !stored.contains("Lovelace"), "{stored}");
}

/// So the size of an event is bounded.
#[tokio::test]
async fn log_05_an_event_takes_ten_changed_rows_and_the_others_get_their_own() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let mut notes = Vec::new();
    for _ in 0..12 {
        notes.push(format!("'{}'", note(&admin).await));
    }
    let of_notes = format!("where id in ({})", notes.join(", "));
    let event = "select palisade.record_audit_event(palisade.current_tenant(), gen_random_uuid(), 'a user', 'a client',
                                                    'notes_archived', 'all', '')";
    write(&app.database, &format!("update notes set status = 'archived' {of_notes}; {event}")).await;
    let trail = read_trail(&app, "").await;
    let of =
        |action: &str| trail.iter().filter(|e| e["action"] == action).map(|e| changes(e).len()).collect::<Vec<_>>();
    assert_eq!((of("notes_archived"), of("row_changed")), (vec![10], vec![1, 1]));
    // A transaction that is rolled back leaves nothing.
    write(&app.database, &format!("savepoint s; update notes set remark = 'x' {of_notes}; rollback to s")).await;
    assert_eq!(read_trail(&app, "").await.len(), trail.len());
    assert_eq!(query(&app.database.backup, "select count(*)::text from palisade.audit_pending").await, ["0"]);
}

#[tokio::test]
async fn log_05_untracked_table_prevents_startup() {
    for change in [
        "drop trigger collect_change on notes",
        "alter table notes disable trigger collect_change",
        "drop trigger collect_change on notes; create trigger collect_change after update on notes
         for each row execute function palisade.collect_change('id')",
        "drop trigger collect_change on notes; create trigger collect_change after delete or update of status on notes
         for each row execute function palisade.collect_change('id')",
        "create table more (tenant_id uuid primary key);
         alter table more enable row level security; alter table more force row level security;
         create policy tenant_isolation on more using (tenant_id = palisade.current_tenant())
         with check (tenant_id = palisade.current_tenant())",
    ] {
        let error = start_error_after(change).await;
        assert!(error.contains("are not tracked; as its owner, run"), "{change}: {error}");
    }
}
