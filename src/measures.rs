//! What operators ordered in an incident, known here without asking anybody (LOG-08, RATE-03).
//!
//! Every replica looks once a second; while the database cannot be asked, it goes by what was said last.

use std::{collections::HashMap, net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use governor::{DefaultKeyedRateLimiter, clock::Clock as _};

use crate::{
    domain::{Measure, Network, QuotaName, TenantId},
    store::{Credentials, StoreError},
};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);

/// How long whoever is not answered at all is told to wait.
const LATER: Duration = Duration::from_mins(1);

/// How often addresses that have been quiet are forgotten.
const FORGET: Duration = Duration::from_mins(1);

/// What is in force.
#[derive(Debug, Default)]
pub struct Measures(ArcSwap<Known>);

#[derive(Debug, Default)]
struct Known {
    tenants: HashMap<(TenantId, QuotaName), u32>,
    classes: HashMap<QuotaName, u32>,
    /// The narrowest first.
    ranges: Vec<Arc<Range>>,
    read_only: bool,
}

/// A limit for each address of a network.
#[derive(Debug)]
pub(crate) struct Range {
    network: Network,
    per_minute: u32,
    /// None: nobody there is answered.
    counts: Option<DefaultKeyedRateLimiter<IpAddr>>,
}

impl Measures {
    /// Calls per minute that an operator gave instead of the settings: the tenant, or else everybody.
    pub(crate) fn quota(&self, tenant: TenantId, name: QuotaName) -> Option<u32> {
        let known = self.0.load();
        known.tenants.get(&(tenant, name)).or_else(|| known.classes.get(&name)).copied()
    }

    /// Whether nobody may change anything.
    pub(crate) fn read_only(&self) -> bool {
        self.0.load().read_only
    }

    /// The narrowest range with an own limit that the address is in.
    pub(crate) fn range_of(&self, address: IpAddr) -> Option<Arc<Range>> {
        self.0.load().ranges.iter().find(|range| range.network.contains(address)).cloned()
    }

    /// Goes by what operators decide, for as long as it runs.
    pub async fn follow(&self, store: &Credentials) {
        let (mut failing, mut forgot) = (false, tokio::time::Instant::now());
        loop {
            tokio::time::sleep(LOOK).await;
            match self.look(store).await {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    tracing::warn!(%error, "what operators ordered cannot be read");
                    failing = true;
                }
                Err(_) => {}
            }
            if forgot.elapsed() > FORGET {
                for counts in self.0.load().ranges.iter().filter_map(|range| range.counts.as_ref()) {
                    counts.retain_recent();
                }
                forgot = tokio::time::Instant::now();
            }
        }
    }

    /// Learns what operators decided. To be done once before the first call: nobody gets more because of a new start.
    pub async fn look(&self, store: &Credentials) -> Result<(), StoreError> {
        let (quotas, measures) = (store.tenant_quotas().await?, store.measures().await?);
        let before = self.0.load();
        let mut next = Known {
            tenants: quotas.into_iter().map(|quota| ((quota.tenant, quota.name), quota.per_minute)).collect(),
            ..Known::default()
        };
        for measure in measures {
            match measure {
                Measure::Class { name, per_minute } => drop(next.classes.insert(name, per_minute)),
                Measure::ReadOnly => next.read_only = true,
                Measure::Address { network, per_minute } => {
                    // One that is in force goes on counting.
                    let same = |range: &&Arc<Range>| range.network == network && range.per_minute == per_minute;
                    let kept = before.ranges.iter().find(same).cloned();
                    next.ranges.push(kept.unwrap_or_else(|| Arc::new(Range::new(network, per_minute))));
                }
            }
        }
        next.ranges.sort_by_key(|range| std::cmp::Reverse(range.network.prefix_len()));
        if next.read_only != before.read_only {
            tracing::warn!(read_only = next.read_only, "whether anything may be changed");
        }
        self.0.store(Arc::new(next));
        Ok(())
    }
}

impl Range {
    fn new(network: Network, per_minute: u32) -> Self {
        let counts =
            NonZeroU32::new(per_minute).map(|calls| DefaultKeyedRateLimiter::keyed(governor::Quota::per_minute(calls)));
        Self { network, per_minute, counts }
    }

    /// Takes one call out of the address's; if there is none, how long until there is.
    pub(crate) fn take(&self, address: IpAddr) -> Result<(), Duration> {
        let Some(counts) = &self.counts else { return Err(LATER) };
        counts.check_key(&address).map_err(|not_until| not_until.wait_time_from(counts.clock().now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_08_the_narrowest_range_counts() {
        let range = |network: &str, per_minute| Arc::new(Range::new(network.parse().unwrap(), per_minute));
        let measures = Measures::default();
        let ranges = vec![range("192.0.2.7", 2), range("2001:db8::/32", 1), range("192.0.2.0/24", 0)];
        measures.0.store(Arc::new(Known { ranges, ..Known::default() }));
        let take = |address: &str| {
            let address = address.parse().unwrap();
            measures.range_of(address).map(|range| range.take(address).is_ok())
        };
        assert_eq!([(); 3].map(|()| take("192.0.2.7")), [Some(true), Some(true), Some(false)]);
        assert_eq!(take("192.0.2.8"), Some(false));
        assert_eq!(
            (take("2001:db8::1"), take("2001:db8::2"), take("2001:db8::1")),
            (Some(true), Some(true), Some(false))
        );
        assert_eq!((take("192.0.3.7"), take("2001:db9::1")), (None, None));
    }
}
