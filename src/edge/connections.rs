use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Counts connections, in all and by the network they come from (RATE-09).
#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
    most_per_network: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_network: HashMap<IpAddr, usize>,
}

/// A connection that is counted. It counts no more when this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    connections: Arc<Connections>,
    network: Option<IpAddr>,
}

impl Connections {
    pub(super) fn new(most: usize, most_per_network: usize) -> Arc<Self> {
        Arc::new(Self { most, most_per_network, open: Mutex::default() })
    }

    /// Counts one more, if that is not too many. Without a network it counts in all only.
    pub(super) fn admit(self: &Arc<Self>, network: Option<IpAddr>) -> Option<Counted> {
        let mut open = self.open();
        let here = network.map_or(0, |network| open.by_network.get(&network).copied().unwrap_or(0));
        if open.all >= self.most || here >= self.most_per_network {
            return None;
        }
        open.all += 1;
        if let Some(network) = network {
            open.by_network.insert(network, here + 1);
        }
        Some(Counted { connections: Arc::clone(self), network })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.connections.open();
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
