//! Operator overrides: limits and read-only mode that apply until they expire (LOG-08, RATE-03).
//!
//! Operators set overrides through `incident throttle` and `incident read-only`, which write them
//! to the database. Every replica loads all of them once a second into memory, so a request never
//! waits for the database to learn its limit. While the database is down, the last loaded overrides
//! stay in force until each expires.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};

use super::LocalBuckets;
use crate::{
    db::{Credentials, DbError},
    model::{ActiveOverride, ClientNetwork, Clock, Network, Override, QuotaName, TenantId},
    telemetry::event,
};

/// Interval between loads. It keeps the promise "in force on every replica within 2 s".
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// `Retry-After` for a network that is blocked completely (limit 0).
const BLOCKED_RETRY_AFTER: Duration = Duration::from_mins(1);

/// The overrides in force on this replica.
#[derive(Debug)]
pub struct Overrides {
    current: ArcSwap<Snapshot>,
    /// The requests of clients in limited networks.
    buckets: LocalBuckets,
    clock: Clock,
}

/// One load of the overrides table. Each override carries its expiry.
#[derive(Debug, Default)]
struct Snapshot {
    /// Quotas of one tenant, and of all tenants (`None`).
    quotas: HashMap<(Option<TenantId>, QuotaName), (u32, DateTime<Utc>)>,
    /// Sorted by prefix length, longest first, so that the first match is the most specific.
    network_limits: Vec<(NetworkLimit, DateTime<Utc>)>,
    read_only_until: Option<DateTime<Utc>>,
    /// Number of rows that this version cannot parse. They are skipped and reported.
    unreadable: usize,
}

/// A limit for each address of a network. 0 blocks the network.
#[derive(Clone, Copy, Debug)]
struct NetworkLimit {
    network: Network,
    per_minute: u32,
}

impl Overrides {
    /// No overrides until the first [`Self::refresh`].
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { current: ArcSwap::default(), buckets: LocalBuckets::new(clock.clone()), clock }
    }

    /// The quota an operator set for this tenant, or for all tenants, in calls per minute.
    ///
    /// A tenant's own override takes precedence over the global one. `None`: the settings apply.
    pub(crate) fn quota(&self, tenant: TenantId, name: QuotaName) -> Option<u32> {
        let current = self.current.load();
        let active = |(per_minute, until): &(u32, DateTime<Utc>)| self.is_active(*until).then_some(*per_minute);
        [Some(tenant), None].into_iter().find_map(|tenant| current.quotas.get(&(tenant, name)).and_then(active))
    }

    /// Whether read-only mode is on.
    pub(crate) fn is_read_only(&self) -> bool {
        self.current.load().read_only_until.is_some_and(|until| self.is_active(until))
    }

    /// Counts one request against the most specific network limit that contains `address`.
    ///
    /// Counts by `client` and its wider networks, as the rate limit per address does. Returns `None`
    /// if no override covers the address. If a limit is exhausted, the error is the time to wait and
    /// the multiple of the limit that the exhausted network has.
    pub(crate) fn check_network(&self, address: IpAddr, client: ClientNetwork) -> Option<Result<(), (Duration, u32)>> {
        let address = address.to_canonical();
        let current = self.current.load();
        let mut active = current.network_limits.iter().filter(|(_, until)| self.is_active(*until));
        let (limit, _) = active.find(|(limit, _)| limit.network.contains(address))?;
        if limit.per_minute == 0 {
            return Some(Err((BLOCKED_RETRY_AFTER, 1)));
        }
        let take = |(network, factor): (ClientNetwork, u32)| {
            let taken = self.buckets.take(&network, limit.per_minute.saturating_mul(factor));
            taken.map(drop).map_err(|wait| (wait, factor))
        };
        Some(client.levels().try_for_each(take))
    }

    fn is_active(&self, until: DateTime<Utc>) -> bool {
        self.clock.now() < until
    }

    /// Loads the overrides once a second. Runs until the service stops.
    pub async fn refresh_periodically(&self, store: &Credentials) {
        let mut is_failing = false;
        loop {
            tokio::time::sleep(REFRESH_INTERVAL).await;
            match self.refresh(store).await {
                Ok(()) => is_failing = false,
                Err(error) if !is_failing => {
                    tracing::warn!(%error, "could not load operator overrides");
                    is_failing = true;
                }
                Err(_) => {}
            }
        }
    }

    /// Removes the counters of idle addresses.
    pub(super) fn evict_idle(&self) {
        self.buckets.evict_idle();
    }

    /// Loads the overrides from the database.
    ///
    /// Called once before the first request is served: a restart must not lift a limit.
    ///
    /// # Errors
    /// [`DbError`] if the database cannot be read; the previous overrides stay in force.
    pub async fn refresh(&self, store: &Credentials) -> Result<(), DbError> {
        let (overrides, unreadable) = store.overrides().await?;
        let previous = self.current.load();
        let next = Snapshot { unreadable, ..Snapshot::new(overrides) };
        if next.unreadable > previous.unreadable {
            event::override_unreadable(next.unreadable);
        }
        if next.read_only_until.is_some() != previous.read_only_until.is_some() {
            let until = next.read_only_until.map(|until| until.to_rfc3339());
            tracing::warn!(until, "read-only mode changed");
        }
        self.current.store(Arc::new(next));
        Ok(())
    }
}

impl Snapshot {
    fn new(overrides: Vec<ActiveOverride>) -> Self {
        let mut next = Self::default();
        for ActiveOverride { value, until } in overrides {
            match value {
                Override::TenantQuota { tenant, name, per_minute } => {
                    next.quotas.insert((Some(tenant), name), (per_minute, until));
                }
                Override::GlobalQuota { name, per_minute } => {
                    next.quotas.insert((None, name), (per_minute, until));
                }
                Override::NetworkLimit { network, per_minute } => {
                    next.network_limits.push((NetworkLimit { network, per_minute }, until));
                }
                Override::ReadOnly => next.read_only_until = Some(until),
            }
        }
        next.network_limits.sort_by_key(|(limit, _)| std::cmp::Reverse(limit.network.prefix_len()));
        next
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn log_08_most_specific_network_limit_applies_until_it_expires() {
        let clock = Clock::system();
        let overrides = Overrides::new(clock.clone());
        let load = |networks: &[(&str, u32)]| {
            let until = clock.now() + TimeDelta::hours(1);
            let active = |(network, per_minute): &(&str, u32)| ActiveOverride {
                value: Override::NetworkLimit { network: network.parse().unwrap(), per_minute: *per_minute },
                until,
            };
            let next = Snapshot::new(networks.iter().map(active).collect());
            overrides.current.store(Arc::new(next));
        };
        let check = |address: &str| {
            let address = address.parse().unwrap();
            overrides.check_network(address, ClientNetwork::narrowest(address)).map(|result| result.is_ok())
        };
        let networks = [("192.0.2.0/24", 0), ("2001:db8::/32", 1), ("192.0.2.7", 2)];
        load(&networks);
        assert_eq!([(); 3].map(|()| check("192.0.2.7")), [Some(true), Some(true), Some(false)]);
        // Loading a limit keeps its counters.
        load(&networks);
        assert_eq!((check("192.0.2.7"), check("192.0.2.8")), (Some(false), Some(false)));
        assert_eq!((check("2001:db8::1"), check("2001:db8::1"), check("2001:db9::1")), (Some(true), Some(false), None));
        // A changed limit hands out nothing that was used already.
        load(&[("192.0.2.7", 3)]);
        assert_eq!((check("192.0.2.7"), check("192.0.2.8")), (Some(false), None));
        clock.advance(Duration::from_secs(20));
        assert_eq!(check("192.0.2.7"), Some(true));
        clock.advance(Duration::from_secs(3_601));
        assert_eq!(check("192.0.2.7"), None);
    }
}
