//! The audit trail (LOG-05): every change has one event with its request, failed changes have none,
//! and no login can change what is written.

mod sealing;
mod verify;

use http::Method;
use palisade::authz::matrix;
use serde_json::{Value, json};
use service::access::{roles, scopes};
use uuid::Uuid;

use crate::support::{
    ACME, BillingFixture, GLOBEX, MATRIX, Reply, SERVICE, TestApp, audit_trail::verify, id, incident, order_body,
    query, run,
};

/// The events of Acme, newest first.
async fn read_trail(app: &TestApp, filter: &str) -> Vec<Value> {
    let page = app.user(roles::AUDITOR).get(&format!("/v1/audit-events?limit=100{filter}")).await.ok(200);
    page["items"].as_array().unwrap().clone()
}

/// Calls every operation that changes something: its name, the changed object and the reply.
async fn call_every_change(app: &TestApp) -> Vec<(&'static str, String, Reply)> {
    let fixture = BillingFixture::new(app);
    let admin = &fixture.admin;
    let mut changes = Vec::new();
    let product = json!({ "name": "Ink", "price": { "amount": 500, "currency": "EUR" } });
    let put = admin.send(admin.request(Method::PUT, "/v1/products/INK").json(&product)).await;
    changes.push(("putProduct", "INK".to_owned(), put));
    let customer = admin.post("/v1/customers", &json!({ "name": "Ada", "email": "ada@example.com" })).await;
    let customer_id = id(&customer.clone().ok(201));
    changes.push(("createCustomer", customer_id.clone(), customer));
    let path = format!("/v1/customers/{customer_id}");
    let rename = admin.request(Method::PATCH, &path).json(&json!({ "name": "Ada L." }));
    changes.push(("updateCustomer", customer_id.clone(), admin.send(rename).await));
    changes.push(("eraseCustomer", customer_id, admin.send(admin.request(Method::DELETE, &path)).await));
    let placed = admin.post("/v1/orders", &order_body("INK", 1)).await;
    let order = id(&placed.clone().ok(201));
    changes.push(("createOrder", order.clone(), placed));
    changes.push(("cancelOrder", order.clone(), fixture.change(&format!("/v1/orders/{order}/cancel")).await));
    let order = fixture.order("INK", 1).await;
    let issued = fixture.issue(&order).await;
    let invoice = id(&issued.clone().ok(201));
    changes.push(("createInvoice", invoice.clone(), issued));
    let paid = fixture.pay(&invoice, 500).await;
    let payment = id(&paid.clone().ok(201));
    changes.push(("createPayment", payment.clone(), paid));
    changes.push(("fulfilOrder", order.clone(), fixture.change(&format!("/v1/orders/{order}/fulfil")).await));
    let (_, invoice) = fixture.invoice("INK", 1).await;
    changes.push(("voidInvoice", invoice.clone(), fixture.change(&format!("/v1/invoices/{invoice}/void")).await));
    let (_, invoice) = fixture.invoice("INK", 1).await;
    let payment = id(&fixture.pay(&invoice, 500).await.ok(201));
    let refund = fixture.refund(&payment, 200).await;
    changes.push(("createRefund", id(&refund.clone().ok(201)), refund));
    let key = json!({ "name": "a key", "scopes": ["orders:read"], "validForDays": 3 });
    let created = admin.post("/v1/api-keys", &key).await;
    let key = id(&created.clone().ok(201));
    changes.push(("createApiKey", key.clone(), created));
    let rotation = json!({ "validForDays": 3, "overlapHours": 1 });
    let rotated = admin.post(&format!("/v1/api-keys/{key}/rotate"), &rotation).await;
    changes.push(("rotateApiKey", id(&rotated.clone().ok(201)), rotated));
    let revoked = admin.send(admin.request(Method::DELETE, &format!("/v1/api-keys/{key}"))).await;
    changes.push(("revokeApiKey", key, revoked));
    let period = json!({ "kind": "orders", "from": "2020-01-01T00:00:00Z", "to": "2040-01-01T00:00:00Z" });
    changes.push(("createExport", "orders".to_owned(), admin.post("/v1/exports", &period).await));
    changes
}

#[tokio::test]
async fn log_05_every_change_has_one_event_with_its_request() {
    let app = SERVICE.start().await;
    let changes = call_every_change(&app).await;
    let trail = read_trail(&app, "").await;
    for row in MATRIX.iter().filter(|row| row.method != matrix::Method::Get) {
        let (_, object, reply) =
            changes.iter().find(|(operation, ..)| *operation == row.operation).expect(row.operation);
        assert!(reply.status.is_success(), "{}: {reply:#?}", row.operation);
        let request = reply.header("x-request-id").unwrap();
        let events: Vec<_> = trail.iter().filter(|event| event["traceId"] == request).collect();
        let [event] = events[..] else { panic!("{}: {events:#?}", row.operation) };
        assert_eq!(event["action"], row.audit);
        assert_eq!(event["object"], *object, "{}", row.operation);
        assert_eq!(event["subject"], "admin@acme.example");
        assert!(!event["client"].as_str().unwrap().is_empty());
        // The log has the same event.
        if row.operation != "createExport" {
            let logged = reply.events();
            let logged = logged.iter().find(|event| event["event"] == "data_changed").expect(row.operation);
            assert_eq!((logged["action"].as_str(), &logged["object"]), (row.audit, object));
        }
    }
}

#[tokio::test]
async fn log_05_indirect_changes_have_events_too() {
    let app = SERVICE.start().await;
    let fixture = BillingFixture::new(&app);
    let (order, invoice) = fixture.invoice("PAPER-A4", 1).await;
    let cancelled = fixture.change(&format!("/v1/orders/{order}/cancel")).await;
    let request = cancelled.header("x-request-id").unwrap().to_owned();
    cancelled.ok(200);
    let trail = read_trail(&app, "").await;
    let events = trail.iter().filter(|event| event["traceId"] == request.as_str());
    let mut changes: Vec<_> = events.map(|event| (event["action"].as_str(), event["object"].as_str())).collect();
    changes.sort_unstable();
    assert_eq!(
        changes,
        [(Some("invoice_voided"), Some(invoice.as_str())), (Some("order_cancelled"), Some(order.as_str()))]
    );
}

#[tokio::test]
async fn log_05_failed_changes_have_no_event() {
    let app = SERVICE.start().await;
    let fixture = BillingFixture::new(&app);
    let order = fixture.order("PAPER-A4", 1).await;
    fixture.change(&format!("/v1/orders/{order}/cancel")).await.ok(200);
    let before = read_trail(&app, "").await.len();
    // The state machine, the schema, the role and the commit reject these changes.
    assert_eq!(fixture.change(&format!("/v1/orders/{order}/cancel")).await.problem(409), "conflict");
    assert_eq!(fixture.admin.post("/v1/orders", &json!({})).await.problem(400), "invalid_input");
    assert_eq!(app.user(roles::VIEWER).post("/v1/orders", &json!({})).await.problem(403), "forbidden");
    run(
        &app.database.owner,
        "create function stop() returns trigger language plpgsql as
         'begin raise exception ''no''; end';
         create constraint trigger stop after insert on palisade.audit_journal deferrable initially deferred
         for each row execute function stop()",
    )
    .await
    .unwrap();
    assert_eq!(fixture.admin.post("/v1/orders", &order_body("PAPER-A4", 1)).await.problem(500), "internal");
    let product = json!({ "name": "Ink", "price": { "amount": 500, "currency": "EUR" } });
    let request = fixture.admin.request(Method::PUT, "/v1/products/INK").json(&product);
    assert_eq!(fixture.admin.send(request).await.problem(500), "internal");
    assert_eq!(fixture.admin.get("/v1/products/INK").await.problem(404), "not_found");
    assert_eq!(read_trail(&app, "").await.len(), before);
}

#[tokio::test]
async fn log_05_change_is_rolled_back_if_its_event_cannot_be_written() {
    let app = SERVICE.start().await;
    let fixture = BillingFixture::new(&app);
    run(
        &app.database.owner,
        "alter table palisade.audit_events add check (action <> 'order_created' and action <> 'product_put'
                              and action <> 'customer_created' and action <> 'books_exported') not valid",
    )
    .await
    .unwrap();
    let count_orders = async || query(&app.database.reader, "select count(*)::text from orders").await;
    let before = count_orders().await;
    assert_eq!(fixture.admin.post("/v1/orders", &order_body("PAPER-A4", 1)).await.problem(500), "internal");
    let customer = json!({ "name": "Ada", "email": "ada@nowhere.example" });
    assert_eq!(fixture.admin.post("/v1/customers", &customer).await.problem(500), "internal");
    let found = fixture.admin.get("/v1/customers?email=ada@nowhere.example").await.ok(200);
    assert_eq!(found["items"], json!([]));
    let period = json!({ "kind": "orders", "from": "2020-01-01T00:00:00Z", "to": "2040-01-01T00:00:00Z" });
    assert_eq!(fixture.admin.post("/v1/exports", &period).await.problem(500), "internal");
    assert_eq!(count_orders().await, before);
}

#[tokio::test]
async fn log_05_trail_is_paged_filtered_and_limited_to_the_tenant() {
    let app = SERVICE.start().await;
    let fixture = BillingFixture::new(&app);
    for n in 0..5 {
        fixture.put_product(&format!("PAGED-{n}"), 100).await;
    }
    let events = read_trail(&app, "&object=PAGED-3").await;
    assert_eq!(events.len(), 1);
    let at = events[0]["at"].as_str().unwrap().replace('+', "%2B");
    let objects = |events: &[Value]| -> Vec<String> {
        events.iter().map(|event| event["object"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(objects(&read_trail(&app, &format!("&from={at}")).await), ["PAGED-4", "PAGED-3"]);
    assert_eq!(objects(&read_trail(&app, &format!("&to={at}")).await), ["PAGED-2", "PAGED-1", "PAGED-0"]);
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = fixture.admin.get(&format!("/v1/audit-events?limit=2{cursor}")).await.ok(200);
        seen.extend(objects(page["items"].as_array().unwrap()));
        let Some(next) = page["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, ["PAGED-4", "PAGED-3", "PAGED-2", "PAGED-1", "PAGED-0"]);
    let globex = app.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL);
    assert_eq!(globex.get("/v1/audit-events").await.ok(200)["items"], json!([]));
    assert_eq!(app.user(roles::BILLING).get("/v1/audit-events").await.problem(403), "forbidden");
}

#[tokio::test]
async fn log_05_no_login_can_change_the_trail() {
    let app = SERVICE.start().await;
    BillingFixture::new(&app).put_product("INK", 100).await;
    let tenant = ACME.id;
    let urls = &app.database;
    let logins = [&urls.writer, &urls.reader, &urls.authn, &urls.keys, &urls.operator, &urls.auditor, &urls.backup];
    let forged =
        format!("row ('{tenant}', gen_random_uuid(), now(), 'me', '', 'lie', 'x', '', '')::palisade.audit_events");
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
    attacks.push("update palisade.audit_events set subject = 'somebody else'".to_owned());
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
        &["revoke", "subject", "somebody@acme.example"],
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
        without_tenant.len() == 1 && without_tenant[0].starts_with("subject somebody@acme.example before "),
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
