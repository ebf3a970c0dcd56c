//! Spans (LOG-04): one for each request, and inside it one for each thing that takes time. They are sent, and are in no log line.
//!
//! A span says which operation and which statement, and nothing that a caller wrote. What is not sampled has none, which costs
//! next to nothing; its log records have the id of its trace all the same.

use std::sync::OnceLock;

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::trace_id::{Parent, TraceId};

/// The target of all spans that are sent.
pub(super) const TARGET: &str = "trace";

/// The part of requests that are traced; nothing, if there is no collector.
static RATIO: OnceLock<f64> = OnceLock::new();

/// From now on, this part of requests is traced.
pub(super) fn begin(ratio: f64) {
    // A second time changes nothing, as with the log.
    let _ = RATIO.set(ratio);
}

/// A span of this name inside the one of now, if that is of a request that is traced.
macro_rules! inside {
    ($name:literal $($fields:tt)*) => {
        if $crate::telemetry::TraceId::is_traced() {
            tracing::info_span!(target: "trace", $name $($fields)*)
        } else {
            tracing::Span::none()
        }
    };
}
pub(crate) use inside;

/// How a request is traced.
#[derive(Clone, Debug)]
pub(crate) enum Traced {
    /// By a span. Its log lines have one of their own around it.
    By(Span),
    /// By its id alone, which its log records have.
    ById(Context),
    /// There is no collector.
    Not,
}

impl Traced {
    /// Decides it: as the service did that it is from, or by its id.
    pub(crate) fn new(of_lines: &Span, id: &TraceId, method: &'static str, parent: Option<Parent>) -> Self {
        let Some(ratio) = RATIO.get() else { return Self::Not };
        let sampled = parent.as_ref().map_or_else(|| is_within(id, *ratio), Parent::is_sampled);
        if !sampled {
            // Any span: it is sent to nobody.
            let (id, span) = (id.to_otel(), SpanId::from(1_u64));
            let context = SpanContext::new(id, span, TraceFlags::NOT_SAMPLED, false, TraceState::NONE);
            return Self::ById(Context::new().with_remote_span_context(context));
        }
        let span = tracing::info_span!(
            target: "trace", parent: of_lines, "request", otel.name = method, otel.kind = "server",
            http.request.method = method, http.response.status_code = tracing::field::Empty,
            http.route = tracing::field::Empty, operation = tracing::field::Empty,
        );
        if let Some(parent) = parent {
            // It cannot have begun yet.
            let _ = span.set_parent(parent.into_context());
        }
        Self::By(span)
    }

    /// Its span, or none.
    pub(crate) fn span(&self) -> Span {
        match self {
            Self::By(span) => span.clone(),
            Self::ById(_) | Self::Not => Span::none(),
        }
    }

    /// What its log records go by, if it has no span.
    pub(crate) fn context(&self) -> Option<Context> {
        match self {
            Self::ById(context) => Some(context.clone()),
            Self::By(_) | Self::Not => None,
        }
    }
}

/// Whether a trace is in the part that is sampled: by its last eight bytes, which are random, as the ratio sampler of
/// OpenTelemetry decides it.
fn is_within(id: &TraceId, ratio: f64) -> bool {
    let bytes = id.to_otel().to_bytes();
    let number = bytes.last_chunk().map_or(0, |last| u64::from_be_bytes(*last) >> 1);
    #[expect(clippy::cast_precision_loss, reason = "a part in 2^53 of the requests does not matter")]
    let part = number as f64 / (1_u64 << 63) as f64;
    part < ratio
}

/// Says in its span what a request was, and what became of it.
pub(crate) fn answered(span: &Span, method: &str, of: Option<(&'static str, &'static str)>, status: http::StatusCode) {
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", status.as_u16());
    if let Some((operation, route)) = of {
        // It has begun, so its name is no field any more.
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
    fn log_04_the_ratio_of_requests_is_traced() {
        for (ratio, least, most) in [(0.0, 0, 0), (0.25, 2_200, 2_800), (1.0, 10_000, 10_000)] {
            let traced = (0..10_000).filter(|_| is_within(&TraceId::generate(), ratio)).count();
            assert!((least..=most).contains(&traced), "{ratio}: {traced}");
        }
    }
}
