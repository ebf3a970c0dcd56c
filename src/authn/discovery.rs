//! Finds the issuer's keys by OpenID Connect Discovery 1.0 and keeps them fresh.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use reqwest::{Client, redirect};
use serde::Deserialize;
use thiserror::Error;
use tokio::{sync::Mutex, task::JoinHandle};

use super::keys::{KeySet, KeySetError};
use crate::settings::{Oidc, Profile};

/// Longest document fetched, in bytes.
const MAX_DOCUMENT: usize = 256 * 1024;
/// For one fetch, connection included.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two fetches that unknown key ids may cause (AUTHN-09).
const UNKNOWN_KEY_COOL_DOWN: Duration = Duration::from_secs(5);
/// Before trying again while no keys are known at all.
const RETRY: Duration = Duration::from_millis(500);

/// Why the issuer's keys could not be fetched.
#[derive(Debug, Error)]
pub enum DiscoveryError {
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
    /// The keys are offered over plain HTTP, which anybody on the way could answer.
    #[error("the issuer's jwks_uri is not https")]
    InsecureKeys,
    /// The keys cannot be used.
    #[error(transparent)]
    KeySet(#[from] KeySetError),
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

/// Holds the issuer's current keys. One per server.
#[derive(Debug)]
pub struct KeyService {
    issuer: String,
    https_only: bool,
    client: Client,
    keys: ArcSwapOption<KeySet>,
    generation: AtomicU64,
    /// When an unknown key id last caused a fetch; its lock makes such fetches single-flight.
    last_unknown: Mutex<Option<Instant>>,
}

impl KeyService {
    /// A service without keys yet. Redirects are not followed: a key set has one place.
    pub fn new(oidc: &Oidc, profile: Profile) -> Result<Arc<Self>, reqwest::Error> {
        let https_only = profile == Profile::Production;
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .timeout(FETCH_TIMEOUT)
            .https_only(https_only)
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Arc::new(Self {
            issuer: oidc.issuer.clone(),
            https_only,
            client,
            keys: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            last_unknown: Mutex::new(None),
        }))
    }

    /// Fetches the keys now and then every `period`, until the returned task is aborted.
    /// A failed fetch keeps the keys known before.
    pub fn keep_fresh(self: &Arc<Self>, period: Duration) -> JoinHandle<()> {
        let service = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                if let Err(error) = service.refresh().await {
                    tracing::error!(error = %error, cause = ?std::error::Error::source(&error), "issuer keys not fetched");
                }
                tokio::time::sleep(if service.is_ready() { period } else { RETRY }).await;
            }
        })
    }

    /// Whether any keys are known.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.keys.load().is_some()
    }

    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        self.keys.load_full()
    }

    /// Fetches the keys because a token names one that is not known. However many tokens do, there is
    /// one fetch at a time and at most one per cool-down: others get what that one brought.
    ///
    /// The fetch is a task of its own: a caller that hangs up neither ends it nor escapes the cool-down.
    pub(super) async fn refresh_for_unknown_key(self: &Arc<Self>) -> Option<Arc<KeySet>> {
        let service = Arc::clone(self);
        let fetch = tokio::spawn(async move {
            let mut last = service.last_unknown.lock().await;
            if last.is_none_or(|at| at.elapsed() >= UNKNOWN_KEY_COOL_DOWN) {
                *last = Some(Instant::now());
                if let Err(error) = service.refresh().await {
                    tracing::error!(error = %error, "issuer keys not fetched");
                }
            }
        });
        // It fails only if it panicked, and then the keys known before still count.
        let _ = fetch.await;
        self.current()
    }

    /// Discovery, then the key set it points to.
    pub async fn refresh(&self) -> Result<(), DiscoveryError> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let metadata: Metadata =
            serde_json::from_slice(&self.fetch(&url).await?).map_err(|_| DiscoveryError::Malformed)?;
        if metadata.issuer != self.issuer {
            return Err(DiscoveryError::IssuerMismatch);
        }
        if self.https_only && !metadata.jwks_uri.starts_with("https://") {
            return Err(DiscoveryError::InsecureKeys);
        }
        let document = self.fetch(&metadata.jwks_uri).await?;
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let keys = KeySet::parse(&document, generation)?;
        if !self.current().is_some_and(|known| known.same_keys(&keys)) {
            tracing::info!(?keys, "issuer keys loaded");
            self.keys.store(Some(Arc::new(keys)));
        }
        Ok(())
    }

    /// The body of a successful answer, read no further than the limit.
    async fn fetch(&self, url: &str) -> Result<Vec<u8>, DiscoveryError> {
        let failed = |error| DiscoveryError::Fetch(url.to_owned(), Some(error));
        let mut response = self.client.get(url).send().await.map_err(failed)?.error_for_status().map_err(failed)?;
        if !response.status().is_success() {
            return Err(DiscoveryError::Fetch(url.to_owned(), None));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_DOCUMENT {
                return Err(DiscoveryError::TooLong(url.to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}
