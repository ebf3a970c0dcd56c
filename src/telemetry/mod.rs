//! What the service says about itself: log lines, and the security events among them.
//!
//! One JSON object per line in production, readable text in development. Every line of
//! a request carries its trace id, the same that a problem body shows to the caller.
//!
//! The log of `serve` is bounded and never waited for: lines that standard error does not take are
//! lost and counted ([`writer`]), and repeated ones are coalesced ([`repeats`]).

pub mod event;
mod export;
pub(crate) mod metrics;
pub(crate) mod repeats;
pub(crate) mod trace;
mod trace_id;
mod writer;

pub use export::ExportError;
use export::Exporting;
pub use trace_id::TraceId;
pub(crate) use trace_id::{InRequest, Parent};

use std::{io::IsTerminal as _, str::FromStr};

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{LevelFilter, Targets},
    fmt::{self, MakeWriter},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::settings;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// Text for a person at a terminal.
    Text,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("expected `json` or `text`"),
        }
    }
}

/// Which lines are written: directives such as `info,sqlx=warn`.
#[derive(Clone, Debug)]
pub struct LogFilter(String);

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        EnvFilter::try_new(s).map(|_| Self(s.to_owned())).map_err(|e| e.to_string())
    }
}

/// Sends log lines to standard error from here on. A second call changes nothing.
///
/// A panic becomes a log line as well, with its place and without its message, which may quote anything.
pub fn init(format: LogFormat, filter: &LogFilter) {
    tell_panics();
    begin(tracing_subscriber::registry().with(lines(filter)).with(written(format, std::io::stderr)));
}

/// What a server writes and sends. To be finished before the process ends.
#[must_use = "what waits to be written or sent is lost without `finish`"]
#[derive(Debug)]
pub struct Telemetry {
    exporting: Option<Exporting>,
    writer: writer::Writer,
}

impl Telemetry {
    /// Sends what waits, for three seconds at most, and writes what waits, for one second at most.
    pub async fn finish(self) {
        if let Some(exporting) = self.exporting {
            exporting.finish().await;
        }
        self.writer.finish();
    }
}

/// Logs as a server does: without ever waiting for standard error, and with repeated lines
/// coalesced. Sends spans, metrics and log records to a collector if the settings name one. To be
/// called in the runtime that is to send them.
pub fn serve(log: &settings::Log, otlp: Option<&settings::Otlp>) -> Result<Telemetry, ExportError> {
    let (output, writer) = writer::start();
    let Some(otlp) = otlp else {
        tell_panics();
        begin(tracing_subscriber::registry().with(lines(&log.filter)).with(written(log.format, output)));
        return Ok(Telemetry { exporting: None, writer });
    };
    let export::Layers { tracer, bridge, exporting } = export::start(otlp)?;
    let spans = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(Targets::new().with_target(trace::TARGET, LevelFilter::INFO));
    let written = written(log.format, output).with_filter(lines(&log.filter));
    let records = bridge.with_filter(lines(&log.filter));
    tell_panics();
    begin(tracing_subscriber::registry().with(written).with(records).with(spans));
    Ok(Telemetry { exporting: Some(exporting), writer })
}

fn begin(subscriber: impl SubscriberInitExt) {
    if subscriber.try_init().is_err() {
        tracing::debug!("logging was already set up");
    }
}

fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(target: "security", event = "sys_crash", place, "panicked");
    }));
}

/// What goes into log lines: spans that are only sent do not, and security events do whatever else is left out.
fn lines(filter: &LogFilter) -> EnvFilter {
    EnvFilter::new(format!("{},security=info,{}=off", filter.0, trace::TARGET))
}

/// Log lines as they are written.
fn written<S, W>(format: LogFormat, output: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(output);
    match format {
        // JSON escapes line breaks and control characters, so that no value can forge a line (LOG-06).
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
        LogFormat::Text => layer.compact().with_ansi(std::io::stderr().is_terminal()).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// No caller can have one, so it is tried here.
    #[test]
    fn log_02_a_panic_says_where_it_was_and_not_what_it_said() {
        let (written, before) = (Written::default(), std::panic::take_hook());
        tell_panics();
        let writer = written.clone();
        let lines = fmt::layer().json().with_writer(move || writer.clone());
        let outcome = tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            std::panic::catch_unwind(|| panic!("canary of {}", "somebody"))
        });
        std::panic::set_hook(before);
        assert!(outcome.is_err());
        let said = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert!(said.contains("sys_crash") && said.contains(file!()) && !said.contains("canary"), "{said}");
    }
}
