//! Rights of API keys (AUTHN-12, AUTHN-13): never more than the scopes, than the current roles of
//! the creator, and than the matrix allows API keys.

use std::time::Duration;

use http::Method;
use palisade::authz::Callers;
use sample::{
    access::{roles, scopes},
    demo,
};
use serde_json::{Value, json};

use crate::support::{
    ACME, MATRIX, SERVICE, TestApp, UNTHROTTLED,
    api_keys::{key_text, revoke},
    authn::assert_rejected,
    eventually, note_body, query, run, superuser,
};

#[tokio::test]
async fn authn_12_api_key_gets_only_scopes_of_its_creator() {
    let app = SERVICE.start().await;
    let creator = app.user_of(&ACME, roles::ADMIN, &[scopes::KEYS_MANAGE, scopes::NOTES_READ, scopes::EXPORTS_CREATE]);
    let make = async |scopes: Value, days: i64| {
        creator.post("/v1/api-keys", &json!({ "name": "n", "scopes": scopes, "validForDays": days })).await
    };
    for (scopes, days, faults) in [
        (
            json!(["notes:read", "exports:create", "keys:manage"]),
            1,
            vec!["/scopes/1 not_allowed", "/scopes/2 not_allowed"],
        ),
        (json!(["notes:read", "notes:read"]), 1, vec!["/scopes/1 duplicate"]),
        (json!(["notes:delete"]), 1, vec!["/scopes/0 not_allowed"]),
        (json!(["*"]), 1, vec!["/scopes/0 not_allowed"]),
        (json!([]), 1, vec!["/scopes too_few"]),
        (json!(["notes:read"]), 0, vec!["/validForDays too_small"]),
        (json!(["notes:read"]), 366, vec!["/validForDays too_large"]),
    ] {
        let reply = make(scopes, days).await;
        assert_eq!(reply.problem(400), "invalid_input");
        assert_eq!(reply.faults(), faults);
    }
    for (scopes, days, fault) in [
        (json!(["notes:read", "notes:write"]), 1, "/scopes/1 not_yours"),
        // The limit of this service is 90 days.
        (json!(["notes:read"]), 91, "/validForDays too_large"),
    ] {
        let reply = make(scopes, days).await;
        assert_eq!(reply.problem(422), "unprocessable");
        assert_eq!(reply.faults(), [fault]);
    }
    let many = vec!["audit:read"; 32];
    assert_eq!(make(json!(many), 1).await.faults(), ["/scopes/1 duplicate"]);
    let unlimited = json!({ "name": "n", "scopes": ["notes:read"] });
    assert_eq!(creator.post("/v1/api-keys", &unlimited).await.faults(), ["/validForDays required"]);
    make(json!(["notes:read"]), 90).await.ok(201);
    for role in [roles::VIEWER, roles::WRITER, roles::AUDITOR] {
        let body = json!({ "name": "n", "scopes": ["notes:read"], "validForDays": 1 });
        assert_eq!(app.user(role).post("/v1/api-keys", &body).await.problem(403), "forbidden", "{role:?}");
    }
}

#[tokio::test]
async fn authn_12_api_key_rights_follow_the_current_roles_of_its_creator() {
    let app = SERVICE.start().await;
    let created = app.new_api_key(&[scopes::NOTES_READ, scopes::NOTES_WRITE]).await;
    let program = app.api_key(key_text(&created));
    let note = note_body("PAPER-A4", 1);
    let create = async || program.post("/v1/notes", &note).await;
    let created_by = create().await.ok(201)["createdBy"].clone();
    assert_eq!(created_by, format!("api-key:{}", created["id"].as_str().unwrap()));
    assert_eq!(program.get("/v1/audit-events").await.problem(403), "insufficient_scope");

    // The next token of the creator has the role viewer.
    let creator = |roles: Value| app.bearer(app.forge().claim("roles", roles).token());
    let stale = creator(json!(["admin"]));
    let until = async |path: &str, status: u16| {
        let call = async || if path == "create" { create().await } else { program.get(path).await };
        eventually(&format!("status {status}"), async || call().await.status == status).await;
    };
    app.clock.advance(Duration::from_secs(1));
    creator(json!(["viewer"])).get("/v1/me").await.ok(200);
    until("create", 403).await;
    program.get("/v1/notes").await.ok(200);
    // An older token changes nothing, though it is valid and its first use is now.
    stale.get("/v1/me").await.ok(200);
    app.api_key(key_text(&created)).get("/v1/notes").await.ok(200);
    assert_eq!(recorded_roles(&app).await, ["{viewer}"]);
    // A token without roles removes the rights.
    for none in [Value::Null, json!([])] {
        app.clock.advance(Duration::from_secs(1));
        creator(none).get("/v1/me").await.ok(200);
        until("/v1/notes", 403).await;
        app.clock.advance(Duration::from_secs(1));
        creator(json!(["admin"])).get("/v1/me").await.ok(200);
        until("create", 201).await;
    }
    // A token with the recorded roles updates their time.
    let stale = creator(json!(["viewer"]));
    app.clock.advance(Duration::from_secs(1));
    creator(json!(["admin"])).get("/v1/me").await.ok(200);
    stale.get("/v1/me").await.ok(200);
    assert_eq!(recorded_roles(&app).await, ["{admin}"]);
    // The roles of another user do not count.
    app.user(roles::VIEWER).get("/v1/me").await.ok(200);
    create().await.ok(201);
}

/// The recorded roles of the creator of the only API key.
async fn recorded_roles(app: &TestApp) -> Vec<String> {
    let roles =
        "select r.roles::text from palisade.subject_roles r join palisade.api_keys k on k.created_by = r.subject";
    query(&app.database.authn, roles).await
}

#[tokio::test]
async fn authn_12_revoked_token_does_not_change_recorded_roles() {
    let app = SERVICE.start().await;
    let created = app.new_api_key(&[scopes::NOTES_READ]).await;
    app.clock.advance(Duration::from_secs(1));
    let stolen = app.bearer(app.forge().claim("jti", "stolen").claim("roles", json!(["viewer"])).token());
    revoke(&app, "token", "stolen").await;
    assert_rejected(&stolen.get("/v1/me").await, "revoked");
    assert_eq!(recorded_roles(&app).await, ["{admin}"]);
    app.api_key(key_text(&created)).get("/v1/notes").await.ok(200);
}

#[tokio::test]
async fn authn_13_closed_operations_reject_api_keys_with_any_scope() {
    let app = SERVICE.start_with(&UNTHROTTLED).await;
    let created = app.new_api_key(&[scopes::NOTES_READ]).await;
    let all: Vec<String> = scopes::ALL.iter().map(|scope| format!("'{}'", scope.as_str())).collect();
    let widen = format!("update palisade.api_keys set scopes = array[{}]", all.join(", "));
    sqlx::raw_sql(sqlx::AssertSqlSafe(widen)).execute(&mut superuser(&app.database).await).await.unwrap();
    let program = app.api_key(key_text(&created));
    let closed: Vec<_> = MATRIX.iter().filter(|row| row.callers == Callers::NoKeys).collect();
    let names: Vec<&str> = closed.iter().map(|row| row.operation).collect();
    assert_eq!(
        names,
        [
            "searchNotes",
            "eraseNote",
            "createExport",
            "createApiKey",
            "listApiKeys",
            "rotateApiKey",
            "revokeApiKey",
            "listMySessions",
            "endMySession",
            "listSessions",
            "endSession"
        ],
        "the operations closed to API keys have changed"
    );
    for row in closed {
        let path = row.path.replace("{id}", &demo::FIRST_NOTE.to_string());
        let method = Method::from_bytes(row.method.as_str().as_bytes()).unwrap();
        let reply = program.send(program.request(method, &path).json(&json!({}))).await;
        assert_eq!(reply.problem(403), "forbidden", "{}", row.operation);
        assert_eq!(reply.event("authz_fail")["reason"], "api_key", "{}", row.operation);
    }
    program.get("/v1/audit-events").await.ok(200);
}

#[tokio::test]
async fn authn_12_token_older_than_the_creating_one_does_not_change_roles() {
    let app = SERVICE.start().await;
    let stale = app.bearer(app.forge().claim("roles", json!(["viewer"])).token());
    app.clock.advance(Duration::from_secs(2));
    let body = json!({ "name": "new", "scopes": ["notes:read"], "validForDays": 30 });
    app.bearer(app.forge().claim("roles", json!(["admin"])).token()).post("/v1/api-keys", &body).await.ok(201);
    stale.get("/v1/me").await.ok(200);
    assert_eq!(recorded_roles(&app).await, ["{admin}"]);
}

/// The user had more roles when the older token was issued, and that token is still valid.
#[tokio::test]
async fn authn_12_older_token_creates_no_api_key_with_withdrawn_roles() {
    let app = SERVICE.start().await;
    let body = json!({ "name": "new", "scopes": ["notes:read", "notes:write"], "validForDays": 30 });
    let admin = app.bearer(app.forge().claim("roles", json!(["admin"])).token());
    admin.get("/v1/me").await.ok(200);
    app.clock.advance(Duration::from_secs(1));
    app.bearer(app.forge().claim("roles", json!(["viewer"])).token()).get("/v1/me").await.ok(200);
    let program = app.api_key(key_text(&admin.post("/v1/api-keys", &body).await.ok(201)));
    assert_eq!(program.get("/v1/me").await.ok(200)["roles"], json!(["viewer"]));
    assert_eq!(program.post("/v1/notes", &note_body("PAPER-A4", 1)).await.problem(403), "forbidden");
}

/// A change of roles writes one row, however many API keys the creator has.
#[tokio::test]
async fn authn_12_role_change_applies_to_a_thousand_api_keys() {
    let app = SERVICE.start().await;
    let created = app.new_api_key(&[scopes::NOTES_READ]).await;
    let program = app.api_key(key_text(&created));
    let copies = format!(
        "set app.tenant_id = '{}';
         -- Past the limit of API keys.
         set session_replication_role = replica;
         insert into palisade.api_keys (tenant_id, id, name, secret_hash, scopes, created_by, authorized_at,
                                        created_at, expires_at)
         select tenant_id, gen_random_uuid(), name, secret_hash, scopes, created_by, authorized_at, created_at,
                expires_at
         from palisade.api_keys, generate_series(1, 1000)",
        ACME.id
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(copies)).execute(&mut superuser(&app.database).await).await.unwrap();
    let sign_in = async |subject: &str, role: &str| {
        app.clock.advance(Duration::from_secs(1));
        let token = app.forge().claim("sub", subject).claim("roles", json!([role])).token();
        app.bearer(token).get("/v1/me").await.ok(200);
    };
    let creator = created["createdBy"].as_str().unwrap();
    program.get("/v1/notes").await.ok(200);
    sign_in(creator, "auditor").await;
    eventually("the API key has the new role", async || {
        program.get("/v1/me").await.ok(200)["roles"] == json!(["auditor"])
    })
    .await;
    // A revocation leaves the cached API key in place.
    revoke(&app, "token", "another").await;
    program.get("/v1/me").await.ok(200);
    run(&app.database.owner, "revoke execute on function palisade.read_api_key from app_authn").await.unwrap();
    program.get("/v1/me").await.ok(200);
}

/// Otherwise API keys would keep roles that their creator has lost.
#[tokio::test]
async fn authn_12_token_is_rejected_while_its_roles_cannot_be_recorded() {
    let app = SERVICE.start().await;
    let created = app.new_api_key(&[scopes::NOTES_READ, scopes::NOTES_WRITE]).await;
    let cached = app.user(roles::ADMIN);
    cached.get("/v1/me").await.ok(200);
    app.clock.advance(Duration::from_secs(1));
    let demoted = app.bearer(app.forge().claim("roles", json!(["viewer"])).token());
    let function = "function palisade.record_roles(uuid, text, text[], timestamptz)";
    run(&app.database.owner, &format!("revoke execute on {function} from app_authn")).await.unwrap();
    assert_eq!(demoted.get("/v1/me").await.problem(503), "unavailable");
    assert_eq!(recorded_roles(&app).await, ["{admin}"]);
    // A cached token is still accepted.
    cached.get("/v1/me").await.ok(200);
    run(&app.database.owner, &format!("grant execute on {function} to app_authn")).await.unwrap();
    demoted.get("/v1/me").await.ok(200);
    assert_eq!(recorded_roles(&app).await, ["{viewer}"]);
    let program = app.api_key(key_text(&created));
    eventually("the API key has the new role", async || {
        program.get("/v1/me").await.ok(200)["roles"] == json!(["viewer"])
    })
    .await;
}

/// Without an API key, roles are kept only as long as a token of that time can be valid.
#[tokio::test]
async fn authn_12_roles_of_subjects_without_api_keys_expire() {
    let app = SERVICE.start().await;
    app.new_api_key(&[scopes::NOTES_READ]).await;
    app.bearer(app.forge().claim("sub", "without keys").token()).get("/v1/me").await.ok(200);
    app.bearer(app.forge().claim("sub", "seen lately").token()).get("/v1/me").await.ok(200);
    let age = "update palisade.subject_roles set as_of = as_of - interval '4 days' where subject <> 'seen lately'";
    sqlx::raw_sql(age).execute(&mut superuser(&app.database).await).await.unwrap();
    app.bearer(app.forge().claim("sub", "another").token()).get("/v1/me").await.ok(200);
    let left = query(&app.database.authn, "select subject from palisade.subject_roles order by subject").await;
    assert_eq!(left, ["admin@acme.example", "another", "seen lately"]);
}

/// The newer of two such tokens is unknown, so the roles are their intersection in any sequence.
#[tokio::test]
async fn authn_12_tokens_of_the_same_second_give_their_common_roles() {
    let app = SERVICE.start().await;
    let created = app.new_api_key(&[scopes::NOTES_READ]).await;
    let now = app.clock.timestamp() + 1;
    app.clock.advance(Duration::from_secs(2));
    let sign_in = async |roles: Value, jti: &str| {
        let forge = app.forge().claim("iat", now).claim("exp", now + 300).claim("roles", roles).claim("jti", jti);
        app.bearer(forge.token()).get("/v1/me").await.ok(200);
    };
    sign_in(json!(["admin", "auditor"]), "one").await;
    sign_in(json!(["auditor", "viewer"]), "two").await;
    assert_eq!(recorded_roles(&app).await, ["{auditor}"]);
    sign_in(json!(["admin", "auditor", "viewer"]), "three").await;
    assert_eq!(recorded_roles(&app).await, ["{auditor}"]);
    let program = app.api_key(key_text(&created));
    assert_eq!(program.get("/v1/me").await.ok(200)["roles"], json!(["auditor"]));
}
