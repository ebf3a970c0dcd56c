//! Stands in for `sessions` without the feature `sessions`: no operations.

use std::sync::Arc;

use crate::http::Context;

/// There are no operations.
pub(super) type Sessions = ();

/// The documentation page has no sign-in.
pub(super) const DOCS_PAGE: &[(&str, &str)] = &[];

pub(super) fn new(_: &Arc<Context>) -> Sessions {}

#[cfg(test)]
mod tests {
    use super::super::{Document, KernelOperations, Title};
    use crate::authz::Matrix;

    #[test]
    fn threat_02_document_has_no_sessions_without_the_feature() {
        let matrix = Matrix::of_kernel();
        let document = Document::new::<KernelOperations>(Title { title: "T", description: "D" });
        let document = document.render(&matrix, "https://login.example.com", "https://api.example.com");
        assert!(document["components"]["securitySchemes"].get("session").is_none());
        let paths = document["paths"].as_object().unwrap().keys().map(String::as_str);
        let mut paths = paths.chain(matrix.iter().map(|row| row.path));
        assert!(!paths.any(|path| path.contains("/auth/") || path.contains("sessions")));
    }
}
