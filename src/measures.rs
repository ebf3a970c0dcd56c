//! What operators ordered in an incident, known here without asking anybody (LOG-08, RATE-03).
//!
//! Every replica looks once a second; while the database cannot be asked, it goes by what was said last, until that ends.

use std::{collections::HashMap, net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use governor::{DefaultKeyedRateLimiter, clock::Clock as _};

use crate::{
    domain::{Clock, InForce, Measure, Network, QuotaName, TenantId},
    store::{Credentials, StoreError},
    telemetry::event,
};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);

/// How long whoever is not answered at all is told to wait.
const LATER: Duration = Duration::from_mins(1);

/// How often addresses that have been quiet are forgotten.
const FORGET: Duration = Duration::from_mins(1);

/// What is in force.
#[derive(Debug)]
pub struct Measures {
    known: ArcSwap<Known>,
    clock: Clock,
}

/// Each with its end.
#[derive(Debug, Default)]
struct Known {
    tenants: HashMap<(TenantId, QuotaName), (u32, DateTime<Utc>)>,
    classes: HashMap<QuotaName, (u32, DateTime<Utc>)>,
    /// The narrowest first.
    ranges: Vec<(Arc<Range>, DateTime<Utc>)>,
    read_only: Option<DateTime<Utc>>,
    /// How many measures cannot be read, and so are not taken.
    unreadable: usize,
}

/// A limit for each address of a network.
#[derive(Debug)]
struct Range {
    network: Network,
    per_minute: u32,
    /// None: nobody there is answered.
    counts: Option<DefaultKeyedRateLimiter<IpAddr>>,
}

impl Measures {
    /// None, until it looks.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { known: ArcSwap::default(), clock }
    }

    /// Calls per minute that an operator gave instead of the settings: the tenant, or else everybody.
    pub(crate) fn quota(&self, tenant: TenantId, name: QuotaName) -> Option<u32> {
        let known = self.known.load();
        let counts = |(per_minute, until): &(u32, DateTime<Utc>)| self.is_before(*until).then_some(*per_minute);
        let own = known.tenants.get(&(tenant, name)).and_then(counts);
        own.or_else(|| known.classes.get(&name).and_then(counts))
    }

    /// Whether nobody may change anything.
    pub(crate) fn read_only(&self) -> bool {
        self.known.load().read_only.is_some_and(|until| self.is_before(until))
    }

    /// Takes one call out of what the narrowest network that this address is in gives it, counted by `counted_as`; if there is none
    /// left, how long until there is. `None` if no network with this address has a limit of its own.
    pub(crate) fn take(&self, address: IpAddr, counted_as: IpAddr) -> Option<Result<(), Duration>> {
        let known = self.known.load();
        let here = |(range, until): &&(Arc<Range>, _)| range.network.contains(address) && self.is_before(*until);
        known.ranges.iter().find(here).map(|(range, _)| range.take(counted_as))
    }

    fn is_before(&self, until: DateTime<Utc>) -> bool {
        self.clock.now() < until
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
                for counts in self.known.load().ranges.iter().filter_map(|(range, _)| range.counts.as_ref()) {
                    counts.retain_recent();
                    counts.shrink_to_fit();
                }
                forgot = tokio::time::Instant::now();
            }
        }
    }

    /// Learns what operators decided. To be done once before the first call: nobody gets more because of a new start.
    pub async fn look(&self, store: &Credentials) -> Result<(), StoreError> {
        let (measures, unreadable) = store.measures().await?;
        let before = self.known.load();
        let next = Known { unreadable, ..Known::after(&before, measures) };
        if next.unreadable > before.unreadable {
            event::measure_unreadable(next.unreadable);
        }
        if next.read_only.is_some() != before.read_only.is_some() {
            tracing::warn!(until = ?next.read_only, "whether nothing may be changed");
        }
        self.known.store(Arc::new(next));
        Ok(())
    }
}

impl Known {
    fn after(before: &Self, measures: Vec<InForce>) -> Self {
        let mut next = Self::default();
        for InForce { measure, until } in measures {
            match measure {
                Measure::Tenant { tenant, name, per_minute } => {
                    next.tenants.insert((tenant, name), (per_minute, until));
                }
                Measure::Class { name, per_minute } => {
                    next.classes.insert(name, (per_minute, until));
                }
                Measure::Address { network, per_minute } => {
                    // One that is in force goes on counting.
                    let same = |range: &&Arc<Range>| range.network == network && range.per_minute == per_minute;
                    let kept = before.ranges.iter().map(|(range, _)| range).find(same).cloned();
                    next.ranges.push((kept.unwrap_or_else(|| Arc::new(Range::new(network, per_minute))), until));
                }
                Measure::ReadOnly => next.read_only = Some(until),
            }
        }
        next.ranges.sort_by_key(|(range, _)| std::cmp::Reverse(range.network.prefix_len()));
        next
    }
}

impl Range {
    fn new(network: Network, per_minute: u32) -> Self {
        let counts = NonZeroU32::new(per_minute).map(governor::Quota::per_minute).map(DefaultKeyedRateLimiter::keyed);
        Self { network, per_minute, counts }
    }

    fn take(&self, address: IpAddr) -> Result<(), Duration> {
        let Some(counts) = &self.counts else { return Err(LATER) };
        counts.check_key(&address).map_err(|not_until| not_until.wait_time_from(counts.clock().now()))
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn log_08_the_narrowest_network_counts_and_goes_on_counting_until_it_ends() {
        let clock = Clock::system();
        let measures = Measures::new(clock.clone());
        let order = |networks: &[(&str, u32)]| {
            let until = clock.now() + TimeDelta::hours(1);
            let measure = |(network, per_minute): &(&str, u32)| InForce {
                measure: Measure::Address { network: network.parse().unwrap(), per_minute: *per_minute },
                until,
            };
            let next = Known::after(&measures.known.load(), networks.iter().map(measure).collect());
            measures.known.store(Arc::new(next));
        };
        let take = |address: &str| {
            let address = address.parse().unwrap();
            measures.take(address, address).map(|outcome| outcome.is_ok())
        };
        let networks = [("192.0.2.0/24", 0), ("2001:db8::/32", 1), ("192.0.2.7", 2)];
        order(&networks);
        assert_eq!([(); 3].map(|()| take("192.0.2.7")), [Some(true), Some(true), Some(false)]);
        order(&networks);
        assert_eq!((take("192.0.2.7"), take("192.0.2.8")), (Some(false), Some(false)));
        assert_eq!((take("2001:db8::1"), take("2001:db8::1"), take("2001:db9::1")), (Some(true), Some(false), None));
        order(&[("192.0.2.7", 3)]);
        assert_eq!((take("192.0.2.7"), take("192.0.2.8")), (Some(true), None));
        clock.advance(Duration::from_secs(3_601));
        assert_eq!(take("192.0.2.7"), None);
    }
}
