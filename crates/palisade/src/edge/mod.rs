//! The edge: everything between the socket and the router.
//!
//! [`crate::app`] calls [`serve`], which accepts connections within a connection limit
//! ([`budget`]), with TLS ([`tls`]) or without. It closes connections that are idle or stalled
//! ([`activity`]). Each request passes the layers of [`stack`], outermost first:
//!
//! 1. [`context`]: client address behind trusted proxies ([`proxies`]), trace id, log line,
//!    security headers, permissions of [`cors`], problem bodies (INPUT-08, LOG-04)
//! 2. panic handler: a panic becomes a 500 problem, and the next request is served (FAIL-02)
//! 3. [`network_limits`]: the limit of an operator's override (LOG-08), else the rate limit per
//!    client address or cached caller ([`throttle`]), before parsing (RATE-01, RATE-06)
//! 4. [`poem_adapter`]: rejects ambiguous requests with [`request_validation`] (INPUT-06), limits
//!    concurrent requests and unread response bytes ([`budget`], RATE-09), limits the size and time
//!    of the body ([`request_body`], INPUT-04) and the time of the whole request, and calls poem

mod activity;
mod budget;
mod client;
mod context;
mod cors;
mod descriptors;
mod failures;
mod listener;
mod network_limits;
mod poem_adapter;
mod proxies;
mod request_body;
mod request_validation;
mod throttle;
mod tls;
mod unread;

pub use descriptors::{TooFewDescriptors, ensure_limit as ensure_descriptor_limit};
pub use listener::{Listener, ListenerKind, serve};
pub use throttle::CachedCallerLookup;
pub use tls::{Tls, TlsError};

use std::{any::Any, convert::Infallible, sync::Arc};

use http::{Request, Response};
use hyper::body::Incoming;
use poem::Endpoint;
use tower::{Service, ServiceBuilder};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    problem::{Kind, Problem},
    quota::Overrides,
    settings::Settings,
    telemetry::event,
};

/// The body of every response. `tower_governor` supports only the body type of axum.
pub(crate) type Body = axum::body::Body;

/// The layers around `app` for one listener.
///
/// Returns `None` if the settings of the rate limit would reject every request.
pub fn stack<E>(
    app: E,
    kind: ListenerKind,
    settings: &Settings,
    lookup_cached: CachedCallerLookup,
    overrides: &Arc<Overrides>,
) -> Option<impl EdgeService + use<E>>
where
    E: Endpoint<Output = poem::Response> + 'static,
{
    let http = &settings.http;
    let proxies = Arc::new(kind.trusted_proxies(http));
    let public_url = http.public_url.as_ref();
    let https = match kind {
        ListenerKind::Public => settings.tls.is_some() || public_url.is_some_and(|url| url.scheme() == "https"),
        ListenerKind::Internal => true,
    };
    // A public client could name the trace of another client. Internal services have presented a
    // certificate.
    let trusts_traceparent = kind == ListenerKind::Internal;
    let throttle = throttle::layer(&settings.throttle)?;
    // Operators must keep access while they block a network, so the internal listener has none.
    let overrides = (kind == ListenerKind::Public).then(|| Arc::clone(overrides));
    let rules = network_limits::Rules { lookup_cached, proxies: Arc::clone(&proxies), overrides };
    // Pages never call the internal listener.
    let cors = cors::Cors::new(if kind == ListenerKind::Public { &http.cors_origins } else { &[] });
    let poem = poem_adapter::PoemLayer::new(http, cors.clone());
    let stack = ServiceBuilder::new()
        .layer_fn(move |inner| {
            context::RequestContext::new(inner, Arc::clone(&proxies), cors.clone(), https, trusts_traceparent)
        })
        .map_response(|response: Response<_>| response.map(Body::new))
        .layer(CatchPanicLayer::custom(panic_response))
        .layer_fn(move |inner| network_limits::NetworkLimits::new(inner, &throttle, rules.clone()))
        .layer(poem)
        .service(Arc::new(app));
    Some(stack)
}

/// The service that handles all requests of a connection; every result of [`stack`] is one.
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

/// Drops the panic message, which may contain any data.
fn panic_response(_: Box<dyn Any + Send>) -> Response<Body> {
    event::sys_crash();
    Problem::new(Kind::Internal).into_response()
}
