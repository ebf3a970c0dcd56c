//! Request strictness: step 5 of the pipeline in [`guard`](super::guard).
//!
//! Compares a request with the declaration of its operation: a parameter, header or body that the
//! operation would ignore or misread gets a problem instead (400, or 406 for `Accept`). The
//! internal listener uses the same checks.
//!
//! Home of INPUT-01 (parameters), INPUT-06 (bodies) and the header rules of INPUT-10.

use std::{
    collections::{HashMap, HashSet},
    io,
};

use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::{BodyExt as _, combinators::BoxBody};
use hyper::body::Bytes;
use poem::Request;
use poem_openapi::registry::{MetaApi, MetaOperationParam, MetaParamIn};

use super::{accept, framework_errors, strict_json};
use crate::{
    authz::matrix::QuotaClass,
    problem::{Kind, Problem},
    telemetry::event,
};

/// Marks an operation that ignores query parameters which it does not declare, as its standard
/// demands. To the framework the mark is a security scheme of the extractor that has it.
pub(crate) const OPEN_QUERY: &str = "open query";
/// The header with the idempotency key.
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// The query parameters that an operation takes.
#[derive(Default)]
pub(crate) struct DeclaredQuery {
    names: HashSet<String>,
    /// Whether further parameters are ignored.
    is_open: bool,
}

/// The parts of an operation's declaration that step 5 checks requests against.
#[derive(Default)]
pub(super) struct Declared {
    query: DeclaredQuery,
    pub(super) takes_body: bool,
    takes_idempotency_key: bool,
    /// Whether a body can reach the handler as one `StrictJson` only.
    pub(super) is_strict: bool,
    /// Types of the actions whose permits the handler takes.
    pub(super) permits: Vec<&'static str>,
    /// Media types of the responses.
    response_types: Vec<&'static str>,
}

impl Declared {
    /// Checks the query, the headers and the absence of a body, in this order.
    ///
    /// Health checks and documents answer without regard to `Accept`.
    pub(super) async fn check(&self, request: &mut Request, class: QuotaClass) -> Result<(), Problem> {
        let query = request.uri().query().unwrap_or_default();
        check_query(&self.query, query)?;
        if request.method() != Method::GET {
            check_idempotency_key(request.headers())?;
            check_unsupported_headers(request.headers(), self.takes_idempotency_key)?;
        }
        if class != QuotaClass::Health && !accept::is_acceptable(request.headers(), &self.response_types) {
            return Err(Problem::new(Kind::NotAcceptable));
        }
        if self.takes_body { Ok(()) } else { check_no_body(request).await }
    }
}

/// Collects the declaration of each operation, by operation id.
pub(super) fn declarations(apis: &[MetaApi]) -> HashMap<&'static str, Declared> {
    let operations = apis.iter().flat_map(|api| &api.paths).flat_map(|path| &path.operations);
    let is_query = |param: &&MetaOperationParam| param.in_type == MetaParamIn::Query;
    let is_idempotency_key = |param: &MetaOperationParam| {
        param.in_type == MetaParamIn::Header && param.name.eq_ignore_ascii_case(IDEMPOTENCY_KEY)
    };
    operations
        .filter_map(|operation| {
            let schemes = operation.security.iter().flat_map(HashMap::keys).copied();
            let (open, schemes): (Vec<_>, Vec<_>) = schemes.partition(|name| *name == OPEN_QUERY);
            let (marks, permits): (Vec<_>, Vec<_>) = schemes.into_iter().partition(|name| *name == strict_json::MARK);
            let media_types = operation.request.as_ref().map_or(0, |request| request.content.len());
            let declared = Declared {
                query: DeclaredQuery {
                    names: operation.params.iter().filter(is_query).map(|param| param.name.clone()).collect(),
                    is_open: !open.is_empty(),
                },
                takes_body: operation.request.is_some(),
                takes_idempotency_key: operation.params.iter().any(is_idempotency_key),
                is_strict: operation.request.is_none() || (marks.len() == 1 && media_types == 1),
                permits,
                response_types: operation
                    .responses
                    .responses
                    .iter()
                    .flat_map(|response| &response.content)
                    .map(|content| content.content_type)
                    .collect(),
            };
            Some((operation.operation_id?, declared))
        })
        .collect()
}

/// Rejects query parameters that the operation does not declare, and repeated ones (INPUT-01).
///
/// A misspelt filter would otherwise be ignored, and the response would contain too much.
pub(crate) fn check_query(declared: &DeclaredQuery, query: &str) -> Result<(), Problem> {
    let mut seen = HashSet::new();
    for (name, _) in url::form_urlencoded::parse(query.as_bytes()) {
        let code = if !declared.names.contains(name.as_ref()) {
            if declared.is_open {
                continue;
            }
            "unknown_parameter"
        } else if seen.insert(name.clone()) {
            continue;
        } else {
            "repeated_parameter"
        };
        event::input_validation_fail(code, 1);
        // An unknown name is text of the caller and is not echoed.
        let pointer = if code == "unknown_parameter" { String::new() } else { name.into_owned() };
        return Err(Problem::new(Kind::InvalidInput).at(pointer, code));
    }
    Ok(())
}

/// Rejects a body that the operation does not take (INPUT-06).
///
/// An intermediary may read an ignored body as another request (RFC 9110 section 9.3.1). An empty
/// body is none: gateways forward requests without a body as chunked, or with an empty DATA frame.
pub(crate) async fn check_no_body(request: &mut Request) -> Result<(), Problem> {
    // A declared length is enough; the bytes need not arrive.
    let mut is_empty = request.header(header::CONTENT_LENGTH).is_none_or(|length| length.bytes().all(|c| c == b'0'));
    let mut body: BoxBody<Bytes, io::Error> = request.take_body().into();
    while is_empty && let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| framework_errors::body_error(&error))?;
        is_empty = frame.data_ref().is_none_or(Bytes::is_empty);
    }
    if is_empty { Ok(()) } else { Err(Problem::new(Kind::Malformed).detail("This operation takes no body.")) }
}

/// Rejects a repeated `Idempotency-Key` and one that is not visible ASCII (INPUT-10).
///
/// The framework would take the first of two keys, and would treat an optional key that is not
/// ASCII as absent: the request would run without the protection that it asks for.
fn check_idempotency_key(headers: &HeaderMap) -> Result<(), Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let is_visible = |key: &HeaderValue| key.as_bytes().iter().all(u8::is_ascii_graphic);
    if keys.next().is_some_and(|key| !is_visible(key)) || keys.next().is_some() {
        event::input_validation_fail("idempotency_key", 1);
        return Err(Problem::new(Kind::InvalidInput).at(IDEMPOTENCY_KEY, "invalid"));
    }
    Ok(())
}

/// Rejects headers whose protection the operation does not give: conditions on a version of the
/// object (RFC 9110 section 13.1), and an `Idempotency-Key` if the operation takes none (INPUT-10).
///
/// A client that sends one of them relies on it.
fn check_unsupported_headers(headers: &HeaderMap, takes_idempotency_key: bool) -> Result<(), Problem> {
    let conditions = ["If-Match", "If-None-Match", "If-Unmodified-Since"];
    let key = (!takes_idempotency_key).then_some(IDEMPOTENCY_KEY);
    let Some(name) = conditions.into_iter().chain(key).find(|name| headers.contains_key(*name)) else { return Ok(()) };
    event::input_validation_fail("unsupported_header", 1);
    Err(Problem::new(Kind::InvalidInput).at(name, "not_supported"))
}
