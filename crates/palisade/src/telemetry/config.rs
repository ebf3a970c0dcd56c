//! Configuration of logs and of their export (LOG-03, LOG-04). `settings` reads it.

use std::{path::PathBuf, str::FromStr, time::Duration};

use secrecy::SecretString;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};
use url::Url;

/// Log lines.
#[derive(Debug)]
pub struct Log {
    /// Format of each line.
    pub format: LogFormat,
    /// Which lines are written.
    pub filter: LogFilter,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// Text for a person at a terminal.
    Text,
}

/// Selects log lines by directives such as `info,sqlx=warn`.
#[derive(Clone, Debug)]
pub struct LogFilter(pub(super) String);

impl LogFilter {
    /// Whether it selects lines of level `trace`, in which libraries may write secrets (LOG-02).
    #[must_use]
    pub fn allows_trace(&self) -> bool {
        EnvFilter::new(&self.0).max_level_hint().is_none_or(|level| level == LevelFilter::TRACE)
    }
}

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

/// A collector that receives spans, metrics and log records by OTLP over HTTP.
#[derive(Debug)]
pub struct Otlp {
    /// Base URL; `/v1/traces`, `/v1/metrics` and `/v1/logs` are added.
    pub endpoint: Url,
    /// Bearer token.
    pub token: Option<SecretString>,
    /// PEM file of CA certificates; without one, those of the system.
    pub authorities: Option<PathBuf>,
    /// Share of requests that are traced, 0 to 1. Security events are never sampled.
    pub sample_ratio: f64,
    /// Interval between exports of metrics.
    pub metrics_interval: Duration,
    /// Limit for one response of the collector.
    pub timeout: Duration,
}
