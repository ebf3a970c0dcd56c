//! Trace ids and the telemetry context of a request (LOG-04).
//!
//! A trace id is the name of a request in log lines, spans, problem bodies, `X-Request-Id` and the
//! audit trail. The edge generates one per request, or takes it from the `traceparent` header on
//! the internal listener, and runs the request within a [`RequestTelemetry`], which events and
//! spans read.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use opentelemetry::{Context, context::FutureExt as _, trace::TraceContextExt as _};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{IdGenerator, RandomIdGenerator},
};

use tracing::Instrument as _;

use super::trace::RequestTrace;

tokio::task_local! {
    static CURRENT: RequestTelemetry;
}

/// Telemetry context of the request being served. It outlives the handler if the response streams.
#[derive(Clone, Debug)]
pub(crate) struct RequestTelemetry {
    pub(crate) trace_id: TraceId,
    /// The client's address, if known.
    pub(crate) client: Option<IpAddr>,
    /// How the request is exported to the collector.
    pub(crate) trace: RequestTrace,
    /// Set by authentication.
    pub(crate) caller: Arc<OnceLock<Caller>>,
}

/// The holder of a verified credential, for the line of the request and for its events. Names have
/// at most 255 bytes and no control characters. Metrics and spans never have them.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) subject: String,
    /// `None` for a service of the internal listener that calls no operation of the API.
    pub(crate) tenant: Option<String>,
    /// `token`, `api_key` or `certificate`.
    pub(crate) credential: &'static str,
    /// The OAuth client of a token.
    pub(crate) client_id: Option<String>,
    /// The id of an API key.
    pub(crate) key: Option<String>,
    /// The actor that uses a token for its subject.
    pub(crate) actor: Option<String>,
}

impl RequestTelemetry {
    /// Names the caller in what is logged about the current request from now on. The first of two
    /// calls counts.
    pub(crate) fn set_caller(caller: Caller) {
        let _ = CURRENT.try_with(|request| drop(request.caller.set(caller)));
    }

    /// The context of the current task, if it serves a request.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Runs a future as part of the request.
    pub(crate) async fn scope<F: Future>(self, work: F) -> F::Output {
        let RequestTrace { span, context } = self.trace.clone();
        // `scope` is outermost, because the trace span reads the trace id when it is first entered.
        let work = CURRENT.scope(self, work.instrument(span));
        match context {
            Some(context) => work.with_context(context).await,
            None => work.await,
        }
    }

    /// Runs a closure as part of the request.
    #[cfg(feature = "exports")]
    pub(crate) fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        let traced = || {
            let _guard = self.trace.context.clone().map(Context::attach);
            self.trace.span.in_scope(work)
        };
        CURRENT.sync_scope(self.clone(), traced)
    }
}

/// Name of one request: 16 random bytes in the form of a W3C Trace Context `trace-id` (32
/// lower-case hexadecimal digits).
///
/// Taken over only from a caller on the internal listener (see [`RemoteParent`]): a stranger could
/// make two requests look like one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceId(String);

/// The span of the calling service that a request belongs to (W3C Trace Context, section 3.2).
#[derive(Clone, Debug)]
pub(crate) struct RemoteParent(pub(super) Context);

impl RemoteParent {
    /// Reads the `traceparent` header. `None` if it is missing, repeated or invalid.
    pub(crate) fn from_headers(headers: &http::HeaderMap) -> Option<Self> {
        let mut values = headers.get_all("traceparent").iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        // Without the trace state: it is text of the caller, and each span would export it.
        let extractor = HashMap::from([("traceparent".to_owned(), value.to_str().ok()?.to_owned())]);
        let context = opentelemetry::propagation::TextMapPropagator::extract_with_context(
            &TraceContextPropagator::new(),
            &Context::new(),
            &extractor,
        );
        let remote = context.span().span_context().clone();
        if !remote.is_valid() {
            return None;
        }
        Some(Self(context))
    }

    pub(crate) fn trace_id(&self) -> TraceId {
        TraceId(self.0.span().span_context().trace_id().to_string())
    }
}

impl TraceId {
    /// A new random trace id. It is a label, not a secret, so it needs no cryptographic generator.
    #[must_use]
    pub fn generate() -> Self {
        Self(RandomIdGenerator::default().new_trace_id().to_string())
    }

    /// The 32 hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trace id of the request that the current task serves, if any.
    #[must_use]
    pub fn current() -> Option<Self> {
        Self::with_current(Self::clone)
    }

    /// Calls `read` with that trace id.
    pub(super) fn with_current<T>(read: impl FnOnce(&Self) -> T) -> Option<T> {
        CURRENT.try_with(|request| read(&request.trace_id)).ok()
    }

    /// Whether the current task serves a request that is sampled.
    pub(crate) fn is_sampled() -> bool {
        CURRENT.try_with(|request| !request.trace.span.is_disabled()).unwrap_or(false)
    }

    pub(super) fn to_otel(&self) -> opentelemetry::trace::TraceId {
        opentelemetry::trace::TraceId::from_hex(&self.0).unwrap_or(opentelemetry::trace::TraceId::INVALID)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
