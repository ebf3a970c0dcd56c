use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::authn::Peer;

/// The two ends of the connection. An extension of every request.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) remote: SocketAddr,
    pub(super) local: SocketAddr,
    /// What the other end showed.
    pub(super) peer: Peer,
}

/// Whom a request is from, through however many declared proxies. An extension of every request that
/// [`context`](super::context) let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client(pub(super) IpAddr);

impl Client {
    /// What limits count by: an IPv4 address, or the /64 of an IPv6 one, which is the least
    /// anybody is given (RFC 6177) and so no way to get a bucket per address in it.
    pub(super) fn network(&self) -> IpAddr {
        match self.0.to_canonical() {
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 @ IpAddr::V4(_) => v4,
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
