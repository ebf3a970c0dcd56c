//! Bodies of requests, limited in size and time while they are read (INPUT-04).
//!
//! [`super::poem_adapter`] wraps each request body. [`BodyWait`] tells it whether a request that took
//! too long waited for its own client.

use std::{
    error::Error as StdError,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::{LengthLimitError, Limited};
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tower_http::timeout::{TimeoutBody, TimeoutError};

/// Whether a handler waits for more of its request body.
#[derive(Clone, Debug, Default)]
pub(super) struct BodyWait(Arc<AtomicBool>);

impl BodyWait {
    pub(super) fn is_waiting(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A request body with limits. `Content-Length` is not trusted: the limit counts the bytes that
/// arrive.
pub(super) struct RequestBody<B> {
    limited: Limited<Pin<Box<TimeoutBody<B>>>>,
    waits: BodyWait,
}

impl<B> RequestBody<B> {
    /// At most `max_bytes`, with at most `timeout` between two frames.
    pub(super) fn new(body: B, max_bytes: usize, timeout: Duration, waits: BodyWait) -> Self {
        Self { limited: Limited::new(Box::pin(TimeoutBody::new(timeout, body)), max_bytes), waits }
    }
}

impl<B> HttpBody for RequestBody<B>
where
    B: HttpBody<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>>,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let polled = Pin::new(&mut self.limited).poll_frame(cx).map_err(body_error);
        self.waits.0.store(polled.is_pending(), Ordering::Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.limited.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.limited.size_hint()
    }
}

/// Encodes the reason as the kind of an I/O error, which [`from_framework`](crate::http::from_framework)
/// reads.
fn body_error(error: Box<dyn StdError + Send + Sync>) -> io::Error {
    let kind = if error.is::<LengthLimitError>() {
        io::ErrorKind::FileTooLarge
    } else if error.is::<TimeoutError>() {
        io::ErrorKind::TimedOut
    } else {
        io::ErrorKind::ConnectionAborted
    };
    io::Error::new(kind, error)
}
