//! Idempotency keys of payments and customers (INPUT-10): payments and refunds require one, and the
//! erasure of a customer empties the stored response.

use http::Method;
use serde_json::{Value, json};
use service::{
    access::{roles, scopes},
    demo,
};

use crate::support::{
    Actor, BillingFixture, Reply, SERVICE,
    api_keys::{key_path, key_text},
    id, query, search,
};

async fn post(actor: &Actor, path: &str, key: &str, body: &Value) -> Reply {
    let request = actor.request(Method::POST, path).header("idempotency-key", key);
    actor.send(if body.is_null() { request } else { request.json(body) }).await
}

fn is_replay(reply: &Reply) -> bool {
    reply.header("idempotent-replayed") == Some("true")
}

#[tokio::test]
async fn input_10_idempotency_key_with_another_request_is_rejected() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    // The same body for another object is another request.
    let (_, first) = fixture.invoice("PEN-BLUE", 1).await;
    let (_, second) = fixture.invoice("PEN-BLUE", 1).await;
    let payment = json!({ "amount": { "amount": 1, "currency": "EUR" } });
    fixture.pay_with(&first, &payment, Some("for-one")).await.ok(201);
    assert_eq!(fixture.pay_with(&second, &payment, Some("for-one")).await.problem(422), "idempotency_key_reused");
    assert!(is_replay(&fixture.pay_with(&first, &payment, Some("for-one")).await));
}

#[tokio::test]
async fn input_10_keyed_changes_of_a_state_replay() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    let cancelled = fixture.order("PEN-BLUE", 1).await;
    fixture.put_product("FREE-1", 0).await;
    let (paid, _) = fixture.invoice("FREE-1", 1).await;
    let (reopened, invoice) = fixture.invoice("PEN-BLUE", 1).await;
    for path in [
        format!("/v1/orders/{cancelled}/cancel"),
        format!("/v1/orders/{paid}/fulfil"),
        format!("/v1/invoices/{invoice}/void"),
    ] {
        let first = post(&fixture.admin, &path, "state", &Value::Null).await;
        assert!(!is_replay(&first), "{first:?}");
        let again = post(&fixture.admin, &path, "state", &Value::Null).await;
        assert!(is_replay(&again), "{path}: {again:?}");
        assert_eq!((again.status, &again.text), (first.status, &first.text));
        first.ok(200);
        // Without the key it is another change, which the state forbids.
        assert_eq!(fixture.change(&path).await.problem(409), "conflict");
    }
    // The key of one order says nothing about another.
    let other = format!("/v1/orders/{reopened}/cancel");
    let reused = post(&fixture.admin, &other, "state", &Value::Null).await;
    assert_eq!(reused.problem(422), "idempotency_key_reused");
}

/// The response to a payment is lost, then the API key is rotated.
#[tokio::test]
async fn input_10_payment_is_recorded_once_although_its_api_key_rotates() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    let (_, invoice) = fixture.invoice("PAPER-A4", 1).await;
    let path = format!("/v1/invoices/{invoice}/payments");
    let payment = json!({ "amount": { "amount": 10, "currency": "EUR" } });
    let old = app.new_api_key(&[scopes::BILLING_WRITE]).await;
    let body = json!({ "validForDays": 30, "overlapHours": 1 });
    let new = fixture.admin.post(&format!("{}/rotate", key_path(&old)), &body).await.ok(201);
    let programs = [app.api_key(key_text(&old)), app.api_key(key_text(&new))];
    for program in &programs {
        // A new key may have to wait for a hash.
        program.send_until_served(program.request(Method::GET, "/v1/me")).await.ok(200);
    }
    let (first, second) =
        tokio::join!(post(&programs[0], &path, "once", &payment), post(&programs[1], &path, "once", &payment));
    for reply in [&first, &second] {
        assert!(reply.status == 201 || reply.problem(409) == "request_in_flight", "{reply:?}");
    }
    for program in &programs {
        assert!(is_replay(&post(program, &path, "once", &payment).await));
    }
    let invoice = fixture.admin.get(&format!("/v1/invoices/{invoice}")).await.ok(200);
    assert_eq!((&invoice["paid"]["amount"], invoice["payments"].as_array().unwrap().len()), (&json!(10), 1));
}

#[tokio::test]
async fn input_10_payments_need_a_valid_idempotency_key() {
    let app = SERVICE.shared();
    let fixture = BillingFixture::new(app);
    let (_, invoice) = fixture.invoice("PEN-BLUE", 1).await;
    let payment = json!({ "amount": { "amount": 129, "currency": "EUR" } });
    let paths = [format!("/v1/invoices/{invoice}/payments"), format!("/v1/payments/{}/refunds", demo::FIRST_PAYMENT)];
    for path in &paths {
        let reply = fixture.admin.post(path, &payment).await;
        assert_eq!(reply.problem(400), "invalid_input");
        assert_eq!(reply.faults(), ["Idempotency-Key invalid"]);
        for key in ["", "two words", &"k".repeat(256), "t\u{e9}"] {
            let reply = post(&fixture.admin, path, key, &payment).await;
            assert_eq!(reply.faults(), ["Idempotency-Key invalid"], "{key:?}");
        }
    }
    // Where the key is optional, an invalid one is rejected too.
    let order = fixture.order("PEN-BLUE", 1).await;
    for path in ["/v1/orders", "/v1/customers", &format!("/v1/orders/{order}/invoice")] {
        for key in ["", "two words", &"k".repeat(256), "t\u{e9}"] {
            let body = if path.ends_with("/invoice") { &Value::Null } else { &payment };
            let faults = post(&fixture.admin, path, key, body).await.faults();
            assert_eq!(faults, ["Idempotency-Key invalid"], "{path} {key:?}");
        }
    }
    let two =
        fixture.admin.request(Method::POST, &paths[0]).header("idempotency-key", "a").header("idempotency-key", "b");
    assert_eq!(fixture.admin.send(two.json(&payment)).await.faults(), ["Idempotency-Key invalid"]);
    assert_eq!(fixture.pay_with(&invoice, &payment, Some(&"k".repeat(255))).await.status, 201);
}

#[tokio::test]
async fn input_10_stored_responses_are_erased_with_the_customer() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let customer = json!({ "name": "Canary Person", "email": "canary@example.com" });
    let created = post(&admin, "/v1/customers", "person", &customer).await.ok(201);
    let stored = query(&app.database.owner, "select body from palisade.idempotency_keys").await;
    assert!(stored[0].contains("Canary Person") && !stored[0].contains("canary@example.com"), "{stored:?}");
    let path = format!("/v1/customers/{}", id(&created));
    assert_eq!(admin.send(admin.request(Method::DELETE, &path)).await.status, 204);
    let left = "select coalesce(body, location, 'nothing') from palisade.idempotency_keys";
    assert_eq!(query(&app.database.owner, left).await, ["nothing"]);
    // A late retry does not create the customer again.
    assert_eq!(post(&admin, "/v1/customers", "person", &customer).await.problem(409), "conflict");
    assert!(search(&admin, &json!({ "email": "canary@example.com" })).await.is_empty());
}
