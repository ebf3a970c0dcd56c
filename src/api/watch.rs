use std::time::Duration;

use crate::{
    authz::{Action, Permit},
    domain::{Clock, QuotaName},
    quota::{Buckets, Policy},
    telemetry::{event, metrics},
};

/// How often it is forgotten who has not read for a while.
const SWEEP: Duration = Duration::from_mins(1);

/// Watches how many customers each person sees in plain text (CRYPTO-07). It stops nobody: quotas do that.
pub(crate) struct Watch {
    seen: Buckets,
    usual: Policy,
}

impl Watch {
    /// More than `per_minute` customers in a minute are unusual.
    pub(crate) fn new(per_minute: u32, clock: Clock) -> Self {
        Self { seen: Buckets::new(clock), usual: Policy { name: QuotaName::Read, quota: per_minute } }
    }

    /// So many customers were shown in plain text. Each call is an event; one that is too much is another.
    pub(super) fn shown<A: Action>(&self, permit: &Permit<A>, customers: usize) {
        if customers == 0 {
            return;
        }
        let (subject, tenant) = (permit.principal().subject(), permit.tenant().to_string());
        metrics::customers_shown(&tenant, customers);
        event::sensitive_read(subject, &tenant, A::OPERATION, customers);
        let who = (permit.tenant(), subject);
        // All are counted, also after the first that was too much.
        let taken: Vec<_> = (0..customers).map(|_| self.seen.take(&who, self.usual).wait).collect();
        if taken.iter().any(Option::is_some) {
            event::sensitive_read_excess(subject, &tenant, A::OPERATION, self.usual.quota);
        }
    }

    /// Forgets who has not read for a while, for ever.
    pub(crate) async fn forget(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.seen.forget();
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("usual", &self.usual.quota).finish_non_exhaustive()
    }
}
