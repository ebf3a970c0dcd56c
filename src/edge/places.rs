use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Places that are taken, connections or requests in work, in all and by the network they are taken from (RATE-09): nobody
/// gets all of them.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    most_per_network: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_network: HashMap<IpAddr, usize>,
}

/// A place. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    network: Option<IpAddr>,
}

impl Places {
    pub(super) fn new(most: usize, most_per_network: usize) -> Arc<Self> {
        Arc::new(Self { most, most_per_network, open: Mutex::default() })
    }

    /// Takes one more, if that is not too many. Without a network it counts in all only.
    pub(super) fn take(self: &Arc<Self>, network: Option<IpAddr>) -> Option<Place> {
        let mut open = self.open();
        let here = network.map_or(0, |network| open.by_network.get(&network).copied().unwrap_or(0));
        if open.all >= self.most || here >= self.most_per_network {
            return None;
        }
        open.all += 1;
        if let Some(network) = network {
            open.by_network.insert(network, here + 1);
        }
        Some(Place { places: Arc::clone(self), network })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.places.open();
        open.all -= 1;
        let Some(network) = self.network else { return };
        match open.by_network.get_mut(&network) {
            Some(here) if *here > 1 => *here -= 1,
            _ => {
                open.by_network.remove(&network);
            }
        }
    }
}
