use std::time::Duration;

use super::Reader;
use crate::telemetry::{LogFilter, LogFormat};

/// Log lines.
#[derive(Debug)]
pub struct Log {
    /// `APP_LOG__FORMAT`: `json` (default) or `text`.
    pub format: LogFormat,
    /// `APP_LOG__FILTER`, default `info`: directives such as `info,sqlx=warn`.
    pub filter: LogFilter,
}

/// The audit trail (LOG-05).
#[derive(Clone, Copy, Debug)]
pub struct Audit {
    /// `APP_AUDIT__SEAL_EVERY_MS`, default 10000: how often what was written is sealed. What is changed in the database
    /// after twice that cannot be made to agree with the log again.
    pub seal_every: Duration,
}

impl Log {
    pub(super) fn read(r: &mut Reader) -> Self {
        Self { format: r.or("log.format", LogFormat::default()), filter: r.or("log.filter", LogFilter::default()) }
    }
}

impl Audit {
    pub(super) fn read(r: &mut Reader) -> Self {
        Self { seal_every: r.millis("audit.seal_every_ms", 10_000) }
    }
}
