//! What a connection is doing: its requests, and whether their responses are being read (RATE-09).
//!
//! [`super::listener`] asks every few seconds. A connection without requests is idle. A response is
//! stalled if the next [`PIECE`] of it was not taken within the time that the settings grant; what
//! is left of it is dropped then, and its connection once nothing else goes on there.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Body;

/// Largest piece of a response that is handed to the connection at once, in bytes. With the default
/// of ten seconds for each, a client has to read 1 KiB a second.
pub(super) const PIECE: usize = 10 * 1024;

type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The requests of a connection.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    exchanges: Vec<Arc<Exchange>>,
    /// Whether there ever was a request.
    spoke: bool,
    /// When the last request or response ended.
    last: Instant,
    blocked: Option<Blocked>,
}

/// The socket does not take what there is to write.
#[derive(Clone, Copy, Debug)]
struct Blocked {
    since: Instant,
    /// Bytes that it took since.
    taken: usize,
}

/// A request in work, or its response on the way.
#[derive(Debug, Default)]
struct Exchange(Mutex<Delivery>);

#[derive(Debug, Default)]
enum Delivery {
    /// Nothing waits for the client.
    #[default]
    Working,
    /// The client has not taken the last piece yet, since then.
    Waiting { body: Body, since: Instant },
    /// The client is ready for what comes next.
    Ready { body: Body },
    /// It took too long: the rest was dropped.
    Stalled,
}

/// What a look at a connection finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// There was no request yet.
    Silent,
    /// Something goes on.
    Busy,
    /// Something goes on, beside responses that are stalled.
    Slow,
    /// There is nothing but stalled responses, or the connection takes no bytes at all.
    Stalled,
    /// Nothing goes on, since then.
    Idle(Instant),
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        let state = State { exchanges: Vec::new(), spoke: false, last: Instant::now(), blocked: None };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> Watched {
        let exchange = Arc::<Exchange>::default();
        let mut state = self.lock();
        state.spoke = true;
        state.exchanges.push(Arc::clone(&exchange));
        drop(state);
        Watched { activity: Arc::clone(self), exchange }
    }

    /// The socket took so many of these bytes, or none for now.
    fn wrote(&self, wanted: usize, polled: &Poll<io::Result<usize>>) {
        let mut state = self.lock();
        match polled {
            Poll::Pending => {
                state.blocked.get_or_insert(Blocked { since: Instant::now(), taken: 0 });
            }
            Poll::Ready(Ok(taken)) if *taken < wanted => {
                state.blocked = state.blocked.map(|blocked| Blocked { taken: blocked.taken + taken, ..blocked });
                state.blocked = state.blocked.filter(|blocked| blocked.taken < PIECE);
            }
            Poll::Ready(_) => state.blocked = None,
        }
    }

    /// What is going on. Drops what is left of responses that are stalled for longer than `patience`.
    pub(super) fn look(&self, patience: Duration) -> Status {
        let state = self.lock();
        if state.blocked.is_some_and(|blocked| blocked.since.elapsed() >= patience) {
            return Status::Stalled;
        }
        if state.exchanges.is_empty() {
            return if state.spoke { Status::Idle(state.last) } else { Status::Silent };
        }
        let stalled = state.exchanges.iter().filter(|exchange| exchange.is_stalled(patience)).count();
        match stalled {
            0 => Status::Busy,
            all if all == state.exchanges.len() => Status::Stalled,
            _ => Status::Slow,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exchange {
    fn is_stalled(&self, patience: Duration) -> bool {
        let mut delivery = self.lock();
        if matches!(&*delivery, Delivery::Waiting { since, .. } if since.elapsed() >= patience) {
            *delivery = Delivery::Stalled;
        }
        matches!(&*delivery, Delivery::Stalled)
    }

    fn lock(&self) -> MutexGuard<'_, Delivery> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request of a connection, and then the body of its response. The request ends when this is dropped.
#[derive(Debug)]
pub(super) struct Watched {
    activity: Arc<Activity>,
    exchange: Arc<Exchange>,
}

impl Watched {
    /// The response begins.
    pub(super) fn deliver(self, body: Body) -> Self {
        *self.exchange.lock() = Delivery::Ready { body };
        self
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut state = self.activity.lock();
        state.exchanges.retain(|exchange| !Arc::ptr_eq(exchange, &self.exchange));
        state.last = Instant::now();
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut delivery = self.exchange.lock();
        let (Delivery::Ready { mut body } | Delivery::Waiting { mut body, .. }) = std::mem::take(&mut *delivery) else {
            *delivery = Delivery::Stalled;
            return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())));
        };
        let polled = Pin::new(&mut body).poll_frame(cx);
        *delivery = match &polled {
            Poll::Ready(Some(Ok(_))) => Delivery::Waiting { body, since: Instant::now() },
            _ => Delivery::Ready { body },
        };
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        match &*self.exchange.lock() {
            Delivery::Ready { body } | Delivery::Waiting { body, .. } => body.is_end_stream(),
            Delivery::Working | Delivery::Stalled => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &*self.exchange.lock() {
            Delivery::Ready { body } | Delivery::Waiting { body, .. } => body.size_hint(),
            Delivery::Working | Delivery::Stalled => SizeHint::default(),
        }
    }
}

/// The socket of a connection, whose writing is watched: what HTTP/2 has buffered is in no response any more.
#[derive(Debug)]
pub(super) struct Socket<I> {
    io: I,
    activity: Arc<Activity>,
}

impl<I> Socket<I> {
    pub(super) fn new(io: I, activity: &Arc<Activity>) -> Self {
        Self { io, activity: Arc::clone(activity) }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Socket<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Socket<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.activity.wrote(buf.len(), &polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.activity.wrote(bufs.iter().map(|buf| buf.len()).sum(), &polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// Of TLS, which takes bytes before the socket does.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.activity.wrote(0, &if polled.is_pending() { Poll::Pending } else { Poll::Ready(Ok(0)) });
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
