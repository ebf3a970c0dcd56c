use std::{marker::PhantomData, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::header;
use hyper::body::Bytes;
use poem::{IntoResponse, Result};
use poem_openapi::{
    ApiResponse, OpenApi, OpenApiService,
    payload::{Html, Json, Payload, Response},
    registry::{MetaResponses, Registry},
    types::Any,
};
use serde_json::Value;

use super::{Context, Operations, Tag, document::complete, guard::Guarded};
use crate::{
    crypto,
    problem::{Kind, Problem},
};

pub(super) const TITLE: &str = "Orders and billing";
const DESCRIPTION: &str = "Orders and billing for many tenants. What this document does not allow is answered with 400, \
                           what it allows and only the service can refuse with 422.";

/// The OpenAPI document and a page to read it on.
pub(super) struct Meta {
    document: Option<Bytes>,
    page: Option<Page>,
}

struct Page {
    html: Bytes,
    policy: String,
}

/// A body that was made once and that all answers share: however many callers do not read theirs, it is in memory once.
struct Ready<P> {
    bytes: Bytes,
    payload: PhantomData<fn() -> P>,
}

impl<P> Ready<P> {
    fn new(bytes: &Bytes) -> Self {
        Self { bytes: bytes.clone(), payload: PhantomData }
    }
}

impl<P: Payload> IntoResponse for Ready<P> {
    fn into_response(self) -> poem::Response {
        poem::Response::builder().content_type(P::CONTENT_TYPE).body(self.bytes)
    }
}

impl<P: ApiResponse> ApiResponse for Ready<P> {
    fn meta() -> MetaResponses {
        P::meta()
    }

    fn register(registry: &mut Registry) {
        P::register(registry);
    }
}

impl Meta {
    pub(super) fn new(context: &Arc<Context>) -> Self {
        if !context.docs {
            return Self { document: None, page: None };
        }
        let document = document(&context.issuer, &context.public_url);
        let page = Page::of(&document);
        Self { document: Some(document.to_string().into()), page: Some(page) }
    }
}

#[OpenApi(tag = "Tag::Operations")]
impl Meta {
    /// This document
    ///
    /// As OpenAPI 3.1. What it says of requests is what they are held to.
    #[oai(path = "/openapi.json", method = "get", operation_id = "getOpenApi")]
    async fn openapi(&self) -> Result<Ready<Json<Any<Value>>>> {
        let document = self.document.as_ref().ok_or_else(|| Problem::new(Kind::NotFound))?;
        Ok(Ready::new(document))
    }

    /// A page to read this document on
    ///
    /// Everything it needs is in the page; nothing is fetched from elsewhere.
    #[oai(path = "/docs", method = "get", operation_id = "getDocs")]
    async fn docs(&self) -> Result<Response<Ready<Html<String>>>> {
        let page = self.page.as_ref().ok_or_else(|| Problem::new(Kind::NotFound))?;
        Ok(Response::new(Ready::new(&page.html)).header(header::CONTENT_SECURITY_POLICY, &page.policy))
    }
}

/// The OpenAPI document of the whole API, for a service at `public_url` that takes tokens of `issuer`.
#[must_use]
pub fn document(issuer: &str, public_url: &str) -> Value {
    complete(&bare().spec(), issuer, public_url)
}

fn bare() -> OpenApiService<Guarded<Operations>, ()> {
    OpenApiService::new(Guarded::<Operations>::without_routes(), TITLE, env!("CARGO_PKG_VERSION"))
        .description(DESCRIPTION)
}

impl Page {
    /// Swagger UI with the document in it. Everything it needs is in the page: nothing is fetched from elsewhere.
    fn of(document: &Value) -> Self {
        let bare = bare();
        // Inside a script element, `</` would end it.
        let json = document.to_string().replace("</", "<\\/");
        let html = bare.swagger_ui_html().replacen(&bare.spec(), &json, 1);
        let hashes: Vec<String> = scripts(&html)
            .into_iter()
            .map(|script| format!("'sha256-{}'", STANDARD.encode(crypto::sha256(script.as_bytes()))))
            .collect();
        let policy = format!(
            "default-src 'none'; script-src {}; style-src 'unsafe-inline'; img-src 'self' data:; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hashes.join(" ")
        );
        Self { html: html.into(), policy }
    }
}

/// The texts of the page's own script elements: those, and no others, may run. As a browser reads
/// them: an element ends at the first end tag, and what looks like a start tag inside it is text.
fn scripts(html: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = html;
    while let Some((_, element)) = rest.split_once("<script")
        && let Some((_, content)) = element.split_once('>')
        && let Some((script, after)) = content.split_once("</script>")
    {
        found.push(script);
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_script_ends_where_a_browser_ends_it() {
        let html = "<p><script a>one(\"<script>\")</script>x<script>two</script>";
        assert_eq!(super::scripts(html), ["one(\"<script>\")", "two"]);
    }
}
