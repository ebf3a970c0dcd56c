//! Ranges of addresses that an operator gave a limit of their own, in place of the [`throttle`](super::throttle) (LOG-08).

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
    client::Client,
    throttle::{self, ThrottleLayer},
};
use crate::measures::Measures;

/// With the usual throttle, and without it.
#[derive(Clone)]
pub(super) struct Ranges<T, S> {
    throttled: T,
    inner: S,
    /// None: no range counts here.
    measures: Option<Arc<Measures>>,
}

impl<S: Clone> Ranges<<ThrottleLayer as Layer<S>>::Service, S>
where
    ThrottleLayer: Layer<S>,
{
    pub(super) fn new(inner: S, throttle: &ThrottleLayer, measures: Option<Arc<Measures>>) -> Self {
        Self { throttled: throttle.layer(inner.clone()), inner, measures }
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

    /// Everybody in a network has its limit, also who is known: somebody there may have stolen what they are known by. Probes
    /// have none, or an orchestrator would stop a service because of who else is near.
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let probe = request.uri().path().starts_with("/health/");
        let client = request.extensions().get::<Client>().filter(|_| !probe);
        let taken = client
            .zip(self.measures.as_ref())
            .and_then(|(client, measures)| measures.take(client.0.to_canonical(), client.network()));
        match taken {
            None => Either::Left(self.throttled.call(request)),
            Some(Ok(())) => Either::Right(Either::Left(self.inner.call(request))),
            Some(Err(wait)) => {
                let seconds = u64::try_from(wait.as_millis().div_ceil(1_000).max(1)).unwrap_or(u64::MAX);
                Either::Right(Either::Right(ready(Ok(throttle::used_up(seconds)))))
            }
        }
    }
}
