//! The client of a request, and the keys that rate limits and budgets count by (RATE-01, RATE-06).
//!
//! The listener makes a [`Connection`], [`super::context`] the [`ClientAddress`], and
//! [`super::network_limits`] the [`LimitKey`]. Inner layers read them as request extensions.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::activity::Activity;
use crate::{authn::ConnectionInfo, model::ClientNetwork};

/// The connection of a request. An extension of every request.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) remote: SocketAddr,
    pub(super) local: SocketAddr,
    /// The client certificate, if the client presented one, and the kind of the listener.
    pub(super) info: ConnectionInfo,
    pub(super) activity: Arc<Activity>,
}

/// The client's address behind any number of trusted proxies. An extension of each request whose
/// proxies name the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientAddress(pub(super) IpAddr);

/// The key that limits count by. An extension of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LimitKey {
    /// A network of the client, from [`ClientAddress::network`] the narrowest.
    Network(ClientNetwork),
    /// A recently authenticated principal: the authenticator's hash of its tenant and subject.
    Principal(u64),
    /// Health probes that this trusted proxy sends itself.
    Probe(IpAddr),
    /// All clients that this trusted proxy does not name. The proxy's own requests have another
    /// key.
    Unidentified(IpAddr),
}

impl ClientAddress {
    pub(super) fn network(self) -> ClientNetwork {
        ClientNetwork::narrowest(self.0)
    }
}

impl LimitKey {
    /// The keys that this one counts by, narrowest first, each with the multiple of the limit that
    /// it has. Only a network counts by more than itself.
    pub(super) fn levels(self) -> impl Iterator<Item = (Self, u32)> {
        let (network, other) = match self {
            Self::Network(network) => (Some(network), None),
            _ => (None, Some((self, 1))),
        };
        let networks = network.into_iter().flat_map(ClientNetwork::levels);
        networks.map(|(network, factor)| (Self::Network(network), factor)).chain(other)
    }
}

/// The source in security events.
impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Probe(proxy) => proxy.fmt(f),
            Self::Principal(_) => f.write_str("authenticated caller"),
            Self::Unidentified(proxy) => write!(f, "unidentified client of proxy {proxy}"),
        }
    }
}
