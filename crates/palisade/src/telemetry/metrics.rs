//! Metrics of the process (LOG-03): recorded by the modules above, exported in two ways.
//!
//! `metrics_page` has the page that Prometheus scrapes on the internal listener; with a collector,
//! the same metrics are also sent by OTLP ([`super::export`]). Label values come from small fixed sets,
//! never from callers: no path, name or address. The exception is the tenant, up to 2,000 of them
//! (a limit of the OpenTelemetry SDK; further tenants are counted together).

use std::{sync::OnceLock, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, MeterProvider as _},
};
use opentelemetry_sdk::{
    Resource,
    metrics::{MeterProviderBuilder, SdkMeterProvider},
};

use crate::package;

/// Methods that have a label value of their own.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Histogram bounds for request durations in seconds, from the OpenTelemetry semantic conventions.
const DURATION_BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The budgets of the edge.
const BUDGETS: [&str; 5] = ["connections", "plain_http", "requests", "stalled_response", "unread_bytes"];

/// One instance per process.
static METRICS: OnceLock<Metrics> = OnceLock::new();

struct Metrics {
    /// Keeps the instruments alive.
    provider: SdkMeterProvider,
    requests: Histogram<f64>,
    events: Counter<u64>,
    records_unmasked: Counter<u64>,
    authentications: Counter<u64>,
    connections: Gauge<u64>,
    telemetry: Counter<u64>,
    refusals: Counter<u64>,
    certificates: Gauge<i64>,
}

/// A counter that a service declares, with one label. Label values are from the program, never from
/// callers, so that there are few.
#[derive(Debug)]
pub struct ServiceCounter {
    name: &'static str,
    description: &'static str,
    label: &'static str,
    counter: OnceLock<Counter<u64>>,
}

impl ServiceCounter {
    /// A counter of this name, with dots between its words.
    #[must_use]
    pub const fn new(name: &'static str, description: &'static str, label: &'static str) -> Self {
        Self { name, description, label, counter: OnceLock::new() }
    }

    /// Adds one under this value of the label.
    pub fn increment(&self, value: &'static str) {
        let meter = || metrics().provider.meter(package::name());
        let build = || meter().u64_counter(self.name).with_description(self.description).build();
        self.counter.get_or_init(build).add(1, &[KeyValue::new(self.label, value)]);
    }
}

/// Creates the metrics unless they exist; they also go to the readers of this builder.
#[cfg(feature = "otlp")]
pub(super) fn start(builder: MeterProviderBuilder) -> SdkMeterProvider {
    METRICS.get_or_init(|| Metrics::new(builder)).provider.clone()
}

fn metrics() -> &'static Metrics {
    METRICS.get_or_init(|| Metrics::new(SdkMeterProvider::builder()))
}

/// OpenTelemetry resource: name and version of this service.
pub(super) fn resource() -> Resource {
    Resource::builder_empty()
        .with_attribute(KeyValue::new("service.name", package::name()))
        .with_attribute(KeyValue::new("service.version", package::version()))
        .build()
}

impl Metrics {
    fn new(provider: MeterProviderBuilder) -> Self {
        #[cfg(feature = "internal_listener")]
        let provider = super::metrics_page::add(provider);
        let provider = provider.with_resource(resource()).build();
        let meter = provider.meter(package::name());
        let counter = |name, description| meter.u64_counter(name).with_description(description).build();
        let refusals = counter(
            "http.server.refusals",
            "Connections, requests and responses rejected or aborted by the edge, by exhausted budget.",
        );
        // The page has them from the start.
        for budget in BUDGETS {
            refusals.add(0, &[KeyValue::new("budget", budget)]);
        }
        Self {
            requests: meter
                .f64_histogram("http.server.request.duration")
                .with_unit("s")
                .with_description("Time from the last request header to the first response header.")
                .with_boundaries(DURATION_BOUNDS.to_vec())
                .build(),
            events: counter("security.events", "Security events by name."),
            records_unmasked: counter(
                "records.unmasked",
                "Records of personal data that were read in plain text, and searches that found one, by tenant.",
            ),
            authentications: counter(
                "authentications",
                "Calls of operations that require a credential, by credential kind and result.",
            ),
            connections: meter
                .u64_gauge("db.client.connection.count")
                .with_description("Database connections by login and state; `max` is the size of the pool.")
                .build(),
            telemetry: counter("telemetry.items", "Spans, log records and log lines that were made, sent or lost."),
            refusals,
            certificates: meter
                .i64_gauge("tls.certificate.remaining")
                .with_unit("s")
                .with_description("Time until the certificate of a listener expires.")
                .build(),
            provider,
        }
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
    let labels = [
        KeyValue::new("operation", operation.unwrap_or("none")),
        KeyValue::new("http.request.method", method),
        KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
    ];
    metrics().requests.record(duration.as_secs_f64(), &labels);
}

/// Records a connection, request or response that the edge rejected or aborted.
pub(super) fn record_refusal(budget: &'static str) {
    metrics().refusals.add(1, &[KeyValue::new("budget", budget)]);
}

/// Records a security event.
pub(super) fn record_event(name: &'static str) {
    metrics().events.add(1, &[KeyValue::new("event", name)]);
}

/// Counts a record of personal data that was read in plain text, or a search that found one.
pub(crate) fn record_record_unmasked(tenant: &str) {
    metrics().records_unmasked.add(1, &[KeyValue::new("tenant", tenant.to_owned())]);
}

/// Records the result of an authentication with this kind of credential.
pub(crate) fn record_authentication(credential: &'static str, result: &'static str) {
    let labels = [KeyValue::new("credential", credential), KeyValue::new("result", result)];
    metrics().authentications.add(1, &labels);
}

/// Records the connection pool of a login: connections in use, idle connections and the pool size.
pub(crate) fn record_connections(login: &'static str, used: u64, idle: u64, max: u64) {
    for (state, connections) in [("used", used), ("idle", idle), ("max", max)] {
        let labels = [KeyValue::new("login", login), KeyValue::new("state", state)];
        metrics().connections.record(connections, &labels);
    }
}

/// Records the time until the certificate of this listener expires.
pub(crate) fn record_certificate(listener: &'static str, remaining_seconds: i64) {
    metrics().certificates.record(remaining_seconds, &[KeyValue::new("listener", listener)]);
}

/// Records spans, log records or log lines: `made` when they are created, `sent` when the collector
/// accepted them, `lost` if it did not or if standard error did not. Items that are neither sent
/// nor lost are queued, or were dropped at a full queue.
pub(super) fn record_telemetry(signal: &'static str, outcome: &'static str, items: usize) {
    let labels = [KeyValue::new("signal", signal), KeyValue::new("outcome", outcome)];
    metrics().telemetry.add(u64::try_from(items).unwrap_or(u64::MAX), &labels);
}
