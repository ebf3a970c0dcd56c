use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

/// A network, as `10.0.0.0/8` or `2001:db8::/32`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether the address is one of its.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// How many leading bits its addresses have in common.
    #[must_use]
    pub fn prefix_len(self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether it has so many addresses that naming it names nobody: more than a /8 of IPv4 or a /32 of IPv6.
    #[must_use]
    pub fn is_too_wide(self) -> bool {
        match self.0 {
            IpNet::V4(network) => network.prefix_len() < 8,
            IpNet::V6(network) => network.prefix_len() < 32,
        }
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let address = || s.parse::<IpAddr>().ok().map(|address| IpNet::from(address.to_canonical()));
        let network = s.parse().ok().or_else(address);
        network.map(|network: IpNet| Self(network.trunc())).ok_or("expected networks such as 10.0.0.0/8, or addresses")
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
