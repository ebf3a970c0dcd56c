//! Calls on an object of another tenant (AUTHZ-03, AUTHZ-09), as [`Objects`] make and judge them.

use std::collections::BTreeSet;

use chrono::DateTime;
use http::Method;
use serde_json::Value;

use super::{Fixture, Objects};
use crate::{Actor, Operation, Reply};

impl<F: Fixture> Objects<F> {
    /// Calls the operation as a caller of another tenant, on a new object. The object must stay hidden
    /// and as it is; `fault` says otherwise. The owner's own call must succeed afterwards.
    pub(super) async fn call_as_other(
        &self,
        caller: &Actor,
        operation: &Operation,
        headers: &[(&str, &str)],
        fault: &str,
    ) -> Reply {
        let object = self.create(operation).await;
        let before = self.read(&operation.path, &object).await;
        let example = operation.example.as_ref();
        let foreign = operation.call_with(caller, &object, example, headers).await;
        if operation.method == Method::PUT {
            // It may create the caller's own object with this identifier.
            let missing = operation.call_with(caller, &F::unused_id(&operation.path), example, headers).await;
            assert_eq!(foreign.status, missing.status, "{operation} {fault}: {foreign:#?}");
            let mut shown = leaves(&before);
            for known in [example.unwrap_or_default(), &missing.body, &Value::from(&*object)] {
                shown = &shown - &leaves(known);
            }
            let shown = &shown & &leaves(&foreign.body);
            assert!(shown.is_empty(), "{operation} {fault}: the reply shows {shown:?}");
        } else {
            assert_eq!(foreign.status, 404, "{operation} {fault}: {foreign:#?}");
        }
        let after = self.read(&operation.path, &object).await;
        assert_eq!(after, before, "{operation} changed an object of another tenant");
        let own = operation.call(&self.admin, &object).await;
        assert!(
            own.status.is_success(),
            "{operation} must succeed for the owner of an object, else a refusal of another tenant proves nothing: \
             {own:#?}\nRepair `Fixture::create` for its path."
        );
        foreign
    }
}

/// The texts and numbers of the value, without times.
fn leaves(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(members) => members.values().flat_map(leaves).collect(),
        Value::Array(items) => items.iter().flat_map(leaves).collect(),
        Value::String(text) if DateTime::parse_from_rfc3339(text).is_err() => [text.clone()].into(),
        Value::Number(number) => [number.to_string()].into(),
        _ => BTreeSet::new(),
    }
}
