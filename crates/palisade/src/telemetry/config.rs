//! Format and filter of log lines (LOG-02). `settings` reads them.

use std::str::FromStr;

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

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
