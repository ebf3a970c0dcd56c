use std::{fmt, net::IpAddr};

use opentelemetry::{
    Context,
    context::FutureExt as _,
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceState},
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{IdGenerator, RandomIdGenerator},
};

use tracing::{Instrument as _, Span};

use super::trace::Traced;
use crate::crypto;

tokio::task_local! {
    static CURRENT: InRequest;
}

/// The request that is being served, for whatever is done in it, also after its answer has begun.
#[derive(Clone, Debug)]
pub(crate) struct InRequest {
    pub(crate) id: TraceId,
    /// The client's address, if it is known.
    pub(crate) client: Option<IpAddr>,
    /// What its log lines are in.
    pub(crate) lines: Span,
    /// What is sent of it.
    pub(crate) traced: Traced,
}

impl InRequest {
    /// The one being served, if any is.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Runs `work` as a part of the request.
    pub(crate) async fn scope<F: Future>(self, work: F) -> F::Output {
        let (lines, own, by_id) = (self.lines.clone(), self.traced.span(), self.traced.context());
        // The span takes the id when it is first entered.
        let work = CURRENT.scope(self, work.instrument(own).instrument(lines));
        match by_id {
            Some(context) => work.with_context(context).await,
            None => work.await,
        }
    }

    /// The same of something that takes no time.
    pub(crate) fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        let inside = || {
            let _by_id = self.traced.context().map(Context::attach);
            self.lines.in_scope(|| self.traced.span().in_scope(work))
        };
        CURRENT.sync_scope(self.clone(), inside)
    }
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
        let said = context.span().span_context().clone();
        if !said.is_valid() {
            return None;
        }
        // Its trace state is a text of the caller's, which would be sent with each span.
        let own = SpanContext::new(said.trace_id(), said.span_id(), said.trace_flags(), true, TraceState::NONE);
        Some(Self(Context::new().with_remote_span_context(own)))
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

    /// The trace id of the request being served, if any is.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|request| request.id.clone()).ok()
    }

    /// Whether the request being served is traced, if any is.
    pub(crate) fn is_traced() -> bool {
        CURRENT.try_with(|request| matches!(request.traced, Traced::By(_))).unwrap_or(false)
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
