//! The outermost layer: identifies the client, writes the log line, and completes every response.
//!
//! It adds the client address to the request and runs the request in its own task with a trace id
//! (LOG-04). It renders problems, replaces error responses that are not problems (INPUT-08), and
//! adds security headers. The log line names known methods and masked paths of operations only, so
//! callers cannot write into it (LOG-02, LOG-06).

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version, header};
use tower::Service;

use super::{
    Body,
    client::{ClientAddress, Connection, LimitKey},
    cors::Cors,
    proxies::TrustedProxies,
    request_validation,
    throttle::{self, CountedCaller, Level},
};
use crate::{
    authn::CachedCaller,
    http::Operation,
    problem::{self, Kind, Problem},
    telemetry::{
        RemoteParent, RequestTelemetry, TraceId, event, metrics,
        trace::{self, RequestTrace},
    },
};

/// Carries the trace id, so that a caller can refer to a successful request too.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Headers of every response, unless the handler sets its own (OWASP REST Security Cheat Sheet).
const DEFAULT_HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; base-uri 'none'; frame-ancestors 'none'"),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// Makes browsers use only TLS with the service (RFC 6797). The preload lists of browsers require
/// an age of two years.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=63072000; includeSubDomains");

/// Longest path that a problem echoes as its `instance`, in bytes.
const MAX_INSTANCE: usize = 256;

/// `Retry-After` of a 503 response that sets none, in seconds.
const DEFAULT_RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// The layer as a tower service.
#[derive(Clone, Debug)]
pub(super) struct RequestContext<S> {
    inner: S,
    proxies: Arc<TrustedProxies>,
    cors: Cors,
    /// Whether callers reach the service by TLS, directly or through a proxy.
    https: bool,
    /// Whether to continue the trace of a caller's `traceparent` header.
    trusts_traceparent: bool,
}

impl<S> RequestContext<S> {
    pub(super) fn new(
        inner: S,
        proxies: Arc<TrustedProxies>,
        cors: Cors,
        https: bool,
        trusts_traceparent: bool,
    ) -> Self {
        Self { inner, proxies, cors, https, trusts_traceparent }
    }

    /// Adds the client address, or the invalid forwarding header, to the request's extensions.
    ///
    /// Returns the address and the key for events. Both are `None` without a connection; the rate
    /// limit rejects such a request.
    fn identify_client<B>(&self, request: &mut Request<B>) -> (Option<ClientAddress>, Option<LimitKey>) {
        let Some(connection) = request.extensions().get::<Connection>() else { return (None, None) };
        match self.proxies.client_address(connection.remote.ip(), request.headers()) {
            Ok(address) => {
                let client = ClientAddress(address);
                request.extensions_mut().insert(client);
                (Some(client), Some(LimitKey::Network(client.network())))
            }
            Err(invalid_header) => {
                request.extensions_mut().insert(invalid_header);
                (None, Some(LimitKey::Unidentified(invalid_header.proxy)))
            }
        }
    }
}

impl<S, B> Service<Request<B>> for RequestContext<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let started = Instant::now();
        let parent = self.trusts_traceparent.then(|| RemoteParent::from_headers(request.headers())).flatten();
        let trace_id = parent.as_ref().map_or_else(TraceId::generate, RemoteParent::trace_id);
        let (client, limit_key) = self.identify_client(&mut request);
        // The rest of the connection may be another request for another HTTP implementation.
        let closes = request.version() < Version::HTTP_2 && request_validation::has_ambiguous_length(request.headers());
        let https = self.https;
        let cors = self.cors.clone();
        let allowed_origin = cors.allowed_origin(request.headers());
        // Without the query, which can contain confidential values.
        let path = request.uri().path().to_owned();
        // An unknown method becomes `_OTHER`: callers can send thousands of characters.
        let method = metrics::method_label(request.method());
        let trace = RequestTrace::new(&trace_id, method, parent);
        let trace_span = trace.span.clone();
        let client = client.map(|client| client.0);
        let caller = Arc::default();
        let in_request = RequestTelemetry { trace_id: trace_id.clone(), client, trace, caller: Arc::clone(&caller) };
        let counted = CountedCaller::default();
        request.extensions_mut().insert(Arc::clone(&counted));
        let response = self.inner.call(request);
        let serve = async move {
            let Ok(response) = response.await;
            let operation = response.extensions().get::<Operation>().copied();
            let level = response.extensions().get::<Level>().copied();
            if let (Some(level), Some(limit_key)) = (level, limit_key) {
                report_throttled(level, limit_key, counted.get());
            }
            let mut response = complete(response, &path, &trace_id);
            if https {
                response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
            }
            let duration = started.elapsed();
            let name = operation.map(|operation| operation.name);
            metrics::record_request(method, name, response.status(), duration);
            trace::record_response(
                &trace_span,
                method,
                operation.map(|found| (found.name, found.route)),
                response.status(),
            );
            // Requests over the rate limit are reported by its event, which is coalesced.
            if level.is_none() {
                let caller = caller.get();
                tracing::info!(
                    subject = caller.map(|caller| caller.subject.as_str()),
                    tenant = caller.and_then(|caller| caller.tenant.as_deref()),
                    credential = caller.map(|caller| caller.credential),
                    client_id = caller.and_then(|caller| caller.client_id.as_deref()),
                    key = caller.and_then(|caller| caller.key.as_deref()),
                    actor = caller.and_then(|caller| caller.actor.as_deref()),
                    method,
                    path = operation.map(|operation| mask_path(&path, &operation, response.status())),
                    operation = name,
                    status = response.status().as_u16(),
                    client = client.map(|client| client.to_string()),
                    micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
                    "request"
                );
            }
            response
        };
        // In its own task: a caller that disconnects must not interrupt a change or skip its log
        // line.
        let task = tokio::spawn(in_request.scope(serve));
        Box::pin(async move {
            // Only a panic in this layer, outside the panic handler, can fail the task.
            let failed = |_| complete(Problem::new(Kind::Internal).into_response(), "", &TraceId::generate());
            let mut response = task.await.unwrap_or_else(failed);
            cors.add_headers(allowed_origin, response.headers_mut());
            if closes {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        })
    }
}

/// The path of an operation for the log (LOG-02).
///
/// A caller can put anything into a path, such as an API key. So `{id}` is logged only if it is a
/// UUID, and a parameter that the service declared only if the request succeeded; others become
/// `*`. A path that belongs to no operation is not logged.
fn mask_path(path: &str, operation: &Operation, status: http::StatusCode) -> String {
    let is_declared = |template: &str, segment: &str| {
        operation.logged_parameters.iter().any(|(name, is_valid)| *name == template && is_valid(segment))
    };
    let masked = path.split('/').zip(operation.route.split('/')).map(|(segment, template)| match template {
        "{id}" if segment.len() == 36 && uuid::Uuid::try_parse(segment).is_ok() => segment,
        _ if status.is_success() && is_declared(template, segment) => segment,
        _ if template.starts_with('{') => "*",
        literal => literal,
    });
    masked.collect::<Vec<_>>().join("/")
}

/// Raises the event of a request over the rate limit, for the caller or the network that counts it.
fn report_throttled(level: Level, client: LimitKey, caller: Option<&CachedCaller>) {
    match caller.filter(|_| !level.is_override) {
        Some(caller) => event::excess_rate_of_caller(&caller.subject, caller.tenant, client, throttle::LIMIT_NAME),
        None => event::excess_rate_limit_exceeded(level.key(client), throttle::LIMIT_NAME),
    }
}

/// Renders a problem, replaces an error response that is not a problem, and adds the headers.
fn complete(response: Response<Body>, path: &str, trace_id: &TraceId) -> Response<Body> {
    let is_throttled = response.extensions().get::<Level>().is_some();
    let (mut parts, mut body) = response.into_parts();
    let problem = parts.extensions.remove::<Problem>();
    if parts.status.is_client_error() || parts.status.is_server_error() {
        let problem = problem.unwrap_or_else(|| Problem::new(Kind::of_status(parts.status)));
        if parts.status == http::StatusCode::SERVICE_UNAVAILABLE {
            // A handler that knows the duration has set the header (RFC 9110 section 15.6.4).
            parts.headers.entry(header::RETRY_AFTER).or_insert(DEFAULT_RETRY_AFTER);
        }
        // Long paths are not echoed, and none over the rate limit: repeating a path costs an HTTP/2
        // client one byte (RFC 7541), but the response carries all of it.
        let instance = Some(path).filter(|path| !is_throttled && path.len() <= MAX_INSTANCE);
        body = Body::from(problem.body(instance, trace_id.as_str()));
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.headers.insert(header::CONTENT_TYPE, problem::MEDIA_TYPE);
    }
    add_headers(&mut parts.headers, trace_id);
    Response::from_parts(parts, body)
}

fn add_headers(headers: &mut HeaderMap, trace_id: &TraceId) {
    for (name, value) in DEFAULT_HEADERS {
        headers.entry(name).or_insert(value);
    }
    if let Ok(value) = HeaderValue::from_str(trace_id.as_str()) {
        headers.insert(REQUEST_ID, value);
    }
}
