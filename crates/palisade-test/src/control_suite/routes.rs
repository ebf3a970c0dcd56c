//! Routes: each has a row in the matrix (THREAT-01), the OpenAPI document says the same (THREAT-02),
//! and only documented routes are served (THREAT-03).

use std::collections::BTreeSet;

use http::Method;
use palisade::authz::{Callers, DataClass, Scope, sessions::SESSIONS};
use serde_json::{Value, json};

use crate::{TestApp, TestService};

/// The path with `{}` for each parameter: router and document name them differently.
fn template(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with([':', '{']) { "{}" } else { part }).collect::<Vec<_>>().join("/")
}

fn documented(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap();
    let methods = |(path, methods): (&String, &Value)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(|method| format!("{} {}", method.to_uppercase(), template(path))).collect::<Vec<_>>()
    };
    paths.iter().flat_map(methods).collect()
}

fn served(app: &TestApp) -> BTreeSet<String> {
    app.served.iter().map(|(method, path)| format!("{method} {}", template(path))).collect()
}

/// Asserts that both sets are equal.
fn assert_same(left: &BTreeSet<String>, left_name: &str, right: &BTreeSet<String>, right_name: &str) {
    let left_only = left.difference(right).map(|route| format!("{route}: in {left_name} only"));
    let right_only = right.difference(left).map(|route| format!("{route}: in {right_name} only"));
    let differences: Vec<String> = left_only.chain(right_only).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Every route has a row, and every row a route.
pub fn have_rows(app: &TestApp) {
    let matrix = app.service.matrix();
    let rows: BTreeSet<String> =
        matrix.iter().map(|row| format!("{} {}", row.method.as_str(), template(row.path))).collect();
    assert_same(&served(app), "the router", &rows, "the route matrix");
    assert_eq!(rows.len(), matrix.iter().count(), "two rows have the same route");
}

/// Each operation of the document has the name, audit event and security of its row.
pub fn document_says_the_same(service: &TestService) {
    let document = service.document("https://login.example.com", "https://api.example.com");
    for row in service.matrix().iter() {
        let operation = &document["paths"][row.path][row.method.as_str().to_lowercase()];
        assert_eq!(operation["operationId"], row.operation, "{}", row.path);
        assert_eq!(operation["x-access"]["audit"], row.audit, "{}", row.path);
        let max_age = row.step_up.map(palisade::authz::StepUp::max_age);
        assert_eq!(operation["x-access"]["maxSignInAge"], json!(max_age), "{}", row.path);
        let scopes: Vec<&str> = row.scope.map(Scope::as_str).into_iter().collect();
        let mut security = match row.callers {
            Callers::Public | Callers::Browser => vec![],
            Callers::Authenticated => vec![json!({ "oidc": scopes }), json!({ "bearer": [] }), json!({ "apiKey": [] })],
            Callers::NoKeys => vec![json!({ "oidc": scopes }), json!({ "bearer": [] })],
        };
        let is_of_session = match row.callers {
            Callers::Browser => row.data == DataClass::Own,
            callers => callers != Callers::Public && !SESSIONS.is_empty(),
        };
        security.extend(is_of_session.then(|| json!({ "session": [] })));
        assert_eq!(operation["security"], Value::from(security), "{}", row.path);
    }
}

/// The router serves the documented routes and no other.
pub async fn only_documented_are_served(app: &TestApp) {
    let anonymous = app.anonymous();
    let document = anonymous.get("/openapi.json").await.ok(200);
    assert_same(&documented(&document), "the document", &served(app), "the router");
    for path in ["/v1", "/v1/", "/v1/me/", "/V1/me", "/admin", "/metrics", "/.env", "/docs/"] {
        anonymous.get(path).await.problem(404);
    }
    for (method, path) in [(Method::DELETE, "/v1/me"), (Method::PUT, "/v1/me"), (Method::TRACE, "/health/live")] {
        assert_eq!(anonymous.send(anonymous.request(method, path)).await.problem(405), "method_not_allowed", "{path}");
    }
}
