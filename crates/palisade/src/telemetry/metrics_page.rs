//! The metrics page that Prometheus scrapes on the internal listener (LOG-03).

use std::sync::LazyLock;

use opentelemetry_sdk::metrics::MeterProviderBuilder;
use prometheus::{Registry, TextEncoder};

/// Media type of the page (Prometheus text exposition format 0.0.4).
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of the process.
static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::new);

/// Adds the page to the exporters of the metrics.
pub(super) fn add(provider: MeterProviderBuilder) -> MeterProviderBuilder {
    match opentelemetry_prometheus::exporter().with_registry(REGISTRY.clone()).build() {
        Ok(exporter) => provider.with_reader(exporter),
        Err(error) => {
            tracing::error!(%error, "the metrics page is empty");
            provider
        }
    }
}

/// Renders the page.
pub(crate) fn render() -> prometheus::Result<String> {
    TextEncoder::new().encode_to_string(&REGISTRY.gather())
}
