//! Queue for Argon2id hashing of API key secrets, with limits per tenant and per address prefix
//! (AUTHN-12).
//!
//! [`super::ApiKeys`] hashes new secrets and verifies presented ones here. The queue bounds memory
//! and CPU: few hashes run at a time, few requests wait, and no tenant or prefix can fill the
//! queue.

use std::{
    io, mem,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::hash_pool::HashPool;
use crate::{
    authn::{AuthnError, SourceNetwork},
    crypto::{Pepper, SecretHashError},
    model::TenantId,
};

/// Limits of waiting requests for creators of API keys, and for keys that were never verified. More
/// requests are rejected at once.
const LIMITS: QueueLimits = QueueLimits { per_share: 16, total: 64 };
/// The same for previously verified keys, all of which are verified again from time to time. It is
/// about the number of requests that can be served within [`MAX_WAIT`].
const LIMITS_VERIFIED: QueueLimits = QueueLimits { per_share: 128, total: 256 };
/// Maximum time that a request waits in the queue.
const MAX_WAIT: Duration = Duration::from_secs(3);

/// Hashes a limited number of secrets at a time.
#[derive(Debug)]
pub(super) struct HashQueue {
    pepper: Pepper,
    pool: HashPool,
    running: Arc<Semaphore>,
    waiting: Mutex<Vec<QueueShare>>,
}

/// The reason for a hash, and the tenant or network whose share of the queue the request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueShare {
    /// An authenticated caller of this tenant creates an API key.
    Creation(TenantId),
    /// An API key of this tenant that was verified before.
    Verified(TenantId),
    /// An API key that was never verified, from this network; see [`QueueShare::unverified`].
    Unverified(IpAddr),
}

impl HashQueue {
    /// Starts `concurrent` hashing threads.
    pub(super) fn new(pepper: Pepper, concurrent: usize) -> io::Result<Self> {
        let pool = HashPool::start(concurrent)?;
        Ok(Self { pepper, pool, running: Arc::new(Semaphore::new(concurrent)), waiting: Mutex::default() })
    }

    /// Hashes the secret of a new API key of this tenant.
    pub(super) async fn hash(&self, secret: &SecretString, tenant: TenantId) -> Result<String, AuthnError> {
        let secret = secret.clone();
        let work = move |pepper: &Pepper| pepper.hash(secret.expose_secret());
        self.run(QueueShare::Creation(tenant), || Ok(()), work).await
    }

    /// Verifies a secret against a hash.
    ///
    /// `admit` is called after the wait, because failures of other requests may have locked the
    /// source out meanwhile.
    pub(super) async fn verify(
        &self,
        secret: &str,
        hash: String,
        share: QueueShare,
        admit: impl FnOnce() -> Result<(), AuthnError>,
    ) -> Result<bool, AuthnError> {
        let secret = SecretString::from(secret);
        self.run(share, admit, move |pepper| pepper.verify(secret.expose_secret(), &hash)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        share: QueueShare,
        admit: impl FnOnce() -> Result<(), AuthnError>,
        work: impl FnOnce(&Pepper) -> Result<T, SecretHashError> + Send + 'static,
    ) -> Result<T, AuthnError> {
        let permit = self.wait(share).await.ok_or(AuthnError::Unavailable("busy"))?;
        admit()?;
        let pepper = self.pepper.clone();
        // The job owns the semaphore permit, so a client that disconnects does not free it early.
        let job = move || {
            let _permit = permit;
            work(&pepper)
        };
        let result = self.pool.run(job).await;
        result.and_then(Result::ok).ok_or_else(|| {
            tracing::error!("could not hash an API key secret");
            AuthnError::Unavailable("hashing")
        })
    }

    /// Waits until a hash may run. `None` if the queue is full or the wait takes too long.
    async fn wait(&self, share: QueueShare) -> Option<OwnedSemaphorePermit> {
        let _slot = self.take_slot(share)?;
        let permit = tokio::time::timeout(MAX_WAIT, Arc::clone(&self.running).acquire_owned()).await;
        // The semaphore is never closed.
        permit.ok().and_then(Result::ok)
    }

    /// Takes a slot of the queue, if the share has one left.
    fn take_slot(&self, share: QueueShare) -> Option<QueueSlot<'_>> {
        let mut waiting = self.waiting();
        // Only shares of the same kind count: a flood of unverified keys, or of key creations,
        // takes no slot from verified keys.
        let is_same_kind = |other: &&QueueShare| mem::discriminant(*other) == mem::discriminant(&share);
        let limits = share.limits();
        if waiting.iter().filter(|other| **other == share).count() >= limits.per_share
            || waiting.iter().filter(is_same_kind).count() >= limits.total
        {
            return None;
        }
        waiting.push(share);
        Some(QueueSlot { queue: self, share })
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<QueueShare>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Maximum number of waiting requests, for one share and for all shares of the same kind.
struct QueueLimits {
    per_share: usize,
    total: usize,
}

impl QueueShare {
    /// The share of the source's IPv4 address, or of the /48 of its IPv6 address. A subscriber gets
    /// up to a /48 (RFC 6177 section 2), which has 65,536 source networks (/64).
    pub(super) fn unverified(source: SourceNetwork) -> Self {
        Self::Unverified(match source.0 {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 80 << 80).into(),
            address @ IpAddr::V4(_) => address,
        })
    }

    fn limits(self) -> QueueLimits {
        match self {
            Self::Creation(_) | Self::Unverified(_) => LIMITS,
            Self::Verified(_) => LIMITS_VERIFIED,
        }
    }
}

/// One waiting request in the queue. Dropping it frees the slot.
struct QueueSlot<'q> {
    queue: &'q HashQueue,
    share: QueueShare,
}

impl Drop for QueueSlot<'_> {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting();
        if let Some(position) = waiting.iter().position(|share| *share == self.share) {
            waiting.swap_remove(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authn_12_queue_slots_are_limited_per_share_and_in_total_and_are_freed() {
        let pepper = Pepper::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let queue = HashQueue::new(pepper, 1).unwrap();
        let unverified = |n: u8| QueueShare::unverified(SourceNetwork([192, 0, 2, n].into()));
        let tenant = |n: u8| TenantId::from_uuid(uuid::Uuid::from_u128(n.into()));
        let creation = |n: u8| QueueShare::Creation(tenant(n));
        let verified = |n: u8| QueueShare::Verified(tenant(n));
        let mut taken = Vec::new();
        // Shares of one kind take no slot of another kind.
        let kinds = [(&unverified as &dyn Fn(u8) -> QueueShare, 16, 4), (&creation, 16, 4), (&verified, 128, 2)];
        for (share, per_share, last) in kinds {
            let mut slots = Vec::new();
            for n in 1..=last {
                slots.extend((0..per_share).map(|_| queue.take_slot(share(n)).unwrap()));
                assert!(queue.take_slot(share(n)).is_none(), "the limit per share was exceeded");
            }
            assert!(queue.take_slot(share(last + 1)).is_none(), "the total limit was exceeded");
            slots.pop();
            let freed = queue.take_slot(share(last)).unwrap();
            assert!(queue.take_slot(share(last)).is_none(), "a freed slot was given twice");
            taken.push((slots, freed));
        }
        drop(taken);
        assert!(queue.waiting().is_empty(), "entries of freed slots were kept");
    }

    #[test]
    fn authn_12_networks_of_one_48_prefix_share_the_queue() {
        for (source, network) in
            [("2001:db8:1:ffff::", "2001:db8:1::"), ("2001:db8:2:ffff::", "2001:db8:2::"), ("192.0.2.7", "192.0.2.7")]
        {
            let share = QueueShare::unverified(SourceNetwork(source.parse().unwrap()));
            assert_eq!(share, QueueShare::Unverified(network.parse().unwrap()));
        }
    }
}
