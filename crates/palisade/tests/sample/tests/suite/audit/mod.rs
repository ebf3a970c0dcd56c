//! The audit trail (LOG-05): every change has one event with its request, failed changes have none,
//! and no login can change what is written.

mod changes;
mod pruning;
mod restored;
mod sealing;
mod verify;

use std::path::PathBuf;

use http::Method;
use palisade::{dev::database::Urls, model::Clock};
use sample::access::{roles, scopes};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    ACME, Actor, GLOBEX, Reply, SERVICE, ServiceProcess, TestApp,
    audit_trail::{SEAL_OFTEN, read_trail, until_all_is_sealed, verify},
    id, incident, note_body, person, query, run, scratch_folder, search, start_issuer,
};

/// A trail of six events at positions 1 to 6 under three seals, and a file with the log.
async fn sealed_trail() -> (Urls, PathBuf) {
    let database = SERVICE.database().await;
    let issuer = start_issuer(Clock::system()).await;
    let mut variables = TestApp::variables(&database, issuer.url());
    variables.insert(SEAL_OFTEN.0.to_owned(), SEAL_OFTEN.1.to_owned());
    let serving = ServiceProcess::start(&SERVICE, &variables).await;
    let admin = Actor::new(serving.address, Some(issuer.access_token(&person(&ACME, roles::ADMIN), &scopes::ALL)));
    for n in 0..3 {
        for m in 0..2 {
            admin.post("/v1/notes", &note_body(&format!("INK-{n}{m}"), 1)).await.ok(201);
        }
        until_all_is_sealed(&database).await;
    }
    let (status, log) = serving.terminate().await;
    assert!(status.success());
    let anchors = scratch_folder().join(format!("anchors-{}", Uuid::now_v7()));
    std::fs::write(&anchors, log).unwrap();
    (database, anchors)
}

/// Archives a note, with an unused idempotency key.
async fn archive(admin: &Actor, path: &str) -> Reply {
    let request = admin.request(Method::POST, &format!("{path}/archive"));
    admin.send(request.header("idempotency-key", Uuid::now_v7().to_string())).await
}

#[tokio::test]
async fn log_05_failed_changes_have_no_event() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let create =
        async || format!("/v1/notes/{}", id(&admin.post("/v1/notes", &note_body("PAPER-A4", 1)).await.ok(201)));
    let (path, draft) = (create().await, create().await);
    archive(&admin, &path).await.ok(201);
    let before = read_trail(&app, "").await.len();
    // The state machine, the schema, the role and the commit reject these changes.
    assert_eq!(archive(&admin, &path).await.problem(409), "conflict");
    assert_eq!(admin.post("/v1/notes", &json!({})).await.problem(400), "invalid_input");
    assert_eq!(app.user(roles::VIEWER).post("/v1/notes", &json!({})).await.problem(403), "forbidden");
    run(
        &app.database.owner,
        "create function stop() returns trigger language plpgsql as
         'begin raise exception ''no''; end';
         create constraint trigger stop after insert on palisade.audit_journal deferrable initially deferred
         for each row execute function stop()",
    )
    .await
    .unwrap();
    assert_eq!(admin.post("/v1/notes", &note_body("INK", 1)).await.problem(500), "internal");
    assert_eq!(admin.get("/v1/items/INK").await.problem(404), "not_found");
    let update = admin.request(Method::PATCH, &draft).json(&json!({ "remark": "changed" }));
    assert_eq!(admin.send(update).await.problem(500), "internal");
    assert_eq!(admin.get(&draft).await.ok(200)["remark"], json!(null));
    assert_eq!(read_trail(&app, "").await.len(), before);
}

#[tokio::test]
async fn log_05_change_is_rolled_back_if_its_event_cannot_be_written() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let draft = format!("/v1/notes/{}", id(&admin.post("/v1/notes", &note_body("PAPER-A4", 1)).await.ok(201)));
    run(
        &app.database.owner,
        "alter table palisade.audit_events add check (action <> 'note_created' and action <> 'note_archived'
                              and action <> 'notes_exported') not valid",
    )
    .await
    .unwrap();
    let count_notes = async || query(&app.database.reader, "select count(*)::text from notes").await;
    let before = count_notes().await;
    let mut note = note_body("PAPER-A4", 1);
    note["email"] = json!("ada@nowhere.example");
    assert_eq!(admin.post("/v1/notes", &note).await.problem(500), "internal");
    assert!(search(&admin, "ada@nowhere.example").await.is_empty());
    assert_eq!(archive(&admin, &draft).await.problem(500), "internal");
    assert_eq!(admin.get(&draft).await.ok(200)["status"], "draft");
    assert_eq!(
        admin
            .post(
                "/v1/exports",
                &json!({ "kind": "notes", "from": "2020-01-01T00:00:00Z", "to": "2040-01-01T00:00:00Z" })
            )
            .await
            .problem(500),
        "internal"
    );
    assert_eq!(count_notes().await, before);
}

#[tokio::test]
async fn log_05_trail_is_paged_filtered_and_limited_to_the_tenant() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(id(&admin.post("/v1/notes", &note_body("PAPER-A4", 1)).await.ok(201)));
    }
    // The trail is newest first.
    ids.reverse();
    let events = read_trail(&app, &format!("&object={}", ids[1])).await;
    assert_eq!(events.len(), 1);
    let at = events[0]["at"].as_str().unwrap().replace('+', "%2B");
    let objects = |events: &[Value]| -> Vec<String> {
        events.iter().map(|event| event["object"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(objects(&read_trail(&app, &format!("&from={at}")).await), ids[..2]);
    assert_eq!(objects(&read_trail(&app, &format!("&to={at}")).await), ids[2..]);
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = admin.get(&format!("/v1/audit-events?limit=2{cursor}")).await.ok(200);
        seen.extend(objects(page["items"].as_array().unwrap()));
        let Some(next) = page["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, ids);
    let globex = app.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL);
    assert_eq!(globex.get("/v1/audit-events").await.ok(200)["items"], json!([]));
    assert_eq!(app.user(roles::WRITER).get("/v1/audit-events").await.problem(403), "forbidden");
}

#[tokio::test]
async fn log_05_no_login_can_change_the_trail() {
    let app = SERVICE.start().await;
    app.user(roles::WRITER).post("/v1/notes", &note_body("INK", 1)).await.ok(201);
    let tenant = ACME.id;
    let urls = &app.database;
    let logins = [&urls.writer, &urls.reader, &urls.authn, &urls.keys, &urls.operator, &urls.auditor, &urls.backup];
    let forged = format!(
        "row ('{tenant}', gen_random_uuid(), now(), 'me', '', 'lie', 'x', '', '', null)::palisade.audit_events"
    );
    let mut attacks = vec![
        format!("select palisade.insert_audit_event({forged})"),
        "update palisade.audit_horizon set upto = 0".to_owned(),
    ];
    for table in ["audit_events", "audit_journal", "audit_seals"] {
        attacks.push(format!("delete from palisade.{table}"));
        attacks.push(format!("truncate palisade.{table}"));
    }
    attacks.push(format!("insert into palisade.audit_events select ({forged}).*"));
    attacks.push(
        "insert into palisade.audit_journal (of_tenant, event, digest)
         select of_tenant, event, digest from palisade.audit_journal"
            .to_owned(),
    );
    attacks.push("insert into palisade.audit_seals values (1, 1, 1, sha256(''), substr(sha256(''), 1, 16))".to_owned());
    attacks.push("update palisade.audit_events set subject = 'another subject'".to_owned());
    attacks.push("update palisade.audit_journal set digest = digest".to_owned());
    attacks.push("update palisade.audit_seals set digest = digest".to_owned());
    for (attack, login) in attacks.iter().flat_map(|attack| logins.map(|login| (attack, login))) {
        let error =
            run(login, &format!("set local app.tenant_id = '{tenant}'; {attack}")).await.unwrap_err().to_string();
        assert!(error.contains("permission denied"), "{attack}: {error}");
    }
    // Triggers stop the owner of the tables, which could drop them.
    for attack in attacks
        .iter()
        .filter(|attack| ["delete", "truncate", "update palisade.audit_e"].iter().any(|a| attack.starts_with(a)))
    {
        let error = run(&urls.owner, &format!("set local app.tenant_id = '{tenant}'; {attack}")).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{attack}: {error}");
    }
}

#[tokio::test]
async fn log_05_operator_commands_are_in_the_trail_of_the_tenant() {
    let app = SERVICE.start().await;
    for arguments in [
        &["throttle", &ACME.id.to_string(), "read", "500"][..],
        &["revoke", "subject", "ann@acme.example"],
        &["revoke", "tenant", &ACME.id.to_string(), "--before", "2020-01-01T00:00:00Z"],
    ] {
        incident(&SERVICE, &app.database, &[arguments, &["--reason", "stolen laptop"]].concat());
    }
    let trail = read_trail(&app, "").await;
    let commands: Vec<_> =
        trail.iter().map(|event| (event["action"].as_str().unwrap(), event["object"].as_str().unwrap())).collect();
    assert_eq!(commands.len(), 2, "{trail:#?}");
    assert_eq!(commands[0].0, "credentials_revoked");
    assert!(commands[0].1.starts_with(&format!("tenant {} before 2020", ACME.id)), "{commands:?}");
    assert!(commands[1].0 == "quota_set" && commands[1].1.starts_with("read 500 per minute until "), "{commands:?}");
    for event in &trail {
        assert_eq!(
            (event["subject"].as_str(), event["reason"].as_str()),
            (Some("operator:app_operator"), Some("stolen laptop"))
        );
    }
    // A revocation by subject has no tenant; its event has the nil tenant.
    let without_tenant = query(
        &app.database.backup,
        "select object from palisade.audit_events where tenant_id = '00000000-0000-0000-0000-000000000000'",
    )
    .await;
    assert!(
        without_tenant.len() == 1 && without_tenant[0].starts_with("subject ann@acme.example before "),
        "{without_tenant:?}"
    );
    assert_eq!(verify(&SERVICE, &app.database, None).0, Ok(()));
}

/// A token can have neither the subject of an operator nor the nil tenant.
#[tokio::test]
async fn log_05_tokens_cannot_pass_as_an_operator() {
    let app = SERVICE.shared();
    let subject = app.forge().claim("sub", "Operator:app_operator").token();
    let nil_tenant = app.forge().claim("tenant_id", Uuid::nil().to_string()).token();
    for token in [subject, nil_tenant] {
        assert_eq!(app.bearer(token).get("/v1/me").await.problem(401), "unauthenticated");
    }
}
