use std::fmt;

use opentelemetry::{
    Context,
    trace::{SpanId, TraceContextExt as _},
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{IdGenerator, RandomIdGenerator},
};

use crate::crypto;

tokio::task_local! {
    /// The request, and whether it is traced.
    static CURRENT: (TraceId, bool);
}

/// The name of one request in traces, logs and problem bodies: 16 random bytes in the form of a
/// W3C Trace Context `trace-id` (32 lower-case hexadecimal digits).
///
/// Taken from a caller only if that is a service of one's own ([`Parent`]): a stranger could confuse two requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceId(String);

/// The span of another service in which a request is made (W3C Trace Context, section 3.2).
#[derive(Clone, Debug)]
pub(crate) struct Parent(Context);

impl Parent {
    /// What the headers say, if they say it well.
    pub(crate) fn of(headers: &http::HeaderMap) -> Option<Self> {
        // Two would be two parents, of which the library takes the first.
        let mut parents = headers.get_all("traceparent").iter();
        if parents.next().is_none() || parents.next().is_some() {
            return None;
        }
        let extractor = HeaderExtractor(headers);
        let context = opentelemetry::propagation::TextMapPropagator::extract_with_context(
            &TraceContextPropagator::new(),
            &Context::new(),
            &extractor,
        );
        let valid = context.span().span_context().is_valid();
        valid.then_some(Self(context))
    }

    pub(crate) fn trace_id(&self) -> TraceId {
        TraceId(self.0.span().span_context().trace_id().to_string())
    }

    /// Whether that service traces it.
    pub(super) fn is_sampled(&self) -> bool {
        self.0.span().span_context().is_sampled()
    }

    pub(super) fn into_context(self) -> Context {
        self.0
    }
}

impl TraceId {
    /// A new, random one.
    #[must_use]
    pub fn generate() -> Self {
        // Only a label: with a broken generator all requests share one, and nothing is less safe.
        let bytes: [u8; 16] = crypto::random().unwrap_or_default();
        Self(crypto::hex(&bytes))
    }

    /// The 32 hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Runs `work` as part of the request this names, which is traced or not.
    pub(crate) async fn scope<F: Future>(self, traced: bool, work: F) -> F::Output {
        CURRENT.scope((self, traced), work).await
    }

    /// The trace id of the request being served, if any is.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|(id, _)| id.clone()).ok()
    }

    /// Whether the request being served is traced, if any is.
    pub(crate) fn is_traced() -> bool {
        CURRENT.try_with(|(_, traced)| *traced).unwrap_or(false)
    }

    pub(super) fn to_otel(&self) -> opentelemetry::trace::TraceId {
        opentelemetry::trace::TraceId::from_hex(&self.0).unwrap_or(opentelemetry::trace::TraceId::INVALID)
    }
}

/// The trace of a request has the name that its log lines have.
#[derive(Debug, Default)]
pub(super) struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> opentelemetry::trace::TraceId {
        TraceId::current().map_or_else(|| self.0.new_trace_id(), |id| id.to_otel())
    }

    fn new_span_id(&self) -> SpanId {
        self.0.new_span_id()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
