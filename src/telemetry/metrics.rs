//! Metrics of the process (LOG-03): recorded by the modules above, exported in two ways.
//!
//! [`render`] writes the page that Prometheus scrapes on the internal listener; with a collector,
//! the same metrics are also sent by OTLP ([`export`]). Label values come from small fixed sets,
//! never from callers: no path, name or address. The exception is the tenant, up to 2,000 of them
//! (a limit of the OpenTelemetry SDK; further tenants are counted together).

use std::{sync::OnceLock, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, MeterProvider as _},
};
use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use prometheus::{Encoder as _, Registry, TextEncoder};
use thiserror::Error;

use super::export;

/// Media type of the metrics page (Prometheus text exposition format 0.0.4).
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Methods that have a label value of their own.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Histogram bounds for request durations in seconds, from the OpenTelemetry semantic conventions.
const DURATION_BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// One instance per process. `None` if it could not be created, which is a bug.
static METRICS: OnceLock<Option<Metrics>> = OnceLock::new();

/// Creates the metrics unless they exist. With a reader, they are also pushed to the collector.
pub(super) fn start(reader: Option<PeriodicReader<MetricExporter>>) {
    metrics_with(reader);
}

fn metrics() -> Option<&'static Metrics> {
    metrics_with(None)
}

fn metrics_with(reader: Option<PeriodicReader<MetricExporter>>) -> Option<&'static Metrics> {
    let metrics = METRICS.get_or_init(|| {
        let metrics = Metrics::new(reader);
        if let Err(error) = &metrics {
            tracing::error!(%error, "could not create metrics; nothing is recorded");
        }
        metrics.ok()
    });
    metrics.as_ref()
}

struct Metrics {
    registry: Registry,
    /// Keeps the instruments alive.
    provider: SdkMeterProvider,
    requests: Histogram<f64>,
    events: Counter<u64>,
    customers_unmasked: Counter<u64>,
    authentications: Counter<u64>,
    connections: Gauge<u64>,
    telemetry: Counter<u64>,
    refusals: Counter<u64>,
}

/// The metrics page cannot be rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("metrics are not available")]
pub(crate) struct MetricsUnavailable;

impl Metrics {
    fn new(reader: Option<PeriodicReader<MetricExporter>>) -> Result<Self, opentelemetry_sdk::error::OTelSdkError> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build()?;
        let mut provider = SdkMeterProvider::builder().with_reader(exporter).with_resource(export::resource());
        if let Some(reader) = reader {
            provider = provider.with_reader(reader);
        }
        let provider = provider.build();
        let meter = provider.meter(env!("CARGO_PKG_NAME"));
        let requests = meter
            .f64_histogram("http.server.request.duration")
            .with_unit("s")
            .with_description("Time from the last request header to the first response header.")
            .with_boundaries(DURATION_BOUNDS.to_vec())
            .build();
        let events = meter.u64_counter("security.events").with_description("Security events by name.").build();
        let customers_unmasked = meter
            .u64_counter("customers.unmasked")
            .with_description("Customers whose personal data was read in plain text, by tenant.")
            .build();
        let authentications = meter
            .u64_counter("authentications")
            .with_description("Calls of operations that require a credential, by credential kind and result.")
            .build();
        let connections = meter
            .u64_gauge("db.client.connection.count")
            .with_description("Database connections by login and state; `max` is the size of the pool.")
            .build();
        let telemetry = meter
            .u64_counter("telemetry.items")
            .with_description("Spans, log records and log lines that were made, sent or lost.")
            .build();
        let refusals = meter
            .u64_counter("http.server.refusals")
            .with_description(
                "Connections, requests and responses rejected or aborted by the edge, by exhausted budget.",
            )
            .build();
        Ok(Self {
            registry,
            provider,
            requests,
            events,
            customers_unmasked,
            authentications,
            connections,
            telemetry,
            refusals,
        })
    }
}

/// The label value for a method. Methods that callers invent share `_OTHER`.
pub(crate) fn method_label(method: &http::Method) -> &'static str {
    METHODS.into_iter().find(|label| *label == method.as_str()).unwrap_or("_OTHER")
}

/// Records an answered request; `operation` is `None` if no operation matched its path.
pub(crate) fn record_request(
    method: &'static str,
    operation: Option<&'static str>,
    status: http::StatusCode,
    duration: Duration,
) {
    let Some(metrics) = metrics() else { return };
    let labels = [
        KeyValue::new("operation", operation.unwrap_or("none")),
        KeyValue::new("http.request.method", method),
        KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
    ];
    metrics.requests.record(duration.as_secs_f64(), &labels);
}

/// Records a connection, request or response that the edge rejected or aborted.
pub(super) fn record_refusal(budget: &'static str) {
    if let Some(metrics) = metrics() {
        metrics.refusals.add(1, &[KeyValue::new("budget", budget)]);
    }
}

/// Records a security event.
pub(super) fn record_event(name: &'static str) {
    if let Some(metrics) = metrics() {
        metrics.events.add(1, &[KeyValue::new("event", name)]);
    }
}

/// Records that personal data of this many customers was read in plain text.
pub(crate) fn record_customers_unmasked(tenant: &str, customers: usize) {
    if let Some(metrics) = metrics() {
        let customers = u64::try_from(customers).unwrap_or(u64::MAX);
        metrics.customers_unmasked.add(customers, &[KeyValue::new("tenant", tenant.to_owned())]);
    }
}

/// Records the result of an authentication with this kind of credential.
pub(crate) fn record_authentication(credential: &'static str, result: &'static str) {
    if let Some(metrics) = metrics() {
        let labels = [KeyValue::new("credential", credential), KeyValue::new("result", result)];
        metrics.authentications.add(1, &labels);
    }
}

/// Records the connection pool of a login: connections in use, idle connections and the pool size.
pub(crate) fn record_connections(login: &'static str, used: u64, idle: u64, max: u64) {
    if let Some(metrics) = metrics() {
        for (state, connections) in [("used", used), ("idle", idle), ("max", max)] {
            let labels = [KeyValue::new("login", login), KeyValue::new("state", state)];
            metrics.connections.record(connections, &labels);
        }
    }
}

/// Delivery state of a span, log record or log line.
#[derive(Clone, Copy, Debug)]
pub(super) enum Delivery {
    /// Created. Items that are neither sent nor lost are queued, or were dropped at a full queue.
    Made,
    /// Accepted by the collector.
    Sent,
    /// Not accepted by the collector, or not written to standard error.
    Lost,
}

/// Records spans, log records or log lines that were made, sent or lost.
pub(super) fn record_telemetry(signal: &'static str, outcome: Delivery, items: usize) {
    if let Some(metrics) = metrics() {
        let outcome = match outcome {
            Delivery::Made => "made",
            Delivery::Sent => "sent",
            Delivery::Lost => "lost",
        };
        let labels = [KeyValue::new("signal", signal), KeyValue::new("outcome", outcome)];
        metrics.telemetry.add(u64::try_from(items).unwrap_or(u64::MAX), &labels);
    }
}

/// Sends the last values to the collector, within `timeout`.
pub(super) fn finish(timeout: Duration) {
    if let Some(metrics) = metrics() {
        // The process ends, so an error could not be reported any more.
        let _ = metrics.provider.shutdown_with_timeout(timeout);
    }
}

/// Renders the metrics page for Prometheus.
pub(crate) fn render() -> Result<Vec<u8>, MetricsUnavailable> {
    let metrics = metrics().ok_or(MetricsUnavailable)?;
    let mut page = Vec::new();
    TextEncoder::new().encode(&metrics.registry.gather(), &mut page).map_err(|_| MetricsUnavailable)?;
    Ok(page)
}
