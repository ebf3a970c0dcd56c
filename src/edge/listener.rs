//! Accepts connections, and ends those that are silent, idle, stalled or old (RATE-09, FAIL-03).

use std::{
    convert::Infallible,
    io,
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
    activity::{Activity, Socket, Status},
    budget::{Budget, Limits},
    client::{Caller, Client, Connection},
    proxies::Proxies,
    tls::Tls,
};
use crate::{
    authn::{Peer, PeerCertificate},
    settings::Http,
    telemetry::{event, repeats::coalesced},
};

/// Most bytes of a request line and headers.
const MAX_HEAD: usize = 32 * 1024;
/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// Most requests at once on an HTTP/2 connection.
const MAX_STREAMS: u32 = 100;
/// Most bytes of an HTTP/2 stream that wait to be written; further ones stay in the response.
const MAX_SEND_BUFFER: usize = 16 * 1024;
/// How often a connection is looked at, at most.
const LOOK: Duration = Duration::from_secs(2);
/// How long an idle or stalled connection has to close after it was asked to.
const CLOSING: Duration = Duration::from_secs(5);
/// The same of one on which some responses are stalled, and others are not.
const SLOW_CLOSING: Duration = Duration::from_secs(45);
/// Wait after a failed accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Whom a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Strangers, perhaps through proxies.
    Public,
    /// Services of one's own, which show certificates (AUTHN-18).
    Internal,
}

impl Door {
    /// The proxies that are believed there.
    pub(super) fn proxies(self, http: &Http) -> Proxies {
        match self {
            Self::Public => Proxies::new(http),
            Self::Internal => Proxies::none(),
        }
    }
}

/// Where and how connections are taken.
#[derive(Debug)]
pub struct Listener {
    /// Whom it is for.
    pub door: Door,
    /// The socket.
    pub socket: TcpListener,
    /// Without it, plain HTTP.
    pub tls: Option<Arc<Tls>>,
}

/// Serves `service` on `listener` until `stop` resolves; then finishes the requests in flight,
/// for as long as the settings grant (control FAIL-03).
pub async fn serve<S: EdgeService>(listener: Listener, service: S, http: &Http, stop: impl Future<Output = ()>) {
    let Listener { door, socket: listener, tls } = listener;
    let (total, per_network) = (http.max_connections, http.max_connections_per_address);
    let connections = Budget::new(Limits { total, per_network, per_principal: total });
    let (stops, stopping) = watch::channel(false);
    // Each connection holds a copy; when all are gone, so are they.
    let (open, mut all_closed) = mpsc::channel::<Infallible>(1);
    let terms = Terms {
        builder: Arc::new(connection_builder(http)),
        stopping,
        silence: http.header_timeout,
        stall: http.stall_timeout,
        idle: http.idle_timeout,
        max_age: http.max_connection_age,
    };
    let proxies = door.proxies(http);
    // In plain HTTP over a network, what a stranger says could be anybody's (CRYPTO-01).
    let only_proxies = tls.is_none() && !http.listen.ip().is_loopback();
    tokio::pin!(stop);
    loop {
        let (stream, ends) = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, door) => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    coalesced!(warn, "accept failed", %error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let peer = ends.remote.ip();
        if only_proxies && !proxies.trusts(peer) {
            event::refused(peer, "plain_http");
            continue;
        }
        // Over the limit a connection is closed at once: cheaper than any answer.
        let network = Caller::Network(Client(peer).network());
        let counted = (!proxies.trusts(peer)).then_some(network);
        let Some(share) = connections.take([counted, None], 1) else {
            event::refused(network, "connections");
            continue;
        };
        let (terms, service, open) = (terms.clone(), service.clone(), open.clone());
        let acceptor = tls.as_ref().map(|tls| tls.acceptor());
        tokio::spawn(async move {
            let (_share, _open) = (share, open);
            match acceptor {
                None => converse(stream, ends, service, terms).await,
                Some(acceptor) => match tokio::time::timeout(terms.silence, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let ends = ends.shown_by(&stream);
                        converse(stream, ends, service, terms).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%error, %peer, "no TLS"),
                    Err(_) => tracing::debug!(%peer, "TLS took too long"),
                },
            }
        });
    }
    drop((listener, open));
    stops.send_replace(true);
    tokio::select! {
        _ = all_closed.recv() => {}
        () = tokio::time::sleep(http.shutdown_grace) => tracing::warn!("requests in flight were cut off"),
    }
}

/// What holds for every connection of a listener.
#[derive(Clone)]
struct Terms {
    builder: Arc<auto::Builder<TokioExecutor>>,
    stopping: watch::Receiver<bool>,
    /// To the first request.
    silence: Duration,
    /// For the next piece of a response to be taken.
    stall: Duration,
    /// Without a request.
    idle: Duration,
    max_age: Duration,
}

impl Terms {
    /// Often enough for the shortest of the times.
    fn look_every(&self) -> Duration {
        let shortest = self.silence.min(self.stall).min(self.idle).min(self.max_age);
        (shortest / 4).clamp(Duration::from_millis(10), LOOK)
    }
}

/// All requests of a connection. It ends at once if it sends no request within `silence`. It takes no
/// further ones, and ends soon, if it is idle or if responses are stalled; the same when it is as old as
/// `max_age` or when the service stops, after the requests in flight, and at twice that age in any case.
async fn converse<I, S>(stream: I, ends: Connection, service: S, terms: Terms)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: EdgeService,
{
    let (began, mut look, mut stopping) = (Instant::now(), interval(terms.look_every()), terms.stopping.clone());
    let (activity, network) = (Arc::clone(&ends.activity), Caller::Network(Client(ends.remote.ip()).network()));
    let requests = Arc::clone(&activity);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let watched = requests.begin();
        request.extensions_mut().insert(ends.clone());
        let response = service.clone().oneshot(request);
        async move { response.await.map(|response| response.map(|body| watched.deliver(body))) }
    });
    let mut connection =
        pin!(terms.builder.serve_connection(TokioIo::new(Socket::new(stream, &activity)), service).into_owned());
    let mut closes_at = None;
    loop {
        let closing = tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended early");
                }
                return;
            }
            _ = look.tick() => match activity.look(terms.stall) {
                // hyper's own timer starts only when it knows the protocol.
                Status::Silent if began.elapsed() >= terms.silence => return,
                // A request that came just before the connection was asked to close is still served.
                Status::Busy if closes_at.is_some_and(|at| Instant::now() >= at && began + 2 * terms.max_age > at) => {
                    closes_at = Some(began + 2 * terms.max_age);
                    continue;
                }
                _ if closes_at.is_some_and(|at| Instant::now() >= at) => return,
                status @ (Status::Stalled | Status::Slow) => {
                    if closes_at.is_none() {
                        event::refused(network, "stalled_response");
                    }
                    if status == Status::Stalled { CLOSING } else { SLOW_CLOSING }
                }
                Status::Idle(since) if since.elapsed() >= terms.idle => CLOSING,
                _ if began.elapsed() >= terms.max_age => terms.max_age,
                _ => continue,
            },
            // Without a sender, too, the service is at its end.
            _ = stopping.wait_for(|stopping| *stopping), if closes_at.is_none() => terms.max_age,
        };
        let at = Instant::now() + closing;
        if closes_at.is_none() {
            connection.as_mut().graceful_shutdown();
        }
        closes_at = Some(closes_at.map_or(at, |sooner: Instant| sooner.min(at)));
    }
}

async fn accept(listener: &TcpListener, door: Door) -> io::Result<(TcpStream, Connection)> {
    let (stream, remote) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let peer = Peer { certificate: None, internal: door == Door::Internal };
    Ok((stream, Connection { remote, local, peer, activity: Activity::new() }))
}

impl Connection {
    /// With the certificate that was shown, if any. One that cannot be read names nobody.
    fn shown_by<I>(mut self, stream: &TlsStream<I>) -> Self {
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        self.peer.certificate = shown.and_then(|der| PeerCertificate::read(der)).map(Arc::new);
        self
    }
}

fn connection_builder(http: &Http) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(http.header_timeout)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}
