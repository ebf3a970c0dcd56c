//! Security events of the services in this process, recorded by trace id.
//!
//! A `tracing` layer keeps every event of the target `security`.
//! [`Reply::events`](crate::Reply::events) returns those of one request.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{LazyLock, Mutex},
};

use tracing::{
    Event, Id, Subscriber,
    field::{Field, Visit},
    span::Attributes,
};
use tracing_subscriber::{
    Layer,
    filter::LevelFilter,
    layer::{Context, SubscriberExt as _},
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

/// The fields of one security event.
pub type Fields = BTreeMap<String, String>;

/// The recorded events, by trace id.
static EVENTS: LazyLock<Mutex<HashMap<String, Vec<Fields>>>> = LazyLock::new(Mutex::default);

/// Starts recording, once per process.
pub fn record() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // One filter for all layers: with a per-layer filter, the recorder loses the span of a
        // request that follows an event it filtered out.
        tracing_subscriber::registry().with(LevelFilter::INFO).with(Recorder).init();
    });
}

/// The events recorded during the request with this trace id; "" is for events outside any request.
pub fn for_trace_id(trace_id: &str) -> Vec<Fields> {
    EVENTS.lock().unwrap().get(trace_id).cloned().unwrap_or_default()
}

struct Recorder;

struct TraceId(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Collected::default();
        attributes.record(&mut fields);
        if let (Some(trace_id), Some(span)) = (fields.0.remove("trace_id"), context.span(id)) {
            span.extensions_mut().insert(TraceId(trace_id));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() != "security" {
            return;
        }
        let mut scope = context.event_scope(event).into_iter().flatten();
        let trace_id = scope.find_map(|span| span.extensions().get::<TraceId>().map(|id| id.0.clone()));
        let mut fields = Collected::default();
        event.record(&mut fields);
        EVENTS.lock().unwrap().entry(trace_id.unwrap_or_default()).or_default().push(fields.0);
    }
}

#[derive(Default)]
struct Collected(Fields);

impl Visit for Collected {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}
