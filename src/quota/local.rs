use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use governor::{RateLimiter, clock, middleware::StateInformationMiddleware, state::keyed::DashMapStateStore};

use super::{Policy, Standing, WINDOW};
use crate::domain::Clock;

/// Keys are digests: 16 bytes for each that is remembered, whatever it is called.
type Bucket = RateLimiter<u64, DashMapStateStore<u64>, Ticks, StateInformationMiddleware>;

/// Buckets in this process, by the generic cell rate algorithm (ITU-T I.371): a quota may be used at once, and comes back
/// evenly over the window.
pub struct Buckets {
    /// One for each quota there is; they are few.
    by_quota: ArcSwap<HashMap<u32, Arc<Bucket>>>,
    /// With a secret of this process, so that nobody can choose a name that shares another's digest.
    digest: RandomState,
    ticks: Ticks,
}

#[derive(Clone, Debug)]
struct Ticks(Clock);

impl clock::Clock for Ticks {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Buckets {
    /// Full ones, by this clock.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { by_quota: ArcSwap::default(), digest: RandomState::new(), ticks: Ticks(clock) }
    }

    /// Takes one call out of somebody's bucket.
    pub fn take(&self, who: &impl Hash, policy: Policy) -> Standing {
        let bucket = self.of(policy.quota);
        match bucket.check_key(&self.digest.hash_one(who)) {
            Ok(state) => Standing { policy, remaining: state.remaining_burst_capacity(), wait: None },
            Err(not_yet) => {
                let wait = not_yet.wait_time_from(clock::Clock::now(&self.ticks));
                Standing { policy, remaining: 0, wait: Some(wait) }
            }
        }
    }

    /// Forgets whose bucket is full again.
    pub fn forget(&self) {
        for bucket in self.by_quota.load().values() {
            bucket.retain_recent();
            bucket.shrink_to_fit();
        }
    }

    fn of(&self, quota: u32) -> Arc<Bucket> {
        if let Some(bucket) = self.by_quota.load().get(&quota) {
            return Arc::clone(bucket);
        }
        let new = Arc::new(self.new_bucket(quota));
        let before = self.by_quota.rcu(|buckets| {
            let mut buckets = HashMap::clone(buckets);
            buckets.entry(quota).or_insert_with(|| Arc::clone(&new));
            buckets
        });
        // Of two that made one at once, the first counts.
        before.get(&quota).map_or(new, Arc::clone)
    }

    /// A quota of 0 would let nobody in for ever, so it counts as 1.
    fn new_bucket(&self, quota: u32) -> Bucket {
        let calls = NonZeroU32::new(quota).unwrap_or(NonZeroU32::MIN);
        let quota = governor::Quota::with_period(WINDOW / calls.get())
            .unwrap_or(governor::Quota::per_minute(calls))
            .allow_burst(calls);
        RateLimiter::dashmap_with_clock(quota, self.ticks.clone()).with_middleware()
    }
}

impl std::fmt::Debug for Buckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sizes: HashMap<u32, usize> = self.by_quota.load().iter().map(|(quota, b)| (*quota, b.len())).collect();
        f.debug_tuple("Buckets").field(&sizes).finish()
    }
}
