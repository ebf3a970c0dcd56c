//! Rate limit per client address, before anything is parsed (RATE-01).
//!
//! [`network_limits`](super::network_limits) chooses the [`LimitKey`]. A client counts by its
//! networks, but a recently authenticated principal has a separate token bucket, so callers behind
//! one address do not exhaust each other's limit (RATE-06).
//!
//! There is one layer for each multiple of the limit, narrowest networks outermost. So a client
//! that exceeds its own limit takes nothing from the share of its wider networks.

use std::{sync::Arc, time::Duration};

use governor::middleware::NoOpMiddleware;
use http::{HeaderValue, Request, Response, header};
use tower::layer::util::Stack;
use tower_governor::{GovernorError, GovernorLayer, governor::GovernorConfigBuilder, key_extractor::KeyExtractor};

use super::{Body, client::LimitKey};
use crate::{
    authn::RequestCredentials,
    model::ClientNetwork,
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

type LevelLayer = GovernorLayer<LevelKey, NoOpMiddleware, Body>;
pub(super) type ThrottleLayer = Stack<LevelLayer, Stack<LevelLayer, LevelLayer>>;

/// The networks whose limit is this multiple of an address's. A request without such a network
/// counts by its own key, which reaches the lower limit of that key first.
#[derive(Clone, Copy, Debug)]
pub(super) struct LevelKey {
    factor: u32,
}

/// The level at which a request was rejected. An extension of the response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Throttled {
    factor: u32,
}

impl LevelKey {
    fn of(self, key: LimitKey) -> LimitKey {
        key.levels().find(|(_, factor)| *factor == self.factor).map_or(key, |(key, _)| key)
    }
}

impl Throttled {
    /// The network whose limit is exhausted, for events.
    pub(super) fn exhausted(self, key: LimitKey) -> LimitKey {
        LevelKey { factor: self.factor }.of(key)
    }
}

impl KeyExtractor for LevelKey {
    type Key = LimitKey;

    fn extract<T>(&self, request: &Request<T>) -> Result<LimitKey, GovernorError> {
        let key = request.extensions().get().ok_or(GovernorError::UnableToExtractKey)?;
        Ok(self.of(*key))
    }
}

/// Makes the layers and starts the removal of idle buckets. `None` if the settings reject every
/// request, which the bounds of [`Settings`](crate::settings::Settings) exclude.
pub(super) fn layer(settings: &Throttle) -> Option<ThrottleLayer> {
    let [narrowest, wider, widest] = ClientNetwork::FACTORS.map(|factor| level_layer(settings, factor));
    Some(Stack::new(widest?, Stack::new(wider?, narrowest?)))
}

fn level_layer(settings: &Throttle, factor: u32) -> Option<LevelLayer> {
    let period = Duration::try_from_secs_f64((settings.address_per_second * f64::from(factor)).recip()).ok()?;
    let config = GovernorConfigBuilder::default()
        .key_extractor(LevelKey { factor })
        .period(period)
        .burst_size(settings.address_burst.saturating_mul(factor))
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
    Some(GovernorLayer::new(config).error_handler(move |error| rejection(error, factor)))
}

#[expect(clippy::needless_pass_by_value, reason = "the error is the library's and is used up")]
fn rejection(error: GovernorError, factor: u32) -> Response<Body> {
    match error {
        GovernorError::TooManyRequests { wait_time, .. } => {
            // The library rounds down, to 0 for less than a second; a wait of 0 would mean "now".
            too_many_requests(wait_time.saturating_add(1), factor)
        }
        GovernorError::UnableToExtractKey | GovernorError::Other { .. } => Problem::new(Kind::Internal).into_response(),
    }
}

/// The 429 response to a request over the limit.
pub(super) fn too_many_requests(seconds: u64, factor: u32) -> Response<Body> {
    let problem = Problem::new(Kind::RateLimited)
        .detail("The request limit of this client address is exhausted.")
        .limit(LIMIT_NAME)
        .header(header::RETRY_AFTER, HeaderValue::from(seconds));
    let mut response = problem.into_response();
    response.extensions_mut().insert(Throttled { factor });
    response
}
