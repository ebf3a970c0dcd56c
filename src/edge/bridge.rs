//! From hyper's request to poem's and back, with what is in work and what is unread limited on the way.

use std::{
    convert::Infallible,
    error::Error as StdError,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited, combinators::BoxBody};
use hyper::body::{Body as HttpBody, Bytes};
use poem::{
    Endpoint, RequestParts,
    web::{LocalAddr, RemoteAddr},
};
use tokio::sync::Semaphore;
use tower::{Layer, Service};
use tower_http::timeout::TimeoutBody;

use super::{
    Body,
    budget::{Budget, Callers, Limits, Share},
    client::{Caller, Client, Connection},
    form,
    proxies::Untraceable,
    unread::Unread,
};
use crate::{
    api::HasBody,
    authn::Source,
    problem::{Kind, Problem, from_framework},
    settings::Http,
    telemetry::event,
};

/// Most refusals that are held back at once; further ones are given immediately.
const MAX_DELAYED: usize = 64;

/// Makes a [`Bridge`] to an endpoint.
#[derive(Clone, Debug)]
pub(super) struct BridgeLayer {
    max_body: usize,
    body_timeout: Duration,
    /// Requests in work.
    in_work: Arc<Budget>,
    /// Bytes of responses that clients have not taken yet.
    unread: Arc<Budget>,
    delayed: Arc<Semaphore>,
}

impl BridgeLayer {
    pub(super) fn new(http: &Http) -> Self {
        let quarter = |total: usize, per_principal| Limits { total, per_network: total.div_ceil(4), per_principal };
        let (requests, bytes) = (http.max_concurrent_requests, http.max_unread_bytes);
        Self {
            max_body: http.max_body_bytes,
            body_timeout: http.body_timeout,
            in_work: Budget::new(quarter(requests, requests.div_ceil(16))),
            unread: Budget::new(quarter(bytes, bytes.div_ceil(8))),
            delayed: Arc::new(Semaphore::new(MAX_DELAYED)),
        }
    }
}

impl<E> Layer<Arc<E>> for BridgeLayer {
    type Service = Bridge<E>;

    fn layer(&self, endpoint: Arc<E>) -> Bridge<E> {
        Bridge { endpoint, limits: self.clone() }
    }
}

/// A poem endpoint as a tower service.
#[derive(Debug)]
pub(super) struct Bridge<E> {
    endpoint: Arc<E>,
    limits: BridgeLayer,
}

impl<E> Clone for Bridge<E> {
    fn clone(&self) -> Self {
        Self { endpoint: Arc::clone(&self.endpoint), limits: self.limits.clone() }
    }
}

impl<E, B> Service<Request<B>> for Bridge<E>
where
    E: Endpoint<Output = poem::Response> + 'static,
    B: HttpBody<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + Sync + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let endpoint = Arc::clone(&self.endpoint);
        let limits = self.limits.clone();
        Box::pin(async move {
            let is_safe = request.method().is_safe();
            let (request, callers, in_work) = match limits.to_poem(request) {
                Ok(taken) => taken,
                Err(problem) => return Ok(problem.into_response()),
            };
            let response = match endpoint.call(request).await {
                Ok(response) => response,
                Err(error) => return Ok(from_framework(error).into_response()),
            };
            drop(in_work);
            Ok(limits.respond(response, callers, is_safe).await)
        })
    }
}

impl BridgeLayer {
    /// The request as poem takes it, the callers it counts for, and its share of what may be in work.
    fn to_poem<B>(&self, request: Request<B>) -> Result<(poem::Request, Callers, Option<Share>), Problem>
    where
        B: HttpBody<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + Sync + 'static,
    {
        let (mut parts, body) = request.into_parts();
        if parts.extensions.get::<Untraceable>().is_some() {
            return Err(Problem::new(Kind::Malformed).detail("The proxy's header does not name the client."));
        }
        form::check(&parts)?;
        let ends = (parts.extensions.get::<Client>().copied(), parts.extensions.remove::<Connection>());
        let (Some(client), Some(connection)) = ends else { return Err(Problem::new(Kind::Internal)) };
        let principal = parts.extensions.get().copied().filter(|caller| matches!(caller, Caller::Principal(_)));
        let callers = [Some(Caller::Network(client.network())), principal];
        let in_work = self.begin(parts.uri.path(), callers)?;
        if !body.is_end_stream() {
            parts.extensions.insert(HasBody);
        }
        let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > self.max_body as u64) {
            return Err(Problem::new(Kind::PayloadTooLarge));
        }
        parts.extensions.insert(Source(client.network()));
        parts.extensions.insert(connection.peer);
        let parts = RequestParts::from((
            parts,
            LocalAddr(connection.local.into()),
            RemoteAddr(connection.remote.into()),
            http::uri::Scheme::HTTP,
        ));
        // What was announced is not trusted: the limit counts the bytes that come.
        let timed = Box::pin(TimeoutBody::new(self.body_timeout, body));
        let limited = Limited::new(timed, self.max_body).map_err(body_error);
        Ok((poem::Request::from_parts(parts, poem::Body::from(BoxBody::new(limited))), callers, in_work))
    }

    /// The response, within the budget of unread bytes. A refusal that slows an attacker down is held
    /// back here, where the request is no longer in work.
    async fn respond(&self, response: poem::Response, callers: Callers, is_safe: bool) -> Response<Body> {
        let delay = response.extensions().get::<Problem>().map(Problem::delay).unwrap_or_default();
        if !delay.is_zero()
            && let Ok(_held_back) = self.delayed.try_acquire()
        {
            tokio::time::sleep(delay).await;
        }
        let response: Response<BoxBody<Bytes, io::Error>> = response.into();
        let (parts, body) = response.into_parts();
        match Unread::new(body, &self.unread, callers, is_safe) {
            Some(body) => Response::from_parts(parts, Body::new(body)),
            None => busy(callers, "unread_bytes", "Too many responses of this client are unread.").into_response(),
        }
    }

    /// Sheds load: a request that would have to wait is refused at once, and what is in work gets done
    /// (RATE-09). Probes do not count, or an orchestrator would stop a service because it is busy.
    fn begin(&self, path: &str, callers: Callers) -> Result<Option<Share>, Problem> {
        if path.starts_with("/health/") {
            return Ok(None);
        }
        let share = self.in_work.take(callers, 1);
        share.map(Some).ok_or_else(|| busy(callers, "requests", "The service is busy."))
    }
}

/// The answer to a caller that used up its part of a budget.
fn busy(callers: Callers, budget: &'static str, detail: &'static str) -> Problem {
    if let [Some(network), _] = callers {
        event::refused(network, budget);
    }
    Problem::new(Kind::Unavailable).detail(detail)
}

/// Keeps the reason in the kind of the error, which is what [`from_framework`] reads.
fn body_error(error: Box<dyn StdError + Send + Sync>) -> io::Error {
    let kind = if error.is::<LengthLimitError>() {
        io::ErrorKind::FileTooLarge
    } else if error.is::<tower_http::timeout::TimeoutError>() {
        io::ErrorKind::TimedOut
    } else {
        io::ErrorKind::ConnectionAborted
    };
    io::Error::new(kind, error)
}
