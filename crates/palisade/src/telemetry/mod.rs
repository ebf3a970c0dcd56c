//! Telemetry: log lines, security events, spans and metrics (LOG-02).
//!
//! `serve` calls [`serve`] once, every other command [`init`]. All other modules log through
//! `tracing` and [`event`]; this module imports none of domain, crypto, db and store. Each line of
//! a request carries its trace id, which a problem body shows to the caller too. In production a
//! line is one JSON object, whose escaping keeps callers from forging lines (LOG-06). Logging in
//! `serve` never blocks: excess lines are dropped and counted ([`writer`]), repeated ones coalesced
//! ([`repeats`]).

mod config;
#[cfg_attr(
    not(all(feature = "backup", feature = "exports")),
    expect(dead_code, reason = "features raise some of the events")
)]
pub mod event;
#[cfg_attr(not(feature = "otlp"), path = "without_otlp.rs")]
mod export;
mod line;
#[cfg(feature = "otlp")]
mod log_queues;
pub(crate) mod metrics;
#[cfg(feature = "internal_listener")]
pub(crate) mod metrics_page;
pub(crate) mod repeats;
pub(crate) mod trace;
mod trace_id;
mod writer;

use std::{error::Error, io::IsTerminal as _};

use export::Providers;
use line::{JsonLine, TextFields};
pub use metrics::ServiceCounter;
pub(crate) use trace_id::{Caller, RemoteParent, RequestTelemetry};
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{LevelFilter, Targets},
    fmt::{self, MakeWriter},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

internal! { pub use config::{Log, LogFilter, LogFormat, Otlp}; }
internal! { pub use export::ExportError; }
pub(crate) use export::check_collector;
internal! { pub use trace_id::TraceId; }

/// Installs logging to standard error for a command. A second call changes nothing.
///
/// A panic is logged with its source location but without its message, which may contain secrets.
pub fn init(format: LogFormat, filter: &LogFilter) {
    log_panics();
    install(tracing_subscriber::registry().with(log_filter(filter)).with(line_layer(format, std::io::stderr)));
}

/// The running telemetry of `serve`. Call [`Telemetry::finish`] before the process ends.
#[must_use = "queued lines and spans are lost without `finish`"]
#[derive(Debug)]
pub struct Telemetry {
    providers: Option<Providers>,
    writer: writer::Writer,
}

impl Telemetry {
    /// Exports what is queued (at most 3 s), then writes the queued log lines (at most 1.5 s).
    pub async fn finish(self) {
        if let Some(providers) = self.providers {
            providers.finish().await;
        }
        self.writer.finish();
    }
}

/// Installs logging for the server: non-blocking, with repeated lines coalesced.
///
/// With `otlp`, spans, metrics and log records are also exported to that collector, on the Tokio
/// runtime that this is called in.
pub fn serve(log: &Log, otlp: Option<&Otlp>) -> Result<Telemetry, ExportError> {
    let (output, writer) = writer::start();
    let Some(otlp) = otlp else {
        log_panics();
        install(tracing_subscriber::registry().with(log_filter(&log.filter)).with(line_layer(log.format, output)));
        return Ok(Telemetry { providers: None, writer });
    };
    let providers = export::start(otlp)?;
    let spans = providers.spans().with_filter(Targets::new().with_target(trace::TARGET, LevelFilter::INFO));
    let lines = line_layer(log.format, output).with_filter(log_filter(&log.filter));
    let records = providers.records().with_filter(log_filter(&log.filter));
    log_panics();
    install(tracing_subscriber::registry().with(lines).with(records).with(spans));
    Ok(Telemetry { providers: Some(providers), writer })
}

fn install(subscriber: impl SubscriberInitExt) {
    if subscriber.try_init().is_err() {
        tracing::debug!("logging was already set up");
    }
}

/// Replaces the panic hook: the location is logged, the message is not (LOG-02).
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(target: "security", event = "sys_crash", place, "panicked");
    }));
}

/// The configured filter, plus two fixed rules: security events are always logged, and spans that
/// exist only for the collector never are.
fn log_filter(filter: &LogFilter) -> EnvFilter {
    EnvFilter::new(format!("{},security=info,{}=off", filter.0, trace::TARGET))
}

/// The layer that formats log lines and writes them to `output`.
fn line_layer<S, W>(format: LogFormat, output: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(output);
    match format {
        LogFormat::Json => layer.event_format(JsonLine).boxed(),
        LogFormat::Text => {
            let layer = layer.compact().with_ansi(std::io::stderr().is_terminal());
            layer.fmt_fields(TextFields::default()).boxed()
        }
    }
}

/// The causes of an error, outermost first, for a log field. The error itself is not part of it.
pub(crate) fn causes(error: &dyn Error) -> Option<String> {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let texts: Vec<_> = causes.map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(": "))
}

/// An error and its causes, for an operator.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    std::iter::once(error.to_string()).chain(causes(error)).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

    /// A unit test, because no request of the test suite can cause a panic.
    #[test]
    fn log_02_panic_is_logged_with_its_location_and_without_its_message() {
        let previous_hook = std::panic::take_hook();
        log_panics();
        let lines = line_layer(LogFormat::Json, || LINES.make_writer());
        let outcome = tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            std::panic::catch_unwind(|| panic!("canary of {}", "a caller"))
        });
        std::panic::set_hook(previous_hook);
        assert!(outcome.is_err());
        let log = String::from_utf8(LINES.lock().unwrap().clone()).unwrap();
        assert!(log.contains("sys_crash") && log.contains(file!()) && !log.contains("canary"), "{log}");
    }
}
