//! Response bodies that count against the budget of unread bytes until the client takes them (RATE-09).

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http_body_util::combinators::BoxBody;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};

use super::{
    activity::PIECE,
    budget::{Budget, Callers, Share},
};

/// Responses up to this many bytes are always given. The limits of requests bound how many there are.
const ALWAYS: u64 = 16 * 1024;

/// A body that is handed on in pieces of at most [`PIECE`] bytes.
#[derive(Debug)]
pub(super) struct Unread {
    body: BoxBody<Bytes, io::Error>,
    /// The rest of the frame that is being handed on.
    rest: Bytes,
    share: Option<Share>,
    /// Of a body whose size is not known before, each frame counts when it comes.
    streams: Option<(Arc<Budget>, Callers)>,
}

impl Unread {
    /// `None` if the callers hold too many unread bytes already. A response that reports a change
    /// is never withheld (`is_safe` is false then): its client would make the change again.
    pub(super) fn new(
        body: BoxBody<Bytes, io::Error>,
        budget: &Arc<Budget>,
        callers: Callers,
        is_safe: bool,
    ) -> Option<Self> {
        let Some(bytes) = body.size_hint().exact() else {
            let streams = Some((Arc::clone(budget), callers));
            return Some(Self { body, rest: Bytes::new(), share: None, streams });
        };
        let share = budget.take(callers, usize::try_from(bytes).unwrap_or(usize::MAX));
        if share.is_none() && is_safe && bytes > ALWAYS {
            return None;
        }
        Some(Self { body, rest: Bytes::new(), share, streams: None })
    }
}

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if let Some((budget, callers)) = &self.streams {
                            // An export breaks off, as it does when it fails.
                            let share = budget.take(*callers, data.len()).ok_or(io::ErrorKind::QuotaExceeded)?;
                            self.share = Some(share);
                        }
                        self.rest = data;
                    }
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return Poll::Ready(other),
            }
        }
        let piece = self.rest.len().min(PIECE);
        let data = self.rest.split_to(piece);
        if let Some(share) = &mut self.share {
            share.give_back(piece);
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, inner) = (self.rest.len() as u64, self.body.size_hint());
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

    /// An export is such a body.
    #[tokio::test]
    async fn rate_09_a_body_of_unknown_size_counts_frame_by_frame() {
        let budget = Budget::new(Limits { total: 100_000, per_network: 50_000, per_principal: 50_000 });
        let frames = [30_000, 60_000].map(|length| Ok::<_, io::Error>(Frame::data(Bytes::from(vec![0; length]))));
        let body = BoxBody::new(StreamBody::new(futures_util::stream::iter(frames)));
        let callers = [Some(crate::edge::client::Caller::Principal(1)), None];
        let mut unread = Unread::new(body, &budget, callers, false).unwrap();
        let mut taken = 0;
        let error = loop {
            match unread.frame().await.unwrap() {
                Ok(frame) => taken += frame.data_ref().unwrap().len(),
                Err(error) => break error,
            }
            // What is not taken yet counts.
            assert_eq!(budget.take(callers, 31_000).is_some(), taken > PIECE, "{taken}");
        };
        assert_eq!((taken, error.kind()), (30_000, io::ErrorKind::QuotaExceeded));
    }
}
