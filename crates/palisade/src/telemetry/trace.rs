//! Spans for the collector (LOG-04): one per request, and child spans for the work inside it.
//!
//! The edge creates a [`RequestTrace`] per request and records the response in it; the guard, the
//! quotas and the database executor open child spans with [`child_span`]. A span names the
//! operation and the SQL statement, and contains nothing that a caller wrote. Spans are exported,
//! never logged. A request that is not sampled has no spans, but its log records carry its trace id
//! all the same.

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, SpanKind, TraceContextExt as _, TraceFlags, TraceState},
};
use opentelemetry_sdk::trace::{SamplingDecision, ShouldSample as _};
use tracing::Span;

use super::{
    export,
    trace_id::{RemoteParent, TraceId},
};

/// `tracing` target of all spans that are exported.
pub(super) const TARGET: &str = "trace";

/// Opens a child of the current span, or a disabled span if the request is not sampled.
macro_rules! child_span {
    ($name:literal $($fields:tt)*) => {
        if $crate::telemetry::TraceId::is_sampled() {
            tracing::info_span!(target: "trace", $name $($fields)*)
        } else {
            tracing::Span::none()
        }
    };
}
pub(crate) use child_span;

/// How one request is traced.
#[derive(Clone, Debug)]
pub(crate) struct RequestTrace {
    /// Disabled unless the request is sampled.
    pub(crate) span: Span,
    /// Gives the log records of a request that is not sampled its trace id.
    pub(super) context: Option<Context>,
}

impl RequestTrace {
    /// Decides whether to sample a request: as its remote parent did, otherwise by its trace id.
    pub(crate) fn new(id: &TraceId, method: &'static str, parent: Option<RemoteParent>) -> Self {
        let Some(sampler) = export::sampler() else { return Self { span: Span::none(), context: None } };
        let remote = parent.as_ref().map(|parent| &parent.0);
        let sampling = sampler.should_sample(remote, id.to_otel(), "", &SpanKind::Server, &[], &[]);
        if sampling.decision != SamplingDecision::RecordAndSample {
            // The span id is a placeholder: it is never exported.
            let span = SpanId::from(1_u64);
            let context = SpanContext::new(id.to_otel(), span, TraceFlags::NOT_SAMPLED, false, TraceState::NONE);
            return Self { span: Span::none(), context: Some(Context::new().with_remote_span_context(context)) };
        }
        let span = tracing::info_span!(
            target: "trace", parent: None, "request", otel.name = method, otel.kind = "server",
            http.request.method = method, http.response.status_code = tracing::field::Empty,
            http.route = tracing::field::Empty, operation = tracing::field::Empty,
        );
        if let Some(parent) = parent {
            export::set_parent(&span, parent.0);
        }
        Self { span, context: None }
    }
}

/// Records the outcome of a request in its span. `operation` is its name and route.
pub(crate) fn record_response(
    span: &Span,
    method: &str,
    operation: Option<(&'static str, &'static str)>,
    status: http::StatusCode,
) {
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", status.as_u16());
    if let Some((operation, route)) = operation {
        export::rename(span, format!("{method} {route}"));
        span.record("http.route", route);
        span.record("operation", operation);
    }
    if status.is_server_error() {
        export::mark_failed(span);
    }
}
