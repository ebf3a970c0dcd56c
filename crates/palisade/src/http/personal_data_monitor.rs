//! Detects unusually large reads of personal data (home of CRYPTO-07).
//!
//! Operations report each unmasked record, and each search by personal data that finds a record: it
//! confirms a value. Every read is an event and a metric; more records in a
//! minute than usual, per principal, is an event of its own. Nothing is rejected here: quotas limit
//! reads.

use std::time::Duration;

use crate::{
    authz::{Action, Permit},
    model::Clock,
    quota::LocalBuckets,
    telemetry::{event, metrics},
};

/// Interval between removals of idle principals.
const CLEANUP_INTERVAL: Duration = Duration::from_mins(1);

/// Counts the unmasked records that each principal reads.
pub struct PersonalDataMonitor {
    reads: LocalBuckets,
    /// Records in a minute.
    threshold: u32,
}

impl PersonalDataMonitor {
    /// More than `per_minute` records in a minute are unusual.
    pub(crate) fn new(per_minute: u32, clock: Clock) -> Self {
        Self { reads: LocalBuckets::new(clock), threshold: per_minute }
    }

    /// Records that a response contains an unmasked record, or confirms a value that was searched for.
    pub fn record<A: Action>(&self, permit: &Permit<A>) {
        let subject = permit.principal().subject();
        let tenant = permit.tenant().to_string();
        let operation = A::ROW.operation;
        metrics::record_record_unmasked(&tenant);
        event::sensitive_read(subject, &tenant, operation);
        if self.reads.take(&(permit.tenant(), subject), self.threshold).is_err() {
            event::sensitive_read_excess(subject, &tenant, operation, self.threshold);
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
        f.debug_struct("PersonalDataMonitor").field("threshold", &self.threshold).finish_non_exhaustive()
    }
}
