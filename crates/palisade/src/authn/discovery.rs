//! Discovery and refresh of an issuer's JWKS (AUTHN-02, AUTHN-09, AUTHN-10, FAIL-01).
//!
//! Fetches the issuer's metadata (OpenID Connect Discovery 1.0), then the JWKS at its `jwks_uri`:
//! periodically, at SIGHUP, and on demand when a token names an unknown key (key rollover).
//! On-demand refreshes are single-flight, with a cool-down. If the issuer is down, the last keys stay valid
//! up to the staleness limit. [`super::issuers`] owns one [`JwksCache`] per issuer.

use std::{
    error::Error,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Bytes;
use reqwest::{Body, Client, redirect};
use serde::Deserialize;
use tokio::sync::{Mutex, watch};

use super::keys::KeySet;
use crate::{
    model::Clock,
    package,
    settings::{Issuer, Oidc, Profile},
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
    /// The issuer did not respond, or responded with an error.
    #[error("could not fetch {0}")]
    Fetch(String, #[source] Option<reqwest::Error>),
    /// The connection was lost, or the document is too long.
    #[error("could not read {0}, which may have 256 KiB at most")]
    Read(String, #[source] Box<dyn Error + Send + Sync>),
    /// The discovery document or the JWKS is not acceptable.
    #[error("{0}")]
    Document(&'static str),
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
    #[cfg(feature = "sessions")]
    #[serde(flatten)]
    endpoints: Endpoints,
}

/// The endpoints for sign-ins of people (OpenID Connect Discovery 1.0 section 3).
#[cfg(feature = "sessions")]
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Endpoints {
    pub(super) authorization_endpoint: Option<String>,
    pub(super) token_endpoint: Option<String>,
    pub(super) end_session_endpoint: Option<String>,
    pub(super) token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

/// The JWKS of one issuer, and the state of its refreshes.
#[derive(Debug)]
pub(super) struct JwksCache {
    issuer: String,
    client: Client,
    clock: Clock,
    refresh_interval: Duration,
    max_staleness: i64,
    keys: ArcSwapOption<KeySet>,
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
    ///
    /// Redirects are not followed: each document has one address. The issuer's metadata may name
    /// any `jwks_uri`, even in the private network; the response is only parsed as a JWKS.
    pub(super) fn new(
        issuer: &Issuer,
        oidc: &Oidc,
        profile: Profile,
        clock: Clock,
    ) -> Result<Arc<Self>, reqwest::Error> {
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .timeout(FETCH_TIMEOUT)
            // Applies to `jwks_uri` as well.
            .https_only(profile == Profile::Production)
            .user_agent(package::user_agent())
            .build()?;
        Ok(Arc::new(Self {
            issuer: issuer.url.clone(),
            client,
            clock,
            refresh_interval: oidc.refresh,
            max_staleness: oidc.max_staleness,
            keys: ArcSwapOption::empty(),
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
            issuer = self.issuer,
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

    /// Fetches the metadata, then the JWKS. Returns the time until the next refresh.
    async fn fetch_keys(&self) -> Result<Duration, DiscoveryError> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let metadata: Metadata = serde_json::from_slice(&self.fetch(&url).await?.0)
            .map_err(|_| DiscoveryError::Document("the discovery document is malformed"))?;
        // OpenID Connect Discovery section 4.3
        if metadata.issuer != self.issuer {
            let reason = "`issuer` in the discovery document differs from the configured issuer";
            return Err(DiscoveryError::Document(reason));
        }
        let (document, max_age) = self.fetch(&metadata.jwks_uri).await?;
        let keys = KeySet::parse(&document).map_err(DiscoveryError::Document)?;
        #[cfg(feature = "sessions")]
        self.endpoints.store(Some(Arc::new(metadata.endpoints)));
        // Another set makes every cached token be verified again.
        if self.keys.load().as_ref().is_none_or(|previous| **previous != keys) {
            tracing::info!(issuer = self.issuer, keys = keys.ids(), "issuer keys loaded");
            self.keys.store(Some(Arc::new(keys)));
        }
        self.confirmed_at.store(self.clock.timestamp(), Ordering::Release);
        Ok(next_refresh(max_age, self.refresh_interval))
    }

    /// Fetches a document of limited size. Returns its body and its cache lifetime.
    async fn fetch(&self, url: &str) -> Result<(Bytes, Option<Duration>), DiscoveryError> {
        let to_error = |error| DiscoveryError::Fetch(url.to_owned(), Some(error));
        let response = self.client.get(url).send().await.map_err(to_error)?.error_for_status().map_err(to_error)?;
        if !response.status().is_success() {
            return Err(DiscoveryError::Fetch(url.to_owned(), None));
        }
        let max_age = max_age(response.headers());
        Ok((read_limited(url, response).await?, max_age))
    }

    /// The endpoints of the last discovery; fetched now if there was none.
    #[cfg(feature = "sessions")]
    pub(super) async fn endpoints(self: &Arc<Self>) -> Option<Arc<Endpoints>> {
        if self.endpoints.load().is_none() {
            self.refresh_on_demand().await;
        }
        self.endpoints.load_full()
    }

    /// Posts a form to an endpoint of the issuer, within the limits of all fetches.
    #[cfg(feature = "sessions")]
    pub(super) async fn post_form(
        &self,
        url: &str,
        basic: Option<(&str, &str)>,
        form: String,
    ) -> Result<(http::StatusCode, Bytes), DiscoveryError> {
        let request = self.client.post(url).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let request = request.header(header::ACCEPT, "application/json").body(form);
        let request = match basic {
            Some((id, secret)) => request.basic_auth(id, Some(secret)),
            None => request,
        };
        // Without the URL: the error is logged, and has it already.
        let response = request.send().await.map_err(|error| DiscoveryError::Fetch(url.to_owned(), Some(error)))?;
        let status = response.status();
        Ok((status, read_limited(url, response).await?))
    }
}

/// Reads the body of a response, of limited size.
async fn read_limited(url: &str, response: reqwest::Response) -> Result<Bytes, DiscoveryError> {
    let body = Limited::new(Body::from(response), MAX_DOCUMENT_BYTES).collect().await;
    Ok(body.map_err(|error| DiscoveryError::Read(url.to_owned(), error))?.to_bytes())
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
    use super::*;

    #[test]
    fn max_age_is_read_from_cache_control() {
        let max_age_of = |values: &[&'static str]| {
            let values = values.iter().map(|value| (header::CACHE_CONTROL, http::HeaderValue::from_static(value)));
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
        let oidc = Oidc::from_variables(&variables);
        let jwks = JwksCache::new(&oidc.first, &oidc, Profile::Production, Clock::system()).unwrap();
        assert!(matches!(jwks.fetch_keys().await, Err(DiscoveryError::Fetch(..))));
        let connection = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(connection.is_err(), "a plain HTTP address was contacted");
    }
}
