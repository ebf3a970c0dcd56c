//! Concurrency limits for connections, requests in progress and unread response bytes (RATE-09).
//!
//! A budget has three limits: in total, per network (wider networks have a multiple of it), and per
//! authenticated caller. A network or caller may also never hold more than is still free. The fuller
//! the budget, the less each of them can add, so a new client finds room without an eviction (the
//! dynamic threshold of Choudhury and Hahne, 1998).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::client::LimitKey;

/// Most that callers may hold at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) total: usize,
    pub(super) per_network: usize,
    pub(super) per_principal: usize,
}

/// A limited resource, shared by all callers.
#[derive(Debug)]
pub(super) struct Budget {
    limits: Limits,
    usage: Mutex<Usage>,
}

#[derive(Debug, Default)]
struct Usage {
    total: usize,
    by_key: HashMap<LimitKey, usize>,
}

/// A reserved part of a budget. Dropping it releases the part.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    keys: LimitKeys,
    amount: usize,
}

/// The network and the authenticated caller that a reservation counts against. Without either, only
/// the total limit applies.
pub(super) type LimitKeys = [Option<LimitKey>; 2];

impl Budget {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, usage: Mutex::default() })
    }

    /// Reserves `amount` if it stays within all limits.
    pub(super) fn try_reserve(self: &Arc<Self>, keys: LimitKeys, amount: usize) -> Option<Reservation> {
        let mut usage = self.lock();
        let free = self.limits.total.saturating_sub(usage.total);
        let fits = |(key, factor): (LimitKey, u32)| {
            let limit = self.limit(key).saturating_mul(factor as usize).min(free);
            usage.by_key.get(&key).copied().unwrap_or(0).saturating_add(amount) <= limit
        };
        if amount > free || !levels(&keys).all(fits) {
            return None;
        }
        usage.add(&keys, amount);
        drop(usage);
        Some(Reservation { budget: Arc::clone(self), keys, amount })
    }

    fn limit(&self, key: LimitKey) -> usize {
        match key {
            LimitKey::Principal(_) => self.limits.per_principal,
            LimitKey::Network(_) | LimitKey::Probe(_) | LimitKey::Unidentified(_) => self.limits.per_network,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn levels(keys: &LimitKeys) -> impl Iterator<Item = (LimitKey, u32)> {
    keys.iter().flatten().flat_map(|key| key.levels())
}

impl Usage {
    fn add(&mut self, keys: &LimitKeys, amount: usize) {
        self.total += amount;
        for (key, _) in levels(keys) {
            *self.by_key.entry(key).or_default() += amount;
        }
    }

    fn subtract(&mut self, keys: &LimitKeys, amount: usize) {
        self.total = self.total.saturating_sub(amount);
        for (key, _) in levels(keys) {
            match self.by_key.get_mut(&key) {
                Some(used) if *used > amount => *used -= amount,
                _ => {
                    self.by_key.remove(&key);
                }
            }
        }
    }
}

impl Reservation {
    /// Releases a part of the reservation.
    pub(super) fn release(&mut self, amount: usize) {
        let amount = amount.min(self.amount);
        if amount > 0 {
            self.amount -= amount;
            self.budget.lock().subtract(&self.keys, amount);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::client::ClientAddress, *};

    const LIMITS: Limits = Limits { total: 100, per_network: 30, per_principal: 10 };

    fn network(third: u8) -> LimitKeys {
        [Some(LimitKey::Network(ClientAddress([192, 0, third, 1].into()).network())), None]
    }

    #[test]
    fn rate_09_a_network_or_caller_never_exceeds_its_limit() {
        let budget = Budget::new(LIMITS);
        let mut reservation = budget.try_reserve(network(1), 30).unwrap();
        assert!(budget.try_reserve(network(1), 1).is_none());
        reservation.release(1);
        let second = budget.try_reserve(network(1), 1).unwrap();
        drop((reservation, second));
        let alice = [network(2)[0], Some(LimitKey::Principal(7))];
        let reservation = budget.try_reserve(alice, 10).unwrap();
        assert!(budget.try_reserve(alice, 1).is_none());
        assert!(budget.try_reserve(network(2), 20).is_some(), "other callers of the network get the rest");
        drop(reservation);
        assert!(budget.lock().by_key.is_empty());
        assert_eq!(budget.lock().total, 0);
    }

    #[test]
    fn rate_09_a_full_budget_leaves_room_for_a_new_client() {
        let budget = Budget::new(LIMITS);
        let mut reservations = Vec::new();
        for last in 0..4 {
            while let Some(reservation) = budget.try_reserve(network(last), 1) {
                reservations.push(reservation);
            }
        }
        assert!(budget.lock().total < 100);
        assert!(budget.try_reserve(network(5), 1).is_some(), "no room for a new client");
        assert!(budget.try_reserve([None, None], 50).is_none());
    }
}
