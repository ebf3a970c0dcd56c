//! What callers may hold at once: connections, requests in work, bytes of unread responses (RATE-09).
//!
//! Three limits: in all, for one network, and for one authenticated caller. A network or caller may
//! also never hold more than is still free, so the fuller the budget, the less one of them can
//! add, and a newcomer finds room (the dynamic threshold of Choudhury and Hahne, 1998).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::client::Caller;

/// The most that may be held at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) total: usize,
    pub(super) per_network: usize,
    pub(super) per_principal: usize,
}

/// What one limit counts.
#[derive(Debug)]
pub(super) struct Budget {
    limits: Limits,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    by_caller: HashMap<Caller, usize>,
}

/// A part of a budget. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    callers: Callers,
    amount: usize,
}

/// The network, and the authenticated caller, that hold a share. Without either, only the total counts.
pub(super) type Callers = [Option<Caller>; 2];

impl Budget {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, held: Mutex::default() })
    }

    /// Takes so much, if that stays within the limits.
    pub(super) fn take(self: &Arc<Self>, callers: Callers, amount: usize) -> Option<Share> {
        let mut held = self.lock();
        let free = self.limits.total.saturating_sub(held.total);
        let fits = |caller: &Caller| {
            let limit = self.limit(caller).min(free);
            held.by_caller.get(caller).copied().unwrap_or(0).saturating_add(amount) <= limit
        };
        if amount > free || !callers.iter().flatten().all(fits) {
            return None;
        }
        held.add(&callers, amount);
        drop(held);
        Some(Share { budget: Arc::clone(self), callers, amount })
    }

    fn limit(&self, caller: &Caller) -> usize {
        match caller {
            Caller::Principal(_) => self.limits.per_principal,
            Caller::Network(_) | Caller::Probe(_) | Caller::Untraceable(_) => self.limits.per_network,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn add(&mut self, callers: &Callers, amount: usize) {
        self.total += amount;
        for caller in callers.iter().flatten() {
            *self.by_caller.entry(*caller).or_default() += amount;
        }
    }

    fn remove(&mut self, callers: &Callers, amount: usize) {
        self.total = self.total.saturating_sub(amount);
        for caller in callers.iter().flatten() {
            match self.by_caller.get_mut(caller) {
                Some(held) if *held > amount => *held -= amount,
                _ => {
                    self.by_caller.remove(caller);
                }
            }
        }
    }
}

impl Share {
    /// Gives a part of it back.
    pub(super) fn give_back(&mut self, amount: usize) {
        let amount = amount.min(self.amount);
        if amount > 0 {
            self.amount -= amount;
            self.budget.lock().remove(&self.callers, amount);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { total: 100, per_network: 30, per_principal: 10 };

    fn network(last: u8) -> Callers {
        [Some(Caller::Network([192, 0, 2, last].into())), None]
    }

    #[test]
    fn rate_09_no_network_or_caller_holds_more_than_its_limit() {
        let budget = Budget::new(LIMITS);
        let mut share = budget.take(network(1), 30).unwrap();
        assert!(budget.take(network(1), 1).is_none());
        share.give_back(1);
        let one = budget.take(network(1), 1).unwrap();
        drop((share, one));
        let alice = [network(2)[0], Some(Caller::Principal(7))];
        let held = budget.take(alice, 10).unwrap();
        assert!(budget.take(alice, 1).is_none());
        assert!(budget.take(network(2), 20).is_some(), "others of the network have the rest");
        drop(held);
        assert!(budget.lock().by_caller.is_empty());
        assert_eq!(budget.lock().total, 0);
    }

    #[test]
    fn rate_09_the_fuller_a_budget_the_less_one_network_can_add() {
        let budget = Budget::new(LIMITS);
        let mut shares = Vec::new();
        for last in 0..4 {
            while let Some(share) = budget.take(network(last), 1) {
                shares.push(share);
            }
        }
        assert!(budget.lock().total < 100);
        assert!(budget.take(network(5), 1).is_some(), "a newcomer finds room");
        assert!(budget.take([None, None], 50).is_none());
    }
}
