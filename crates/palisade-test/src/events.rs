//! Security events of the services in this process, recorded by trace id.
//!
//! A `tracing` layer keeps every event of the target `security`.
//! [`Reply::events`](crate::Reply::events) returns those of one request.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{LazyLock, Mutex},
};

use palisade::telemetry::TraceId;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::LevelFilter,
    layer::{Context, SubscriberExt as _},
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
        tracing_subscriber::registry().with(LevelFilter::INFO).with(Recorder).init();
    });
}

/// The events recorded during the request with this trace id; "" is for events outside any request.
pub fn for_trace_id(trace_id: &str) -> Vec<Fields> {
    EVENTS.lock().unwrap().get(trace_id).cloned().unwrap_or_default()
}

struct Recorder;

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != "security" {
            return;
        }
        let trace_id = TraceId::current().map(|id| id.to_string()).unwrap_or_default();
        let mut fields = Collected::default();
        event.record(&mut fields);
        EVENTS.lock().unwrap().entry(trace_id).or_default().push(fields.0);
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
