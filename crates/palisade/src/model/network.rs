//! IP networks: those that operators name ([`Network`]), and those that limits count clients by
//! ([`ClientNetwork`]).
//!
//! IPv4-mapped IPv6 addresses and networks are stored as IPv4, so that they match canonical client
//! addresses.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::{IpNet, Ipv4Net};

/// A network such as `10.0.0.0/8` or `2001:db8::/32`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether the network contains the address.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// The prefix length in bits.
    #[must_use]
    pub fn prefix_len(self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether the network is wider than these prefixes of IPv4 and IPv6.
    #[must_use]
    pub fn is_wider_than(self, v4: u8, v6: u8) -> bool {
        self.prefix_len() < if self.0.addr().is_ipv4() { v4 } else { v6 }
    }

    /// Whether all its addresses belong to this machine.
    #[must_use]
    pub fn is_loopback(self) -> bool {
        self.0.network().is_loopback() && self.0.broadcast().is_loopback()
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let network = s.parse().ok().or_else(|| s.parse::<IpAddr>().ok().map(IpNet::from));
        network
            .map(|network| Self(canonical(network).trunc()))
            .ok_or("expected networks such as 10.0.0.0/8, or addresses")
    }
}

/// Turns a network of IPv4-mapped IPv6 addresses (RFC 4291 section 2.5.5.2) into an IPv4 network.
fn canonical(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V6(network) => network.addr().to_ipv4_mapped().zip(network.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    mapped.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(network, IpNet::from)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A network that limits count clients by.
///
/// A client counts in several networks. The wider ones stop an attacker with many addresses, such
/// as the 65,536 networks (/64) of an IPv6 site (/48).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientNetwork(IpNet);

impl ClientNetwork {
    /// The prefix lengths that count, narrowest first, and the limit of each as a multiple of the
    /// narrowest network's. docs/access-decisions.md has the reasons.
    const IPV4: &[(u8, u32)] = &[(32, 1), (24, 32)];
    const IPV6: &[(u8, u32)] = &[(64, 1), (56, 8), (48, 32)];
    /// All multiples that occur.
    pub(crate) const FACTORS: [u32; 3] = [1, 8, 32];

    /// The narrowest network: an IPv4 address, or the /64 of an IPv6 address, which is the smallest
    /// network that a site gets (RFC 6177).
    #[must_use]
    pub fn narrowest(address: IpAddr) -> Self {
        let address = IpNet::from(address.to_canonical());
        let length = if address.addr().is_ipv4() { 32 } else { 64 };
        Self(IpNet::new(address.addr(), length).unwrap_or(address).trunc())
    }

    /// All networks that a client of this one counts in, narrowest first, each with the multiple of
    /// the limit that it has.
    pub(crate) fn levels(self) -> impl Iterator<Item = (Self, u32)> {
        let levels = if self.0.addr().is_ipv4() { Self::IPV4 } else { Self::IPV6 };
        levels.iter().filter_map(move |(length, factor)| {
            let network = IpNet::new(self.0.addr(), *length).ok()?;
            Some((Self(network.trunc()), *factor))
        })
    }

    /// The first address of the network.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.0.addr()
    }
}

impl From<ClientNetwork> for Network {
    fn from(client: ClientNetwork) -> Self {
        Self(client.0)
    }
}

impl fmt::Display for ClientNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_01_clients_count_by_nested_networks() {
        let levels = |address: &str| {
            let network = ClientNetwork::narrowest(address.parse().unwrap());
            network.levels().map(|(network, factor)| format!("{network} {factor}")).collect::<Vec<_>>()
        };
        assert_eq!(levels("192.0.2.7"), ["192.0.2.7 1", "192.0.2.0/24 32"]);
        assert_eq!(levels("::ffff:192.0.2.7"), levels("192.0.2.7"));
        let nested = ["2001:db8:1:203::/64 1", "2001:db8:1:200::/56 8", "2001:db8:1::/48 32"];
        assert_eq!(levels("2001:db8:1:203:4:5:6:7"), nested);
    }

    #[test]
    fn log_08_notations_of_one_network_parse_to_the_same_network() {
        for (text, network) in [
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.7/120", "192.0.2.0/24"),
            ("2001:db8:1::1/32", "2001:db8::/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), network);
        }
        assert!("192.0.2.0/33".parse::<Network>().is_err());
    }
}
