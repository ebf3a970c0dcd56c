//! The registry of tenants: who may call (AUTHN-04), suspension (AUTHN-11), the export of everything
//! that a tenant owns (CRYPTO-09), and its deletion (CRYPTO-08), with two replicas.

use std::{
    io::Read as _,
    time::{Duration, Instant},
};

use palisade::dev::database::Urls;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    ACME, Actor, SERVICE, TestApp, admin_of, assert_not_in_database, eventually,
    mtls::{MtlsSetup, PROMETHEUS, dns, uri},
    note, query, rows_of_tenant, run_as_superuser, run_tenant, scratch_folder, suspended_long_ago,
};

/// Only operators create tenants.
const STRICT: [(&str, &str); 1] = [("APP_OIDC__CREATE_TENANTS", "false")];

/// Two replicas, and an administrator of a tenant at each.
struct Replicas {
    apps: [TestApp; 2],
    tenant: Uuid,
}

impl Replicas {
    async fn start() -> Self {
        let first = SERVICE.start_with(&STRICT).await;
        let second = SERVICE.start_on(first.database.clone(), &STRICT).await;
        Self { apps: [first, second], tenant: Uuid::now_v7() }
    }

    fn admins(&self) -> [Actor; 2] {
        [0, 1].map(|n| admin_of(&self.apps[n], self.tenant))
    }

    async fn run(&self, arguments: &[&str]) -> Result<String, String> {
        run_tenant(&self.apps[0], arguments).await
    }

    /// Waits until both replicas answer with this status. They must within two seconds; a busy machine
    /// gets ten.
    async fn both_answer(&self, admins: &[Actor; 2], status: u16) {
        let since = Instant::now();
        for admin in admins {
            eventually("both replicas apply it", async || admin.get("/v1/me").await.status == status).await;
        }
        assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    }
}

/// The lines of an export, decrypted.
fn decrypt(file: &[u8], identity: &age::x25519::Identity) -> Vec<Value> {
    let mut text = String::new();
    let reader = age::Decryptor::new(file).unwrap().decrypt(std::iter::once(identity as &dyn age::Identity));
    reader.unwrap().read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn crypto_08_tenant_lives_from_its_creation_to_its_deletion() {
    let replicas = Replicas::start().await;
    let tenant = replicas.tenant.to_string();
    let admins = replicas.admins();
    for admin in &admins {
        assert_eq!(admin.get("/v1/me").await.problem(403), "tenant_unknown");
    }
    replicas.run(&["create", &tenant, "--name", "Initech Industries", "--limit", "read=12345"]).await.unwrap();
    assert!(replicas.run(&["create", &tenant]).await.unwrap_err().contains("exists already"));
    replicas.both_answer(&admins, 200).await;
    let policy = admins[0].get("/v1/me").await;
    assert!(policy.header("ratelimit-policy").unwrap().starts_with("\"read\";q=12345;"), "{policy:#?}");

    // Used.
    let canary = "canary-4711@example.com";
    let mut body = note(1);
    body["email"] = json!(canary);
    body["remark"] = json!("the remark of a canary");
    let create = admins[0].request(http::Method::POST, "/v1/notes").header("idempotency-key", "first-of-initech");
    let created = admins[0].send(create.json(&body)).await.ok(201);
    admins[1].post("/v1/notes", &note(2)).await.ok(201);

    // Suspended, and resumed.
    replicas.run(&["suspend", &tenant]).await.unwrap();
    replicas.both_answer(&admins, 403).await;
    let refused = admins[1].get("/v1/notes").await;
    assert_eq!(refused.problem(403), "tenant_suspended");
    assert_eq!(refused.event("authz_fail")["reason"], "tenant_suspended");
    replicas.apps[0].admin().get("/v1/me").await.ok(200);
    assert!(replicas.run(&["suspend", &tenant]).await.unwrap_err().contains("only an active tenant"));
    replicas.run(&["resume", &tenant]).await.unwrap();
    replicas.both_answer(&admins, 200).await;

    // Exported.
    let identity = age::x25519::Identity::generate();
    let file = scratch_folder().join(format!("export-{tenant}.age"));
    let path = file.to_str().unwrap();
    let recipient = identity.to_public().to_string();
    replicas.run(&["export", &tenant, "--to", &recipient, path]).await.unwrap();
    let encrypted = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(!String::from_utf8_lossy(&encrypted).contains(canary));
    let lines = decrypt(&encrypted, &identity);
    assert_eq!(lines[0]["export"]["name"], "Initech Industries");
    let of =
        |table: &str| lines.iter().filter(|line| line["table"] == table).map(|line| &line["row"]).collect::<Vec<_>>();
    let exported = of("notes");
    assert_eq!(exported.len(), 2);
    let first = exported.iter().find(|row| row["id"] == created["id"]).unwrap();
    assert_eq!((&first["email"], &first["remark"]), (&json!(canary), &body["remark"]));
    assert!(of("palisade.audit_events").iter().any(|event| event["action"] == "note_created"));
    assert_eq!(lines.last().unwrap()["end"], json!({ "rows": lines.len() - 2, "unreadableFields": 0 }));

    // Deleted.
    let delete = ["delete", tenant.as_str(), "--confirm", tenant.as_str()];
    assert!(replicas.run(&delete).await.unwrap_err().contains("suspend the tenant first"));
    replicas.run(&["suspend", &tenant]).await.unwrap();
    assert!(replicas.run(&delete).await.unwrap_err().contains("wait a minute"));
    suspended_long_ago(&replicas.apps[0].database, replicas.tenant).await;
    let plan = replicas.run(&["delete", &tenant, "--dry-run"]).await.unwrap();
    assert!(plan.contains("2 rows of public.notes would be deleted"), "{plan}");
    assert!(plan.contains("rows of palisade.audit_events stay: audit trail"), "{plan}");
    let unconfirmed = replicas.run(&["delete", &tenant, "--confirm", "yes"]).await.unwrap_err();
    assert!(unconfirmed.contains("nothing was done"), "{unconfirmed}");
    let done = replicas.run(&delete).await.unwrap();
    assert!(done.contains("2 rows of public.notes deleted") && done.contains("deleted. What stays:"), "{done}");
    assert!(done.contains("rows of palisade.audit_events stay: audit trail"), "{done}");
    for admin in &admins {
        assert_eq!(admin.get("/v1/me").await.problem(403), "tenant_unknown");
    }
    assert!(replicas.run(&delete).await.unwrap_err().contains("deleted already"));
    assert!(replicas.run(&["create", &tenant]).await.unwrap_err().contains("was deleted"));
    nothing_is_left(&replicas.apps[0], replicas.tenant, &["Initech Industries", canary, "the remark of a canary"])
        .await;
    let list = replicas.run(&["list"]).await.unwrap();
    assert!(list.contains(&format!("{tenant} deleted since")), "{list}");
}

/// No row of the tenant but the audit trail, the entry of the registry and keys without material.
async fn nothing_is_left(app: &TestApp, tenant: Uuid, texts: &[&str]) {
    let left = rows_of_tenant(app, tenant).await;
    let tables: Vec<&str> = left.iter().map(|row| row.split(':').next().unwrap()).collect();
    let expected = ["palisade.audit_events", "palisade.audit_journal", "palisade.data_keys", "palisade.tenants"];
    assert_eq!(tables, expected, "{left:?}");
    let keys = format!("select count(wrapped)::text from palisade.data_keys where of_tenant = '{tenant}'");
    assert_eq!(query(&app.database.owner, &keys).await, ["0"]);
    assert_not_in_database(app, &tenant.to_string(), texts).await;
}

/// The command is killed after each of its steps: the same command continues.
#[tokio::test]
async fn crypto_08_broken_off_deletion_of_a_tenant_is_resumed() {
    let replicas = Replicas::start().await;
    let app = &replicas.apps[0];
    // One row a step. The last one stops before the end of a deletion without rows.
    for steps in [0, 1, 4, 100] {
        let tenant = Uuid::now_v7();
        let name = tenant.to_string();
        replicas.run(&["create", &name, "--name", "Initech Industries"]).await.unwrap();
        let admin = admin_of(app, tenant);
        eventually("created", async || admin.get("/v1/me").await.status == 200).await;
        for n in 0..3 {
            admin.post("/v1/notes", &note(n)).await.ok(201);
        }
        replicas.run(&["suspend", &name]).await.unwrap();
        suspended_long_ago(&app.database, tenant).await;
        // What a command did before it was killed.
        run_as_superuser(app, format!("select palisade.begin_deletion('{tenant}', 'a test')")).await;
        for _ in 0..steps {
            run_as_superuser(app, format!("select palisade.delete_tenant_rows('{tenant}', 1)")).await;
        }
        let list = replicas.run(&["list"]).await.unwrap();
        assert!(list.contains(&format!("{tenant} deleting since")), "{steps}: {list}");
        assert!(replicas.run(&["resume", &name]).await.unwrap_err().contains("only a suspended tenant"));
        assert!(replicas.run(&["update", &name, "--name", "x"]).await.is_err(), "{steps}");
        assert_eq!(admin.get("/v1/me").await.problem(403), "tenant_unknown");
        let done = replicas.run(&["delete", &name, "--confirm", &name]).await.unwrap();
        assert!(done.contains("rows of palisade.audit_events stay: audit trail"), "{steps}: {done}");
        nothing_is_left(app, tenant, &["Initech Industries", "person-1@example.com"]).await;
        let actions = format!("select action from palisade.audit_events where tenant_id = '{tenant}' order by at, id");
        let actions = query(&app.database.backup, &actions).await;
        let count = |name: &str| actions.iter().filter(|action| *action == name).count();
        let counts = ["row_changed", "tenant_deletion_begun", "tenant_deleted"].map(count);
        assert_eq!(counts, [0, 1, 1], "{steps}: {actions:?}");
    }
}

#[tokio::test]
async fn crypto_09_export_of_one_row_has_its_subject_only() {
    let app = SERVICE.start().await;
    let admin = app.admin();
    let id = admin.post("/v1/notes", &note(1)).await.ok(201)["id"].as_str().unwrap().to_owned();
    admin.post("/v1/notes", &note(2)).await.ok(201);
    let identity = age::x25519::Identity::generate();
    let file = scratch_folder().join(format!("export-{id}.age"));
    let (acme, recipient, subject) = (ACME.id.to_string(), identity.to_public().to_string(), format!("notes/{id}"));
    let path = file.to_str().unwrap();
    let export = ["export", &acme, "--to", &recipient, "--subject", &subject, path];
    run_tenant(&app, &export).await.unwrap();
    // It overwrites no file.
    assert!(run_tenant(&app, &export).await.is_err());
    let lines = decrypt(&std::fs::read(&file).unwrap(), &identity);
    std::fs::remove_file(&file).unwrap();
    let notes: Vec<&Value> = lines.iter().filter(|line| line["table"] == "notes").collect();
    assert_eq!(
        (notes.len(), &notes[0]["row"]["id"], &notes[0]["row"]["email"]),
        (1, &json!(id), &json!("person-1@example.com"))
    );
    let trail = "select object from palisade.audit_events where action = 'tenant_exported' order by object";
    assert_eq!(query(&app.database.owner, trail).await, [subject.as_str(), subject.as_str()]);
    for (subject, fault) in
        [("notes", "expected a table"), ("nosuch/0190a000-0000-7000-8000-000000000001", "no such table")]
    {
        let error = run_tenant(&app, &["export", &acme, "--to", &recipient, "--subject", subject, path]).await;
        assert!(error.unwrap_err().contains(fault), "{subject}");
    }
}

#[tokio::test]
async fn authn_04_only_an_issuer_that_may_creates_tenants() {
    let tenant = Uuid::now_v7();
    let strict = SERVICE.start_with(&STRICT).await;
    let admin = admin_of(&strict, tenant);
    let refused = admin.get("/v1/me").await;
    assert_eq!(refused.problem(403), "tenant_unknown");
    assert_eq!(refused.event("authz_fail")["reason"], "tenant_unknown");
    // Nothing is recorded about it.
    assert_eq!(rows_of_tenant(&strict, tenant).await, [""; 0]);
    let creating = SERVICE.start_on(strict.database.clone(), &[]).await;
    admin_of(&creating, tenant).get("/v1/me").await.ok(200);
    let event = format!(
        "select concat_ws(' ', subject, action, reason) from palisade.audit_events where tenant_id = '{tenant}'"
    );
    let event = query(&strict.database.backup, &event).await;
    assert!(event[0].starts_with("operator:app_authn tenant_created first token of http://127.0.0.1"), "{event:?}");
    // The strict replica learns it, and a deleted one does not come back.
    eventually("the other replica knows it", async || admin.get("/v1/me").await.status == 200).await;
    run_as_superuser(
        &strict,
        format!("update palisade.tenants set state = 'deleted', changed_in = pg_current_xact_id() where of_tenant = '{tenant}'"),
    )
    .await;
    let other = SERVICE.start_on(strict.database.clone(), &[]).await;
    assert_eq!(admin_of(&other, tenant).get("/v1/me").await.problem(403), "tenant_unknown");
}

#[tokio::test]
async fn authn_04_registry_maps_external_ids_of_an_issuer() {
    let app = SERVICE.start_with(&STRICT).await;
    let tenant = Uuid::now_v7().to_string();
    let external = format!("{} org_123", app.issuer.url());
    run_tenant(&app, &["create", &tenant, "--external-id", &external]).await.unwrap();
    let caller = |id: &str| app.bearer(app.forge().claim("tenant_id", id).token());
    let known = caller("org_123");
    eventually("the replica knows the tenant", async || known.get("/v1/me").await.status == 200).await;
    assert_eq!(known.get("/v1/me").await.ok(200)["tenantId"], tenant);
    assert_eq!(caller("org_124").get("/v1/me").await.problem(401), "unauthenticated");
    let second = Uuid::now_v7().to_string();
    let error = run_tenant(&app, &["create", &second, "--external-id", &external]).await.unwrap_err();
    assert!(error.contains("another tenant has this external id"), "{error}");
    // Replaced: the old one stands for no tenant.
    run_tenant(&app, &["update", &tenant, "--external-id", &format!("{} org_9", app.issuer.url())]).await.unwrap();
    let new = caller("org_9");
    eventually("the new id", async || new.get("/v1/me").await.status == 200).await;
    assert_eq!(caller("org_123").get("/v1/me").await.problem(401), "unauthenticated");
    // A token that was accepted before, too.
    assert_eq!(known.get("/v1/me").await.problem(401), "unauthenticated");
}

const REGISTRAR: &str = "spiffe://acme.example/registrar";

async fn start_internal() -> (MtlsSetup, Urls) {
    let database = SERVICE.database().await;
    let mut variables: Vec<_> = database.variables().into_iter().collect();
    let registrar = [
        ("APP_DATABASE__INCIDENTS_URL", database.incidents.expose_secret()),
        ("APP_INTERNAL__SERVICES__REGISTRAR__CERTIFICATE_NAME", REGISTRAR),
        ("APP_INTERNAL__SERVICES__REGISTRAR__RIGHTS", "tenants"),
        ("APP_OIDC__CREATE_TENANTS", "false"),
    ];
    variables.extend(registrar.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    (MtlsSetup::internal(&SERVICE, "notes:read", &variables).await, database)
}

#[tokio::test]
async fn authn_18_service_manages_tenants_and_the_trail_names_it() {
    let (setup, database) = start_internal().await;
    let registrar = setup.service([uri(REGISTRAR)]);
    let tenant = Uuid::now_v7();
    let command = |name: &str| json!({ "command": name, "tenant": tenant.to_string(), "reason": "a test" });
    let mut create = command("create");
    create["name"] = json!("Initech");
    create["limits"] = json!(["tenant=500"]);
    registrar.post("/tenants", &create).await.ok(200);
    let admin = admin_of(&setup.app, tenant);
    eventually("created", async || admin.get("/v1/me").await.status == 200).await;
    admin.post("/v1/notes", &note(1)).await.ok(201);
    let identity = age::x25519::Identity::generate();
    let mut export = command("export");
    export["to"] = json!(identity.to_public().to_string());
    let response = registrar.request(http::Method::POST, "/tenants").json(&export).send().await.unwrap();
    let lines = decrypt(&response.bytes().await.unwrap(), &identity);
    assert_eq!(lines.iter().filter(|line| line["table"] == "notes").count(), 1);
    registrar.post("/tenants", &command("suspend")).await.ok(200);
    eventually("suspended", async || admin.get("/v1/me").await.status == 403).await;
    let mut delete = command("delete");
    delete["confirm"] = json!(tenant.to_string());
    assert_eq!(registrar.post("/tenants", &delete).await.problem(409), "conflict");
    suspended_long_ago(&database, tenant).await;
    assert_eq!(registrar.post("/tenants", &command("delete")).await.problem(400), "invalid_input");
    registrar.post("/tenants", &delete).await.ok(202);
    let list = json!({ "command": "list" });
    eventually("deleted", async || {
        registrar.post("/tenants", &list).await.ok(200).to_string().contains(&format!("{tenant} deleted"))
    })
    .await;
    let trail = format!(
        "select concat_ws(' ', subject, client) from palisade.audit_events where tenant_id = '{tenant}'
                         and action like 'tenant%'"
    );
    let trail = query(&database.backup, &trail).await;
    assert!(trail.len() > 5 && trail.iter().all(|by| by == "operator:app_incidents service:registrar"), "{trail:?}");
    // Each right is granted separately.
    assert_eq!(registrar.get("/metrics").await.problem(403), "forbidden");
    assert_eq!(registrar.post("/incidents", &json!({})).await.problem(403), "forbidden");
    assert_eq!(setup.service([dns(PROMETHEUS)]).post("/tenants", &list).await.problem(403), "forbidden");
    setup.app.admin().post("/tenants", &list).await.problem(404);
    for invalid in
        [json!({}), json!({ "command": "suspend", "tenant": tenant, "reason": " " }), json!({ "command": "drop" })]
    {
        assert_eq!(registrar.post("/tenants", &invalid).await.problem(400), "invalid_input", "{invalid}");
    }
}
