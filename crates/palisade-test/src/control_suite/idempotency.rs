//! Retries (INPUT-10): an operation that takes an idempotency key replays its first response, and
//! no other operation creates an object.

use http::Method;
use uuid::Uuid;

use super::{Fixture, Objects};
use crate::{ACME, Operation, TestApp};

/// Calls each `POST` twice with the same key.
pub async fn retries_replay<F: Fixture>(app: &TestApp) {
    let acme = Objects::<F>::new(app, &ACME);
    let key = Uuid::now_v7().to_string();
    for operation in Operation::all(app.service) {
        let object = acme.create(&operation).await;
        let header = [("idempotency-key", &*key)];
        let call = async || operation.call_with(&acme.admin, &object, operation.example.as_ref(), &header).await;
        if operation.takes_key {
            let first = call().await;
            let again = call().await;
            assert_eq!(first.status, 201, "{operation} takes an idempotency key and must answer 201: {first:#?}");
            // The replay does not contain a secret that the first response returned.
            let mut expected = first.body.clone();
            let secret = expected.as_object_mut().and_then(|body| body.remove("key"));
            assert!(
                again.status == 201 && again.body == expected && again.header("location") == first.header("location"),
                "{operation} ignores its idempotency key: pass it to the store, as CONTRIBUTING.md shows\n\
                 first: {first:#?}\nretry: {again:#?}"
            );
            assert!(
                secret.is_none_or(|secret| !again.text.contains(secret.as_str().unwrap())),
                "{operation} stores a secret for retries"
            );
            assert_eq!(again.header("idempotent-replayed"), Some("true"), "{operation}");
        } else if operation.method == Method::POST {
            // Operations that create nothing change a state, which can happen only once.
            assert_ne!(call().await.status, 201, "{operation} creates an object and takes no idempotency key");
        }
    }
}
