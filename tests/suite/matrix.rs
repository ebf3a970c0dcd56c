//! The route matrix is the whole truth about who may call what.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use service::{api, authz::matrix};

use crate::support::TestApp;

const DOCUMENT: &str = "docs/openapi.json";

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

async fn document(app: &TestApp) -> Value {
    app.anonymous().get("/openapi.json").await.ok(200)
}

#[tokio::test]
async fn threat_01_every_route_has_a_row_and_every_row_a_route() {
    let app = TestApp::shared();
    let served: BTreeSet<String> =
        app.served.iter().map(|(method, path)| format!("{method} {}", template(path))).collect();
    let rows: BTreeSet<String> =
        matrix::MATRIX.iter().map(|row| format!("{} {}", row.method.as_str(), template(row.path))).collect();
    assert_eq!(
        served, rows,
        "\nleft: what the router serves; right: the rows of MATRIX in src/authz/matrix.rs.\n\
         Add the missing row, or remove the one without a route.\n"
    );
    assert_eq!(rows.len(), matrix::MATRIX.len(), "two rows speak of one route");
}

#[tokio::test]
async fn threat_03_what_is_served_is_what_is_documented() {
    let app = TestApp::shared();
    let served: BTreeSet<String> =
        app.served.iter().map(|(method, path)| format!("{method} {}", template(path))).collect();
    assert_eq!(documented(&document(app).await), served);
    for path in ["/", "/v1", "/v1/", "/admin", "/metrics", "/.env", "/v1/orders/", "/V1/me", "/docs/"] {
        app.anonymous().get(path).await.problem(404);
    }
}

#[test]
fn threat_02_the_document_says_what_the_matrix_says() {
    let document = api::document("https://login.example.com", "https://api.example.com");
    for row in &matrix::MATRIX {
        let operation = &document["paths"][row.path][row.method.as_str().to_lowercase()];
        assert_eq!(operation["operationId"], row.operation, "{}", row.path);
        assert_eq!(operation["x-access"]["audit"], row.audit, "{}", row.path);
        let scopes: Vec<&str> = row.scope.map(matrix::Scope::as_str).into_iter().collect();
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
fn the_published_document_is_current() {
    let document = api::document("https://login.example.com", "https://api.example.com");
    let current = format!("{}\n", serde_json::to_string_pretty(&document).unwrap());
    let published = std::fs::read_to_string(DOCUMENT).unwrap_or_default();
    assert!(
        current == published,
        "{DOCUMENT} is not current: run `cargo run --features dev -- openapi > {DOCUMENT}` and review the difference"
    );
}

#[tokio::test]
async fn the_docs_page_runs_no_script_but_its_own() {
    let app = TestApp::shared();
    let reply = app.anonymous().get("/docs").await;
    let policy = reply.header("content-security-policy").unwrap().to_owned();
    assert!(policy.contains("script-src 'sha256-") && !policy.contains("script-src 'unsafe"), "{policy}");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(reply.text.contains("createOrder"));
    let longest =
        &document(app).await["paths"]["/docs"]["get"]["responses"]["200"]["content"]["text/html; charset=utf-8"];
    assert!(reply.text.chars().count() as u64 <= longest["schema"]["maxLength"].as_u64().unwrap());
    // A browser ends an element at the first end tag; each must be allowed by the hash of its text.
    let elements = reply.text.split("</script>").filter_map(|piece| piece.split_once("<script")?.1.split_once('>'));
    let hashes = elements.map(|(_, script)| STANDARD.encode(service::crypto::sha256(script.as_bytes())));
    let mut seen = 0;
    for hash in hashes {
        assert!(policy.contains(&format!("'sha256-{hash}'")), "a script of the page may not run: {policy}");
        seen += 1;
    }
    assert_eq!(seen, 2);
    let off = TestApp::start_with(&[("APP_HTTP__DOCS", "false")]).await;
    off.anonymous().get("/docs").await.problem(404);
    off.anonymous().get("/openapi.json").await.problem(404);
}

/// A small request does not buy a large answer again and again.
#[tokio::test]
async fn rate_09_documents_are_compressed_and_kept_by_clients() {
    let app = TestApp::shared();
    let anonymous = app.anonymous();
    for (path, most) in [("/docs", 500_000), ("/openapi.json", 20_000)] {
        let ask = async |name: &str, value: &str| {
            anonymous.send(anonymous.request(http::Method::GET, path).header(name, value)).await
        };
        let plain = anonymous.get(path).await;
        assert_eq!(plain.header("cache-control"), Some("public, max-age=300"));
        assert_eq!(plain.header("vary"), Some("accept-encoding"));
        assert_eq!(plain.header("content-encoding"), None);
        let packed = ask("accept-encoding", "br, gzip").await;
        assert_eq!(packed.header("content-encoding"), Some("gzip"));
        let length: usize = packed.header("content-length").unwrap().parse().unwrap();
        assert!(length < most, "{path}: {length} bytes");
        assert_ne!(plain.header("etag"), packed.header("etag"));
        let etag = plain.header("etag").unwrap();
        for known in [etag.to_owned(), format!("\"other\", W/{etag}"), "*".to_owned()] {
            let unchanged = ask("if-none-match", &known).await;
            assert_eq!((unchanged.status.as_u16(), unchanged.text.len()), (304, 0), "{known}");
            assert_eq!(unchanged.header("etag"), Some(etag));
        }
        ask("if-none-match", "\"other\"").await.ok(200);
    }
}
