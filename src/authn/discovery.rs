//! Finds the issuer's keys by OpenID Connect Discovery 1.0 and keeps them fresh.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use http::{HeaderMap, header};
use reqwest::{Client, redirect};
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::Mutex;

use super::keys::{KeySet, KeySetError};
use crate::{
    domain::Clock,
    settings::{Issuer, Oidc, Profile},
};

/// Longest document fetched, in bytes.
const MAX_DOCUMENT: usize = 256 * 1024;
/// For one fetch, connection included.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// However short `Cache-Control` says, no sooner than this; unless the settings say sooner.
const MIN_REFRESH: Duration = Duration::from_secs(30);
/// After a fetch, before requests may cause another (AUTHN-09).
const DEMAND_COOL_DOWN: Duration = Duration::from_secs(5);
/// Longest wait of a request for the fetch that it caused, or another did: an issuer that hangs holds nobody up longer.
const DEMAND_PATIENCE: Duration = Duration::from_secs(2);
/// Before trying again after a failure: the first pause, doubled up to the last.
const RETRY: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(8);

/// Why the issuer's keys could not be fetched.
#[derive(Debug, Error)]
pub(super) enum DiscoveryError {
    /// The issuer could not be asked, or answered with an error.
    #[error("cannot fetch {0}")]
    Fetch(String, #[source] Option<reqwest::Error>),
    /// The answer is longer than 256 KiB.
    #[error("{0} is too long")]
    TooLong(String),
    /// Not a discovery document.
    #[error("the discovery document is malformed")]
    Malformed,
    /// The document is another issuer's (OpenID Connect Discovery section 4.3).
    #[error("the discovery document names another issuer")]
    IssuerMismatch,
    /// The keys cannot be used.
    #[error(transparent)]
    KeySet(#[from] KeySetError),
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

/// Holds one issuer's current keys.
#[derive(Debug)]
pub(super) struct KeyService {
    issuer: String,
    client: Client,
    clock: Clock,
    refresh: Duration,
    max_staleness: i64,
    keys: ArcSwapOption<KeySet>,
    generation: AtomicU64,
    /// When the issuer last gave its keys, in seconds since the epoch.
    confirmed_at: AtomicI64,
    fetching: Mutex<()>,
    /// When the last fetch ended that a request caused; its lock makes them single-flight.
    last_demand: Mutex<Option<Instant>>,
}

impl KeyService {
    /// A service without keys yet. Redirects are not followed: a document has one place. Where the keys are is the
    /// issuer's to say: its document may name any address, also one of this network, and it is only read.
    pub(super) fn new(
        issuer: &Issuer,
        oidc: &Oidc,
        profile: Profile,
        clock: Clock,
    ) -> Result<Arc<Self>, reqwest::Error> {
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .timeout(FETCH_TIMEOUT)
            // The address of the keys too, which the issuer's document names.
            .https_only(profile == Profile::Production)
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Arc::new(Self {
            issuer: issuer.url.clone(),
            client,
            clock,
            refresh: oidc.refresh,
            max_staleness: oidc.max_staleness,
            keys: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            confirmed_at: AtomicI64::new(0),
            fetching: Mutex::new(()),
            last_demand: Mutex::new(None),
        }))
    }

    /// Fetches the keys again and again. A failed fetch keeps the keys known before, and is soon tried again.
    pub(super) async fn keep_fresh(self: Arc<Self>) {
        let mut retry = *RETRY.start();
        loop {
            let pause = if let Ok(pause) = self.fetch_alone().await {
                retry = *RETRY.start();
                pause
            } else {
                let pause = retry;
                retry = (retry * 2).min(*RETRY.end());
                pause
            };
            tokio::time::sleep(pause.min(self.refresh)).await;
        }
    }

    /// Fetches the keys. One at a time, so that no slow answer takes the place of a newer one.
    async fn fetch_alone(&self) -> Result<Duration, DiscoveryError> {
        let _alone = self.fetching.lock().await;
        self.fetch_keys().await.inspect_err(|error| self.report(error))
    }

    fn report(&self, error: &DiscoveryError) {
        tracing::error!(
            issuer = self.issuer,
            %error,
            cause = ?std::error::Error::source(error),
            "issuer keys not fetched"
        );
    }

    /// The keys, unless the issuer has not confirmed them for too long (AUTHN-10).
    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        let confirmed_at = self.confirmed_at.load(Ordering::Acquire);
        let age = self.clock.timestamp().saturating_sub(confirmed_at);
        if age > self.max_staleness { None } else { self.keys.load_full() }
    }

    /// Fetches the keys because a token names one that is not known, or none are. However many tokens do, there is
    /// one fetch at a time and at most one per cool-down: others get what that one brought.
    ///
    /// The fetch is a task of its own: a caller that hangs up neither ends it nor escapes the cool-down.
    pub(super) async fn refresh_on_demand(self: &Arc<Self>) -> Option<Arc<KeySet>> {
        let service = Arc::clone(self);
        let fetch = tokio::spawn(async move {
            let mut last = service.last_demand.lock().await;
            if last.is_none_or(|at| at.elapsed() >= DEMAND_COOL_DOWN) {
                // A failure is in the log, and the keys known before still count.
                let _ = service.fetch_alone().await;
                *last = Some(Instant::now());
            }
        });
        // If it takes too long, or panicked, the keys known before still count.
        let _ = tokio::time::timeout(DEMAND_PATIENCE, fetch).await;
        self.current()
    }

    /// Discovery, then the key set it points to. Gives the time until it should be asked again.
    async fn fetch_keys(&self) -> Result<Duration, DiscoveryError> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let metadata: Metadata =
            serde_json::from_slice(&self.fetch(&url).await?.0).map_err(|_| DiscoveryError::Malformed)?;
        if metadata.issuer != self.issuer {
            return Err(DiscoveryError::IssuerMismatch);
        }
        let (document, max_age) = self.fetch(&metadata.jwks_uri).await?;
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        let keys = KeySet::parse(&document, generation)?;
        if !self.keys.load().as_ref().is_some_and(|known| known.same_document(&keys)) {
            tracing::info!(issuer = self.issuer, ?keys, "issuer keys loaded");
            self.keys.store(Some(Arc::new(keys)));
        }
        self.confirmed_at.store(self.clock.timestamp(), Ordering::Release);
        Ok(pause(max_age, self.refresh))
    }

    /// The body of a successful answer, read no further than the limit, and how long it may be kept.
    async fn fetch(&self, url: &str) -> Result<(Vec<u8>, Option<Duration>), DiscoveryError> {
        let failed = |error| DiscoveryError::Fetch(url.to_owned(), Some(error));
        let mut response = self.client.get(url).send().await.map_err(failed)?.error_for_status().map_err(failed)?;
        if !response.status().is_success() {
            return Err(DiscoveryError::Fetch(url.to_owned(), None));
        }
        let max_age = max_age(response.headers());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_DOCUMENT {
                return Err(DiscoveryError::TooLong(url.to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((body, max_age))
    }
}

/// Until the next fetch: what the answer says, within bounds.
fn pause(max_age: Option<Duration>, longest: Duration) -> Duration {
    max_age.map_or(longest, |age| age.clamp(MIN_REFRESH.min(longest), longest))
}

/// How long an answer may be kept (RFC 9111 section 5.2.2), if it says so.
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
    fn how_long_an_answer_may_be_kept_is_read_from_it() {
        let read = |values: &[&'static str]| {
            let values = values.iter().map(|value| (header::CACHE_CONTROL, http::HeaderValue::from_static(value)));
            max_age(&values.collect()).map(|age| age.as_secs())
        };
        assert_eq!(read(&[]), None);
        assert_eq!(read(&["public"]), None);
        assert_eq!(read(&["max-age=60"]), Some(60));
        assert_eq!(read(&["public, Max-Age=\"60\", must-revalidate"]), Some(60));
        assert_eq!(read(&["public", "max-age=60"]), Some(60));
        assert_eq!(read(&["max-age=60, no-store"]), Some(0));
        assert_eq!(read(&["no-cache"]), Some(0));
        assert_eq!(read(&["max-age=soon"]), None);
    }

    #[test]
    fn keys_are_fetched_as_often_as_the_issuer_says_within_bounds() {
        let seconds =
            |age: Option<u64>, longest| pause(age.map(Duration::from_secs), Duration::from_secs(longest)).as_secs();
        assert_eq!(seconds(None, 300), 300);
        assert_eq!(seconds(Some(100), 300), 100);
        assert_eq!(seconds(Some(0), 300), 30);
        assert_eq!(seconds(Some(86_400), 300), 300);
        assert_eq!(seconds(Some(0), 10), 10);
    }

    #[tokio::test]
    async fn authn_02_in_production_keys_come_over_tls_only() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let variables = [("APP_OIDC__ISSUER", url.as_str()), ("APP_OIDC__AUDIENCE", "api://x")];
        let oidc = Oidc::from_variables(&variables);
        let keys = KeyService::new(&oidc.first, &oidc, Profile::Production, Clock::system()).unwrap();
        assert!(matches!(keys.fetch_keys().await, Err(DiscoveryError::Fetch(..))));
        let asked = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(asked.is_err(), "an http address was asked");
    }
}
