//! Finds which limit a request has: that of an address range that an operator set (LOG-08), or the
//! [`throttle`](super::throttle).

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::Either;
use http::{Request, Response};
use tower::{Layer, Service};

use super::{
    Body,
    client::{Caller, Client, Connection},
    proxies::{Proxies, Untraceable},
    throttle::{self, Recognise, ThrottleLayer},
};
use crate::{authn::Shown, measures::Measures};

fn is_probe<B>(request: &Request<B>) -> bool {
    matches!(request.uri().path(), "/health/live" | "/health/ready")
}

/// What decides which limit a request has.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) recognise: Recognise,
    pub(super) proxies: Arc<Proxies>,
    /// None: no range counts here.
    pub(super) measures: Option<Arc<Measures>>,
}

/// With the usual throttle, and without it.
#[derive(Clone)]
pub(super) struct Ranges<T, S> {
    throttled: T,
    inner: S,
    rules: Rules,
}

impl<S: Clone> Ranges<<ThrottleLayer as Layer<S>>::Service, S>
where
    ThrottleLayer: Layer<S>,
{
    pub(super) fn new(inner: S, throttle: &ThrottleLayer, rules: Rules) -> Self {
        Self { throttled: throttle.layer(inner.clone()), inner, rules }
    }
}

impl Rules {
    /// What the request counts as. `None` without a connection; the throttle refuses it then.
    fn caller<B>(&self, request: &Request<B>) -> Option<Caller> {
        let extensions = request.extensions();
        if let Some(Untraceable(proxy)) = extensions.get() {
            return Some(Caller::Untraceable(*proxy));
        }
        let (client, connection) = (extensions.get::<Client>()?, extensions.get::<Connection>()?);
        if is_probe(request) && self.proxies.trusts(client.0) {
            return Some(Caller::Probe(client.0));
        }
        let query = request.uri().query().unwrap_or_default();
        let principal = (self.recognise)(Shown { headers: request.headers(), query, peer: &connection.peer });
        Some(principal.map_or_else(|| Caller::Network(client.network()), Caller::Principal))
    }
}

impl<T, S, B> Service<Request<B>> for Ranges<T, S>
where
    T: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<T::Future, Either<S::Future, Ready<Result<Self::Response, Infallible>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        std::task::ready!(self.throttled.poll_ready(cx))?;
        self.inner.poll_ready(cx)
    }

    /// An operator's limit holds for all of a network, recognised callers included: a credential may
    /// be stolen there. Probes have none, or an orchestrator would stop a service because of its
    /// neighbours; and probes that a declared proxy makes itself have a bucket of their own.
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let client = request.extensions().get::<Client>().copied();
        if let Some(caller) = self.rules.caller(&request) {
            request.extensions_mut().insert(caller);
        }
        let limited = client
            .filter(|_| !is_probe(&request))
            .zip(self.rules.measures.as_ref())
            .and_then(|(client, measures)| measures.take(client.0.to_canonical(), client.network()));
        match limited {
            None => Either::Left(self.throttled.call(request)),
            Some(Ok(())) => Either::Right(Either::Left(self.inner.call(request))),
            Some(Err(wait)) => {
                let seconds = u64::try_from(wait.as_millis().div_ceil(1_000).max(1)).unwrap_or(u64::MAX);
                Either::Right(Either::Right(ready(Ok(throttle::used_up(seconds)))))
            }
        }
    }
}
