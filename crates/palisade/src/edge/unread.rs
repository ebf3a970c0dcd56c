//! Response bodies that count against the budget of unread bytes until the client reads them
//! (RATE-09).
//!
//! [`super::poem_adapter`] wraps every response body. Without this limit, clients that request
//! large responses and do not read them (slow-read attack) would fill the memory.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http_body_util::combinators::BoxBody;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};

use super::{
    activity::MAX_CHUNK,
    budget::{Budget, LimitKeys, Reservation},
};

/// Responses up to this many bytes are always sent. The request limits bound their number.
const ALWAYS_SENT: u64 = 16 * 1024;

/// A response body that yields chunks of at most [`MAX_CHUNK`] bytes.
#[derive(Debug)]
pub(super) struct UnreadBody {
    body: BoxBody<Bytes, io::Error>,
    /// The rest of the current frame.
    rest: Bytes,
    reservation: Option<Reservation>,
    /// For a body of unknown size: the budget from which each frame reserves its bytes.
    per_frame: Option<(Arc<Budget>, LimitKeys)>,
}

impl UnreadBody {
    /// `None` if the callers hold too many unread bytes already. The response to a change
    /// (`is_safe` is false) is never withheld: its client would repeat the change.
    pub(super) fn new(
        body: BoxBody<Bytes, io::Error>,
        budget: &Arc<Budget>,
        keys: LimitKeys,
        is_safe: bool,
    ) -> Option<Self> {
        let Some(bytes) = body.size_hint().exact() else {
            let per_frame = Some((Arc::clone(budget), keys));
            return Some(Self { body, rest: Bytes::new(), reservation: None, per_frame });
        };
        let reservation = budget.try_reserve(keys, usize::try_from(bytes).unwrap_or(usize::MAX));
        if reservation.is_none() && is_safe && bytes > ALWAYS_SENT {
            return None;
        }
        Some(Self { body, rest: Bytes::new(), reservation, per_frame: None })
    }
}

impl HttpBody for UnreadBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if let Some((budget, keys)) = &self.per_frame {
                            // The export ends with an error, as it does on any failure.
                            let reserved = budget.try_reserve(*keys, data.len());
                            self.reservation = Some(reserved.ok_or(io::ErrorKind::QuotaExceeded)?);
                        }
                        self.rest = data;
                    }
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return Poll::Ready(other),
            }
        }
        let length = self.rest.len().min(MAX_CHUNK);
        let data = self.rest.split_to(length);
        if let Some(reservation) = &mut self.reservation {
            reservation.release(length);
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};

    use super::{super::budget::Limits, *};

    /// Exports have such bodies.
    #[tokio::test]
    async fn rate_09_a_body_of_unknown_size_counts_frame_by_frame() {
        let budget = Budget::new(Limits { total: 100_000, per_network: 50_000, per_principal: 50_000 });
        let frames = [30_000, 60_000].map(|length| Ok::<_, io::Error>(Frame::data(Bytes::from(vec![0; length]))));
        let body = BoxBody::new(StreamBody::new(futures_util::stream::iter(frames)));
        let keys = [Some(crate::edge::client::LimitKey::Principal(1)), None];
        let mut unread = UnreadBody::new(body, &budget, keys, false).unwrap();
        let mut read = 0;
        let error = loop {
            match unread.frame().await.unwrap() {
                Ok(frame) => read += frame.data_ref().unwrap().len(),
                Err(error) => break error,
            }
            // Unread bytes count.
            assert_eq!(budget.try_reserve(keys, 31_000).is_some(), read > MAX_CHUNK, "{read}");
        };
        assert_eq!((read, error.kind()), (30_000, io::ErrorKind::QuotaExceeded));
    }
}
