//! Counts of API key changes, which tell that a cached API key is stale (AUTHN-12).
//!
//! [`Revocations`](super::super::revocation::Revocations) counts the notifications of the database
//! here. [`super::ApiKeys`] compares the counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::TenantId;

/// Number of counters. A change in one tenant also invalidates the cached API keys of tenants that
/// share its counter; they are only read again.
const COUNTERS: usize = 1_024;

/// The counters, indexed by a hash of the tenant. A cached API key is stale if the count differs
/// from the one before its row was read.
#[derive(Debug)]
pub(in crate::authn) struct KeyChanges(Box<[AtomicU64]>);

impl KeyChanges {
    pub(in crate::authn) fn new() -> Self {
        Self((0..COUNTERS).map(|_| AtomicU64::default()).collect())
    }

    /// The count of a tenant.
    pub(super) fn count(&self, tenant: TenantId) -> u64 {
        self.counter(tenant).map_or(0, |changes| changes.load(Ordering::Acquire))
    }

    /// Makes the cached API keys of a tenant stale.
    pub(in crate::authn) fn invalidate(&self, tenant: TenantId) {
        if let Some(changes) = self.counter(tenant) {
            changes.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Makes all cached API keys stale.
    pub(in crate::authn) fn invalidate_all(&self) {
        for changes in &self.0 {
            changes.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn counter(&self, tenant: TenantId) -> Option<&AtomicU64> {
        // The last bytes of a UUID are random; the first may be a timestamp (UUIDv7).
        let [.., high, low] = *tenant.uuid().as_bytes();
        self.0.get(usize::from(u16::from_be_bytes([high, low])) % COUNTERS)
    }
}
