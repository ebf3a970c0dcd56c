//! Mass assignment (AUTHZ-06): no operation accepts a property that its body does not have.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Fixture, Objects};
use crate::{ACME, GLOBEX, Operation, TestApp};

/// Names that an attacker would try, whatever the schema.
const TEMPTING: [&str; 10] =
    ["id", "tenantId", "tenant_id", "status", "masked", "createdBy", "createdAt", "role", "scopes", "__proto__"];

/// Each body is rejected with a property that only responses have, or none.
pub async fn read_only_is_rejected<F: Fixture>(app: &TestApp) {
    let acme = Objects::<F>::new(app, &ACME);
    for operation in Operation::all(app.service) {
        let Some(example) = &operation.example else { continue };
        let object = acme.create(&operation).await;
        let names: BTreeSet<&str> = operation.returned.iter().map(String::as_str).chain(TEMPTING).collect();
        for name in names.into_iter().filter(|name| operation.schema["properties"][*name].is_null()) {
            let mut body = example.clone();
            body[name] = value_of(name);
            let reply = operation.call_with(&acme.admin, &object, Some(&body), &[]).await;
            assert_eq!(
                reply.status, 400,
                "{operation} must reject the property `{name}`, which its schema does not have: {reply:#?}"
            );
            assert_eq!(reply.problem(400), "invalid_input", "{operation} {name}");
            assert_eq!(reply.faults(), [" unknown_field"], "{operation} {name}");
        }
    }
}

fn value_of(name: &str) -> Value {
    match name {
        "tenantId" | "tenant_id" => json!(GLOBEX.id.to_string()),
        "masked" => json!(false),
        "__proto__" => json!({ "admin": true }),
        "scopes" => json!(["admin"]),
        _ => json!("2020-01-01T00:00:00Z"),
    }
}
