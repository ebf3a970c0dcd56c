//! Extractor for JSON bodies: the only way that a request body reaches an operation.
//!
//! It checks the media type, parses strictly ([`crate::json`]), checks the published schema
//! ([`Schemas`]) and then builds the Rust type. Home of INPUT-01 (duplicate keys), INPUT-03 (415)
//! and INPUT-05. Startup refuses an operation with another body.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, header};
use poem::{FromRequest, Request, RequestBody, Result};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    payload::Json,
    registry::{MetaRequest, Registry},
    types::ParseFromJSON,
};
use serde_json::Value;

use super::schema::Schemas;
use crate::{
    json,
    problem::{Kind, Problem},
    telemetry::event,
};

const JSON: &str = "application/json";
/// Media type of a merge patch (RFC 7396).
pub(super) const MERGE_PATCH: &str = "application/merge-patch+json";
const PATCH_TYPES: &str = "application/merge-patch+json, application/json";

/// A JSON body that matches the published schema of `T`: UTF-8, no duplicate keys, nothing after
/// the value, at most 16 levels deep.
pub struct StrictJson<T> {
    /// The parsed body.
    pub value: T,
    /// The body without white space and with members sorted by name: equal for equivalent bodies.
    /// Idempotency compares requests by it.
    pub canonical: Vec<u8>,
}

/// Marks operations that take a [`StrictJson`]. Their media type and schema are those of the
/// framework's `Json`, so the start tells the two apart by this name of a security scheme.
pub(crate) const MARK: &str = concat!(module_path!(), "::StrictJson");

impl<'a, T: ParseFromJSON> ApiExtractor<'a> for StrictJson<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject, ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Json::<T>::request_meta()
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![MARK]
    }

    async fn from_request(request: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        check_media_type(request)?;
        let bytes = <Vec<u8> as FromRequest>::from_request(request, body).await?;
        let mut value = parse(&bytes)?;
        value.sort_all_objects();
        integers_from_whole_floats(&mut value);
        let schemas = request.data::<Arc<Schemas>>().ok_or_else(|| Problem::new(Kind::Internal))?;
        let faults = schemas.check(&T::schema_ref(), &value);
        if !faults.is_empty() {
            return Err(recorded(Problem::new(Kind::InvalidInput).errors(faults)).into());
        }
        let canonical = serde_json::to_vec(&value).map_err(|_| Problem::new(Kind::Internal))?;
        // After the schema check this fails only if the type is stricter than its own schema.
        match T::parse_from_json(Some(value)) {
            Ok(value) => Ok(Self { value, canonical }),
            Err(_) => Err(recorded(Problem::new(Kind::InvalidInput).at("", "invalid")).into()),
        }
    }
}

/// Reads a JSON body that has no published schema: commands of the internal listener.
#[cfg(feature = "internal_listener")]
pub(crate) async fn read_body(request: &mut Request) -> Result<Value, Problem> {
    check_media_type(request)?;
    let bytes = request.take_body().into_vec().await.map_err(|error| crate::http::from_framework(error.into()))?;
    parse(&bytes)
}

/// A `PATCH` takes a merge patch (RFC 7396), and JSON as its other name.
fn check_media_type(request: &Request) -> Result<(), Problem> {
    let content_type = request.content_type().unwrap_or_default();
    let is_patch = request.method() == Method::PATCH;
    if is_utf_8_of(content_type, JSON) || is_patch && is_utf_8_of(content_type, MERGE_PATCH) {
        return Ok(());
    }
    let problem = Problem::new(Kind::UnsupportedMediaType);
    // RFC 9110 section 15.5.16, RFC 5789 section 2.2, W3C Linked Data Platform section 7.1.
    Err(match *request.method() {
        Method::PATCH => problem.header(HeaderName::from_static("accept-patch"), HeaderValue::from_static(PATCH_TYPES)),
        Method::POST => problem.header(HeaderName::from_static("accept-post"), HeaderValue::from_static(JSON)),
        _ => problem.header(header::ACCEPT, HeaderValue::from_static(JSON)),
    })
}

/// Whether a `Content-Type` is this media type in UTF-8. Empty parameters mean nothing (RFC 9110
/// section 5.6.6).
fn is_utf_8_of(content_type: &str, media_type: &str) -> bool {
    let mut parts = content_type.split(';').map(|part| part.trim().to_ascii_lowercase());
    parts.next().is_some_and(|essence| essence == media_type)
        && parts.filter(|parameter| !parameter.is_empty()).all(|parameter| {
            let Some(charset) = parameter.strip_prefix("charset=") else { return false };
            let unquoted = charset.strip_prefix('"').and_then(|charset| charset.strip_suffix('"'));
            matches!(unquoted.unwrap_or(charset), "utf-8" | "utf8")
        })
}

fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    json::parse(bytes).ok_or_else(|| recorded(Problem::new(Kind::Malformed)))
}

/// Replaces `72.0` by the integer 72 (JSON Schema 2020-12, validation section 6.1.1).
fn integers_from_whole_floats(value: &mut Value) {
    /// Floating-point numbers are exact for all integers up to 2^53 - 1 (RFC 8259 section 6).
    const MAX_EXACT: f64 = 9_007_199_254_740_991.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= MAX_EXACT);
            // Formatting without a fraction and parsing is exact; a cast could saturate silently.
            if let Some(whole) = whole.and_then(|whole| format!("{whole:.0}").parse::<i64>().ok()) {
                *value = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(integers_from_whole_floats),
        Value::Object(members) => members.values_mut().for_each(integers_from_whole_floats),
        _ => {}
    }
}

/// Records the security event of invalid input.
fn recorded(problem: Problem) -> Problem {
    event::input_validation_fail(problem.code(), 1);
    problem
}
