//! Export of spans, metrics and log records to a collector by OTLP over HTTP (LOG-03, LOG-04).
//!
//! [`start`] is called by [`super::serve`] if the settings name a collector. Export never delays a
//! request: items wait in bounded queues, each emptied by a thread of its own. Items that find a
//! queue full, or that the collector does not accept, are lost; the metric `telemetry.items` shows
//! how many.

use std::{error::Error as StdError, path::PathBuf, sync::OnceLock, time::Duration};

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use opentelemetry::{
    Context,
    trace::{SpanId, Status, TraceContextExt as _, TracerProvider as _},
};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    logs::{self, LogBatch, SdkLoggerProvider},
    metrics::{PeriodicReader, SdkMeterProvider},
    trace::{
        self, BatchSpanProcessor, IdGenerator, RandomIdGenerator, Sampler, SdkTracerProvider, Span, SpanData,
        SpanProcessor,
    },
};
use reqwest::{Certificate, Client, redirect};
use secrecy::ExposeSecret as _;
use thiserror::Error;
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer, registry::LookupSpan};

use super::{Otlp, TraceId, log_queues::LogQueues, metrics};
use crate::package;

/// Maximum number of queued spans, of queued security events and of other queued log records; about
/// 1 KiB each.
const QUEUE_LEN: usize = 16_384;
/// Maximum number of items in one request to the collector.
const BATCH_LEN: usize = 2_048;
/// Maximum time that an item waits for its batch to fill.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// Maximum size of a collector response, in bytes.
const MAX_RESPONSE: usize = 64 * 1024;
/// Maximum time that shutdown waits for the collector.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// Not set if no collector is configured.
static SAMPLER: OnceLock<Sampler> = OnceLock::new();

/// Errors that keep telemetry from being exported.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The CA certificates for the collector cannot be read.
    #[error("cannot read the CA certificates for the collector from {}", .0.display())]
    Authorities(PathBuf, #[source] Box<dyn StdError + Send + Sync>),
    /// The token contains characters that HTTP does not allow in a header.
    #[error("the collector token contains characters that are not allowed in a header")]
    Token,
    /// The HTTP client could not be created.
    #[error("could not create the HTTP client for the collector")]
    Client(#[from] reqwest::Error),
    /// An exporter could not be created.
    #[error(transparent)]
    Exporter(#[from] ExporterBuildError),
}

/// The providers behind the exporting layers. They own the queues of spans and log records.
#[must_use = "queued spans and log records are lost without `finish`"]
#[derive(Debug)]
pub(super) struct Providers {
    tracers: SdkTracerProvider,
    loggers: SdkLoggerProvider,
    meters: SdkMeterProvider,
}

impl Providers {
    /// The layer that exports spans.
    pub(super) fn spans<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        tracing_opentelemetry::layer()
            .with_tracer(self.tracers.tracer(package::name()))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
    }

    /// The layer that exports log records.
    pub(super) fn records<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        OpenTelemetryTracingBridge::new(&self.loggers)
    }

    /// Exports what is queued, within [`SHUTDOWN_TIMEOUT`].
    pub(super) async fn finish(self) {
        let (done, is_done) = tokio::sync::oneshot::channel();
        // In threads, because not every shutdown keeps to its timeout. Errors need no report: what
        // was lost is counted.
        std::thread::spawn(move || {
            let Self { tracers, loggers, meters } = self;
            let threads = [
                std::thread::spawn(move || drop(tracers.shutdown_with_timeout(SHUTDOWN_TIMEOUT))),
                std::thread::spawn(move || drop(loggers.shutdown_with_timeout(SHUTDOWN_TIMEOUT))),
            ];
            drop(meters.shutdown_with_timeout(SHUTDOWN_TIMEOUT));
            for thread in threads {
                drop(thread.join());
            }
            let _ = done.send(());
        });
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, is_done).await;
    }
}

/// Starts the export to the collector that the settings name.
pub(super) fn start(otlp: &Otlp) -> Result<Providers, ExportError> {
    let collector = Collector::new(otlp)?;
    let resource = metrics::resource();
    let endpoint = |signal: &str| {
        let base = otlp.endpoint.as_str().trim_end_matches('/');
        format!("{base}/v1/{signal}")
    };
    let spans = SpanExporter::builder().with_http().with_http_client(collector.clone());
    let spans = Counted(spans.with_endpoint(endpoint("traces")).with_timeout(otlp.timeout).build()?);
    let batches = trace::BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_LEN)
        .with_max_export_batch_size(BATCH_LEN)
        .with_scheduled_delay(BATCH_DELAY);
    let spans = BatchSpanProcessor::builder(spans).with_batch_config(batches.build()).build();
    let tracers = SdkTracerProvider::builder()
        .with_span_processor(Counted(spans))
        .with_id_generator(RequestIdGenerator::default())
        // `RequestTrace` samples: a request that is not sampled has no spans.
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(resource.clone())
        .build();
    let log_exporter = || {
        let records = LogExporter::builder().with_http().with_http_client(collector.clone());
        records.with_endpoint(endpoint("logs")).with_timeout(otlp.timeout).build().map(Counted)
    };
    let batches = || {
        logs::BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_LEN)
            .with_max_export_batch_size(BATCH_LEN)
            .with_scheduled_delay(BATCH_DELAY)
            .build()
    };
    let queues = LogQueues::new(batches, [log_exporter()?, log_exporter()?]);
    let loggers = SdkLoggerProvider::builder().with_log_processor(queues).with_resource(resource).build();
    let metrics = MetricExporter::builder().with_http().with_http_client(collector);
    let metrics = metrics.with_endpoint(endpoint("metrics")).with_timeout(otlp.timeout).build()?;
    let reader = PeriodicReader::builder(metrics).with_interval(otlp.metrics_interval).build();
    let meters = metrics::start(SdkMeterProvider::builder().with_reader(reader));
    // A second call has no effect, as for the log.
    let _ = SAMPLER.set(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(otlp.sample_ratio))));
    Ok(Providers { tracers, loggers, meters })
}

/// Sends an empty batch of spans. The error is in words.
pub(crate) async fn check_collector(otlp: &Otlp) -> Result<(), String> {
    let collector = Collector::new(otlp).map_err(|error| error.to_string())?;
    let url = format!("{}/v1/traces", otlp.endpoint.as_str().trim_end_matches('/'));
    let request = Request::post(url).header(header::CONTENT_TYPE, "application/x-protobuf").body(Bytes::new());
    let response = collector.send_bytes(request.map_err(|error| error.to_string())?).await;
    let status = response.map_err(|error| super::with_causes(&*error))?.status();
    if status.is_success() { Ok(()) } else { Err(format!("it answered {status}")) }
}

/// Decides which requests are sampled. `None` if no collector is configured.
pub(super) fn sampler() -> Option<&'static Sampler> {
    SAMPLER.get()
}

/// Makes a span a child of the calling service's. Fails only for a span that has started.
pub(super) fn set_parent(span: &tracing::Span, parent: Context) {
    let _ = span.set_parent(parent);
}

/// Renames a span. The field `otel.name` has no effect on one that has started.
pub(super) fn rename(span: &tracing::Span, name: String) {
    span.context().span().update_name(name);
}

/// Marks a span as failed.
pub(super) fn mark_failed(span: &tracing::Span) {
    span.set_status(Status::error(""));
}

/// Gives the spans of a request the trace id that its log lines carry.
#[derive(Debug, Default)]
struct RequestIdGenerator(RandomIdGenerator);

impl IdGenerator for RequestIdGenerator {
    fn new_trace_id(&self) -> opentelemetry::trace::TraceId {
        TraceId::current().map_or_else(|| self.0.new_trace_id(), |id| id.to_otel())
    }

    fn new_span_id(&self) -> SpanId {
        self.0.new_span_id()
    }
}

/// HTTP client for the collector. Exporter threads wait for it, but requests run on the Tokio
/// runtime.
#[derive(Clone, Debug)]
struct Collector {
    client: Client,
    runtime: Handle,
}

impl Collector {
    fn new(otlp: &Otlp) -> Result<Self, ExportError> {
        let mut builder = Client::builder()
            // A redirect or proxy could send the token to another address.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(otlp.timeout)
            .user_agent(package::user_agent());
        if let Some(path) = &otlp.authorities {
            let failed = |error: Box<dyn StdError + Send + Sync>| ExportError::Authorities(path.clone(), error);
            let pem = std::fs::read(path).map_err(|error| failed(error.into()))?;
            let roots = Certificate::from_pem_bundle(&pem).map_err(|error| failed(error.into()))?;
            if roots.is_empty() {
                return Err(failed("the file contains no CA certificate".into()));
            }
            builder = builder.tls_certs_only(roots);
        }
        if let Some(token) = &otlp.token {
            let token = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()));
            let mut token = token.map_err(|_| ExportError::Token)?;
            // So that `Debug` of the client omits it.
            token.set_sensitive(true);
            builder = builder.default_headers(HeaderMap::from_iter([(header::AUTHORIZATION, token)]));
        }
        Ok(Self { client: builder.build()?, runtime: Handle::current() })
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let send = async move {
            let mut received = client.execute(request.try_into()?).await?;
            let mut body = Vec::new();
            while let Some(chunk) = received.chunk().await? {
                if body.len() + chunk.len() > MAX_RESPONSE {
                    return Err(HttpError::from("the collector response exceeds 64 KiB"));
                }
                body.extend_from_slice(&chunk);
            }
            let mut response = Response::new(Bytes::from(body));
            *response.status_mut() = received.status();
            *response.headers_mut() = received.headers().clone();
            Ok(response)
        };
        self.runtime.spawn(send).await?
    }
}

/// Wrapper that counts items: `made` in front of a queue, `sent` or `lost` behind it.
#[derive(Debug)]
struct Counted<T>(T);

/// Methods that only call the wrapped value.
macro_rules! delegate {
    () => {
        fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
            self.0.shutdown_with_timeout(timeout)
        }

        fn set_resource(&mut self, resource: &Resource) {
            self.0.set_resource(resource);
        }
    };
}

fn record_export(signal: &'static str, items: usize, outcome: &OTelSdkResult) {
    let outcome = if outcome.is_ok() { "sent" } else { "lost" };
    metrics::record_telemetry(signal, outcome, items);
}

impl SpanProcessor for Counted<BatchSpanProcessor> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.0.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            metrics::record_telemetry("spans", "made", 1);
        }
        self.0.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    delegate!();
}

impl trace::SpanExporter for Counted<SpanExporter> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let outcome = self.0.export(batch).await;
        record_export("spans", spans, &outcome);
        outcome
    }

    delegate!();
}

impl logs::LogExporter for Counted<LogExporter> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let records = batch.iter().count();
        let outcome = self.0.export(batch).await;
        record_export("logs", records, &outcome);
        outcome
    }

    delegate!();
}
