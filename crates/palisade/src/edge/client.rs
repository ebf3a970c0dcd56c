//! The client of a request, and the keys that rate limits and budgets count by (RATE-01, RATE-06).
//!
//! The listener makes a [`Connection`], [`super::context`] the [`ClientAddress`], and
//! [`super::network_limits`] the [`LimitKey`]. Inner layers read them as request extensions.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use super::activity::Activity;
use crate::authn::ConnectionInfo;

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
    /// The network of the client, from [`ClientAddress::network`].
    Network(IpAddr),
    /// A recently authenticated principal: the authenticator's hash of its tenant and subject.
    Principal(u64),
    /// Health probes that this trusted proxy sends itself.
    Probe(IpAddr),
    /// All clients that this trusted proxy does not name. The proxy's own requests have another
    /// key.
    Unidentified(IpAddr),
}

impl ClientAddress {
    /// The IPv4 address, or the /64 of an IPv6 address: the smallest network that a site gets
    /// (RFC 6177). A limit per IPv6 address would give each site 2^64 of them.
    pub(super) fn network(self) -> IpAddr {
        match self.0.to_canonical() {
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 @ IpAddr::V4(_) => v4,
        }
    }
}

/// The source in security events.
impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) | Self::Probe(network) => network.fmt(f),
            Self::Principal(_) => f.write_str("authenticated caller"),
            Self::Unidentified(proxy) => write!(f, "unidentified client of proxy {proxy}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str) -> String {
        ClientAddress(address.parse().unwrap()).network().to_string()
    }

    #[test]
    fn rate_01_ipv4_counts_by_address_and_ipv6_by_64_prefix() {
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
