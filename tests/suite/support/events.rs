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

/// By trace id.
static EVENTS: LazyLock<Mutex<HashMap<String, Vec<Fields>>>> = LazyLock::new(Mutex::default);

/// Keeps the security events of every request that this process serves from here on.
pub fn record() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // Of everything: a filter of the recorder's own loses the span of a request that follows an event it leaves out.
        tracing_subscriber::registry().with(LevelFilter::INFO).with(Recorder).init();
    });
}

/// What was said while the request of this trace id was served.
pub fn of(trace_id: &str) -> Vec<Fields> {
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
