//! IP networks in CIDR notation, for trusted proxies and for network limits of operators.
//!
//! IPv4-mapped IPv6 networks are stored as IPv4 networks, so that they match canonical client
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

#[cfg(test)]
mod tests {
    use super::*;

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
