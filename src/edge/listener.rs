use std::{
    convert::Infallible,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
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
    time::Instant,
};
use tokio_rustls::server::TlsStream;
use tower::ServiceExt as _;

use super::{
    EdgeService,
    client::{Client, Connection},
    places::Places,
    proxies::Proxies,
    tls::Tls,
};
use crate::{
    authn::{Peer, PeerCertificate},
    settings::Http,
};

/// Most bytes of a request line and headers.
const MAX_HEAD: usize = 32 * 1024;
/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// Most requests at once on an HTTP/2 connection.
const MAX_STREAMS: u32 = 100;
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
    let connections = Places::new(http.max_connections, http.max_connections_per_address);
    let (stops, stopping) = watch::channel(false);
    // Each connection holds a copy; when all are gone, so are they.
    let (open, mut all_closed) = mpsc::channel::<Infallible>(1);
    let terms = Terms {
        builder: Arc::new(connection_builder(http)),
        stopping,
        patience: http.header_timeout,
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
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let peer = ends.remote.ip();
        if only_proxies && !proxies.trusts(peer) {
            tracing::warn!(%peer, "plain HTTP from an address that is no declared proxy's");
            continue;
        }
        // Over the limit a connection is closed at once: cheaper than any answer.
        let network = (!proxies.trusts(peer)).then(|| Client(peer).network());
        let Some(place) = connections.take(network) else { continue };
        let (terms, service, open) = (terms.clone(), service.clone(), open.clone());
        let acceptor = tls.as_ref().map(|tls| tls.acceptor());
        tokio::spawn(async move {
            let (_place, _open) = (place, open);
            match acceptor {
                None => converse(stream, ends, service, terms).await,
                Some(acceptor) => match tokio::time::timeout(terms.patience, acceptor.accept(stream)).await {
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
    patience: Duration,
    max_age: Duration,
}

/// All requests of a connection. One that says nothing for `patience` is given up; one that is as old as `max_age`, or that
/// is there when the service stops, ends after the requests in flight; at twice that age, whatever is in flight.
async fn converse<I, S>(stream: I, ends: Connection, service: S, terms: Terms)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: EdgeService,
{
    let Terms { builder, mut stopping, patience, max_age } = terms;
    let spoke = Arc::new(AtomicBool::new(false));
    let speaks = Arc::clone(&spoke);
    let service = service_fn(move |mut request: Request<Incoming>| {
        speaks.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(ends.clone());
        service.clone().oneshot(request)
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service).into_owned());
    // hyper's own timer starts only when it knows the protocol; a caller who says nothing, or
    // half a preface, would hold the connection for ever.
    let (mut patience, mut age) = (pin!(tokio::time::sleep(patience)), pin!(tokio::time::sleep(max_age)));
    let (mut waited, mut ending) = (false, false);
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended early");
                }
                return;
            }
            () = &mut patience, if !waited => {
                if !spoke.load(Ordering::Relaxed) {
                    return;
                }
                waited = true;
            }
            () = &mut age => {
                if ending {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                ending = true;
                age.as_mut().reset(Instant::now() + max_age);
            }
            // Without a sender, too, the service is at its end.
            _ = stopping.wait_for(|stopping| *stopping), if !ending => {
                connection.as_mut().graceful_shutdown();
                ending = true;
            }
        }
    }
}

async fn accept(listener: &TcpListener, door: Door) -> io::Result<(TcpStream, Connection)> {
    let (stream, remote) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let peer = Peer { certificate: None, internal: door == Door::Internal };
    Ok((stream, Connection { remote, local, peer }))
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
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}
