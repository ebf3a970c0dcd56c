//! Stands in for `api_keys` without the feature `api_keys`: no operations.

use std::sync::Arc;

use crate::http::Context;

/// There are no operations.
pub(super) type ApiKeys = ();

pub(super) fn new(_: &Arc<Context>) -> ApiKeys {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Document, KernelOperations, Title};
    use crate::authz::Matrix;

    #[test]
    fn threat_02_document_has_no_api_keys_without_the_feature() {
        let matrix = Matrix::of_kernel();
        let document = Document::new::<KernelOperations>(Title { title: "T", description: "D" });
        let document = document.render(&matrix, "https://login.example.com", "https://api.example.com");
        let schemes: Vec<_> = document["components"]["securitySchemes"].as_object().unwrap().keys().collect();
        assert!(!schemes.iter().any(|scheme| *scheme == "apiKey"));
        let security = document["paths"]["/v1/me"]["get"]["security"].as_array().unwrap();
        assert!(!security.contains(&json!({ "apiKey": [] })));
        let paths = document["paths"].as_object().unwrap().keys().map(String::as_str);
        let mut paths = paths.chain(matrix.iter().map(|row| row.path));
        assert!(!paths.any(|path| path.contains("api-keys")));
    }
}
