//! Token buckets in this process, by the generic cell rate algorithm (GCRA, ITU-T I.371).
//!
//! [`super::Quotas`] uses them without a quota store or while it is down, [`super::Overrides`] for
//! network limits, and [`crate::http`] to monitor how much personal data a principal reads. An owner
//! may use a whole quota at once; it refills evenly over the window. `shared.lua` is the same
//! algorithm.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::WINDOW;
use crate::model::Clock;

/// Number of locks that the buckets share.
const SHARDS: usize = 16;

/// The token buckets of this process.
#[derive(Debug)]
pub struct LocalBuckets {
    /// The time at which each bucket is full again, by a digest of its owner. It does not depend on
    /// the size of the quota, so a changed quota keeps the used fraction.
    full_at: [Mutex<HashMap<u64, Duration>>; SHARDS],
    /// Keyed with a secret of this process, so that no caller can choose a subject that collides
    /// with the digest of another.
    digest: RandomState,
    clock: Clock,
}

impl LocalBuckets {
    /// No buckets yet; each starts full.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { full_at: Default::default(), digest: RandomState::new(), clock }
    }

    /// Takes one token from the owner's bucket of this size. Returns the number of remaining tokens.
    ///
    /// A size of 0 counts as 1, since such a bucket would reject every call for ever.
    ///
    /// # Errors
    /// The time until the next token, if the bucket is empty.
    pub fn take(&self, owner: &impl Hash, size: u32) -> Result<u32, Duration> {
        let interval = WINDOW / size.max(1);
        let now = self.clock.elapsed();
        let empty = now + interval * size.max(1);
        let digest = self.digest.hash_one(owner);
        let mut shard = self.shard(digest);
        let full_at = shard.entry(digest).or_insert(now);
        // Never in the past, and never later than for an empty bucket of this size.
        let next = (*full_at).max(now).min(empty) + interval;
        let Some(left) = empty.checked_sub(next) else { return Err(next.saturating_sub(empty)) };
        *full_at = next;
        Ok(u32::try_from(left.as_nanos() / interval.as_nanos().max(1)).unwrap_or(u32::MAX))
    }

    /// Removes full buckets.
    pub fn evict_idle(&self) {
        let now = self.clock.elapsed();
        for shard in &self.full_at {
            let mut shard = lock(shard);
            shard.retain(|_, full_at| *full_at > now);
            shard.shrink_to_fit();
        }
    }

    #[expect(clippy::indexing_slicing, reason = "the remainder is below the length")]
    fn shard(&self, digest: u64) -> MutexGuard<'_, HashMap<u64, Duration>> {
        let [low, ..] = digest.to_ne_bytes();
        lock(&self.full_at[usize::from(low) % SHARDS])
    }
}

fn lock(shard: &Mutex<HashMap<u64, Duration>>) -> MutexGuard<'_, HashMap<u64, Duration>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_03_changed_quota_keeps_what_was_used() {
        let clock = Clock::system();
        let buckets = LocalBuckets::new(clock.clone());
        assert_eq!([(); 4].map(|()| buckets.take(&"a", 4).ok()), [Some(3), Some(2), Some(1), Some(0)]);
        for size in [4, 3, 30, 31, 1_000] {
            assert!(buckets.take(&"a", size).is_err(), "{size}");
        }
        assert_eq!(buckets.take(&"b", 30), Ok(29));
        clock.advance(Duration::from_secs(30));
        buckets.evict_idle();
        // Half of the window refills half of the bucket, whatever its size.
        assert!((13..=15).contains(&buckets.take(&"a", 30).unwrap()));
        clock.advance(WINDOW);
        buckets.evict_idle();
        assert_eq!(buckets.take(&"a", 0), Ok(0));
        assert!(buckets.take(&"a", 0).is_err());
    }
}
