use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;
use url::Url;

use super::{Reader, checks};
use crate::telemetry::{LogFilter, LogFormat};

/// Log lines.
#[derive(Debug)]
pub struct Log {
    /// `APP_LOG__FORMAT`: `json` (default) or `text`.
    pub format: LogFormat,
    /// `APP_LOG__FILTER`, default `info`: directives such as `info,sqlx=warn`.
    pub filter: LogFilter,
}

/// A collector of spans, metrics and log records, by OTLP over HTTP (LOG-03, LOG-04).
#[derive(Debug)]
pub struct Otlp {
    /// `APP_OTLP__ENDPOINT`: its base, such as `https://collector.example.com:4318`; `/v1/traces`, `/v1/metrics` and `/v1/logs`
    /// are added.
    pub endpoint: Url,
    /// `APP_OTLP__TOKEN`: sent as a bearer token.
    pub token: Option<SecretString>,
    /// `APP_OTLP__CA_PATH`: a PEM file of the authorities that may have signed its certificate. Default: those of the system.
    pub authorities: Option<PathBuf>,
    /// `APP_OTLP__SAMPLE_RATIO`, default 0.1, 0 to 1: the part of requests that are traced, which costs each a fifth to a
    /// quarter of its time. Security events are never sampled.
    pub sample_ratio: f64,
    /// `APP_OTLP__METRICS_EVERY_MS`, default 15000: how often metrics are sent.
    pub metrics_every: Duration,
    /// `APP_OTLP__TIMEOUT_MS`, default 5000: how long it may take to answer.
    pub timeout: Duration,
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

impl Otlp {
    /// `None` without an endpoint.
    pub(super) fn read(r: &mut Reader) -> Option<Self> {
        for leaf in ["token", "ca_path", "sample_ratio", "metrics_every_ms", "timeout_ms"] {
            let key = format!("otlp.{leaf}");
            if !r.has("otlp.endpoint") && r.has(&key) {
                r.know(&key);
                r.fault(&key, "is of no use without otlp.endpoint");
            }
        }
        if !r.has("otlp.endpoint") {
            return None;
        }
        let endpoint: Option<Url> = r.required("otlp.endpoint");
        let production = r.is_production();
        if let Some(url) = &endpoint {
            checks::check_service_url("otlp.endpoint", url, production, r);
        }
        let (token, authorities) = (r.optional_secret("otlp.token"), r.optional("otlp.ca_path"));
        if let Some(token) = &token {
            checks::check_token("otlp.token", token, production, r);
        }
        let sample_ratio = r.within("otlp.sample_ratio", 0.1, 0.0..=1.0);
        let (metrics_every, timeout) = (r.millis("otlp.metrics_every_ms", 15_000), r.millis("otlp.timeout_ms", 5_000));
        Some(Self { endpoint: endpoint?, token, authorities, sample_ratio, metrics_every, timeout })
    }
}
