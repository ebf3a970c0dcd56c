//! Selects the rate limit of a request: an operator's override for its network (LOG-08), else the
//! per-address rate limit of [`throttle`](super::throttle) (RATE-01).
//!
//! Adds the [`LimitKey`] to the request: a cached principal, a health probe of a trusted proxy, an
//! unidentified client of a proxy, or the network of the client (RATE-06, RATE-07).

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
    client::{ClientAddress, Connection, LimitKey},
    proxies::{InvalidForwardedHeader, TrustedProxies},
    throttle::{self, CachedCallerLookup, CountedCaller, Level, ThrottleLayer},
};
use crate::{authn::RequestCredentials, quota::Overrides};

fn is_health_probe<B>(request: &Request<B>) -> bool {
    matches!(request.uri().path(), "/health/live" | "/health/ready")
}

/// The sources of the selection.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) lookup_cached: CachedCallerLookup,
    pub(super) proxies: Arc<TrustedProxies>,
    /// `None` on the internal listener: network limits do not apply there.
    pub(super) overrides: Option<Arc<Overrides>>,
}

/// The inner service, with and without the per-address rate limit.
#[derive(Clone)]
pub(super) struct NetworkLimits<T, S> {
    throttled: T,
    inner: S,
    rules: Rules,
}

impl<S: Clone> NetworkLimits<<ThrottleLayer as Layer<S>>::Service, S>
where
    ThrottleLayer: Layer<S>,
{
    pub(super) fn new(inner: S, throttle: &ThrottleLayer, rules: Rules) -> Self {
        Self { throttled: throttle.layer(inner.clone()), inner, rules }
    }
}

impl Rules {
    /// The key that limits count the request by. `None` without a connection; the rate limit
    /// rejects it.
    fn limit_key<B>(&self, request: &Request<B>) -> Option<LimitKey> {
        let extensions = request.extensions();
        if let Some(InvalidForwardedHeader { proxy }) = extensions.get() {
            return Some(LimitKey::Unidentified(*proxy));
        }
        let client = extensions.get::<ClientAddress>()?;
        let connection = &extensions.get::<Connection>()?.info;
        if is_health_probe(request) && self.proxies.contains(client.0) {
            return Some(LimitKey::Probe(client.0));
        }
        let caller = (self.lookup_cached)(RequestCredentials {
            headers: request.headers(),
            method: request.method(),
            uri: request.uri(),
            connection,
        });
        let Some(caller) = caller else { return Some(LimitKey::Network(client.network())) };
        let key = LimitKey::Principal(caller.hash);
        if let Some(counted) = extensions.get::<CountedCaller>() {
            // Set once: this function runs once for each request.
            let _ = counted.set(caller);
        }
        Some(key)
    }
}

impl<T, S, B> Service<Request<B>> for NetworkLimits<T, S>
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

    /// An override limits all callers of a network, cached callers included: their credentials may
    /// be stolen. It does not limit health probes: an orchestrator would restart the service
    /// because of other clients in its network. Probes of a trusted proxy itself have a separate
    /// bucket.
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let client = request.extensions().get::<ClientAddress>().copied();
        if let Some(key) = self.rules.limit_key(&request) {
            request.extensions_mut().insert(key);
        }
        let override_result = client
            .filter(|_| !is_health_probe(&request))
            .zip(self.rules.overrides.as_ref())
            .and_then(|(client, overrides)| overrides.check_network(client.0, client.network()));
        match override_result {
            None => Either::Left(self.throttled.call(request)),
            Some(Ok(())) => Either::Right(Either::Left(self.inner.call(request))),
            Some(Err((wait, factor))) => {
                let seconds = u64::try_from(wait.as_millis().div_ceil(1_000).max(1)).unwrap_or(u64::MAX);
                Either::Right(Either::Right(ready(Ok(throttle::too_many_requests(
                    seconds,
                    Level { factor, is_override: true },
                )))))
            }
        }
    }
}
