//! Token buckets in this process, by the generic cell rate algorithm (GCRA, ITU-T I.371).
//!
//! [`super::Quotas`] uses them without a quota store or while it is down, and
//! [`crate::http`] to monitor how much personal data a principal reads. A caller may use a whole
//! quota at once; it refills evenly over the window.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use governor::{RateLimiter, clock, middleware::StateInformationMiddleware, state::keyed::DashMapStateStore};

use super::{QuotaPolicy, QuotaStatus, WINDOW};
use crate::model::Clock;

/// All buckets of one size, keyed by a digest of their owner: 16 bytes each, whatever its length.
type SizedBuckets = RateLimiter<u64, DashMapStateStore<u64>, MonotonicClock, StateInformationMiddleware>;

/// The token buckets of this process.
#[derive(Debug)]
pub struct LocalBuckets {
    /// One set for each size of quota; there are few sizes.
    by_quota: Mutex<HashMap<u32, Arc<SizedBuckets>>>,
    /// Keyed with a secret of this process, so that no caller can choose a subject that collides
    /// with the digest of another.
    digest: RandomState,
    clock: MonotonicClock,
}

/// Adapts [`Clock`] to governor.
#[derive(Clone, Debug)]
struct MonotonicClock(Clock);

impl clock::Clock for MonotonicClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

impl LocalBuckets {
    /// No buckets yet; each starts full.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { by_quota: Mutex::default(), digest: RandomState::new(), clock: MonotonicClock(clock) }
    }

    /// Takes one token from the owner's bucket.
    pub fn take(&self, owner: &impl Hash, policy: QuotaPolicy) -> QuotaStatus {
        let buckets =
            Arc::clone(self.by_quota().entry(policy.quota).or_insert_with(|| Arc::new(self.new_buckets(policy.quota))));
        match buckets.check_key(&self.digest.hash_one(owner)) {
            Ok(state) => QuotaStatus { policy, remaining: state.remaining_burst_capacity(), wait: None },
            Err(not_until) => {
                let wait = not_until.wait_time_from(clock::Clock::now(&self.clock));
                QuotaStatus { policy, remaining: 0, wait: Some(wait) }
            }
        }
    }

    /// Removes full buckets.
    pub fn evict_idle(&self) {
        let by_quota = self.by_quota().clone();
        for buckets in by_quota.values() {
            buckets.retain_recent();
            buckets.shrink_to_fit();
        }
    }

    /// Locked for the look-up only; a set locks its buckets itself.
    fn by_quota(&self) -> MutexGuard<'_, HashMap<u32, Arc<SizedBuckets>>> {
        self.by_quota.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A quota of 0 counts as 1, since a bucket of size 0 would reject every call for ever.
    fn new_buckets(&self, quota: u32) -> SizedBuckets {
        let calls = NonZeroU32::new(quota).unwrap_or(NonZeroU32::MIN);
        let quota = governor::Quota::with_period(WINDOW / calls.get())
            .unwrap_or(governor::Quota::per_minute(calls))
            .allow_burst(calls);
        RateLimiter::dashmap_with_clock(quota, self.clock.clone()).with_middleware()
    }
}
