//! A bucket per client address, or per caller who is known already, before anything is parsed (controls RATE-01, RATE-06).

use std::{sync::Arc, time::Duration};

use governor::middleware::NoOpMiddleware;
use http::{HeaderValue, Request, Response, header};
use tower_governor::{GovernorError, GovernorLayer, governor::GovernorConfigBuilder, key_extractor::KeyExtractor};

use super::{Body, client::Caller};
use crate::{
    authn::Shown,
    problem::{Kind, Problem},
    settings::Throttle,
};

/// The limit, as callers and events name it.
pub(super) const LIMIT: &str = "address";
/// How often addresses that have been quiet are forgotten.
const FORGET: Duration = Duration::from_mins(1);

/// Whether the credential that a request shows is one that was accepted lately: a number that stands for whose it is. It
/// must cost next to nothing.
pub type Recognise = Arc<dyn Fn(Shown<'_>) -> Option<u64> + Send + Sync>;

pub(super) type ThrottleLayer = GovernorLayer<ByCaller, NoOpMiddleware, Body>;

/// Counts by the [`Caller`] that [`ranges`](super::ranges) found: by network, but a principal that was
/// authenticated lately has a bucket of its own, so that callers behind one address do not use up
/// each other's (RATE-06).
#[derive(Clone, Copy, Debug)]
pub(super) struct ByCaller;

impl KeyExtractor for ByCaller {
    type Key = Caller;

    fn extract<T>(&self, request: &Request<T>) -> Result<Caller, GovernorError> {
        request.extensions().get().copied().ok_or(GovernorError::UnableToExtractKey)
    }
}

/// `None` if the settings allow nothing at all, which [`Settings`](crate::settings::Settings) excludes.
pub(super) fn layer(settings: &Throttle) -> Option<ThrottleLayer> {
    let period = Duration::try_from_secs_f64(settings.address_per_second.recip()).ok()?;
    let config = GovernorConfigBuilder::default()
        .key_extractor(ByCaller)
        .period(period)
        .burst_size(settings.address_burst)
        .finish()?;
    let config = Arc::new(config);
    let limiter = Arc::downgrade(config.limiter());
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(FORGET);
        loop {
            tick.tick().await;
            // The last layer is gone, so the server is.
            let Some(limiter) = limiter.upgrade() else { return };
            limiter.retain_recent();
        }
    });
    Some(GovernorLayer::new(config).error_handler(refused))
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is the library's")]
fn refused(error: GovernorError) -> Response<Body> {
    match error {
        GovernorError::TooManyRequests { wait_time, .. } => {
            // The library rounds down, to 0 for less than a second; this must not say "now".
            used_up(wait_time.saturating_add(1))
        }
        GovernorError::UnableToExtractKey | GovernorError::Other { .. } => Problem::new(Kind::Internal).into_response(),
    }
}

/// The answer to one call too many from an address.
pub(super) fn used_up(seconds: u64) -> Response<Body> {
    Problem::new(Kind::RateLimited)
        .detail("The limit of requests per client address is used up.")
        .limit(LIMIT)
        .header(header::RETRY_AFTER, HeaderValue::from(seconds))
        .into_response()
}
