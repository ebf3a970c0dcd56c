//! What is counted, for the page that Prometheus reads on the internal listener.
//!
//! Labels take few values, whatever callers send: no path, no name, no address. Tenants are told apart, two thousand of them
//! (the library's bound; further ones are counted together).

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

/// Media type of the page (Prometheus text exposition format 0.0.4).
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The methods that are told apart.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Bounds of the histogram of durations, in seconds, as the semantic conventions of OpenTelemetry have them.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// One for the process, as its log is. `None` if it cannot be made, which would be a fault of this program.
static METRICS: OnceLock<Option<Metrics>> = OnceLock::new();

/// Makes them, if they are not there yet. With a reader they are sent too.
pub(super) fn start(reader: Option<PeriodicReader<MetricExporter>>) {
    metrics_with(reader);
}

fn metrics() -> Option<&'static Metrics> {
    metrics_with(None)
}

fn metrics_with(reader: Option<PeriodicReader<MetricExporter>>) -> Option<&'static Metrics> {
    let made = METRICS.get_or_init(|| {
        let made = Metrics::new(reader);
        if let Err(error) = &made {
            tracing::error!(%error, "nothing is measured");
        }
        made.ok()
    });
    made.as_ref()
}

struct Metrics {
    registry: Registry,
    /// Keeps the instruments alive.
    provider: SdkMeterProvider,
    requests: Histogram<f64>,
    events: Counter<u64>,
    customers_shown: Counter<u64>,
    authentications: Counter<u64>,
    connections: Gauge<u64>,
    telemetry: Counter<u64>,
    refusals: Counter<u64>,
}

/// The page cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("there are no metrics")]
pub(crate) struct NoMetrics;

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
            .with_description("From the last header of a request to the first of its response.")
            .with_boundaries(SECONDS.to_vec())
            .build();
        let events = meter.u64_counter("security.events").with_description("Security events, by name.").build();
        let customers_shown = meter
            .u64_counter("customers.shown")
            .with_description("Customers whose fields were shown in plain text, by tenant.")
            .build();
        let authentications = meter
            .u64_counter("authentications")
            .with_description("Calls of operations that take a credential, by its kind and what became of it.")
            .build();
        let connections = meter
            .u64_gauge("db.client.connection.count")
            .with_description("Connections to the database, by login and state; `max` is how many there may be.")
            .build();
        let telemetry = meter
            .u64_counter("telemetry.items")
            .with_description("Spans and log records that were made, sent, or lost on the way to the collector.")
            .build();
        let refusals = meter
            .u64_counter("http.server.refusals")
            .with_description(
                "Connections, requests and responses that were refused or broken off, by the budget that was used up.",
            )
            .build();
        Ok(Self {
            registry,
            provider,
            requests,
            events,
            customers_shown,
            authentications,
            connections,
            telemetry,
            refusals,
        })
    }
}

/// The method as a label: one of the caller's own invention would be a label of its own.
pub(crate) fn known_method(method: &http::Method) -> &'static str {
    METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

/// A request was answered, of this operation if it was one.
pub(crate) fn request(method: &'static str, operation: Option<&'static str>, status: http::StatusCode, took: Duration) {
    let Some(metrics) = metrics() else { return };
    let labels = [
        KeyValue::new("operation", operation.unwrap_or("none")),
        KeyValue::new("http.request.method", method),
        KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
    ];
    metrics.requests.record(took.as_secs_f64(), &labels);
}

/// A connection, request or response was refused, or broken off.
pub(super) fn refusal(budget: &'static str) {
    if let Some(metrics) = metrics() {
        metrics.refusals.add(1, &[KeyValue::new("budget", budget)]);
    }
}

/// A security event was raised.
pub(super) fn event(name: &'static str) {
    if let Some(metrics) = metrics() {
        metrics.events.add(1, &[KeyValue::new("event", name)]);
    }
}

/// So many customers of a tenant were shown in plain text.
pub(crate) fn customers_shown(tenant: &str, customers: usize) {
    if let Some(metrics) = metrics() {
        let customers = u64::try_from(customers).unwrap_or(u64::MAX);
        metrics.customers_shown.add(customers, &[KeyValue::new("tenant", tenant.to_owned())]);
    }
}

/// A credential of this kind was looked at.
pub(crate) fn authentication(credential: &'static str, result: &'static str) {
    if let Some(metrics) = metrics() {
        let labels = [KeyValue::new("credential", credential), KeyValue::new("result", result)];
        metrics.authentications.add(1, &labels);
    }
}

/// A login has so many connections that work, so many that wait for work, and at most so many.
pub(crate) fn connections(login: &'static str, used: u64, idle: u64, max: u64) {
    if let Some(metrics) = metrics() {
        for (state, connections) in [("used", used), ("idle", idle), ("max", max)] {
            let labels = [KeyValue::new("login", login), KeyValue::new("state", state)];
            metrics.connections.record(connections, &labels);
        }
    }
}

/// What became of something that is sent to a collector.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// It is there. What is neither sent nor lost yet, waits or found the queue full.
    Made,
    /// The collector took it.
    Sent,
    /// The collector did not.
    Lost,
}

/// So many spans or log records were made, sent or lost.
pub(super) fn telemetry(signal: &'static str, outcome: Fate, items: usize) {
    if let Some(metrics) = metrics() {
        let outcome = match outcome {
            Fate::Made => "made",
            Fate::Sent => "sent",
            Fate::Lost => "lost",
        };
        let labels = [KeyValue::new("signal", signal), KeyValue::new("outcome", outcome)];
        metrics.telemetry.add(u64::try_from(items).unwrap_or(u64::MAX), &labels);
    }
}

/// Sends what was counted last.
pub(super) fn finish(limit: Duration) {
    if let Some(metrics) = metrics() {
        // It is over, and there is nobody left to tell.
        let _ = metrics.provider.shutdown_with_timeout(limit);
    }
}

/// The page.
pub(crate) fn page() -> Result<Vec<u8>, NoMetrics> {
    let metrics = metrics().ok_or(NoMetrics)?;
    let mut page = Vec::new();
    TextEncoder::new().encode(&metrics.registry.gather(), &mut page).map_err(|_| NoMetrics)?;
    Ok(page)
}
