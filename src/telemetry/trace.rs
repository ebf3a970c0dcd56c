//! Spans (LOG-04): one for each request, and inside it one for each thing that takes time. They are sent, and are in no log line.
//!
//! A span says which operation and which statement, and nothing that a caller wrote.

use opentelemetry::trace::{Status, TraceContextExt as _};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::trace_id::Parent;

/// The target of all spans that are sent.
pub(super) const TARGET: &str = "trace";

/// A span of this name inside the one of now.
macro_rules! inside {
    ($name:literal $($fields:tt)*) => {
        tracing::info_span!(target: "trace", $name $($fields)*)
    };
}
pub(crate) use inside;

/// The span of a request, in that of another service if it said so. Its log lines have one of their own around it.
pub(crate) fn request(of_lines: &Span, method: &'static str, parent: Option<Parent>) -> Span {
    let span = tracing::info_span!(
        target: "trace", parent: of_lines, "request", otel.name = method, otel.kind = "server", http.request.method = method,
        http.response.status_code = tracing::field::Empty, http.route = tracing::field::Empty,
        operation = tracing::field::Empty,
    );
    if let Some(parent) = parent {
        // It cannot have begun yet.
        let _ = span.set_parent(parent.into_context());
    }
    span
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
