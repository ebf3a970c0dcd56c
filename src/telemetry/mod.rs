//! What the service says about itself: log lines, and the security events among them.
//!
//! One JSON object per line in production, readable text in development. Every line of
//! a request carries its trace id, the same that a problem body shows to the caller.

pub mod event;
pub(crate) mod metrics;
mod trace_id;

pub use trace_id::TraceId;

use std::{io::IsTerminal as _, str::FromStr};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

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
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(target: "security", event = "sys_crash", place, "panicked");
    }));
    let registry = tracing_subscriber::registry().with(EnvFilter::new(&filter.0));
    // JSON escapes line breaks and control characters, so that no value can forge a line (LOG-06).
    let already_set = match format {
        LogFormat::Json => {
            let layer = fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false);
            registry.with(layer.with_writer(std::io::stderr)).try_init()
        }
        LogFormat::Text => registry
            .with(fmt::layer().compact().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr))
            .try_init(),
    };
    if already_set.is_err() {
        tracing::debug!("logging was already set up");
    }
}
