//! The form of log lines: each line of a request has its trace id (LOG-04), and no value can forge a
//! line (LOG-06).
//!
//! The trace id comes from [`TraceId::current`], not from a span: a span would be entered and left
//! each time a request is polled.

use std::fmt;

use serde::Serialize;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::{
    field::RecordFields,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{DefaultFields, Writer},
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

use super::TraceId;

/// A line is one JSON object: time, level, the fields of the event, target and trace id. JSON
/// escapes line breaks and control characters.
///
/// The JSON format of `tracing_subscriber` takes the trace id from a span, whose fields it parses
/// again for each line. That costs more than the rest of the line.
#[derive(Clone, Copy, Debug)]
pub(super) struct JsonLine;

/// The fields of a line of text, and the trace id.
#[derive(Debug, Default)]
pub(super) struct TextFields(DefaultFields);

/// Members of a JSON object, each behind a comma.
struct Members(Vec<u8>);

impl Members {
    fn push(&mut self, name: &str, value: &(impl Serialize + ?Sized)) {
        self.0.push(b',');
        // Text, numbers and booleans cannot fail.
        let _ = serde_json::to_writer(&mut self.0, name);
        self.0.push(b':');
        let _ = serde_json::to_writer(&mut self.0, value);
    }
}

/// A value that is logged in its `Debug` form.
struct DebugText<'v>(&'v dyn fmt::Debug);

impl Serialize for DebugText<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:?}", self.0))
    }
}

impl Visit for Members {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field.name(), &DebugText(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field.name(), &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field.name(), &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field.name(), &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field.name(), &value);
    }
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let of_log_crate = event.normalized_metadata();
        let metadata = of_log_crate.as_ref().unwrap_or_else(|| event.metadata());
        // JSON escapes no character of a time or a level.
        write!(writer, "{{\"timestamp\":\"")?;
        SystemTime.format_time(&mut writer)?;
        write!(writer, "\",\"level\":\"{}\"", metadata.level())?;
        let mut members = Members(Vec::with_capacity(512));
        event.record(&mut members);
        members.push("target", metadata.target());
        TraceId::with_current(|id| members.push("trace_id", id.as_str()));
        writer.write_str(str::from_utf8(&members.0).map_err(|_| fmt::Error)?)?;
        writer.write_str("}\n")
    }
}

impl<'w> FormatFields<'w> for TextFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        self.0.format_fields(writer.by_ref(), fields)?;
        TraceId::with_current(|id| write!(writer, " trace_id={id}")).unwrap_or(Ok(()))
    }
}
