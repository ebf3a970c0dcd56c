//! The route matrix: every route has a row (THREAT-01), the OpenAPI document says the same
//! (THREAT-02), and only documented routes are served (THREAT-03). Size and caching of the
//! documents (RATE-09).

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use palisade::authz::{Scope, matrix};
use serde_json::Value;

use crate::support::{MATRIX, SERVICE, TestApp};

/// The committed OpenAPI document.
const DOCUMENT: &str = "docs/openapi.json";

/// The path with `{}` for each parameter: router and document name them differently.
fn template(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with([':', '{']) { "{}" } else { part }).collect::<Vec<_>>().join("/")
}

fn documented_routes(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap();
    let methods = |(path, methods): (&String, &Value)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(|method| format!("{} {}", method.to_uppercase(), template(path))).collect::<Vec<_>>()
    };
    paths.iter().flat_map(methods).collect()
}

fn served_routes(app: &TestApp) -> BTreeSet<String> {
    app.served.iter().map(|(method, path)| format!("{method} {}", template(path))).collect()
}

/// The routes that only one of the two sets has.
fn differences(left: &BTreeSet<String>, left_name: &str, right: &BTreeSet<String>, right_name: &str) -> Vec<String> {
    let left_only = left.difference(right).map(|route| format!("{route}: in {left_name} only"));
    let right_only = right.difference(left).map(|route| format!("{route}: in {right_name} only"));
    left_only.chain(right_only).collect()
}

async fn document(app: &TestApp) -> Value {
    app.anonymous().get("/openapi.json").await.ok(200)
}

#[tokio::test]
async fn threat_01_every_route_has_a_row_and_every_row_a_route() {
    let served = served_routes(SERVICE.shared());
    let rows: BTreeSet<String> =
        MATRIX.iter().map(|row| format!("{} {}", row.method.as_str(), template(row.path))).collect();
    let differences = differences(&served, "the router", &rows, "MATRIX (crates/palisade/src/authz/matrix.rs)");
    assert!(
        differences.is_empty(),
        "{}\nAdd the missing row, or remove the row without a route.",
        differences.join("\n")
    );
    assert_eq!(rows.len(), MATRIX.iter().count(), "two rows have the same route");
}

#[tokio::test]
async fn threat_03_served_routes_are_the_documented_ones() {
    let app = SERVICE.shared();
    let documented = documented_routes(&document(app).await);
    let differences = differences(&documented, "the document", &served_routes(app), "the router");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    for path in ["/", "/v1", "/v1/", "/admin", "/metrics", "/.env", "/v1/orders/", "/V1/me", "/docs/"] {
        app.anonymous().get(path).await.problem(404);
    }
    for (method, path) in [(Method::DELETE, "/v1/orders"), (Method::PUT, "/v1/me"), (Method::TRACE, "/health/live")] {
        let anonymous = app.anonymous();
        assert_eq!(anonymous.send(anonymous.request(method, path)).await.problem(405), "method_not_allowed", "{path}");
    }
}

#[test]
fn threat_02_openapi_document_matches_the_matrix() {
    let document = service::app().document().render(&MATRIX, "https://login.example.com", "https://api.example.com");
    for row in MATRIX.iter() {
        let operation = &document["paths"][row.path][row.method.as_str().to_lowercase()];
        assert_eq!(operation["operationId"], row.operation, "{}", row.path);
        assert_eq!(operation["x-access"]["audit"], row.audit, "{}", row.path);
        let scopes: Vec<&str> = row.scope.map(Scope::as_str).into_iter().collect();
        match row.callers {
            matrix::Callers::Public => assert_eq!(operation["security"], serde_json::json!([]), "{}", row.path),
            matrix::Callers::Authenticated => {
                let security = serde_json::json!([{ "oidc": scopes }, { "bearer": [] }, { "apiKey": [] }]);
                assert_eq!(operation["security"], security, "{}", row.path);
            }
            matrix::Callers::NoKeys => {
                let security = serde_json::json!([{ "oidc": scopes }, { "bearer": [] }]);
                assert_eq!(operation["security"], security, "{}", row.path);
            }
        }
    }
}

#[test]
fn threat_02_published_openapi_document_is_current() {
    let document = service::app().document().render(&MATRIX, "https://login.example.com", "https://api.example.com");
    let current = format!("{}\n", serde_json::to_string_pretty(&document).unwrap());
    let published = std::fs::read_to_string(DOCUMENT).unwrap_or_default();
    assert!(
        current == published,
        "{DOCUMENT} is not current: run `cargo run --features dev -- openapi > {DOCUMENT}` and review the difference"
    );
}

#[tokio::test]
async fn docs_page_allows_only_its_own_scripts() {
    let app = SERVICE.shared();
    let reply = app.anonymous().get("/docs").await;
    let policy = reply.header("content-security-policy").unwrap().to_owned();
    assert!(policy.contains("script-src 'sha256-") && !policy.contains("script-src 'unsafe"), "{policy}");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(reply.text.contains("createOrder"));
    let longest =
        &document(app).await["paths"]["/docs"]["get"]["responses"]["200"]["content"]["text/html; charset=utf-8"];
    assert!(reply.text.chars().count() as u64 <= longest["schema"]["maxLength"].as_u64().unwrap());
    // A browser ends an element at the first end tag. The policy allows each by its hash.
    let elements = reply.text.split("</script>").filter_map(|piece| piece.split_once("<script")?.1.split_once('>'));
    let hashes = elements.map(|(_, script)| STANDARD.encode(palisade::crypto::sha256(script.as_bytes())));
    let mut seen = 0;
    for hash in hashes {
        assert!(policy.contains(&format!("'sha256-{hash}'")), "the policy blocks a script of the page: {policy}");
        seen += 1;
    }
    assert_eq!(seen, 2);
    let off = SERVICE.start_with(&[("APP_HTTP__DOCS", "false")]).await;
    off.anonymous().get("/docs").await.problem(404);
    off.anonymous().get("/openapi.json").await.problem(404);
}

/// Otherwise small requests could cause large responses any number of times.
#[tokio::test]
async fn rate_09_documents_are_compressed_and_cached() {
    let app = SERVICE.shared();
    let anonymous = app.anonymous();
    for (path, max_bytes) in [("/docs", 500_000), ("/openapi.json", 20_000)] {
        let get_with = async |name: &str, value: &str| {
            anonymous.send(anonymous.request(Method::GET, path).header(name, value)).await
        };
        let uncompressed = anonymous.get(path).await;
        assert_eq!(uncompressed.header("cache-control"), Some("public, max-age=300"));
        assert_eq!(uncompressed.header("vary"), Some("accept-encoding"));
        assert_eq!(uncompressed.header("content-encoding"), None);
        let compressed = get_with("accept-encoding", "br, gzip").await;
        assert_eq!(compressed.header("content-encoding"), Some("gzip"));
        let length: usize = compressed.header("content-length").unwrap().parse().unwrap();
        assert!(length < max_bytes, "{path}: {length} bytes");
        assert_ne!(uncompressed.header("etag"), compressed.header("etag"));
        let etag = uncompressed.header("etag").unwrap();
        for cached in [etag.to_owned(), format!("\"other\", W/{etag}"), "*".to_owned()] {
            let unchanged = get_with("if-none-match", &cached).await;
            assert_eq!((unchanged.status.as_u16(), unchanged.text.len()), (304, 0), "{cached}");
            assert_eq!(unchanged.header("etag"), Some(etag));
        }
        get_with("if-none-match", "\"other\"").await.ok(200);
    }
}
