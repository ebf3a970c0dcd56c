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

    /// Whether it has so many addresses that naming it names nobody: more than a /8 of IPv4 or a /32 of IPv6.
    pub(super) fn is_too_wide(self) -> bool {
        match self.0 {
            IpNet::V4(network) => network.prefix_len() < 8,
            IpNet::V6(network) => network.prefix_len() < 32,
        }
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let network = s.parse().ok().or_else(|| s.parse::<IpAddr>().ok().map(IpNet::from));
        network.map(|network: IpNet| Self(network.trunc())).ok_or("expected networks such as 10.0.0.0/8, or addresses")
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// In which header proxies say whom they were called by. Only that one counts: one that they hand on is the
/// caller's to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239)
    Forwarded,
}

impl FromStr for ProxyHeader {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s.to_ascii_lowercase().as_str() {
            "x-forwarded-for" => Ok(Self::XForwardedFor),
            "forwarded" => Ok(Self::Forwarded),
            _ => Err("expected `x-forwarded-for` or `forwarded`"),
        }
    }
}
