//! Accepts connections and closes those that are silent, idle, stalled or too old (RATE-09,
//! INPUT-04).
//!
//! [`serve`] runs once for each listener. It enforces the connection limits, does the TLS
//! handshake, and passes each request to the layers of [`super::stack`]. Plain HTTP over a network
//! is for trusted proxies only (CRYPTO-01). A stop signal ends it after the requests in flight
//! (FAIL-03).

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::interval,
};
use tokio_rustls::server::TlsStream;
use tower::ServiceExt as _;

use super::{
    EdgeService,
    activity::{Activity, Status, TrackedSocket},
    budget::{Budget, Limits},
    client::{ClientAddress, Connection, LimitKey},
    failures::{self, FailedAccepts},
    proxies::TrustedProxies,
    tls::Tls,
};
use crate::{
    authn::{ClientCertificate, ConnectionInfo},
    settings::Http,
    telemetry::{event, repeats::coalesced},
};

/// Maximum size of a request line and headers, in bytes.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Maximum number of headers of an HTTP/1 request. Beyond it, hyper responds with 431 and an empty
/// body; [`super::request_validation`] has a lower limit.
const MAX_HEADERS: usize = 256;
/// Maximum number of concurrent streams (requests) of an HTTP/2 connection.
const MAX_STREAMS: u32 = 100;
/// Maximum size of hyper's send buffer of an HTTP/2 stream, in bytes; the rest stays in the
/// response body.
const MAX_SEND_BUFFER: usize = 16 * 1024;
/// Maximum interval between checks of a connection.
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Time for an idle or stalled connection to close after the graceful shutdown begins.
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// Time for a connection with stalled and healthy responses to close after the graceful shutdown
/// begins.
const PARTLY_STALLED_GRACE: Duration = Duration::from_secs(45);
/// Pause after a failed accept; its usual cause is a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The clients that a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// Any client, directly or through proxies.
    Public,
    /// Internal services, which present client certificates (AUTHN-18).
    Internal,
}

impl ListenerKind {
    /// The proxies whose forwarding headers this listener reads.
    pub(super) fn trusted_proxies(self, http: &Http) -> TrustedProxies {
        match self {
            Self::Public => TrustedProxies::new(http),
            Self::Internal => TrustedProxies::none(),
        }
    }
}

/// A bound socket and its TLS.
#[derive(Debug)]
pub struct Listener {
    /// The clients that it serves.
    pub kind: ListenerKind,
    /// The socket.
    pub socket: TcpListener,
    /// TLS, or `None` for plain HTTP.
    pub tls: Option<Arc<Tls>>,
}

/// Serves `service` on `listener` until `stop` resolves.
///
/// Then finishes the requests in flight, for at most `http.shutdown_grace` (FAIL-03).
pub async fn serve<S: EdgeService>(listener: Listener, service: S, http: &Http, stop: impl Future<Output = ()>) {
    let Listener { kind, socket: listener, tls } = listener;
    let total = http.max_connections;
    let limits = Limits { total, per_network: http.max_connections_per_address, per_principal: total };
    let connections = Budget::new(limits);
    let (stopper, stopping) = watch::channel(false);
    // Each connection holds a sender; `recv` returns when all of them are dropped.
    let (open, mut all_closed) = mpsc::channel::<Infallible>(1);
    let settings = ConnectionSettings {
        builder: Arc::new(connection_builder(http)),
        stopping,
        header_timeout: http.header_timeout,
        stall_timeout: http.stall_timeout,
        idle_timeout: http.idle_timeout,
        max_age: http.max_connection_age,
    };
    let proxies = kind.trusted_proxies(http);
    // An attacker on the network can read and forge plain HTTP (CRYPTO-01).
    let only_proxies = tls.is_none() && !http.listen.ip().is_loopback();
    let mut failed_accepts = FailedAccepts::default();
    tokio::pin!(stop);
    loop {
        let (stream, connection) = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, kind) => match accepted {
                Ok(accepted) => {
                    failed_accepts = FailedAccepts::default();
                    accepted
                }
                Err(error) => {
                    if failed_accepts.needs_pause(&error) {
                        coalesced!(warn, "could not accept a connection", %error);
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            },
        };
        let peer = connection.remote.ip();
        let network = ClientAddress(peer).network();
        if only_proxies && !is_this_host(peer) && !proxies.contains(peer) {
            event::edge_budget_exceeded(network, "plain_http");
            continue;
        }
        // Load shedding: closing a connection over the limit costs less than any response.
        let key = (!proxies.contains(peer)).then_some(LimitKey::Network(network));
        let Some(reservation) = connections.try_reserve([key, None], 1) else {
            event::edge_budget_exceeded(network, "connections");
            continue;
        };
        let guard = (reservation, open.clone());
        let settings = settings.clone();
        let service = service.clone();
        let acceptor = tls.as_ref().map(|tls| tls.acceptor());
        tokio::spawn(async move {
            let _guard = guard;
            match acceptor {
                None => serve_connection(stream, connection, service, settings).await,
                Some(acceptor) => match tokio::time::timeout(settings.header_timeout, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let connection = connection.with_certificate(&stream);
                        serve_connection(stream, connection, service, settings).await;
                    }
                    Ok(Err(error)) => failures::report_handshake(&error, network),
                    Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
                },
            }
        });
    }
    drop((listener, open));
    stopper.send_replace(true);
    tokio::select! {
        _ = all_closed.recv() => {}
        () = tokio::time::sleep(http.shutdown_grace) => tracing::warn!("grace period over; requests aborted"),
    }
}

/// Whether the peer has the default loopback address, as the probe by the command `health` has.
fn is_this_host(peer: IpAddr) -> bool {
    [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].contains(&peer.to_canonical())
}

/// What all connections of a listener have in common.
#[derive(Clone)]
struct ConnectionSettings {
    builder: Arc<auto::Builder<TokioExecutor>>,
    stopping: watch::Receiver<bool>,
    /// For the TLS handshake, and then for the first request.
    header_timeout: Duration,
    /// For the client to take the next chunk of a response.
    stall_timeout: Duration,
    /// From one request to the next.
    idle_timeout: Duration,
    max_age: Duration,
}

impl ConnectionSettings {
    /// A quarter of the shortest timeout, within 10 ms and [`MAX_CHECK_INTERVAL`].
    fn check_interval(&self) -> Duration {
        let shortest = self.header_timeout.min(self.stall_timeout).min(self.idle_timeout).min(self.max_age);
        (shortest / 4).clamp(Duration::from_millis(10), MAX_CHECK_INTERVAL)
    }
}

/// Serves all requests of a connection.
///
/// Closes it at once if the first request does not arrive within `header_timeout`. Shuts it down
/// gracefully if it is idle, if responses are stalled, at `max_age`, or when the service stops.
/// Requests in flight may then finish, but at twice `max_age` the connection closes in any case.
async fn serve_connection<I, S>(stream: I, connection: Connection, service: S, settings: ConnectionSettings)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: EdgeService,
{
    let started = Instant::now();
    let mut check = interval(settings.check_interval());
    let mut stopping = settings.stopping.clone();
    let activity = Arc::clone(&connection.activity);
    let network = ClientAddress(connection.remote.ip()).network();
    let io = TokioIo::new(TrackedSocket::new(stream, &activity));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let exchange = connection.activity.start_exchange();
        request.extensions_mut().insert(connection.clone());
        let response = service.clone().oneshot(request);
        async move { response.await.map(|response| response.map(|body| exchange.start_response(body))) }
    });
    let mut serving = pin!(settings.builder.serve_connection(io, service).into_owned());
    let latest_close = started + 2 * settings.max_age;
    let mut close_at = None;
    loop {
        let grace = tokio::select! {
            ended = &mut serving => {
                if let Err(error) = ended {
                    failures::report_violation(error.as_ref(), network);
                }
                return;
            }
            _ = check.tick() => match activity.check(settings.stall_timeout) {
                // hyper starts its own header timer only once it knows the protocol version.
                Status::NoRequest if started.elapsed() >= settings.header_timeout => return,
                // A request that arrived just before the graceful shutdown is still served.
                Status::Active if close_at.is_some_and(|at| Instant::now() >= at && latest_close > at) => {
                    close_at = Some(latest_close);
                    continue;
                }
                _ if close_at.is_some_and(|at| Instant::now() >= at) => return,
                status @ (Status::Stalled | Status::PartlyStalled) => {
                    if close_at.is_none() {
                        event::edge_budget_exceeded(network, "stalled_response");
                    }
                    if status == Status::Stalled { CLOSE_GRACE } else { PARTLY_STALLED_GRACE }
                }
                Status::Idle(since) if since.elapsed() >= settings.idle_timeout => CLOSE_GRACE,
                _ if started.elapsed() >= settings.max_age => settings.max_age,
                _ => continue,
            },
            // An error means that the sender was dropped, which is a stop, too.
            _ = stopping.wait_for(|stopping| *stopping), if close_at.is_none() => settings.max_age,
        };
        let deadline = Instant::now() + grace;
        if close_at.is_none() {
            serving.as_mut().graceful_shutdown();
        }
        close_at = Some(close_at.map_or(deadline, |earlier: Instant| earlier.min(deadline)));
    }
}

async fn accept(listener: &TcpListener, kind: ListenerKind) -> io::Result<(TcpStream, Connection)> {
    let (stream, remote) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let info = ConnectionInfo { certificate: None, internal: kind == ListenerKind::Internal };
    Ok((stream, Connection { remote, local, info, activity: Activity::new() }))
}

impl Connection {
    /// Adds the client certificate, if any. A certificate that cannot be parsed counts as none.
    fn with_certificate<I>(mut self, stream: &TlsStream<I>) -> Self {
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        self.info.certificate = certificate.and_then(|der| ClientCertificate::from_der(der)).map(Arc::new);
        self
    }
}

fn connection_builder(http: &Http) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(http.header_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}
