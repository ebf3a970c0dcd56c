//! Spans for the collector (LOG-04): one per request, and child spans for the work inside it.
//!
//! The edge creates a [`RequestTrace`] per request and records the response in it; the guard, the
//! quotas and the database executor open child spans with [`child_span`]. A span names the
//! operation and the SQL statement, and contains nothing that a caller wrote. Spans are exported,
//! never logged. A request that is not sampled has no spans, but its log records carry its trace id
//! all the same.

use std::sync::OnceLock;

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::trace_id::{RemoteParent, TraceId};

/// `tracing` target of all spans that are exported.
pub(super) const TARGET: &str = "trace";

/// Fraction of requests that are sampled. Not set if no collector is configured.
static SAMPLE_RATIO: OnceLock<f64> = OnceLock::new();

/// Turns tracing on for this fraction of requests.
pub(super) fn start(ratio: f64) {
    // A second call has no effect, as for the log.
    let _ = SAMPLE_RATIO.set(ratio);
}

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
pub(crate) enum RequestTrace {
    /// By a span. The span that its log lines carry is the parent.
    Sampled(Span),
    /// By its trace id only, which its log records carry.
    Unsampled(Context),
    /// Not at all: no collector is configured.
    Disabled,
}

impl RequestTrace {
    /// Decides whether to sample a request: as its remote parent did, otherwise by its trace id.
    pub(crate) fn new(log_span: &Span, id: &TraceId, method: &'static str, parent: Option<RemoteParent>) -> Self {
        let Some(ratio) = SAMPLE_RATIO.get() else { return Self::Disabled };
        let is_sampled = parent.as_ref().map_or_else(|| is_within(id, *ratio), RemoteParent::is_sampled);
        if !is_sampled {
            // The span id is a placeholder: it is never exported.
            let span = SpanId::from(1_u64);
            let context = SpanContext::new(id.to_otel(), span, TraceFlags::NOT_SAMPLED, false, TraceState::NONE);
            return Self::Unsampled(Context::new().with_remote_span_context(context));
        }
        let span = tracing::info_span!(
            target: "trace", parent: log_span, "request", otel.name = method, otel.kind = "server",
            http.request.method = method, http.response.status_code = tracing::field::Empty,
            http.route = tracing::field::Empty, operation = tracing::field::Empty,
        );
        if let Some(parent) = parent {
            // Fails only for a span that has started, which this one has not.
            let _ = span.set_parent(parent.into_context());
        }
        Self::Sampled(span)
    }

    /// The span of a sampled request, otherwise a disabled span.
    pub(crate) fn span(&self) -> Span {
        match self {
            Self::Sampled(span) => span.clone(),
            Self::Unsampled(_) | Self::Disabled => Span::none(),
        }
    }

    /// The context that gives log records their trace id when there is no span.
    pub(crate) fn context(&self) -> Option<Context> {
        match self {
            Self::Unsampled(context) => Some(context.clone()),
            Self::Sampled(_) | Self::Disabled => None,
        }
    }
}

/// Whether a trace id falls into the sampled fraction. Decides by its last eight bytes, which are
/// random, as OpenTelemetry's ratio sampler does.
fn is_within(id: &TraceId, ratio: f64) -> bool {
    let bytes = id.to_otel().to_bytes();
    let number = bytes.last_chunk().map_or(0, |last| u64::from_be_bytes(*last) >> 1);
    #[expect(clippy::cast_precision_loss, reason = "one request in 2^53 more or less does not matter")]
    let fraction = number as f64 / (1_u64 << 63) as f64;
    fraction < ratio
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
        // The field `otel.name` has no effect on a span that has started.
        span.context().span().update_name(format!("{method} {route}"));
        span.record("http.route", route);
        span.record("operation", operation);
    }
    if status.is_server_error() {
        span.set_status(Status::error(""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_04_configured_fraction_of_requests_is_sampled() {
        for (ratio, least, most) in [(0.0, 0, 0), (0.25, 2_200, 2_800), (1.0, 10_000, 10_000)] {
            let sampled = (0..10_000).filter(|_| is_within(&TraceId::generate(), ratio)).count();
            assert!((least..=most).contains(&sampled), "{ratio}: {sampled}");
        }
    }
}
