//! An OpenTelemetry collector for tests ([`Collector`]): receives OTLP over HTTP and keeps it.
//!
//! The service sends traces, metrics and log records to it; tests read them back as spans, records
//! and metric values, or search the raw bodies for secrets.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    metrics::v1::{metric::Data, number_data_point},
};
use poem::{
    Body, EndpointExt as _, Request, Response, Route, Server, handler,
    http::StatusCode,
    listener::TcpAcceptor,
    post,
    web::{Data as State, Path},
};
use tokio::{net::TcpListener, sync::watch};

/// A collector on its own port.
pub struct Collector {
    /// The address that it listens on.
    pub address: SocketAddr,
    received: Arc<Received>,
}

struct Received {
    silent: watch::Sender<bool>,
    messages: Mutex<Vec<Message>>,
}

/// One export request.
struct Message {
    signal: String,
    body: Vec<u8>,
    authorization: Option<String>,
}

/// The fields of a span that tests assert on.
#[derive(Clone, Debug)]
pub struct Span {
    /// Id of the trace, in hexadecimal.
    pub trace_id: String,
    /// Id of the span, in hexadecimal.
    pub id: String,
    /// Id of the parent span, empty for a root.
    pub parent: String,
    /// `tracestate` (W3C Trace Context), which travels from service to service.
    pub state: String,
    /// Name of the span.
    pub name: String,
    /// 2 is a server span, 3 a client span (OTLP `SpanKind`).
    pub kind: i32,
    /// Attributes as text.
    pub attributes: BTreeMap<String, String>,
    /// Whether its status is an error.
    pub failed: bool,
}

/// A log record.
#[derive(Clone, Debug)]
pub struct Record {
    /// Id of the trace, empty outside a request.
    pub trace_id: String,
    /// Attributes as text.
    pub attributes: BTreeMap<String, String>,
}

/// A data point of a metric: the sum of a counter, the value of a gauge or the count of a
/// histogram.
#[derive(Clone, Debug)]
pub struct Point {
    pub metric: String,
    pub labels: BTreeMap<String, String>,
    pub value: u64,
}

impl Collector {
    /// Starts a collector that accepts everything.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Received { silent: watch::Sender::new(false), messages: Mutex::default() });
        let app = Route::new().at("/v1/:signal", post(receive)).data(Arc::clone(&received));
        let acceptor = TcpAcceptor::from_tokio(listener).unwrap();
        tokio::spawn(async move { Server::new_with_acceptor(acceptor).run(app).await.unwrap() });
        Self { address, received }
    }

    /// Base URL, as `APP_OTLP__ENDPOINT` takes it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// While silent, accepts connections and requests but sends no response.
    pub fn set_silent(&self, silent: bool) {
        self.received.silent.send_replace(silent);
    }

    /// The bodies of all messages.
    pub fn bodies(&self) -> Vec<Vec<u8>> {
        self.received.messages.lock().unwrap().iter().map(|message| message.body.clone()).collect()
    }

    /// The `Authorization` of each message.
    pub fn authorizations(&self) -> Vec<Option<String>> {
        self.received.messages.lock().unwrap().iter().map(|message| message.authorization.clone()).collect()
    }

    fn decoded<M: prost::Message + Default>(&self, signal: &str) -> Vec<M> {
        let messages = self.received.messages.lock().unwrap();
        let matching = messages.iter().filter(|message| message.signal == signal);
        matching.map(|message| M::decode(&message.body[..]).expect("the body is OTLP")).collect()
    }

    /// All spans received so far.
    pub fn spans(&self) -> Vec<Span> {
        let resources = self.decoded::<ExportTraceServiceRequest>("traces").into_iter().flat_map(|m| m.resource_spans);
        let spans = resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        let span = |span: opentelemetry_proto::tonic::trace::v1::Span| Span {
            trace_id: palisade::crypto::hex(&span.trace_id),
            id: palisade::crypto::hex(&span.span_id),
            parent: palisade::crypto::hex(&span.parent_span_id),
            state: span.trace_state,
            name: span.name,
            kind: span.kind,
            attributes: attributes(span.attributes),
            failed: span.status.is_some_and(|status| status.code == 2),
        };
        spans.map(span).collect()
    }

    /// All log records received so far.
    pub fn records(&self) -> Vec<Record> {
        let resources = self.decoded::<ExportLogsServiceRequest>("logs").into_iter().flat_map(|m| m.resource_logs);
        let records = resources.flat_map(|resource| resource.scope_logs).flat_map(|scope| scope.log_records);
        let record = |record: opentelemetry_proto::tonic::logs::v1::LogRecord| Record {
            trace_id: palisade::crypto::hex(&record.trace_id),
            attributes: attributes(record.attributes),
        };
        records.map(record).collect()
    }

    /// All data points, in order of arrival.
    pub fn points(&self) -> Vec<Point> {
        let resources =
            self.decoded::<ExportMetricsServiceRequest>("metrics").into_iter().flat_map(|m| m.resource_metrics);
        let metrics = resources.flat_map(|resource| resource.scope_metrics).flat_map(|scope| scope.metrics);
        let mut points = Vec::new();
        for metric in metrics {
            let mut add = |labels, value| {
                points.push(Point { metric: metric.name.clone(), labels: attributes(labels), value });
            };
            let number = |value: Option<number_data_point::Value>| match value {
                Some(number_data_point::Value::AsInt(value)) => value.unsigned_abs(),
                _ => 0,
            };
            match metric.data {
                Some(Data::Sum(sum)) => sum.data_points.into_iter().for_each(|p| add(p.attributes, number(p.value))),
                Some(Data::Gauge(gauge)) => {
                    gauge.data_points.into_iter().for_each(|p| add(p.attributes, number(p.value)));
                }
                Some(Data::Histogram(histogram)) => {
                    histogram.data_points.into_iter().for_each(|p| add(p.attributes, p.count));
                }
                _ => {}
            }
        }
        points
    }

    /// The latest value of a metric with these labels; 0 if there is none.
    pub fn latest(&self, metric: &str, labels: &[(&str, &str)]) -> u64 {
        let matches = |point: &&Point| {
            point.metric == metric
                && labels.iter().all(|(name, value)| point.labels.get(*name).is_some_and(|v| v == value))
        };
        self.points().iter().rfind(matches).map_or(0, |point| point.value)
    }
}

fn attributes(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    attributes.into_iter().map(|attribute| (attribute.key, text(attribute.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

#[handler]
async fn receive(
    State(received): State<&Arc<Received>>,
    Path(signal): Path<String>,
    request: &Request,
    body: Body,
) -> Response {
    let authorization = request.header("authorization").map(str::to_owned);
    let body = body.into_vec().await.unwrap();
    let mut silent = received.silent.subscribe();
    if *silent.borrow_and_update() {
        // By the time this collector responds again, the client has timed out.
        let _ = silent.wait_for(|silent| !silent).await;
        return StatusCode::SERVICE_UNAVAILABLE.into();
    }
    received.messages.lock().unwrap().push(Message { signal, body, authorization });
    StatusCode::OK.into()
}
