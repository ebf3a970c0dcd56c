//! Queue for Argon2id hashing of API key secrets, with limits per tenant and per address prefix
//! (AUTHN-12).
//!
//! [`super::api_keys`] hashes new secrets and verifies presented ones here. The queue bounds memory
//! and CPU: few hashes run at a time, few requests wait, and no tenant or prefix can fill the
//! queue.

use std::{
    collections::HashMap,
    io, mem,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{AuthnError, SourceNetwork, hash_pool::HashPool};
use crate::{
    crypto::{Pepper, SecretHashError},
    domain::TenantId,
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
    waiting: Mutex<HashMap<QueueShare, usize>>,
}

/// The reason for a hash. It decides which share of the queue a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueClass {
    /// An authenticated caller of this tenant creates an API key.
    Creation(TenantId),
    /// An API key of this tenant that was verified before.
    Verified(TenantId),
    /// An API key that was never verified, from this source.
    Unverified(SourceNetwork),
}

impl HashQueue {
    /// Starts `concurrent` hashing threads.
    ///
    /// # Errors
    /// The operating system could not start a thread.
    pub(super) fn new(pepper: Pepper, concurrent: usize) -> io::Result<Self> {
        let pool = HashPool::start(concurrent)?;
        Ok(Self { pepper, pool, running: Arc::new(Semaphore::new(concurrent)), waiting: Mutex::default() })
    }

    /// Hashes the secret of a new API key of this tenant.
    pub(super) async fn hash(&self, secret: &SecretString, tenant: TenantId) -> Result<String, AuthnError> {
        let secret = secret.clone();
        let work = move |pepper: &Pepper| pepper.hash(secret.expose_secret());
        self.run(QueueClass::Creation(tenant), || Ok(()), work).await
    }

    /// Verifies a secret against a hash.
    ///
    /// `admit` is called after the wait, because failures of other requests may have locked the
    /// source out meanwhile.
    pub(super) async fn verify(
        &self,
        secret: &str,
        hash: String,
        class: QueueClass,
        admit: impl FnOnce() -> Result<(), AuthnError>,
    ) -> Result<bool, AuthnError> {
        let secret = SecretString::from(secret);
        self.run(class, admit, move |pepper| pepper.verify(secret.expose_secret(), &hash)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        class: QueueClass,
        admit: impl FnOnce() -> Result<(), AuthnError>,
        work: impl FnOnce(&Pepper) -> Result<T, SecretHashError> + Send + 'static,
    ) -> Result<T, AuthnError> {
        let permit = self.wait(class).await.ok_or(AuthnError::Unavailable("busy"))?;
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
    async fn wait(&self, class: QueueClass) -> Option<OwnedSemaphorePermit> {
        let _slot = self.take_slot(class.share())?;
        let permit = tokio::time::timeout(MAX_WAIT, Arc::clone(&self.running).acquire_owned()).await;
        // The semaphore is never closed.
        permit.ok().and_then(Result::ok)
    }

    /// Takes a slot of the queue, if the share has one left.
    fn take_slot(&self, share: QueueShare) -> Option<QueueSlot<'_>> {
        let mut waiting = self.waiting();
        let taken = waiting.get(&share).copied().unwrap_or(0);
        // Only shares of the same kind count: a flood of unverified keys, or of key creations,
        // takes no slot from verified keys.
        let same_kind = waiting.iter().filter(|(other, _)| mem::discriminant(*other) == mem::discriminant(&share));
        let limits = share.limits();
        if taken >= limits.per_share || same_kind.map(|(_, taken)| taken).sum::<usize>() >= limits.total {
            return None;
        }
        waiting.insert(share, taken + 1);
        Some(QueueSlot { queue: self, share })
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<QueueShare, usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tenant or the address prefix that shares a part of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum QueueShare {
    Creation(TenantId),
    Verified(TenantId),
    Unverified(IpAddr),
}

/// Maximum number of waiting requests, for one share and for all shares of the same kind.
struct QueueLimits {
    per_share: usize,
    total: usize,
}

impl QueueShare {
    fn limits(self) -> QueueLimits {
        match self {
            Self::Creation(_) | Self::Unverified(_) => LIMITS,
            Self::Verified(_) => LIMITS_VERIFIED,
        }
    }
}

impl QueueClass {
    fn share(self) -> QueueShare {
        match self {
            Self::Creation(tenant) => QueueShare::Creation(tenant),
            Self::Verified(tenant) => QueueShare::Verified(tenant),
            Self::Unverified(source) => QueueShare::Unverified(address_prefix(source)),
        }
    }
}

/// The IPv4 address of a source, or the /48 prefix of its IPv6 address. A subscriber gets up to a
/// /48 (RFC 6177 section 2), which has 65,536 source networks (/64).
fn address_prefix(source: SourceNetwork) -> IpAddr {
    match source.0 {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 80 << 80).into(),
        address @ IpAddr::V4(_) => address,
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
        match waiting.get_mut(&self.share) {
            Some(taken) if *taken > 1 => *taken -= 1,
            _ => {
                waiting.remove(&self.share);
            }
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
        let unverified = |n: u8| QueueClass::Unverified(SourceNetwork([192, 0, 2, n].into())).share();
        let tenant = |n: u8| TenantId::from_uuid(uuid::Uuid::from_u128(n.into()));
        let creation = |n: u8| QueueClass::Creation(tenant(n)).share();
        let verified = |n: u8| QueueClass::Verified(tenant(n)).share();
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
        let prefix_of = |text: &str| address_prefix(SourceNetwork(text.parse().unwrap())).to_string();
        assert_eq!(prefix_of("2001:db8:1:ffff::"), "2001:db8:1::");
        assert_eq!(prefix_of("2001:db8:2:ffff::"), "2001:db8:2::");
        assert_eq!(prefix_of("192.0.2.7"), "192.0.2.7");
    }
}
