//! The published documents: the committed OpenAPI document is current (THREAT-02), and size and
//! caching of both (RATE-09).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use serde_json::Value;

use crate::support::{MATRIX, SERVICE, TestApp};

/// The committed OpenAPI document.
const DOCUMENT: &str = "docs/openapi.json";

async fn document(app: &TestApp) -> Value {
    app.anonymous().get("/openapi.json").await.ok(200)
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
