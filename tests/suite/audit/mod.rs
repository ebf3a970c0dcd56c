//! The audit trail: complete, append-only, and any change to it is found.

mod sealing;
mod verify;

use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use service::authz::{
    matrix::{self, MATRIX, Scope},
    policy::Role,
};
use uuid::Uuid;

use crate::support::{ACME, Books, GLOBEX, Reply, TestApp, binary, id, query, run};

/// The whole trail of Acme, newest first.
async fn trail(app: &TestApp, filter: &str) -> Vec<Value> {
    let page = app.user(Role::Auditor).get(&format!("/v1/audit-events?limit=100{filter}")).await.ok(200);
    page["items"].as_array().unwrap().clone()
}

/// One of each change that there is; the operation, what it was done to, and the answer.
async fn everything(app: &TestApp) -> Vec<(&'static str, String, Reply)> {
    let (admin, books) = (app.user(Role::Admin), Books::of(app));
    let mut done = Vec::new();
    let product = json!({ "name": "Ink", "price": { "amount": 500, "currency": "EUR" } });
    let put = admin.send(admin.request(Method::PUT, "/v1/products/INK").json(&product)).await;
    done.push(("putProduct", "INK".to_owned(), put));
    let customer = admin.post("/v1/customers", &json!({ "name": "Ada", "email": "ada@example.com" })).await;
    let of = id(&customer.clone().ok(201));
    done.push(("createCustomer", of.clone(), customer));
    let path = format!("/v1/customers/{of}");
    let change = admin.request(Method::PATCH, &path).json(&json!({ "name": "Ada L." }));
    done.push(("updateCustomer", of.clone(), admin.send(change).await));
    done.push(("eraseCustomer", of, admin.send(admin.request(Method::DELETE, &path)).await));
    let order = json!({ "lines": [{ "sku": "INK", "quantity": 1 }], "shippingSpeed": "standard" });
    let placed = admin.post("/v1/orders", &order).await;
    let of = id(&placed.clone().ok(201));
    done.push(("createOrder", of.clone(), placed));
    done.push(("cancelOrder", of.clone(), books.change(&format!("/v1/orders/{of}/cancel")).await));
    let of = books.order("INK", 1).await;
    let issued = books.issue(&of).await;
    let invoice = id(&issued.clone().ok(201));
    done.push(("createInvoice", invoice.clone(), issued));
    let paid = books.pay(&invoice, 500).await;
    let payment = id(&paid.clone().ok(201));
    done.push(("createPayment", payment.clone(), paid));
    done.push(("fulfilOrder", of.clone(), books.change(&format!("/v1/orders/{of}/fulfil")).await));
    let (_, again) = books.invoice("INK", 1).await;
    done.push(("voidInvoice", again.clone(), books.change(&format!("/v1/invoices/{again}/void")).await));
    let (_, again) = books.invoice("INK", 1).await;
    let payment = id(&books.pay(&again, 500).await.ok(201));
    let refund = books.refund(&payment, 200).await;
    done.push(("createRefund", id(&refund.clone().ok(201)), refund));
    let key = json!({ "name": "a key", "scopes": ["orders:read"], "validForDays": 3 });
    let made = admin.post("/v1/api-keys", &key).await;
    let of = id(&made.clone().ok(201));
    done.push(("createApiKey", of.clone(), made));
    let rotation = json!({ "validForDays": 3, "overlapHours": 1 });
    let rotated = admin.post(&format!("/v1/api-keys/{of}/rotate"), &rotation).await;
    done.push(("rotateApiKey", id(&rotated.clone().ok(201)), rotated));
    let revoked = admin.send(admin.request(Method::DELETE, &format!("/v1/api-keys/{of}"))).await;
    done.push(("revokeApiKey", of, revoked));
    let period = json!({ "kind": "orders", "from": "2020-01-01T00:00:00Z", "to": "2040-01-01T00:00:00Z" });
    done.push(("createExport", "orders".to_owned(), admin.post("/v1/exports", &period).await));
    done
}

#[tokio::test]
async fn log_05_every_change_is_in_the_trail_with_who_what_and_in_which_request() {
    let app = TestApp::start().await;
    let done = everything(&app).await;
    let trail = trail(&app, "").await;
    for row in MATRIX.iter().filter(|row| row.method != matrix::Method::Get) {
        let (_, object, reply) = done.iter().find(|(operation, ..)| *operation == row.operation).expect(row.operation);
        assert!(reply.status.is_success(), "{}: {reply:#?}", row.operation);
        let request = reply.header("x-request-id").unwrap();
        let of_request: Vec<_> = trail.iter().filter(|event| event["traceId"] == request).collect();
        let [event] = of_request[..] else { panic!("{}: {of_request:#?}", row.operation) };
        assert_eq!(event["action"], row.audit);
        assert_eq!(event["object"], *object, "{}", row.operation);
        assert_eq!(event["subject"], "admin@acme.example");
        assert!(!event["client"].as_str().unwrap().is_empty());
        // The log says the same.
        if row.operation != "createExport" {
            let told = reply.events();
            let told = told.iter().find(|event| event["event"] == "data_changed").expect(row.operation);
            assert_eq!((told["action"].as_str(), &told["object"]), (row.audit, object));
        }
    }
}

#[tokio::test]
async fn log_05_what_is_changed_with_something_else_has_an_event_too() {
    let app = TestApp::start().await;
    let books = Books::of(&app);
    let (order, invoice) = books.invoice("PAPER-A4", 1).await;
    let cancelled = books.change(&format!("/v1/orders/{order}/cancel")).await;
    let request = cancelled.header("x-request-id").unwrap().to_owned();
    cancelled.ok(200);
    let trail = trail(&app, "").await;
    let mut of_request: Vec<_> = trail.iter().filter(|event| event["traceId"] == request.as_str()).collect();
    of_request.sort_by_key(|event| event["action"].as_str());
    let what: Vec<_> = of_request.iter().map(|event| (event["action"].as_str(), event["object"].as_str())).collect();
    assert_eq!(
        what,
        [(Some("invoice_voided"), Some(invoice.as_str())), (Some("order_cancelled"), Some(order.as_str()))]
    );
}

#[tokio::test]
async fn log_05_what_is_not_done_has_no_event() {
    let app = TestApp::start().await;
    let books = Books::of(&app);
    let order = books.order("PAPER-A4", 1).await;
    books.change(&format!("/v1/orders/{order}/cancel")).await.ok(200);
    let before = trail(&app, "").await.len();
    // Refused by the state machine, by the schema, by the role, and by the database at the very end.
    assert_eq!(books.change(&format!("/v1/orders/{order}/cancel")).await.problem(409), "conflict");
    assert_eq!(books.admin.post("/v1/orders", &json!({})).await.problem(400), "invalid_input");
    assert_eq!(app.user(Role::Viewer).post("/v1/orders", &json!({})).await.problem(403), "forbidden");
    run(
        &app.database.owner,
        "create function stop() returns trigger language plpgsql as
         'begin raise exception ''no''; end';
         create constraint trigger stop after insert on audit_journal deferrable initially deferred
         for each row execute function stop()",
    )
    .await
    .unwrap();
    let other = json!({ "lines": [{ "sku": "PAPER-A4", "quantity": 1 }], "shippingSpeed": "standard" });
    assert_eq!(books.admin.post("/v1/orders", &other).await.problem(500), "internal");
    let product = json!({ "name": "Ink", "price": { "amount": 500, "currency": "EUR" } });
    let request = books.admin.request(Method::PUT, "/v1/products/INK").json(&product);
    assert_eq!(books.admin.send(request).await.problem(500), "internal");
    assert_eq!(books.admin.get("/v1/products/INK").await.problem(404), "not_found");
    assert_eq!(trail(&app, "").await.len(), before);
}

#[tokio::test]
async fn log_05_an_event_that_cannot_be_written_undoes_the_change() {
    let app = TestApp::start().await;
    let books = Books::of(&app);
    run(
        &app.database.owner,
        "alter table audit_events add check (action <> 'order_created' and action <> 'product_put'
                              and action <> 'customer_created' and action <> 'books_exported') not valid",
    )
    .await
    .unwrap();
    let orders = async || query(&app.database.reader, "select count(*)::text from orders").await;
    let before = orders().await;
    let order = json!({ "lines": [{ "sku": "PAPER-A4", "quantity": 1 }], "shippingSpeed": "standard" });
    assert_eq!(books.admin.post("/v1/orders", &order).await.problem(500), "internal");
    let customer = json!({ "name": "Ada", "email": "ada@nowhere.example" });
    assert_eq!(books.admin.post("/v1/customers", &customer).await.problem(500), "internal");
    let found = books.admin.get("/v1/customers?email=ada@nowhere.example").await.ok(200);
    assert_eq!(found["items"], json!([]));
    let period = json!({ "kind": "orders", "from": "2020-01-01T00:00:00Z", "to": "2040-01-01T00:00:00Z" });
    assert_eq!(books.admin.post("/v1/exports", &period).await.problem(500), "internal");
    assert_eq!(orders().await, before);
}

#[tokio::test]
async fn log_05_auditors_and_administrators_read_their_own_tenants_trail_in_pages() {
    let app = TestApp::start().await;
    let books = Books::of(&app);
    for n in 0..5 {
        books.put_product(&format!("PAGED-{n}"), 100).await;
    }
    let one = trail(&app, "&object=PAGED-3").await;
    assert_eq!(one.len(), 1);
    let at = one[0]["at"].as_str().unwrap().replace('+', "%2B");
    let objects = |events: &[Value]| -> Vec<String> {
        events.iter().map(|event| event["object"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(objects(&trail(&app, &format!("&from={at}")).await), ["PAGED-4", "PAGED-3"]);
    assert_eq!(objects(&trail(&app, &format!("&to={at}")).await), ["PAGED-2", "PAGED-1", "PAGED-0"]);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = books.admin.get(&format!("/v1/audit-events?limit=2{cursor}")).await.ok(200);
        seen.extend(objects(page["items"].as_array().unwrap()));
        let Some(next) = page["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, ["PAGED-4", "PAGED-3", "PAGED-2", "PAGED-1", "PAGED-0"]);
    let stranger = app.user_of(&GLOBEX, Role::Admin, &Scope::ALL);
    assert_eq!(stranger.get("/v1/audit-events").await.ok(200)["items"], json!([]));
    assert_eq!(app.user(Role::Billing).get("/v1/audit-events").await.problem(403), "forbidden");
}

#[tokio::test]
async fn log_05_no_login_changes_what_was_written() {
    let app = TestApp::start().await;
    Books::of(&app).put_product("INK", 100).await;
    let (of, urls) = (ACME.id, &app.database);
    let logins = [&urls.writer, &urls.reader, &urls.authn, &urls.keys, &urls.operator, &urls.auditor, &urls.backup];
    let forged = format!("row ('{of}', gen_random_uuid(), now(), 'me', '', 'lie', 'x', '', '')::audit_events");
    let mut attacks =
        vec![format!("select write_audit_event({forged})"), "update audit_horizon set upto = 0".to_owned()];
    for table in ["audit_events", "audit_journal", "audit_seals"] {
        attacks.push(format!("delete from {table}"));
        attacks.push(format!("truncate {table}"));
    }
    attacks.push(format!("insert into audit_events select ({forged}).*"));
    attacks.push(
        "insert into audit_journal (of_tenant, event, digest) select of_tenant, event, digest from audit_journal"
            .to_owned(),
    );
    attacks.push("insert into audit_seals values (1, 1, 1, sha256(''), substr(sha256(''), 1, 16))".to_owned());
    attacks.push("update audit_events set subject = 'somebody else'".to_owned());
    attacks.push("update audit_journal set digest = digest".to_owned());
    attacks.push("update audit_seals set digest = digest".to_owned());
    for (attack, login) in attacks.iter().flat_map(|attack| logins.map(|login| (attack, login))) {
        let refused = run(login, &format!("set local app.tenant_id = '{of}'; {attack}")).await.unwrap_err().to_string();
        assert!(refused.contains("permission denied"), "{attack}: {refused}");
    }
    // The owner is refused by triggers, which it could drop.
    for attack in
        attacks.iter().filter(|attack| ["delete", "truncate", "update audit_e"].iter().any(|a| attack.starts_with(a)))
    {
        let refused = run(&urls.owner, &format!("set local app.tenant_id = '{of}'; {attack}")).await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{attack}: {refused}");
    }
}

#[tokio::test]
async fn log_05_operators_acts_are_in_the_trail_of_whom_they_concern() {
    let app = TestApp::start().await;
    let act = |arguments: &[&str]| {
        let mut incident = binary();
        incident.arg("incident").args(arguments).args(["--reason", "stolen laptop"]);
        let url = app.database.operator.expose_secret();
        let done = incident.env("APP_PROFILE", "development").env("APP_DATABASE__OPERATOR_URL", url).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    act(&["throttle", &ACME.id.to_string(), "read", "500"]);
    act(&["revoke", "subject", "somebody@acme.example"]);
    act(&["revoke", "tenant", &ACME.id.to_string(), "--before", "2020-01-01T00:00:00Z"]);
    let trail = trail(&app, "").await;
    let told: Vec<_> =
        trail.iter().map(|event| (event["action"].as_str().unwrap(), event["object"].as_str().unwrap())).collect();
    assert_eq!(told.len(), 2, "{trail:#?}");
    assert_eq!(told[0].0, "credentials_revoked");
    assert!(told[0].1.starts_with(&format!("tenant {} before 2020", ACME.id)), "{told:?}");
    assert!(told[1].0 == "quota_set" && told[1].1.starts_with("read 500 per minute until "), "{told:?}");
    for event in &trail {
        assert_eq!(
            (event["subject"].as_str(), event["reason"].as_str()),
            (Some("operator:app_operator"), Some("stolen laptop"))
        );
    }
    // Whose token it is, no revocation says: that is nobody's event.
    let nobody = query(
        &app.database.backup,
        "select object from audit_events where tenant_id = '00000000-0000-0000-0000-000000000000'",
    )
    .await;
    assert!(nobody.len() == 1 && nobody[0].starts_with("subject somebody@acme.example before "), "{nobody:?}");
    assert_eq!(verify::verify(&app.database, None).0, Ok(()));
}

/// Nobody's events are no tenant's, and no token's subject looks like an operator.
#[tokio::test]
async fn log_05_no_token_reads_as_an_operator() {
    let app = TestApp::shared();
    let subject = app.forge().claim("sub", "Operator:app_operator").token();
    let nobody = app.forge().claim("tenant_id", Uuid::nil().to_string()).token();
    for token in [subject, nobody] {
        assert_eq!(app.bearer(token).get("/v1/me").await.problem(401), "unauthenticated");
    }
}
