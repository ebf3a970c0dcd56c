//! Converts hyper requests to poem requests and poem responses back; the innermost edge layer.
//!
//! Validates the request ([`request_validation`], INPUT-06), limits its body ([`request_body`],
//! INPUT-04) and its time, answers preflights ([`super::cors`]), and sheds load: concurrent requests and unread response bytes stay within
//! budgets (RATE-09). It also holds back delayed rejections, which slow down an attacker.

use std::{
    convert::Infallible,
    error::Error as StdError,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, header};
use http_body_util::combinators::BoxBody;
use hyper::body::{Body as HttpBody, Bytes};
use poem::{
    Endpoint, RequestParts,
    web::{LocalAddr, RemoteAddr},
};
use tokio::sync::Semaphore;
use tower::{Layer, Service};

use super::{
    Body,
    budget::{Budget, LimitKeys, Limits, Reservation},
    client::{ClientAddress, Connection, LimitKey},
    cors::Cors,
    proxies::InvalidForwardedHeader,
    request_body::{BodyWait, RequestBody},
    request_validation,
    unread::UnreadBody,
};
use crate::{
    authn::SourceNetwork,
    http::from_framework,
    problem::{Kind, Problem},
    settings::Http,
    telemetry::event,
};

/// Most rejections that are held back at once; further ones are sent immediately.
const MAX_DELAYED: usize = 64;

/// The limits that all requests of a listener share; wraps an endpoint into a [`PoemService`].
#[derive(Clone, Debug)]
pub(super) struct PoemLayer {
    max_body: usize,
    body_timeout: Duration,
    request_timeout: Duration,
    requests: Arc<Budget>,
    /// Bytes of responses that clients have not taken yet.
    unread_bytes: Arc<Budget>,
    delayed: Arc<Semaphore>,
    cors: Cors,
}

impl PoemLayer {
    pub(super) fn new(http: &Http, cors: Cors) -> Self {
        let limits = |total: usize, per_principal| Limits { total, per_network: total.div_ceil(4), per_principal };
        let requests = http.max_concurrent_requests;
        let bytes = http.max_unread_bytes;
        Self {
            max_body: http.max_body_bytes,
            body_timeout: http.body_timeout,
            request_timeout: http.request_timeout,
            requests: Budget::new(limits(requests, requests.div_ceil(16))),
            unread_bytes: Budget::new(limits(bytes, bytes.div_ceil(8))),
            delayed: Arc::new(Semaphore::new(MAX_DELAYED)),
            cors,
        }
    }
}

impl<E> Layer<Arc<E>> for PoemLayer {
    type Service = PoemService<E>;

    fn layer(&self, endpoint: Arc<E>) -> PoemService<E> {
        PoemService { endpoint, limits: self.clone() }
    }
}

/// A poem endpoint as a tower service.
#[derive(Debug)]
pub(super) struct PoemService<E> {
    endpoint: Arc<E>,
    limits: PoemLayer,
}

impl<E> Clone for PoemService<E> {
    fn clone(&self) -> Self {
        Self { endpoint: Arc::clone(&self.endpoint), limits: self.limits.clone() }
    }
}

impl<E, B> Service<Request<B>> for PoemService<E>
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
            let waits = BodyWait::default();
            let serve = pin!(limits.serve(endpoint.as_ref(), request, &waits));
            let response = tokio::time::timeout(limits.request_timeout, serve).await;
            Ok(response
                .unwrap_or_else(|_| {
                    // A client that trickles its body is at fault, not the service.
                    let kind = if waits.is_waiting() { Kind::RequestTimeout } else { Kind::Unavailable };
                    Err(Problem::new(kind))
                })
                .unwrap_or_else(Problem::into_response))
        })
    }
}

impl PoemLayer {
    async fn serve<E, B>(&self, endpoint: &E, request: Request<B>, waits: &BodyWait) -> Result<Response<Body>, Problem>
    where
        E: Endpoint<Output = poem::Response>,
        B: HttpBody<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + Sync + 'static,
    {
        let is_safe = request.method().is_safe();
        let (request, keys, reservation) = self.admit(request, waits)?;
        if let Some(response) = self.cors.preflight(request.method(), request.headers()) {
            return Ok(response);
        }
        let response = endpoint.call(request).await.map_err(from_framework)?;
        drop(reservation);
        Ok(self.convert_response(response, keys, is_safe).await)
    }

    /// Validates a request and reserves a slot for it. Returns the poem request, the keys that its
    /// response counts against, and the slot.
    fn admit<B>(
        &self,
        request: Request<B>,
        waits: &BodyWait,
    ) -> Result<(poem::Request, LimitKeys, Option<Reservation>), Problem>
    where
        B: HttpBody<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + Sync + 'static,
    {
        let (mut parts, body) = request.into_parts();
        if parts.extensions.get::<InvalidForwardedHeader>().is_some() {
            return Err(Problem::new(Kind::Malformed).detail("The proxy's forwarding header does not name the client."));
        }
        request_validation::check(&parts)?;
        let client = parts.extensions.get::<ClientAddress>().copied().ok_or_else(|| Problem::new(Kind::Internal))?;
        let connection = parts.extensions.remove::<Connection>().ok_or_else(|| Problem::new(Kind::Internal))?;
        let principal = parts.extensions.get().copied().filter(|key| matches!(key, LimitKey::Principal(_)));
        let keys = [Some(LimitKey::Network(client.network())), principal];
        let reservation = self.reserve_request(parts.uri.path(), keys)?;
        let declared = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|length| length > self.max_body as u64) {
            return Err(Problem::new(Kind::PayloadTooLarge));
        }
        parts.extensions.insert(SourceNetwork(client.network().address()));
        parts.extensions.insert(connection.info);
        let parts = RequestParts::from((
            parts,
            LocalAddr(connection.local.into()),
            RemoteAddr(connection.remote.into()),
            http::uri::Scheme::HTTP,
        ));
        let body = RequestBody::new(body, self.max_body, self.body_timeout, waits.clone());
        Ok((poem::Request::from_parts(parts, poem::Body::from(BoxBody::new(body))), keys, reservation))
    }

    /// The hyper response, with its body counted against the budget of unread bytes.
    ///
    /// Holds back a delayed rejection here, after the request slot was released.
    async fn convert_response(&self, response: poem::Response, keys: LimitKeys, is_safe: bool) -> Response<Body> {
        let delay = response.extensions().get::<Problem>().map(|problem| problem.delay).unwrap_or_default();
        if !delay.is_zero()
            && let Ok(_permit) = self.delayed.try_acquire()
        {
            tokio::time::sleep(delay).await;
        }
        let response: Response<BoxBody<Bytes, io::Error>> = response.into();
        let (parts, body) = response.into_parts();
        match UnreadBody::new(body, &self.unread_bytes, keys, is_safe) {
            Some(body) => Response::from_parts(parts, Body::new(body)),
            None => overloaded(keys, "unread_bytes", "This client has too many unread response bytes.").into_response(),
        }
    }

    /// Reserves a request slot. Load shedding: a request over the limit is rejected at once instead
    /// of queued, so that admitted requests finish (RATE-09).
    ///
    /// Health probes need no slot: an orchestrator would restart a service because it is busy.
    fn reserve_request(&self, path: &str, keys: LimitKeys) -> Result<Option<Reservation>, Problem> {
        if path.starts_with("/health/") {
            return Ok(None);
        }
        let reservation = self.requests.try_reserve(keys, 1);
        reservation.map(Some).ok_or_else(|| overloaded(keys, "requests", "Too many concurrent requests."))
    }
}

/// The problem of a caller that exceeds a budget.
fn overloaded(keys: LimitKeys, budget: &'static str, detail: &'static str) -> Problem {
    if let [Some(network), _] = keys {
        event::edge_budget_exceeded(network, budget);
    }
    Problem::new(Kind::Unavailable).detail(detail)
}
