//! The client of a request, and what its limits count by.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use super::activity::Activity;
use crate::authn::Peer;

/// The two ends of the connection. An extension of every request.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) remote: SocketAddr,
    pub(super) local: SocketAddr,
    /// The certificate of the remote end, if it showed one.
    pub(super) peer: Peer,
    /// The requests of the connection.
    pub(super) activity: Arc<Activity>,
}

/// The client's address, through however many declared proxies. An extension of each request whose
/// proxies name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client(pub(super) IpAddr);

/// What limits count by. An extension of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Caller {
    /// The network of the client, as [`Client::network`] gives it.
    Network(IpAddr),
    /// A principal that was authenticated lately, by the number the authenticator has for it.
    Principal(u64),
    /// Health probes that this declared proxy makes itself.
    Probe(IpAddr),
    /// Clients that this declared proxy does not name. The proxy's own requests do not count as theirs.
    Untraceable(IpAddr),
}

impl Client {
    /// An IPv4 address, or the /64 of an IPv6 one, which is the smallest network that a site gets
    /// (RFC 6177). A limit per address would be one per each of 2^64.
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

/// As events name the source.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) | Self::Probe(network) => network.fmt(f),
            Self::Principal(_) => f.write_str("authenticated caller"),
            Self::Untraceable(proxy) => write!(f, "unnamed client of proxy {proxy}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str) -> String {
        Client(address.parse().unwrap()).network().to_string()
    }

    #[test]
    fn rate_01_addresses_count_by_the_network_a_client_is_given() {
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
