//! Detects unusually large reads of personal data (home of CRYPTO-07).
//!
//! Operations report each read of unmasked customers. Every read is an event and a metric; more
//! customers in a minute than usual, per principal, is an event of its own. Nothing is rejected
//! here: quotas limit reads.

use std::time::Duration;

use crate::{
    authz::{Action, Permit},
    domain::{Clock, QuotaName},
    quota::{LocalBuckets, QuotaPolicy},
    telemetry::{event, metrics},
};

/// Interval between removals of idle principals.
const CLEANUP_INTERVAL: Duration = Duration::from_mins(1);

/// Counts the unmasked customers that each principal reads.
pub(crate) struct PersonalDataMonitor {
    reads: LocalBuckets,
    threshold: QuotaPolicy,
}

impl PersonalDataMonitor {
    /// More than `per_minute` customers in a minute are unusual.
    pub(crate) fn new(per_minute: u32, clock: Clock) -> Self {
        Self { reads: LocalBuckets::new(clock), threshold: QuotaPolicy { name: QuotaName::Read, quota: per_minute } }
    }

    /// Records that a response contains this many unmasked customers.
    pub(crate) fn record<A: Action>(&self, permit: &Permit<A>, customers: usize) {
        if customers == 0 {
            return;
        }
        let subject = permit.principal().subject();
        let tenant = permit.tenant().to_string();
        metrics::record_customers_unmasked(&tenant, customers);
        event::sensitive_read(subject, &tenant, A::OPERATION, customers);
        let reader = (permit.tenant(), subject);
        // Counts every customer, also after the first one over the threshold.
        let waits: Vec<_> = (0..customers).map(|_| self.reads.take(&reader, self.threshold).wait).collect();
        if waits.iter().any(Option::is_some) {
            event::sensitive_read_excess(subject, &tenant, A::OPERATION, self.threshold.quota);
        }
    }

    /// Removes principals that have not read for a while. Runs until dropped.
    pub(crate) async fn clean_up(&self) {
        loop {
            tokio::time::sleep(CLEANUP_INTERVAL).await;
            self.reads.evict_idle();
        }
    }
}

impl std::fmt::Debug for PersonalDataMonitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PersonalDataMonitor").field("threshold", &self.threshold.quota).finish_non_exhaustive()
    }
}
