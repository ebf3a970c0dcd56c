use std::{
    io,
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
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tower::ServiceExt as _;

use super::{EdgeService, client::Connection, proxies::Proxies};
use crate::settings::Http;

/// Most bytes of a request line and headers.
const MAX_HEAD: usize = 32 * 1024;
/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// Most requests at once on an HTTP/2 connection.
const MAX_STREAMS: u32 = 100;
/// Wait after a failed accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `service` on `listener` until `stop` resolves; then finishes the requests in flight,
/// for as long as the settings grant (control FAIL-03).
pub async fn serve<S: EdgeService>(listener: TcpListener, service: S, http: &Http, stop: impl Future<Output = ()>) {
    let connections = Arc::new(Semaphore::new(http.max_connections));
    let graceful = GracefulShutdown::new();
    let builder = connection_builder(http);
    let proxies = Proxies::new(http);
    tokio::pin!(stop);
    loop {
        let (stream, ends) = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener) => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        if !proxies.admit(ends.remote.ip()) {
            tracing::warn!(peer = %ends.remote.ip(), "plain HTTP from an address that is no declared proxy's");
            continue;
        }
        // Over the limit a connection is closed at once: cheaper than any answer.
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else { continue };
        let service = service.clone();
        let spoke = Arc::new(AtomicBool::new(false));
        let speaks = Arc::clone(&spoke);
        let service = service_fn(move |mut request: Request<Incoming>| {
            speaks.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(ends);
            service.clone().oneshot(request)
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        let patience = http.header_timeout;
        tokio::spawn(async move {
            let _permit = permit;
            let mut connection = std::pin::pin!(connection);
            // hyper's own timer starts only when it knows the protocol; a caller who says nothing, or
            // half a preface, would hold the connection for ever.
            let ended = tokio::select! {
                ended = &mut connection => ended,
                () = tokio::time::sleep(patience) => {
                    if !spoke.load(Ordering::Relaxed) {
                        return;
                    }
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended early");
            }
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(http.shutdown_grace) => tracing::warn!("requests in flight were cut off"),
    }
}

async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, Connection)> {
    let (stream, remote) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    Ok((stream, Connection { remote, local }))
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
