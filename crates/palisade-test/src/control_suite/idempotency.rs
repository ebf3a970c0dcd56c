//! Retries (INPUT-10): an operation that takes an idempotency key replays its first response and
//! refuses the key for another request. Every other change refuses a key and creates no object.

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Fixture, Objects, hostile_input::replaced};
use crate::{ACME, Actor, Operation, TestApp};

/// Calls each change twice with the same key. The app must be used by no other test.
pub async fn retries_replay<F: Fixture>(app: &TestApp) {
    let acme = Objects::<F>::new(app, &ACME);
    let key = Uuid::now_v7().to_string();
    let all = Operation::all(app.service);
    for operation in &all {
        let object = acme.create(operation).await;
        let header = [("idempotency-key", &*key)];
        let call = async || operation.call_with(&acme.admin, &object, operation.example.as_ref(), &header).await;
        if operation.takes_key {
            let first = call().await;
            let again = call().await;
            assert!(first.status.is_success(), "{operation} must succeed with an idempotency key: {first:#?}");
            // The replay does not contain a secret that the first response returned.
            let mut expected = first.body.clone();
            let secret = expected.as_object_mut().and_then(|body| body.remove("key"));
            assert!(
                (again.status, &again.body) == (first.status, &expected)
                    && again.header("location") == first.header("location"),
                "{operation} ignores its idempotency key: pass it to the store, as CONTRIBUTING.md shows\n\
                 first: {first:#?}\nretry: {again:#?}"
            );
            assert!(
                secret.is_none_or(|secret| !again.text.contains(secret.as_str().unwrap())),
                "{operation} stores a secret for retries"
            );
            assert_eq!(again.header("idempotent-replayed"), Some("true"), "{operation}");
            other_requests_are_refused(&acme, operation, &object, &key).await;
        } else if operation.method != Method::GET {
            assert_eq!(call().await.faults(), ["Idempotency-Key not_supported"], "{operation}");
        }
        if !operation.takes_key && operation.method == Method::POST {
            let before = listed(&all, operation, &acme.admin, &object).await;
            let reply = operation.call(&acme.admin, &object).await;
            let after = listed(&all, operation, &acme.admin, &object).await;
            assert!(
                reply.status != 201 && !(reply.status.is_success() && after > before),
                "{operation} creates an object and takes no idempotency key: {reply:#?}"
            );
        }
    }
}

/// The used key is refused for another object and for another body.
async fn other_requests_are_refused<F: Fixture>(acme: &Objects<F>, operation: &Operation, object: &str, key: &str) {
    let header = [("idempotency-key", key)];
    let refused = "must refuse a used idempotency key for";
    if operation.has_object() {
        let other = acme.create(operation).await;
        let reply = operation.call_with(&acme.admin, &other, operation.example.as_ref(), &header).await;
        assert_eq!(reply.status, 422, "{operation} {refused} another object: {reply:#?}");
        assert_eq!(reply.problem(422), "idempotency_key_reused", "{operation}");
    }
    let Some(example) = &operation.example else { return };
    let mut bodies = Vec::new();
    collect_other_bodies(&operation.schema, "", example, &mut bodies);
    for body in bodies {
        let reply = operation.call_with(&acme.admin, object, Some(&body), &header).await;
        if reply.status == 400 {
            // The body is not one that the operation takes.
            continue;
        }
        assert_eq!(reply.status, 422, "{operation} {refused} another body: {reply:#?}");
        if reply.problem(422) == "idempotency_key_reused" {
            return;
        }
    }
    panic!("{operation} {refused} another body: the example of its schema needs a property that can change");
}

/// Collects bodies that differ from the example at one pointer, and that the schema may allow.
fn collect_other_bodies(schema: &Value, at: &str, example: &Value, found: &mut Vec<Value>) {
    let value = &example.pointer(at).cloned().unwrap_or_default();
    let mut others: Vec<Value> = schema["enum"].as_array().into_iter().flatten().cloned().collect();
    if let Some(number) = value.as_i64() {
        others.extend([json!(number + 1), json!(number - 1)]);
    }
    if let Some(text) = value.as_str().filter(|_| others.is_empty()) {
        let shorter = text.chars().take(text.chars().count().saturating_sub(1)).collect::<String>();
        others.extend([json!(format!("{text}x")), json!(format!("{shorter}9")), json!(shorter)]);
    }
    others.retain(|other| other != value);
    found.extend(others.into_iter().filter_map(|other| replaced(example, at, other)));
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}/{name}");
        if example.pointer(&at).is_some() {
            collect_other_bodies(property, &at, example, found);
        }
    }
    if value.get(0).is_some() {
        collect_other_bodies(&schema["items"], &format!("{at}/0"), example, found);
    }
}

/// The number of objects in the lists of the operation's collection.
async fn listed(all: &[Operation], operation: &Operation, admin: &Actor, object: &str) -> usize {
    let collection = operation.path.split("/{").next();
    let is_list = |path: &str| Some(path) == collection || path == operation.path;
    let mut objects = 0;
    for list in all.iter().filter(|list| list.is_read() && is_list(&list.path)) {
        let mut page = list.call(admin, object).await.ok(200);
        loop {
            objects += page.as_array().or(page["items"].as_array()).map_or(0, Vec::len);
            let Some(cursor) = page["nextCursor"].as_str() else { break };
            page = list.call_with_query(admin, object, "cursor", cursor).await.ok(200);
        }
    }
    objects
}
