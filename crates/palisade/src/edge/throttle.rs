//! Rate limit per client address, before anything is parsed (RATE-01).
//!
//! [`network_limits`](super::network_limits) chooses the [`LimitKey`]. A client counts by its
//! networks, but a recently authenticated principal has a separate token bucket, so callers behind
//! one address do not exhaust each other's limit (RATE-06).
//!
//! There is one layer for each multiple of the limit, narrowest networks outermost. So a client
//! that exceeds its own limit takes nothing from the share of its wider networks.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use governor::middleware::NoOpMiddleware;
use http::{HeaderValue, Request, Response, header};
use tower::layer::util::Stack;
use tower_governor::{GovernorError, GovernorLayer, governor::GovernorConfigBuilder, key_extractor::KeyExtractor};

use super::{Body, client::LimitKey};
use crate::{
    authn::{CachedCaller, RequestCredentials},
    model::ClientNetwork,
    problem::{Kind, Problem},
    settings::Throttle,
};

/// The name of the limit in problems and events.
pub(super) const LIMIT_NAME: &str = "address";
/// Interval between removals of full buckets of idle clients.
const CLEANUP_INTERVAL: Duration = Duration::from_mins(1);

/// Looks up the credential of a request among the recently accepted ones and returns its principal.
/// Runs for every request, so it must cost next to nothing.
pub type CachedCallerLookup = Arc<dyn Fn(RequestCredentials<'_>) -> Option<CachedCaller> + Send + Sync>;

/// The caller whose bucket counts a request, once it is known. An extension of every request.
pub(super) type CountedCaller = Arc<OnceLock<CachedCaller>>;

type LevelLayer = GovernorLayer<Level, NoOpMiddleware, Body>;
pub(super) type ThrottleLayer = Stack<LevelLayer, Stack<LevelLayer, LevelLayer>>;

/// One layer: it counts by the networks whose limit is this multiple of an address's. Also an
/// extension of the responses that the layer makes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub(super) factor: u32,
    /// Whether the limit is an operator's for the network, which counts no caller by itself.
    pub(super) is_override: bool,
}

impl Level {
    /// The key that counts at this level. A client without such a network counts by its own key,
    /// whose lower limit is reached first.
    pub(super) fn key(self, client: LimitKey) -> LimitKey {
        client.levels().find(|(_, factor)| *factor == self.factor).map_or(client, |(key, _)| key)
    }
}

impl KeyExtractor for Level {
    type Key = LimitKey;

    fn extract<T>(&self, request: &Request<T>) -> Result<LimitKey, GovernorError> {
        let client = request.extensions().get().ok_or(GovernorError::UnableToExtractKey)?;
        Ok(self.key(*client))
    }
}

/// Makes the layers and starts the removal of idle buckets. `None` if the settings reject every
/// request, which the bounds of [`Settings`](crate::settings::Settings) exclude.
pub(super) fn layer(settings: &Throttle) -> Option<ThrottleLayer> {
    let [narrowest, wider, widest] =
        ClientNetwork::FACTORS.map(|factor| level_layer(settings, Level { factor, is_override: false }));
    Some(Stack::new(widest?, Stack::new(wider?, narrowest?)))
}

fn level_layer(settings: &Throttle, level: Level) -> Option<LevelLayer> {
    let per_second = settings.address_per_second * f64::from(level.factor);
    let period = Duration::try_from_secs_f64(per_second.recip()).ok()?;
    let config = GovernorConfigBuilder::default()
        .key_extractor(level)
        .period(period)
        .burst_size(settings.address_burst.saturating_mul(level.factor))
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
    Some(GovernorLayer::new(config).error_handler(move |error| rejection(error, level)))
}

#[expect(clippy::needless_pass_by_value, reason = "the error is the library's and is used up")]
fn rejection(error: GovernorError, level: Level) -> Response<Body> {
    match error {
        GovernorError::TooManyRequests { wait_time, .. } => {
            // The library rounds down, to 0 for less than a second; a wait of 0 would mean "now".
            too_many_requests(wait_time.saturating_add(1), level)
        }
        GovernorError::UnableToExtractKey | GovernorError::Other { .. } => Problem::new(Kind::Internal).into_response(),
    }
}

/// The 429 response to a request over the limit.
pub(super) fn too_many_requests(seconds: u64, level: Level) -> Response<Body> {
    let problem = Problem::new(Kind::RateLimited)
        .detail("The request limit of this client address is exhausted.")
        .limit(LIMIT_NAME)
        .header(header::RETRY_AFTER, HeaderValue::from(seconds));
    let mut response = problem.into_response();
    response.extensions_mut().insert(level);
    response
}
