//! A bucket per client address, before anything is parsed (control RATE-01).

use std::{net::IpAddr, sync::Arc, time::Duration};

use governor::middleware::NoOpMiddleware;
use http::{HeaderValue, Request, Response, header};
use tower_governor::{GovernorError, GovernorLayer, governor::GovernorConfigBuilder, key_extractor::KeyExtractor};

use super::{Body, client::Client};
use crate::{
    problem::{Kind, Problem},
    settings::Throttle,
};

/// How often addresses that have been quiet are forgotten.
const FORGET: Duration = Duration::from_mins(1);

pub(super) type ThrottleLayer = GovernorLayer<ByAddress, NoOpMiddleware, Body>;

/// Counts by the address of the connection. Forwarding headers are the caller's to write and count for nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByAddress;

impl KeyExtractor for ByAddress {
    type Key = IpAddr;

    fn extract<T>(&self, request: &Request<T>) -> Result<IpAddr, GovernorError> {
        request.extensions().get::<Client>().map(Client::network).ok_or(GovernorError::UnableToExtractKey)
    }
}

/// `None` if the settings allow nothing at all, which [`Settings`](crate::settings::Settings) excludes.
pub(super) fn layer(settings: &Throttle) -> Option<ThrottleLayer> {
    let period = Duration::from_secs(1).checked_div(settings.address_per_second)?;
    let config = GovernorConfigBuilder::default()
        .key_extractor(ByAddress)
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
            let seconds = HeaderValue::from(wait_time.saturating_add(1));
            Problem::new(Kind::RateLimited)
                .detail("The limit of requests per client address is used up.")
                .header(header::RETRY_AFTER, seconds)
                .into_response()
        }
        GovernorError::UnableToExtractKey | GovernorError::Other { .. } => Problem::new(Kind::Internal).into_response(),
    }
}
