//! From hyper's request to poem's and back, with the body limited on the way.

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
use tower::{Layer, Service};
use tower_http::timeout::TimeoutBody;

use super::{
    Body,
    client::{Client, Connection},
    form,
    places::{Place, Places},
    proxies::Untraceable,
};
use crate::{
    api::HasBody,
    authn::Source,
    problem::{Kind, Problem, from_framework},
    settings::Http,
};

/// Makes a [`Bridge`] to an endpoint.
#[derive(Clone, Debug)]
pub(super) struct BridgeLayer {
    max_body: usize,
    body_timeout: Duration,
    /// One for each request in work.
    places: Arc<Places>,
}

impl BridgeLayer {
    pub(super) fn new(http: &Http) -> Self {
        let of_one_network = http.max_concurrent_requests.div_ceil(4);
        let places = Places::new(http.max_concurrent_requests, of_one_network);
        Self { max_body: http.max_body_bytes, body_timeout: http.body_timeout, places }
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
            let (request, _place) = match limits.to_poem(request) {
                Ok(request) => request,
                Err(problem) => return Ok(problem.into_response()),
            };
            let response = match endpoint.call(request).await {
                Ok(response) => response,
                Err(error) => return Ok(from_framework(error).into_response()),
            };
            let response: Response<BoxBody<Bytes, io::Error>> = response.into();
            Ok(response.map(Body::new))
        })
    }
}

impl BridgeLayer {
    /// The request as poem takes it, and its place among those in work.
    fn to_poem<B>(&self, request: Request<B>) -> Result<(poem::Request, Option<Place>), Problem>
    where
        B: HttpBody<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + Sync + 'static,
    {
        let (mut parts, body) = request.into_parts();
        if parts.extensions.get::<Untraceable>().is_some() {
            return Err(Problem::new(Kind::Malformed).detail("It cannot be told whom the request is from."));
        }
        form::check(&parts)?;
        let ends = (parts.extensions.get::<Client>().copied(), parts.extensions.remove::<Connection>());
        let (Some(client), Some(connection)) = ends else { return Err(Problem::new(Kind::Internal)) };
        let place = self.place(parts.uri.path(), client)?;
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
        Ok((poem::Request::from_parts(parts, poem::Body::from(BoxBody::new(limited))), place))
    }

    /// Sheds load: whoever would have to wait is told so at once, and what is in work gets done (RATE-09). Probes have no
    /// need of a place, or an orchestrator would stop a service because it is busy.
    fn place(&self, path: &str, client: Client) -> Result<Option<Place>, Problem> {
        if path.starts_with("/health/") {
            return Ok(None);
        }
        let busy = || Problem::new(Kind::Unavailable).detail("The service is busy.");
        self.places.take(Some(client.network())).map(Some).ok_or_else(busy)
    }
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
