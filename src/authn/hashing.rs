use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::AuthnError;
use crate::crypto::{Pepper, SecretHashError};

/// Most calls that wait for their turn; more are turned away at once.
const MAX_WAITING: usize = 64;
/// Longest wait for a turn.
const PATIENCE: Duration = Duration::from_secs(2);

/// Hashes a few secrets at a time, so that no flood of them takes all memory or every processor (AUTHN-12).
#[derive(Debug)]
pub(super) struct Hashing {
    pepper: Pepper,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Hashing {
    pub(super) fn new(pepper: Pepper, concurrent: usize) -> Self {
        Self { pepper, turns: Arc::new(Semaphore::new(concurrent)), waiting: AtomicUsize::new(0) }
    }

    /// The hash of a new secret.
    pub(super) async fn hash(&self, secret: &SecretString) -> Result<String, AuthnError> {
        let secret = secret.clone();
        self.in_turn(|| Ok(()), move |pepper| pepper.hash(secret.expose_secret())).await
    }

    /// Whether the hash is of the secret. `admit` is asked when the turn has come, since others may have failed
    /// in the meantime.
    pub(super) async fn verify(
        &self,
        secret: &str,
        hash: String,
        admit: impl FnOnce() -> Result<(), AuthnError>,
    ) -> Result<bool, AuthnError> {
        let secret = SecretString::from(secret);
        self.in_turn(admit, move |pepper| pepper.verify(secret.expose_secret(), &hash)).await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        admit: impl FnOnce() -> Result<(), AuthnError>,
        work: impl FnOnce(&Pepper) -> Result<T, SecretHashError> + Send + 'static,
    ) -> Result<T, AuthnError> {
        let turn = self.turn().await?;
        admit()?;
        let pepper = self.pepper.clone();
        // The turn goes along: it ends with the work, also if the caller is gone before.
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&pepper)
        });
        let done = work.await.ok().and_then(Result::ok);
        done.ok_or_else(|| {
            tracing::error!("a secret could not be hashed");
            AuthnError::Unavailable("hashing")
        })
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, AuthnError> {
        let _waiting = Waiting::join(&self.waiting).ok_or(AuthnError::Unavailable("busy"))?;
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        // The semaphore is never closed.
        turn.ok().and_then(Result::ok).ok_or(AuthnError::Unavailable("busy"))
    }
}

/// One of those who wait.
struct Waiting<'w>(&'w AtomicUsize);

impl<'w> Waiting<'w> {
    fn join(waiting: &'w AtomicUsize) -> Option<Self> {
        let joined = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < MAX_WAITING).then_some(joined)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
