//! Everything a stranger's bytes meet before a handler.
//!
//! [`serve`] accepts connections within a [`budget`], by TLS ([`tls`]) or in plain text, and ends those that are idle or
//! whose responses are not read ([`activity`]);
//! [`stack`] is the order of layers, outermost first:
//!
//! 1. [`context`]: whom it is from ([`proxies`]), trace id, log line, security headers, problems rendered (INPUT-08, LOG-04)
//! 2. panic fence: a panic is a 500 problem and the next request is served (FAIL-02)
//! 3. [`throttle`]: a bucket per client address, or caller who is known, before anything is parsed (RATE-01, RATE-06); or
//!    what an operator gave the address's range ([`ranges`], LOG-08)
//! 4. timeout of the whole request (RATE-09)
//! 5. [`form`]: one `Host`, a plain path, bounded headers; what HTTP lets be read in two ways is refused (INPUT-06)
//! 6. [`bridge`]: requests at once and unread bytes within a [`budget`] (RATE-09); body limit and body timeout, applied while
//!    reading (INPUT-04); then poem

mod activity;
mod bridge;
mod budget;
mod client;
mod context;
mod descriptors;
mod form;
mod listener;
mod proxies;
mod ranges;
mod throttle;
mod tls;
mod unread;

pub use descriptors::{TooFewDescriptors, provide as provide_descriptors};
pub use listener::{Door, Listener, serve};
pub use throttle::Recognise;
pub use tls::{Tls, TlsError};

use std::{any::Any, convert::Infallible, sync::Arc};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use poem::Endpoint;
use tower::{Service, ServiceBuilder};
use tower_http::{catch_panic::CatchPanicLayer, timeout::TimeoutLayer};

use crate::{
    measures::Measures,
    problem::{Kind, Problem},
    settings::Settings,
    telemetry::event,
};

/// The body of every response. The type is axum's because `tower_governor` answers with no other.
pub(crate) type Body = axum::body::Body;

/// The whole way of a request to a listener around `app`; `None` if the throttle would let nothing through.
pub fn stack<E>(
    app: E,
    door: Door,
    settings: &Settings,
    recognise: Recognise,
    measures: &Arc<Measures>,
) -> Option<impl EdgeService + use<E>>
where
    E: Endpoint<Output = poem::Response> + 'static,
{
    let http = &settings.http;
    let proxies = Arc::new(door.proxies(http));
    let public_url = http.public_url.as_ref();
    let secure = match door {
        Door::Public => settings.tls.is_some() || public_url.is_some_and(|url| url.scheme() == "https"),
        Door::Internal => true,
    };
    // A stranger could name the trace of somebody else; services of one's own have shown a certificate.
    let believes = door == Door::Internal;
    let throttle = throttle::layer(&settings.throttle)?;
    // Who shuts somebody out must not be shut out: ranges are the public listener's.
    let measures = (door == Door::Public).then(|| Arc::clone(measures));
    let rules = ranges::Rules { recognise, proxies: Arc::clone(&proxies), measures };
    let stack = ServiceBuilder::new()
        .layer_fn(move |inner| context::RequestContext::new(inner, Arc::clone(&proxies), secure, believes))
        .map_response(|response: Response<_>| response.map(Body::new))
        .layer(CatchPanicLayer::custom(panicked))
        .layer_fn(move |inner| ranges::Ranges::new(inner, &throttle, rules.clone()))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, http.request_timeout))
        .layer(bridge::BridgeLayer::new(http))
        .service(Arc::new(app));
    Some(stack)
}

/// What a connection is served with.
pub trait EdgeService:
    Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> EdgeService for S where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// What the panic says stays inside: it may quote anything.
fn panicked(_: Box<dyn Any + Send>) -> Response<Body> {
    event::sys_crash();
    Problem::new(Kind::Internal).into_response()
}
