//! Discovery and refresh of an issuer's JWKS (AUTHN-02, AUTHN-09, AUTHN-10, INPUT-12,
//! FAIL-01).
//!
//! Fetches the issuer's metadata (OpenID Connect Discovery 1.0), then the JWKS at its `jwks_uri`:
//! periodically, at SIGHUP, and on demand when a token names an unknown key (key rollover).
//! On-demand refreshes are single-flight, with a cool-down. If the issuer is down, the last keys stay
//! valid up to the staleness limit. [`super::issuers`] owns one [`JwksCache`] per issuer.

#[cfg(feature = "sessions")]
mod endpoints;

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
#[cfg(feature = "sessions")]
use endpoints::Endpoints;
use http::{HeaderMap, header};
use serde::Deserialize;
use tokio::sync::{Mutex, watch};
use url::{Origin, Url};

use super::keys::KeySet;
use crate::{
    model::Clock,
    outbound::{GuardedClient, Limits, OutboundError},
    settings::{Issuer, Settings, Template},
    telemetry::causes,
};

/// Maximum size of a fetched document, in bytes.
const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// Timeout of one HTTP request, including the connection.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// Minimum refresh interval, however short `Cache-Control` is. A shorter interval in the settings
/// takes precedence.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// Minimum pause between two on-demand refreshes (AUTHN-09).
const ON_DEMAND_COOL_DOWN: Duration = Duration::from_secs(5);
/// Maximum time that a request waits for an on-demand refresh. An issuer that hangs does not delay
/// requests for longer.
const ON_DEMAND_MAX_WAIT: Duration = Duration::from_secs(2);
/// Retry delay after a failed refresh: starts at the first value and doubles up to the last.
const RETRY_DELAY: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(8);

/// Why the issuer's keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiscoveryError {
    /// A document could not be fetched.
    #[error(transparent)]
    Fetch(#[from] OutboundError),
    /// The discovery document or the JWKS is not acceptable.
    #[error("{0}")]
    Document(String),
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
    #[cfg(feature = "sessions")]
    #[serde(flatten)]
    endpoints: Endpoints,
}

/// The JWKS of one issuer, and the state of its refreshes.
#[derive(Debug)]
pub(super) struct JwksCache {
    issuer: Issuer,
    client: GuardedClient,
    clock: Clock,
    refresh_interval: Duration,
    max_staleness: i64,
    keys: ArcSwapOption<KeySet>,
    has_sign_in: bool,
    #[cfg(feature = "sessions")]
    endpoints: ArcSwapOption<Endpoints>,
    /// Time of the last successful refresh, in seconds since the epoch.
    confirmed_at: AtomicI64,
    fetching: Mutex<()>,
    /// End of the last on-demand refresh. Its lock makes on-demand refreshes single-flight.
    last_on_demand: Mutex<Option<Instant>>,
}

impl JwksCache {
    /// Creates a cache without keys.
    pub(super) fn new(issuer: &Issuer, settings: &Settings, clock: Clock) -> Result<Arc<Self>, OutboundError> {
        let authorities = issuer.authorities.as_deref();
        let limits = Limits { authorities, timeout: FETCH_TIMEOUT, max_bytes: MAX_DOCUMENT_BYTES };
        Ok(Arc::new(Self {
            issuer: issuer.clone(),
            client: GuardedClient::new(&settings.outbound, settings.profile, limits)?,
            clock,
            refresh_interval: settings.oidc.refresh,
            max_staleness: settings.oidc.max_staleness,
            keys: ArcSwapOption::empty(),
            has_sign_in: settings.sessions.has_client_of(issuer),
            #[cfg(feature = "sessions")]
            endpoints: ArcSwapOption::empty(),
            confirmed_at: AtomicI64::new(0),
            fetching: Mutex::new(()),
            last_on_demand: Mutex::new(None),
        }))
    }

    /// Refreshes the keys forever, and at once at SIGHUP (`hangups`). After a failure the previous
    /// keys stay, and a retry follows.
    pub(super) async fn refresh_periodically(self: Arc<Self>, mut hangups: watch::Receiver<()>) {
        let mut retry_delay = *RETRY_DELAY.start();
        loop {
            let delay = if let Ok(interval) = self.refresh().await {
                retry_delay = *RETRY_DELAY.start();
                interval
            } else {
                let delay = retry_delay;
                retry_delay = (retry_delay * 2).min(*RETRY_DELAY.end());
                delay
            };
            let pause = tokio::time::sleep(delay.min(self.refresh_interval));
            tokio::select! {
                () = pause => {}
                // Signals that arrive during a refresh cause one more: its documents may be old.
                Ok(()) = hangups.changed() => {}
            }
        }
    }

    /// Refreshes the keys, one refresh at a time: a slow response must not replace a newer one.
    async fn refresh(&self) -> Result<Duration, DiscoveryError> {
        let _guard = self.fetching.lock().await;
        self.fetch_keys().await.inspect_err(|error| self.report(error))
    }

    fn report(&self, error: &DiscoveryError) {
        tracing::error!(
            issuer = self.issuer.url,
            %error,
            cause = causes(error),
            "could not refresh issuer keys"
        );
    }

    /// The current keys; `None` if the last successful refresh is older than the staleness limit
    /// (AUTHN-10).
    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        let confirmed_at = self.confirmed_at.load(Ordering::Acquire);
        let age = self.clock.timestamp().saturating_sub(confirmed_at);
        if age > self.max_staleness { None } else { self.keys.load_full() }
    }

    /// Refreshes the keys because a token names an unknown key, or because there are no keys.
    ///
    /// However many tokens do, one refresh runs at a time and at most one per cool-down; concurrent
    /// requests share its result. The refresh is a separate task, so a client that disconnects
    /// neither cancels it nor avoids the cool-down.
    pub(super) async fn refresh_on_demand(self: &Arc<Self>) -> Option<Arc<KeySet>> {
        let cache = Arc::clone(self);
        let refresh = tokio::spawn(async move {
            let mut last_end = cache.last_on_demand.lock().await;
            if last_end.is_none_or(|end| end.elapsed() >= ON_DEMAND_COOL_DOWN) {
                // A failure is already logged, and the previous keys stay valid.
                let _ = cache.refresh().await;
                *last_end = Some(Instant::now());
            }
        });
        // After a timeout or a panic the previous keys stay valid.
        let _ = tokio::time::timeout(ON_DEMAND_MAX_WAIT, refresh).await;
        self.current()
    }

    /// Fetches the JWKS, after the metadata unless the settings have its address. Returns the time
    /// until the next refresh.
    pub(super) async fn fetch_keys(&self) -> Result<Duration, DiscoveryError> {
        let address = if let Some(url) = &self.issuer.jwks_url {
            // Sign-ins need the other endpoints of the document; tokens do not.
            if self.has_sign_in {
                let _ = self.discover().await.inspect_err(|error| self.report(error));
            }
            url.to_string()
        } else {
            let jwks_uri = self.discover().await?;
            self.check_keys_address(&jwks_uri)?;
            jwks_uri
        };
        let response = self.client.get(&address).await?;
        let max_age = max_age(response.headers());
        let keys = KeySet::parse(response.body())
            .map_err(|fault| DiscoveryError::Document(format!("the document at {address} is refused: {fault}")))?;
        // Another set makes every cached token be verified again.
        if self.keys.load().as_ref().is_none_or(|previous| **previous != keys) {
            tracing::info!(issuer = self.issuer.url, keys = keys.ids(), "issuer keys loaded");
            self.keys.store(Some(Arc::new(keys)));
        }
        self.confirmed_at.store(self.clock.timestamp(), Ordering::Release);
        Ok(next_refresh(max_age, self.refresh_interval))
    }

    /// The address of the JWKS, from the issuer's metadata (OpenID Connect Discovery section 4.3).
    async fn discover(&self) -> Result<String, DiscoveryError> {
        let address = self.issuer.discovery_address();
        let response = self.client.get(&address).await?;
        let metadata: Metadata = serde_json::from_slice::<Metadata>(response.body())
            .map_err(|_| DiscoveryError::Document(format!("{address} is no discovery document")))?;
        self.check_issuer(&metadata.issuer)?;
        #[cfg(feature = "sessions")]
        self.endpoints.store(Some(Arc::new(metadata.endpoints)));
        Ok(metadata.jwks_uri)
    }

    /// The document must name this issuer. One with a part in braces has the same form here.
    fn check_issuer(&self, named: &str) -> Result<(), DiscoveryError> {
        let is_own = match (&self.issuer.template, Template::parse(named)) {
            (Some(own), Ok(Some(template))) => template.is_like(own),
            (Some(_), _) => false,
            (None, _) => named == self.issuer.url,
        };
        if is_own {
            return Ok(());
        }
        let advice = if named.contains('{') {
            "docs/issuers.md says how to accept an issuer of several directories"
        } else {
            "set the issuer to what its tokens have in `iss`, and the address of this document apart"
        };
        let (own, variable) = (&self.issuer.url, self.issuer.variable("issuer"));
        let message = format!("the discovery document is of the issuer `{named}`, {variable} is `{own}`: {advice}");
        Err(DiscoveryError::Document(message))
    }

    /// The keys must be at the host of the document or of the issuer, so that a document cannot make
    /// this service call any other host.
    fn check_keys_address(&self, keys: &str) -> Result<(), DiscoveryError> {
        let document = self.issuer.discovery_address();
        let origin = |text: &str| Url::parse(text).ok().map(|url| url.origin()).filter(Origin::is_tuple);
        let named = origin(keys);
        if named.is_some() && (named == origin(&document) || named == origin(&self.issuer.url)) {
            return Ok(());
        }
        let variable = self.issuer.variable("jwks_url");
        let message =
            format!("the discovery document has its keys at another host: if they are right, set {variable} to {keys}");
        Err(DiscoveryError::Document(message))
    }
}

/// Time until the next refresh: the response's `max-age` within bounds, or the configured interval.
fn next_refresh(max_age: Option<Duration>, configured: Duration) -> Duration {
    max_age.map_or(configured, |age| age.clamp(MIN_REFRESH_INTERVAL.min(configured), configured))
}

/// The cache lifetime of a response (RFC 9111 section 5.2.2); `None` if it has none.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let directives: Vec<String> =
        values.flat_map(|value| value.split(',')).map(|directive| directive.trim().to_ascii_lowercase()).collect();
    if directives.iter().any(|directive| directive == "no-store" || directive == "no-cache") {
        return Some(Duration::ZERO);
    }
    let seconds = directives.iter().find_map(|directive| directive.strip_prefix("max-age="))?;
    seconds.trim_matches('"').parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::settings::{Oidc, Outbound, Profile};

    #[test]
    fn max_age_is_read_from_cache_control() {
        let max_age_of = |values: &[&'static str]| {
            let values = values.iter().map(|value| (header::CACHE_CONTROL, HeaderValue::from_static(value)));
            max_age(&values.collect()).map(|age| age.as_secs())
        };
        assert_eq!(max_age_of(&[]), None);
        assert_eq!(max_age_of(&["public"]), None);
        assert_eq!(max_age_of(&["max-age=60"]), Some(60));
        assert_eq!(max_age_of(&["public, Max-Age=\"60\", must-revalidate"]), Some(60));
        assert_eq!(max_age_of(&["public", "max-age=60"]), Some(60));
        assert_eq!(max_age_of(&["max-age=60, no-store"]), Some(0));
        assert_eq!(max_age_of(&["no-cache"]), Some(0));
        assert_eq!(max_age_of(&["max-age=soon"]), None);
    }

    #[test]
    fn refresh_interval_follows_max_age_within_bounds() {
        let seconds = |age: Option<u64>, configured| {
            next_refresh(age.map(Duration::from_secs), Duration::from_secs(configured)).as_secs()
        };
        assert_eq!(seconds(None, 300), 300);
        assert_eq!(seconds(Some(100), 300), 100);
        assert_eq!(seconds(Some(0), 300), 30);
        assert_eq!(seconds(Some(86_400), 300), 300);
        assert_eq!(seconds(Some(0), 10), 10);
    }

    #[tokio::test]
    async fn authn_02_production_fetches_keys_over_tls_only() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let variables = [("APP_OIDC__ISSUER", url.as_str()), ("APP_OIDC__AUDIENCE", "api://x")];
        let issuer = Oidc::from_variables(&variables).first;
        let limits = Limits { authorities: None, timeout: FETCH_TIMEOUT, max_bytes: MAX_DOCUMENT_BYTES };
        let outbound = Outbound { allowed_networks: vec!["127.0.0.1".parse().unwrap()], use_proxy: false };
        let client = GuardedClient::new(&outbound, Profile::Production, limits).unwrap();
        let refused = client.get(&issuer.discovery_address()).await;
        assert!(matches!(refused, Err(OutboundError::Refused(..))), "{refused:?}");
        let connection = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(connection.is_err(), "a plain HTTP address was contacted");
    }
}
