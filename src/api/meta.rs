//! The OpenAPI document and a page to read it on.
//!
//! Both are made at the first request for them, compressed once, and shared by all responses. Clients
//! may keep them for five minutes and ask then by `ETag` whether they changed (RFC 9110 section
//! 13.1.2), so that a small request seldom costs a large response.

use std::{
    io::Write as _,
    marker::PhantomData,
    sync::{Arc, OnceLock},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::body::Bytes;
use poem::{IntoResponse, Request, Result};
use poem_openapi::{
    ApiResponse, OpenApi, OpenApiService,
    payload::{Html, Json, Payload},
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

/// How long clients may keep a response without asking.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// The OpenAPI document and a page to read it on.
pub(super) struct Meta {
    context: Arc<Context>,
    document: OnceLock<Published>,
    page: OnceLock<Published>,
}

/// A text that all responses share: however many clients do not read theirs, it is in memory once.
struct Published {
    plain: Encoded,
    gzip: Encoded,
    /// The Content-Security-Policy of a page.
    policy: Option<HeaderValue>,
}

struct Encoded {
    bytes: Bytes,
    /// Of the encoded bytes (RFC 9110 section 8.8.3.3).
    etag: HeaderValue,
}

impl Published {
    fn new(text: &str, policy: Option<&str>) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        // Writing to a Vec cannot fail; an empty text would be seen at once.
        let gzip = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).unwrap_or_default();
        Self {
            plain: Encoded::new(text.to_owned().into()),
            gzip: Encoded::new(gzip.into()),
            policy: policy.and_then(|policy| HeaderValue::from_str(policy).ok()),
        }
    }

    /// The encoding that the client takes, or 304 if it has that.
    fn answer<P>(&self, headers: &HeaderMap) -> Ready<P> {
        let takes_gzip = takes_gzip(headers);
        let encoded = if takes_gzip { &self.gzip } else { &self.plain };
        let is_current = is_named(headers, &encoded.etag);
        let mut response = poem::Response::builder()
            .header(header::CACHE_CONTROL, CACHE)
            .header(header::ETAG, &encoded.etag)
            .header(header::VARY, header::ACCEPT_ENCODING.as_str());
        if let Some(policy) = &self.policy {
            response = response.header(header::CONTENT_SECURITY_POLICY, policy);
        }
        let response = if is_current {
            response.status(StatusCode::NOT_MODIFIED).finish()
        } else if takes_gzip {
            response.header(header::CONTENT_ENCODING, "gzip").body(encoded.bytes.clone())
        } else {
            response.body(encoded.bytes.clone())
        };
        Ready { response, payload: PhantomData }
    }
}

impl Encoded {
    fn new(bytes: Bytes) -> Self {
        let digest = crypto::hex(&crypto::sha256(&bytes));
        // Hexadecimal digits in quotes are a header value.
        let etag = HeaderValue::try_from(format!("\"{digest:.32}\"")).unwrap_or(HeaderValue::from_static("\"\""));
        Self { bytes, etag }
    }
}

/// Whether `Accept-Encoding` names gzip and does not refuse it by a weight of 0 (RFC 9110 section 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        named && weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0))
    })
}

/// Whether `If-None-Match` has this tag, by weak comparison (RFC 9110 section 13.1.2).
fn is_named(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let lines = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

/// A response that is made already, as a payload of this type.
struct Ready<P> {
    response: poem::Response,
    payload: PhantomData<fn() -> P>,
}

impl<P: Payload> IntoResponse for Ready<P> {
    fn into_response(mut self) -> poem::Response {
        if self.response.status() == StatusCode::OK {
            self.response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(P::CONTENT_TYPE));
        }
        self.response
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
        Self { context: Arc::clone(context), document: OnceLock::new(), page: OnceLock::new() }
    }

    fn document(&self) -> Value {
        document(&self.context.issuer, &self.context.public_url)
    }

    /// As if it did not exist, if the settings say so.
    fn check_served(&self) -> Result<(), Problem> {
        if self.context.docs { Ok(()) } else { Err(Problem::new(Kind::NotFound)) }
    }
}

#[OpenApi(tag = "Tag::Operations")]
impl Meta {
    /// This document
    ///
    /// As OpenAPI 3.1. What it says of requests is what they are held to.
    #[oai(path = "/openapi.json", method = "get", operation_id = "getOpenApi")]
    async fn openapi(&self, request: &Request) -> Result<Ready<Json<Any<Value>>>> {
        self.check_served()?;
        let made = self.document.get_or_init(|| Published::new(&self.document().to_string(), None));
        Ok(made.answer(request.headers()))
    }

    /// A page to read this document on
    ///
    /// Everything it needs is in the page; nothing is fetched from elsewhere.
    #[oai(path = "/docs", method = "get", operation_id = "getDocs")]
    async fn docs(&self, request: &Request) -> Result<Ready<Html<String>>> {
        self.check_served()?;
        Ok(self.page.get_or_init(|| page(&self.document())).answer(request.headers()))
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

/// Swagger UI with the document in it. Everything it needs is in the page: nothing is fetched from elsewhere.
fn page(document: &Value) -> Published {
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
    Published::new(&html, Some(&policy))
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
    use super::*;

    #[test]
    fn input_03_gzip_is_sent_to_clients_that_name_it() {
        let takes = |value: &'static str| {
            takes_gzip(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, value.parse().unwrap())]))
        };
        assert!(["gzip", "br, GZIP;q=0.5", "deflate,gzip"].into_iter().all(takes));
        assert!(!["", "identity", "gzip;q=0", "br", "xgzip", "gzip;q=x"].into_iter().any(takes));
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn a_script_ends_where_a_browser_ends_it() {
        let html = "<p><script a>one(\"<script>\")</script>x<script>two</script>";
        assert_eq!(scripts(html), ["one(\"<script>\")", "two"]);
    }
}
