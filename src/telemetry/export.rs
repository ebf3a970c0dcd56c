//! Sends spans, metrics and log records to a collector by OTLP over HTTP (LOG-03, LOG-04).
//!
//! Nothing of it is in the way of a request: what cannot be sent waits in queues of bounded length, and what finds them
//! full is lost and counted. Each queue has a thread of its own.

use std::{error::Error as StdError, fmt, path::PathBuf, time::Duration};

use async_trait::async_trait;
use http::{HeaderValue, Request, Response, header};
use opentelemetry::{InstrumentationScope, trace::TracerProvider as _};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    logs::{self, BatchLogProcessor, LogBatch, LogProcessor, SdkLogRecord, SdkLoggerProvider},
    metrics::PeriodicReader,
    trace::{self, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanProcessor},
};
use reqwest::{Certificate, Client, redirect};
use secrecy::ExposeSecret as _;
use thiserror::Error;
use tokio::runtime::Handle;

use super::{
    metrics::{self, Fate},
    trace as trace_spans,
    trace_id::Ids,
};
use crate::settings::Otlp;

/// Most spans, and most log records, that wait; about a kilobyte each.
const QUEUE: usize = 16_384;
/// Most of them in one message.
const BATCH: usize = 2_048;
/// How long they wait for others to go with.
const DELAY: Duration = Duration::from_secs(1);
/// Longest answer of a collector that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// How long a service that stops waits for the collector.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Why nothing can be sent.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The authorities of the collector's certificate cannot be read.
    #[error("{}", .0.display())]
    Authorities(PathBuf, #[source] Box<dyn StdError + Send + Sync>),
    /// The token cannot be sent.
    #[error("the collector's token has characters that no header can have")]
    Token,
    /// There is no client.
    #[error("there is no client for the collector")]
    Client(#[from] reqwest::Error),
    /// A part of the library cannot be made.
    #[error(transparent)]
    Exporter(#[from] ExporterBuildError),
}

/// What is to be sent before the process ends.
#[must_use = "what waits to be sent is lost without `finish`"]
#[derive(Debug)]
pub(super) struct Exporting {
    tracers: SdkTracerProvider,
    loggers: SdkLoggerProvider,
}

/// The layers of the log that send.
pub(super) struct Layers {
    pub(super) tracer: SdkTracer,
    pub(super) bridge: OpenTelemetryTracingBridge<SdkLoggerProvider, logs::SdkLogger>,
    pub(super) exporting: Exporting,
}

impl Exporting {
    /// Sends what waits, for three seconds at most.
    pub(super) async fn finish(self) {
        let (done, is_done) = tokio::sync::oneshot::channel();
        // In threads that nobody waits for longer: some of these take no limit. What fails was counted, and there is nobody
        // left to tell.
        std::thread::spawn(move || {
            let (tracers, loggers) = (self.tracers, self.loggers);
            let others = [
                std::thread::spawn(move || drop(tracers.shutdown_with_timeout(LAST_WORDS))),
                std::thread::spawn(move || drop(loggers.shutdown_with_timeout(LAST_WORDS))),
            ];
            metrics::finish(LAST_WORDS);
            for other in others {
                drop(other.join());
            }
            let _ = done.send(());
        });
        let _ = tokio::time::timeout(LAST_WORDS, is_done).await;
    }
}

/// Begins to send to the collector of these settings.
pub(super) fn start(otlp: &Otlp) -> Result<Layers, ExportError> {
    let collector = Collector::new(otlp)?;
    let resource = resource();
    let to = |signal: &str| {
        let base = otlp.endpoint.as_str().trim_end_matches('/');
        format!("{base}/v1/{signal}")
    };
    let spans = SpanExporter::builder().with_http().with_http_client(collector.clone()).with_endpoint(to("traces"));
    let spans = Counted(spans.with_timeout(otlp.timeout).build()?);
    let batches = trace::BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(DELAY);
    let spans = BatchSpanProcessor::builder(spans).with_batch_config(batches.build()).build();
    let tracers = SdkTracerProvider::builder()
        .with_span_processor(Counted(spans))
        .with_id_generator(Ids::default())
        // What is not to be sampled gets no span.
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(resource.clone())
        .build();
    let records = LogExporter::builder().with_http().with_http_client(collector.clone()).with_endpoint(to("logs"));
    let records = Counted(records.with_timeout(otlp.timeout).build()?);
    let batches = logs::BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(DELAY);
    let records = BatchLogProcessor::builder(records).with_batch_config(batches.build()).build();
    let loggers = SdkLoggerProvider::builder().with_log_processor(Counted(records)).with_resource(resource).build();
    let numbers = MetricExporter::builder().with_http().with_http_client(collector).with_endpoint(to("metrics"));
    let numbers = numbers.with_timeout(otlp.timeout).build()?;
    metrics::start(Some(PeriodicReader::builder(numbers).with_interval(otlp.metrics_every).build()));
    trace_spans::begin(otlp.sample_ratio);
    Ok(Layers {
        tracer: tracers.tracer(env!("CARGO_PKG_NAME")),
        bridge: OpenTelemetryTracingBridge::new(&loggers),
        exporting: Exporting { tracers, loggers },
    })
}

/// Who says all this.
pub(super) fn resource() -> Resource {
    Resource::builder_empty()
        .with_attribute(opentelemetry::KeyValue::new("service.name", env!("CARGO_PKG_NAME")))
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build()
}

/// The collector, asked from the service's own runtime whatever thread it is that waits.
#[derive(Clone)]
struct Collector {
    client: Client,
    token: Option<HeaderValue>,
    runtime: Handle,
}

impl Collector {
    fn new(otlp: &Otlp) -> Result<Self, ExportError> {
        let mut builder = Client::builder()
            // The token is for that address and no other.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(otlp.timeout)
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &otlp.authorities {
            let unreadable = |error: Box<dyn StdError + Send + Sync>| ExportError::Authorities(path.clone(), error);
            let pem = std::fs::read(path).map_err(|error| unreadable(error.into()))?;
            let roots = Certificate::from_pem_bundle(&pem).map_err(|error| unreadable(error.into()))?;
            if roots.is_empty() {
                return Err(unreadable("holds no certificate of an authority".into()));
            }
            builder = builder.tls_certs_only(roots);
        }
        let token = otlp.token.as_ref().map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))?;
            value.set_sensitive(true);
            Ok::<_, header::InvalidHeaderValue>(value)
        });
        let token = token.transpose().map_err(|_| ExportError::Token)?;
        Ok(Self { client: builder.build()?, token, runtime: Handle::current() })
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        if let Some(token) = &self.token {
            request.headers_mut().insert(header::AUTHORIZATION, token.clone());
        }
        let client = self.client.clone();
        let ask = async move {
            let mut answer = client.execute(request.try_into()?).await?;
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await? {
                if body.len() + chunk.len() > MAX_ANSWER {
                    return Err(HttpError::from("the collector's answer is too long"));
                }
                body.extend_from_slice(&chunk);
            }
            let mut response = Response::new(Bytes::from(body));
            *response.status_mut() = answer.status();
            *response.headers_mut() = answer.headers().clone();
            Ok(response)
        };
        self.runtime.spawn(ask).await?
    }
}

/// Without the token.
impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

/// Counts what passes: what is made before the queue, and what was sent or lost behind it.
#[derive(Debug)]
struct Counted<T>(T);

/// The methods that are those of what is inside.
macro_rules! as_inside {
    (flush) => {
        fn force_flush(&self) -> OTelSdkResult {
            self.0.force_flush()
        }

        as_inside!();
    };
    () => {
        fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
            self.0.shutdown_with_timeout(timeout)
        }

        fn set_resource(&mut self, resource: &Resource) {
            self.0.set_resource(resource);
        }
    };
}

fn count(signal: &'static str, items: usize, outcome: &OTelSdkResult) {
    let outcome = if outcome.is_ok() { Fate::Sent } else { Fate::Lost };
    metrics::telemetry(signal, outcome, items);
}

impl SpanProcessor for Counted<BatchSpanProcessor> {
    fn on_start(&self, span: &mut Span, context: &opentelemetry::Context) {
        self.0.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            metrics::telemetry("spans", Fate::Made, 1);
        }
        self.0.on_end(span);
    }

    as_inside!(flush);
}

impl trace::SpanExporter for Counted<SpanExporter> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let outcome = self.0.export(batch).await;
        count("spans", spans, &outcome);
        outcome
    }

    as_inside!();
}

impl LogProcessor for Counted<BatchLogProcessor> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        metrics::telemetry("logs", Fate::Made, 1);
        self.0.emit(record, scope);
    }

    as_inside!(flush);
}

impl logs::LogExporter for Counted<LogExporter> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let records = batch.iter().count();
        let outcome = self.0.export(batch).await;
        count("logs", records, &outcome);
        outcome
    }

    as_inside!();
}
