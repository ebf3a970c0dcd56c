//! The outermost layer: what every request gets and every response carries.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use tower::Service;

use super::{
    Body,
    client::{Caller, Client, Connection},
    proxies::Proxies,
    throttle,
};
use crate::{
    api::Operation,
    domain::Sku,
    problem::{self, Kind, Problem},
    telemetry::{
        InRequest, Parent, TraceId, event, metrics,
        trace::{self, Traced},
    },
};

/// Names the request in a response header, so that a caller can report a success too.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Headers of every response, unless the handler set its own (OWASP REST Security Cheat Sheet).
const DEFAULTS: [(HeaderName, HeaderValue); 6] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// Browsers that saw this once speak TLS to the service, or not at all (RFC 6797): for two years, which is what lists that
/// browsers come with ask for.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=63072000; includeSubDomains");

/// Longest path that a problem echoes as its `instance`, in bytes.
const MAX_INSTANCE: usize = 256;

/// When it is worth to come back to what is away for now, in seconds.
const SOON: HeaderValue = HeaderValue::from_static("1");

#[derive(Clone, Debug)]
pub(super) struct RequestContext<S> {
    inner: S,
    proxies: Arc<Proxies>,
    /// Whether callers reach the service by TLS.
    secure: bool,
    /// Whether a caller's word is taken for the trace it is in.
    believes: bool,
}

impl<S> RequestContext<S> {
    pub(super) fn new(inner: S, proxies: Arc<Proxies>, secure: bool, believes: bool) -> Self {
        Self { inner, proxies, secure, believes }
    }

    /// Notes the client of a request, and what its limits count by: its network or, if a proxy does
    /// not name the client, the proxy's unnamed ones. Neither without a connection; the throttle
    /// refuses that.
    fn note_client<B>(&self, request: &mut Request<B>) -> (Option<Client>, Option<Caller>) {
        let Some(connection) = request.extensions().get::<Connection>() else { return (None, None) };
        match self.proxies.client(connection.remote.ip(), request.headers()) {
            Ok(address) => {
                let client = Client(address);
                request.extensions_mut().insert(client);
                (Some(client), Some(Caller::Network(client.network())))
            }
            Err(untraceable) => {
                request.extensions_mut().insert(untraceable);
                (None, Some(Caller::Untraceable(untraceable.0)))
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
        let parent = self.believes.then(|| Parent::of(request.headers())).flatten();
        let trace_id = parent.as_ref().map_or_else(TraceId::generate, Parent::trace_id);
        let ((client, caller), secure) = (self.note_client(&mut request), self.secure);
        // Without the query, which can hold what must not be told.
        let path = request.uri().path().to_owned();
        // Whatever lines are filtered out, those of a request have its name.
        let span = tracing::error_span!("request", trace_id = trace_id.as_str());
        // A method that callers invent is named `_OTHER`: its text may have thousands of characters.
        let method = metrics::known_method(request.method());
        let traced = Traced::new(&span, &trace_id, method, parent);
        let own = traced.span();
        let client = client.map(|client| client.0);
        let this = InRequest { id: trace_id.clone(), client, lines: span, traced };
        let work = self.inner.call(request);
        let serve = async move {
            let Ok(response) = work.await;
            let of = response.extensions().get::<Operation>().copied();
            let is_throttled = is_throttled(&response);
            let mut response = finish(response, &path, &trace_id, caller);
            if secure {
                response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
            }
            let took = started.elapsed();
            let operation = of.map(|of| of.name);
            metrics::request(method, operation, response.status(), took);
            trace::answered(&own, method, of.map(|of| (of.name, of.route)), response.status());
            // Beyond its limit a source is told of by the event, which is coalesced.
            if !is_throttled {
                tracing::info!(
                    method,
                    path = of.map(|of| loggable(&path, of.route, response.status())),
                    operation,
                    status = response.status().as_u16(),
                    client = client.map(|client| client.to_string()),
                    micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                    "request"
                );
            }
            response
        };
        // A task of its own: a caller that hangs up does not stop a change half-way, nor keep it out of the log.
        let served = tokio::spawn(this.scope(serve));
        Box::pin(async move {
            // Only a layer outside the panic fence could make this fail, and none should.
            let fallen = |_| finish(Problem::new(Kind::Internal).into_response(), "", &TraceId::generate(), caller);
            Ok(served.await.unwrap_or_else(fallen))
        })
    }
}

/// Whether the throttle refused the request.
fn is_throttled(response: &Response<Body>) -> bool {
    response.extensions().get::<Problem>().is_some_and(|problem| problem.limit_name() == Some(throttle::LIMIT))
}

/// The path of an operation for the log: what stands for an object only if it is an identifier, or there is such an object, since
/// a caller can write anything there, such as a key. A path that is none of an operation's is not logged at all (LOG-02).
fn loggable(path: &str, route: &str, status: http::StatusCode) -> String {
    let shown = path.split('/').zip(route.split('/')).map(|(segment, template)| match template {
        "{id}" if segment.len() == 36 && uuid::Uuid::try_parse(segment).is_ok() => segment,
        "{sku}" if status.is_success() && segment.parse::<Sku>().is_ok() => segment,
        _ if template.starts_with('{') => "*",
        literal => literal,
    });
    shown.collect::<Vec<_>>().join("/")
}

/// Renders a problem, replaces an error that is none, and adds the headers.
fn finish(response: Response<Body>, path: &str, trace_id: &TraceId, caller: Option<Caller>) -> Response<Body> {
    let is_throttled = is_throttled(&response);
    let (mut parts, mut body) = response.into_parts();
    let made_here = parts.extensions.remove::<Problem>();
    if parts.status.is_client_error() || parts.status.is_server_error() {
        let problem = made_here.unwrap_or_else(|| Problem::new(Kind::of_status(parts.status)));
        if let (true, Some(caller)) = (is_throttled, caller) {
            event::excess_rate_limit_exceeded(caller, throttle::LIMIT);
        }
        if parts.status == http::StatusCode::SERVICE_UNAVAILABLE {
            // Whoever knows better has said so (RFC 9110 section 15.6.4).
            parts.headers.entry(header::RETRY_AFTER).or_insert(SOON);
        }
        // A path is echoed only if it is short, and not to a source that is beyond its limit: it costs
        // the caller one byte if it sent the same path before (RFC 7541), and the service all of it.
        let instance = Some(path).filter(|path| !is_throttled && path.len() <= MAX_INSTANCE);
        body = Body::from(problem.body(instance, trace_id.as_str()));
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.headers.insert(header::CONTENT_TYPE, problem::MEDIA_TYPE);
    }
    add_headers(&mut parts.headers, trace_id);
    Response::from_parts(parts, body)
}

fn add_headers(headers: &mut HeaderMap, trace_id: &TraceId) {
    for (name, value) in DEFAULTS {
        headers.entry(name).or_insert(value);
    }
    if let Ok(value) = HeaderValue::from_str(trace_id.as_str()) {
        headers.insert(REQUEST_ID, value);
    }
}
