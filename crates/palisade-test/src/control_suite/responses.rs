//! Responses of every operation: security headers on successes and errors, and errors as problems
//! of RFC 9457 that reveal no internals (INPUT-08).

use http::Method;
use palisade::authz::Callers;
use serde_json::Value;

use super::{Fixture, Objects};
use crate::{ACME, Operation, Reply, TestApp};

/// Headers of every response, with their value if it is the same for all.
const HEADERS: [(&str, Option<&str>); 7] = [
    ("content-security-policy", None),
    ("cross-origin-resource-policy", Some("same-origin")),
    ("referrer-policy", Some("no-referrer")),
    ("x-content-type-options", Some("nosniff")),
    ("x-frame-options", Some("DENY")),
    ("x-request-id", None),
    ("cache-control", None),
];

/// Words of frameworks, SQL and source code. No caller reads them.
const INTERNALS: [&str; 9] =
    ["serde", "poem", "sqlx", "postgres", "panicked", "src/", " at line ", "column ", "palisade::"];

/// A success and an error of each operation have the security headers.
pub async fn headers_are_set<F: Fixture>(app: &TestApp) {
    let acme = Objects::<F>::new(app, &ACME);
    for operation in Operation::all(app.service) {
        let object = acme.create(&operation).await;
        let success = operation.call(&acme.admin, &object).await;
        assert!(success.status.is_success(), "{operation}: {success:#?}");
        let error =
            acme.admin.send(acme.admin.request(operation.method.clone(), &with_query(&operation, &object))).await;
        assert!(error.status.is_client_error(), "{operation}: {error:#?}");
        for reply in [&success, &error] {
            for (name, value) in HEADERS {
                let found = reply.header(name);
                assert!(
                    found.is_some() && (value.is_none() || found == value),
                    "{operation} responds without the header {name}: {reply:#?}"
                );
            }
            for name in ["server", "x-powered-by", "via"] {
                assert_eq!(reply.header(name), None, "{operation} reveals the header {name}");
            }
            let is_public = operation.row.callers == Callers::Public && reply.status.is_success();
            assert!(
                is_public || reply.header("cache-control") == Some("no-store"),
                "{operation} lets caches keep its response: {reply:#?}"
            );
        }
        let replies = [success.header("x-request-id"), error.header("x-request-id")];
        assert_ne!(replies[0], replies[1], "{operation}: two requests have the same id");
    }
}

/// Each error that every operation can answer with is a problem.
pub async fn errors_are_problems<F: Fixture>(app: &TestApp) {
    let acme = Objects::<F>::new(app, &ACME);
    let admin = &acme.admin;
    let anonymous = app.anonymous();
    let without_scopes = app.user_of(&ACME, app.service.admin_role(), &[]);
    for operation in Operation::all(app.service) {
        let object = acme.create(&operation).await;
        let query = admin.request(operation.method.clone(), &with_query(&operation, &object));
        assert_problem(&operation, 400, &admin.send(query).await);
        let path = operation.path_of(&object);
        assert_problem(&operation, 405, &admin.send(admin.request(Method::TRACE, &path)).await);
        if operation.row.callers == Callers::Public {
            continue;
        }
        assert_problem(&operation, 401, &operation.call(&anonymous, &object).await);
        if operation.row.scope.is_some() {
            assert_problem(&operation, 403, &operation.call(&without_scopes, &object).await);
        }
        if operation.has_object() && operation.method != Method::PUT {
            let missing = F::unused_id(&operation.path);
            assert_problem(&operation, 404, &operation.call(admin, &missing).await);
        }
        let example = operation.example.as_ref();
        if operation.has_response_body {
            let unacceptable = [("accept", "text/x-unacceptable")];
            assert_problem(&operation, 406, &operation.call_with(admin, &object, example, &unacceptable).await);
        }
        if example.is_some() {
            let mut text = operation.request(admin, &object).header("content-type", "text/plain").body("text");
            if operation.takes_key {
                text = text.header("idempotency-key", "text");
            }
            assert_problem(&operation, 415, &admin.send(text).await);
        }
    }
}

/// The path with a parameter that no operation has.
fn with_query(operation: &Operation, object: &str) -> String {
    format!("{}?parameterOfNoOperation=1", operation.path_of(object))
}

/// Checks the members of RFC 9457 section 3.1, the code and the trace id, and what must not be there.
pub(super) fn assert_problem(operation: &Operation, status: u16, reply: &Reply) {
    assert_eq!(reply.status.as_u16(), status, "{operation}: {reply:#?}");
    reply.problem(status);
    for member in ["type", "title", "code", "traceId"] {
        let text = reply.body[member].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "{operation}: the problem has no `{member}`: {reply:#?}");
    }
    let instance = &reply.body["instance"];
    assert!(
        *instance == Value::Null || instance.as_str().is_some_and(|path| path.starts_with('/')),
        "{operation}: the instance is no path: {reply:#?}"
    );
    for internal in INTERNALS {
        assert!(!reply.text.contains(internal), "{operation} reveals {internal:?} in an error: {}", reply.text);
    }
    // RFC 9110 sections 15.5.2 and 15.5.6.
    let named = [(401, "www-authenticate"), (405, "allow")];
    for (_, header) in named.iter().filter(|(of, _)| *of == status) {
        assert!(reply.header(header).is_some(), "{operation}: a {status} needs the header {header}: {reply:#?}");
    }
}
