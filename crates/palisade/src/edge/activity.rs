//! Tracks what each connection does, so that the listener can close idle connections and slow
//! readers (RATE-09).
//!
//! A connection is idle while it has no request. A response is stalled (slow-read attack) if the
//! client does not take its next chunk of [`MAX_CHUNK`] bytes within the timeout of the settings.
//! [`super::listener`] checks each connection at least every two seconds. The check drops the rest
//! of stalled responses; the listener closes the connection once it has no other request.

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

/// Most bytes of a response that are passed to the connection at once. With the default timeout of
/// ten seconds for each chunk, a client must read 1 KiB per second.
pub(super) const MAX_CHUNK: usize = 10 * 1024;

type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The requests and the write state of one connection.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    exchanges: Vec<Arc<Exchange>>,
    /// Whether the connection ever had a request.
    had_request: bool,
    /// End of the last exchange, or start of the connection.
    last_ended: Instant,
    blocked: Option<BlockedWrite>,
}

/// A socket write that is pending because the socket accepts no more bytes.
#[derive(Clone, Copy, Debug)]
struct BlockedWrite {
    since: Instant,
    /// Bytes that partial writes transferred since then.
    written: usize,
}

/// One request and its response.
#[derive(Debug, Default)]
struct Exchange(Mutex<Delivery>);

#[derive(Debug, Default)]
enum Delivery {
    /// The service handles the request; there is no response yet.
    #[default]
    Processing,
    /// The client has not taken the last chunk of the response yet.
    Waiting { body: Body, since: Instant },
    /// The client can take the next chunk of the response.
    Ready { body: Body },
    /// The client exceeded the stall timeout; the rest of the response was dropped.
    Stalled,
}

/// The result of [`Activity::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// No request has arrived yet.
    NoRequest,
    /// At least one exchange, none of them stalled.
    Active,
    /// Some exchanges are stalled, others are not.
    PartlyStalled,
    /// All exchanges are stalled, or the socket accepts no bytes.
    Stalled,
    /// No exchange since this time.
    Idle(Instant),
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        let state = State { exchanges: Vec::new(), had_request: false, last_ended: Instant::now(), blocked: None };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Registers a new request.
    pub(super) fn start_exchange(self: &Arc<Self>) -> TrackedExchange {
        let exchange = Arc::<Exchange>::default();
        let mut state = self.lock();
        state.had_request = true;
        state.exchanges.push(Arc::clone(&exchange));
        drop(state);
        TrackedExchange { activity: Arc::clone(self), exchange }
    }

    /// Records the result of writing `requested` bytes to the socket.
    fn record_write(&self, requested: usize, result: &Poll<io::Result<usize>>) {
        let mut state = self.lock();
        match result {
            Poll::Pending => {
                state.blocked.get_or_insert(BlockedWrite { since: Instant::now(), written: 0 });
            }
            Poll::Ready(Ok(written)) if *written < requested => {
                state.blocked = state.blocked.map(|block| BlockedWrite { written: block.written + written, ..block });
                state.blocked = state.blocked.filter(|block| block.written < MAX_CHUNK);
            }
            Poll::Ready(_) => state.blocked = None,
        }
    }

    /// The current status. Drops the rest of each response that exceeds `stall_timeout`.
    pub(super) fn check(&self, stall_timeout: Duration) -> Status {
        let state = self.lock();
        if state.blocked.is_some_and(|block| block.since.elapsed() >= stall_timeout) {
            return Status::Stalled;
        }
        if state.exchanges.is_empty() {
            return if state.had_request { Status::Idle(state.last_ended) } else { Status::NoRequest };
        }
        let stalled = state.exchanges.iter().filter(|exchange| exchange.check_stalled(stall_timeout)).count();
        match stalled {
            0 => Status::Active,
            all if all == state.exchanges.len() => Status::Stalled,
            _ => Status::PartlyStalled,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exchange {
    /// Whether the client exceeded the timeout. Drops the rest of the response if it did.
    fn check_stalled(&self, stall_timeout: Duration) -> bool {
        let mut state = self.lock();
        if matches!(&*state, Delivery::Waiting { since, .. } if since.elapsed() >= stall_timeout) {
            *state = Delivery::Stalled;
        }
        matches!(&*state, Delivery::Stalled)
    }

    /// Asks the body of the response, if there is one.
    fn body<T: Default>(&self, ask: impl Fn(&Body) -> T) -> T {
        match &*self.lock() {
            Delivery::Ready { body } | Delivery::Waiting { body, .. } => ask(body),
            Delivery::Processing | Delivery::Stalled => T::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Delivery> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Registration of an exchange, and later the body of its response. Dropping it ends the exchange.
#[derive(Debug)]
pub(super) struct TrackedExchange {
    activity: Arc<Activity>,
    exchange: Arc<Exchange>,
}

impl TrackedExchange {
    /// Starts the response.
    pub(super) fn start_response(self, body: Body) -> Self {
        *self.exchange.lock() = Delivery::Ready { body };
        self
    }
}

impl Drop for TrackedExchange {
    fn drop(&mut self) {
        let mut state = self.activity.lock();
        state.exchanges.retain(|exchange| !Arc::ptr_eq(exchange, &self.exchange));
        state.last_ended = Instant::now();
    }
}

impl HttpBody for TrackedExchange {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.exchange.lock();
        let (Delivery::Ready { mut body } | Delivery::Waiting { mut body, .. }) = std::mem::take(&mut *state) else {
            *state = Delivery::Stalled;
            return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())));
        };
        let polled = Pin::new(&mut body).poll_frame(cx);
        *state = match &polled {
            Poll::Ready(Some(Ok(_))) => Delivery::Waiting { body, since: Instant::now() },
            _ => Delivery::Ready { body },
        };
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.body(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.exchange.body(HttpBody::size_hint)
    }
}

/// A socket that reports its writes. Bytes that HTTP/2 has buffered belong to no response any more,
/// so a stall of the whole connection shows only here.
#[derive(Debug)]
pub(super) struct TrackedSocket<I> {
    io: I,
    activity: Arc<Activity>,
}

impl<I> TrackedSocket<I> {
    pub(super) fn new(io: I, activity: &Arc<Activity>) -> Self {
        Self { io, activity: Arc::clone(activity) }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for TrackedSocket<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for TrackedSocket<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.activity.record_write(buf.len(), &polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.activity.record_write(bufs.iter().map(|buf| buf.len()).sum(), &polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// Also reports a pending flush: TLS accepts bytes into its own buffer before the socket does.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.activity.record_write(0, &if polled.is_pending() { Poll::Pending } else { Poll::Ready(Ok(0)) });
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
