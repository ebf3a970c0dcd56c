//! What is counted, for the page that Prometheus reads on the internal listener.
//!
//! Labels take few values, whatever callers send: no path, no name, no address. Tenants are told apart, two thousand of them
//! (the library's bound; further ones are counted together).

use std::{sync::LazyLock, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, MeterProvider as _},
};
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider};
use prometheus::{Encoder as _, Registry, TextEncoder};
use thiserror::Error;

/// Media type of the page (Prometheus text exposition format 0.0.4).
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The methods that are told apart.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Bounds of the histogram of durations, in seconds, as the semantic conventions of OpenTelemetry have them.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// One for the process, as its log is. `None` if it cannot be made, which would be a fault of this program.
static METRICS: LazyLock<Option<Metrics>> = LazyLock::new(|| {
    let made = Metrics::new();
    if let Err(error) = &made {
        tracing::error!(%error, "nothing is measured");
    }
    made.ok()
});

struct Metrics {
    registry: Registry,
    /// Keeps the instruments alive.
    _provider: SdkMeterProvider,
    requests: Histogram<f64>,
    events: Counter<u64>,
    customers_shown: Counter<u64>,
}

/// The page cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("there are no metrics")]
pub(crate) struct NoMetrics;

impl Metrics {
    fn new() -> Result<Self, opentelemetry_sdk::error::OTelSdkError> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build()?;
        let resource = Resource::builder().with_service_name(env!("CARGO_PKG_NAME")).build();
        let provider = SdkMeterProvider::builder().with_reader(exporter).with_resource(resource).build();
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
        Ok(Self { registry, _provider: provider, requests, events, customers_shown })
    }
}

/// A request was answered.
pub(crate) fn request(method: &http::Method, status: http::StatusCode, took: Duration) {
    let Some(metrics) = METRICS.as_ref() else { return };
    // A method of the caller's own invention would be a label of its own.
    let method = METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER");
    let labels = [
        KeyValue::new("http.request.method", method),
        KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
    ];
    metrics.requests.record(took.as_secs_f64(), &labels);
}

/// A security event was raised.
pub(super) fn event(name: &'static str) {
    if let Some(metrics) = METRICS.as_ref() {
        metrics.events.add(1, &[KeyValue::new("event", name)]);
    }
}

/// So many customers of a tenant were shown in plain text.
pub(crate) fn customers_shown(tenant: &str, customers: usize) {
    if let Some(metrics) = METRICS.as_ref() {
        let customers = u64::try_from(customers).unwrap_or(u64::MAX);
        metrics.customers_shown.add(customers, &[KeyValue::new("tenant", tenant.to_owned())]);
    }
}

/// The page.
pub(crate) fn page() -> Result<Vec<u8>, NoMetrics> {
    let metrics = METRICS.as_ref().ok_or(NoMetrics)?;
    let mut page = Vec::new();
    TextEncoder::new().encode(&metrics.registry.gather(), &mut page).map_err(|_| NoMetrics)?;
    Ok(page)
}
