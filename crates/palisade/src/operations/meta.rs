//! What the API says about itself: the OpenAPI document, a Swagger UI page that shows it, and the
//! metadata of RFC 9728.
//!
//! The document and the page are rendered at the first request, and shared by all responses
//! ([`CachedText`]).

use std::sync::{Arc, OnceLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use poem::{Request, Result};
use poem_openapi::{
    Object, OpenApi, OpenApiService,
    payload::{Html, Json},
    types::Any,
};
use serde_json::Value;

use super::{
    Tag, Title,
    cached_text::{CachedText, RenderedResponse},
    sessions::DOCS_PAGE,
};
use crate::{
    authn::PROOF_ALGORITHMS,
    authz::Matrix,
    crypto,
    http::{
        Context, UncheckedKeyword,
        document::complete,
        guard::GuardedRoutes,
        schema::Schemas,
        text::{Text, formats},
        values::{ScopeName, declared_names},
    },
    package,
    problem::{Kind, Problem},
};

/// Conventions that hold for all operations, in Markdown. The description of the service precedes
/// them.
const CONVENTIONS: &str = "\
Each call is confined to the tenant of its credential.

**Errors** are problem documents (RFC 9457) with a stable `code`, a `traceId` and, for invalid input, `errors`. \
Input that this document does not allow fails with 400; input that only the service can reject fails with 422. \
A request for an object of another tenant returns 404, like one for a missing object.

**Formats**: JSON in UTF-8 (RFC 8259); ids are UUIDs (RFC 9562); times are RFC 3339.

**Lists** are paged. Send `nextCursor` as `cursor` to get the next page. A cursor is opaque and valid for one list \
of one tenant.

**Idempotency**: operations that create an object take `Idempotency-Key`. A retry with the same key returns the first response, marked by `Idempotent-Replayed: true`. Responses are kept for 24 hours \
by default, per caller and operation. A retry fails with 409 (`request_in_flight`) while the first request is in \
progress. The same key with a different request fails with 422 (`idempotency_key_reused`).";

/// Operations that serve the document and its page.
pub(super) struct Meta {
    context: Arc<Context>,
    api: Document,
    document: OnceLock<CachedText>,
    page: OnceLock<CachedText>,
}

/// Metadata of the API (RFC 9728 section 2).
#[derive(Debug, Object)]
#[oai(rename = "ProtectedResource")]
struct ProtectedResource {
    /// The URL at which callers reach the API.
    resource: Text<formats::Url>,
    /// The name of the API.
    resource_name: Text<formats::Name>,
    /// The issuer of access tokens. Empty if the issuer depends on the tenant.
    #[oai(validator(max_items = 1))]
    authorization_servers: Vec<Text<formats::Url>>,
    /// The scopes of the API, at most 64.
    #[oai(validator(max_items = 64))]
    scopes_supported: Vec<ScopeName>,
    /// How a request carries its access token.
    #[oai(validator(max_items = 1))]
    bearer_methods_supported: Vec<Text<formats::Action>>,
    /// Signature algorithms of DPoP proofs (RFC 9449); absent if no token is bound to a key.
    #[oai(validator(max_items = 8), skip_serializing_if_is_none)]
    dpop_signing_alg_values_supported: Option<Vec<Text<formats::Name>>>,
    /// Whether every access token must be bound to a key, with DPoP proofs.
    #[oai(skip_serializing_if_is_none)]
    dpop_bound_access_tokens_required: Option<bool>,
}

impl Meta {
    pub(super) fn new(context: &Arc<Context>, api: Document) -> Self {
        Self { context: Arc::clone(context), api, document: OnceLock::new(), page: OnceLock::new() }
    }

    fn document(&self) -> Value {
        self.api.render(&self.context.matrix, &self.context.issuer, &self.context.public_url)
    }

    /// Fails with 404 if the settings turn the documentation off.
    fn check_enabled(&self) -> Result<(), Problem> {
        if self.context.docs { Ok(()) } else { Err(Problem::new(Kind::NotFound)) }
    }
}

#[OpenApi(tag = "Tag::Operations")]
impl Meta {
    /// Get the metadata of the API
    ///
    /// Returns the document of RFC 9728: the issuer whose access tokens the API accepts, and its
    /// scopes. Responses with 401 name its address in `WWW-Authenticate`.
    #[oai(path = "/.well-known/oauth-protected-resource", method = "get", operation_id = "getProtectedResource")]
    async fn protected_resource(&self) -> Json<ProtectedResource> {
        let issuer = Some(&*self.context.issuer).filter(|url| !url.contains('{'));
        let dpop = self.context.authenticator.requires_dpop();
        Json(ProtectedResource {
            resource: self.context.public_url.trim_end_matches('/').into(),
            resource_name: self.api.title.title.into(),
            authorization_servers: issuer.into_iter().map(Text::from).collect(),
            scopes_supported: self
                .context
                .matrix
                .rights()
                .scopes
                .iter()
                .map(|scope| ScopeName(scope.as_str().to_owned()))
                .collect(),
            bearer_methods_supported: vec!["header".into()],
            dpop_signing_alg_values_supported: dpop.map(|_| PROOF_ALGORITHMS.split(' ').map(Text::from).collect()),
            dpop_bound_access_tokens_required: dpop,
        })
    }

    /// Get the OpenAPI document
    ///
    /// Returns this document (OpenAPI 3.1). Requests are checked against its schemas. Clients may
    /// cache it for five minutes and then revalidate it by `ETag`. Returns 404 if the operator
    /// turned the documentation off.
    #[oai(path = "/openapi.json", method = "get", operation_id = "getOpenApi")]
    async fn openapi(&self, request: &Request) -> Result<RenderedResponse<Json<Any<Value>>>> {
        self.check_enabled()?;
        let document = self.document.get_or_init(|| CachedText::new(&self.document().to_string(), None));
        Ok(document.respond(request.headers()))
    }

    /// Get the documentation page
    ///
    /// Returns an HTML page (Swagger UI) that shows this document. The page contains all its
    /// scripts and styles and loads nothing from other hosts. Caching and 404 are as for
    /// `getOpenApi`.
    #[oai(path = "/docs", method = "get", operation_id = "getDocs")]
    async fn docs(&self, request: &Request) -> Result<RenderedResponse<Html<String>>> {
        self.check_enabled()?;
        let additions = if self.context.authenticator.has_sessions() { DOCS_PAGE } else { &[] };
        let page = self.page.get_or_init(|| self.api.render_page(self.document(), additions));
        Ok(page.respond(request.headers()))
    }
}

/// The OpenAPI document of an API, whose operations are known by their types only. So it needs no
/// server.
#[derive(Clone, Copy, Debug)]
pub struct Document {
    title: Title,
    spec: fn(Title) -> String,
    page: fn(Title) -> String,
    check: fn(&Matrix) -> Result<(), UncheckedKeyword>,
}

impl Document {
    pub(super) fn new<O: OpenApi + 'static>(title: Title) -> Self {
        Self {
            title,
            spec: |title| metadata::<O>(title).spec(),
            page: |title| metadata::<O>(title).swagger_ui_html(),
            check: |matrix| Schemas::new::<O>(&declared_names(matrix)).map(drop),
        }
    }

    /// Checks that the schemas of all request bodies are supported (INPUT-02). A server does the
    /// same when it starts; the command `openapi` calls this to publish no other document.
    ///
    /// # Errors
    /// The first keyword of a schema that the check of bodies does not support.
    pub fn check_schemas(&self, matrix: &Matrix) -> Result<(), UncheckedKeyword> {
        (self.check)(matrix)
    }

    /// The document, for a service at `public_url` that accepts tokens of `issuer`.
    #[must_use]
    pub fn render(&self, matrix: &Matrix, issuer: &str, public_url: &str) -> Value {
        complete(&(self.spec)(self.title), matrix, issuer, public_url)
    }

    /// Swagger UI with the document in it, and these additions. Its policy allows exactly the scripts
    /// of the page, by hash.
    fn render_page(&self, mut document: Value, additions: &[(&str, &str)]) -> CachedText {
        // A page can send tokens and API keys only. Of the other schemes, Swagger UI would fetch the
        // discovery document, which the policy forbids, and offer to set a cookie.
        if let Some(schemes) = document.pointer_mut("/components/securitySchemes").and_then(Value::as_object_mut) {
            schemes.retain(|_, scheme| scheme["type"] != "openIdConnect" && scheme["in"] != "cookie");
        }
        // `</` in the document could end the script element.
        let json = document.to_string().replace("</", "<\\/");
        let html = (self.page)(self.title);
        let html = additions.iter().fold(html, |html, (place, text)| html.replacen(place, text, 1));
        let html = html.replacen(&(self.spec)(self.title), &json, 1);
        let hashes: Vec<String> = scripts(&html)
            .into_iter()
            .map(|script| format!("'sha256-{}'", STANDARD.encode(crypto::sha256(script.as_bytes()))))
            .collect();
        let policy = format!(
            "default-src 'none'; script-src {}; style-src 'unsafe-inline'; img-src 'self' data:; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hashes.join(" ")
        );
        CachedText::new(&html, Some(&policy))
    }
}

fn metadata<O: OpenApi + 'static>(title: Title) -> OpenApiService<GuardedRoutes<O>, ()> {
    OpenApiService::new(GuardedRoutes::<O>::metadata_only(), title.title, package::version())
        .description(format!("{} {CONVENTIONS}", title.description))
}

/// The texts of the script elements of the page. As in a browser, an element ends at the first end
/// tag, and a start tag inside it is text.
fn scripts(html: &str) -> Vec<&str> {
    let mut scripts = Vec::new();
    let mut rest = html;
    while let Some((_, element)) = rest.split_once("<script")
        && let Some((_, content)) = element.split_once('>')
        && let Some((script, after)) = content.split_once("</script>")
    {
        scripts.push(script);
        rest = after;
    }
    scripts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_elements_end_at_the_first_end_tag() {
        let html = "<p><script a>one(\"<script>\")</script>x<script>two</script>";
        assert_eq!(scripts(html), ["one(\"<script>\")", "two"]);
    }
}
