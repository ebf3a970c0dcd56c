//! Rate limit per client address, before anything is parsed (RATE-01).
//!
//! [`network_limits`](super::network_limits) chooses the [`LimitKey`]. A client counts by its
//! network, but a recently authenticated principal has a separate token bucket, so callers behind
//! one address do not exhaust each other's limit (RATE-06).

use std::{sync::Arc, time::Duration};

use governor::middleware::NoOpMiddleware;
use http::{HeaderValue, Request, Response, header};
use tower_governor::{GovernorError, GovernorLayer, governor::GovernorConfigBuilder, key_extractor::KeyExtractor};

use super::{Body, client::LimitKey};
use crate::{
    authn::RequestCredentials,
    problem::{Kind, Problem},
    settings::Throttle,
};

/// The name of the limit in problems and events.
pub(super) const LIMIT_NAME: &str = "address";
/// Interval between removals of full buckets of idle clients.
const CLEANUP_INTERVAL: Duration = Duration::from_mins(1);

/// Looks up the credential of a request among the recently accepted ones and returns a number that
/// identifies its principal. Runs for every request, so it must cost next to nothing.
pub type CachedCallerLookup = Arc<dyn Fn(RequestCredentials<'_>) -> Option<u64> + Send + Sync>;

pub(super) type ThrottleLayer = GovernorLayer<LimitKeyExtractor, NoOpMiddleware, Body>;

/// Reads the [`LimitKey`] from the request's extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct LimitKeyExtractor;

impl KeyExtractor for LimitKeyExtractor {
    type Key = LimitKey;

    fn extract<T>(&self, request: &Request<T>) -> Result<LimitKey, GovernorError> {
        request.extensions().get().copied().ok_or(GovernorError::UnableToExtractKey)
    }
}

/// Makes the layer and starts the removal of idle buckets. `None` if the settings reject every
/// request, which the bounds of [`Settings`](crate::settings::Settings) exclude.
pub(super) fn layer(settings: &Throttle) -> Option<ThrottleLayer> {
    let period = Duration::try_from_secs_f64(settings.address_per_second.recip()).ok()?;
    let config = GovernorConfigBuilder::default()
        .key_extractor(LimitKeyExtractor)
        .period(period)
        .burst_size(settings.address_burst)
        .finish()?;
    let config = Arc::new(config);
    let limiter = Arc::downgrade(config.limiter());
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(CLEANUP_INTERVAL);
        loop {
            tick.tick().await;
            // The last layer was dropped: the server has stopped.
            let Some(limiter) = limiter.upgrade() else { return };
            limiter.retain_recent();
        }
    });
    Some(GovernorLayer::new(config).error_handler(rejection))
}

#[expect(clippy::needless_pass_by_value, reason = "`error_handler` requires this signature")]
fn rejection(error: GovernorError) -> Response<Body> {
    match error {
        GovernorError::TooManyRequests { wait_time, .. } => {
            // The library rounds down, to 0 for less than a second; a wait of 0 would mean "now".
            too_many_requests(wait_time.saturating_add(1))
        }
        GovernorError::UnableToExtractKey | GovernorError::Other { .. } => Problem::new(Kind::Internal).into_response(),
    }
}

/// The 429 response to a request over the limit.
pub(super) fn too_many_requests(seconds: u64) -> Response<Body> {
    Problem::new(Kind::RateLimited)
        .detail("The request limit of this client address is exhausted.")
        .limit(LIMIT_NAME)
        .header(header::RETRY_AFTER, HeaderValue::from(seconds))
        .into_response()
}
