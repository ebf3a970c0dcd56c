//! Client address behind trusted proxies, from `X-Forwarded-For` or `Forwarded` (RATE-07).
//!
//! Each proxy appends the address of its peer to the header. Elements left of the one that the
//! first trusted proxy appended were written by the client. So the header is parsed right to left,
//! element by element, and only while the addresses belong to trusted proxies. Elements further
//! left may contain anything.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    model::Network,
    settings::{Http, ProxyHeader},
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Longest chain of proxies.
const MAX_HOPS: usize = 16;

/// The proxies whose forwarding header counts, and the name of that header.
#[derive(Clone, Debug)]
pub(super) struct TrustedProxies {
    networks: Vec<Network>,
    header: ProxyHeader,
}

/// The forwarding header has no readable element of this trusted proxy. An extension of the
/// request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidForwardedHeader {
    pub(super) proxy: IpAddr,
}

impl TrustedProxies {
    pub(super) fn new(http: &Http) -> Self {
        Self { networks: http.trusted_proxies.clone(), header: http.proxy_header }
    }

    /// Trusts no proxy: the peer of the connection is the client.
    pub(super) fn none() -> Self {
        Self { networks: Vec::new(), header: ProxyHeader::default() }
    }

    /// The client's address: the rightmost address that does not belong to a trusted proxy.
    pub(super) fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> Result<IpAddr, InvalidForwardedHeader> {
        let mut nearest = peer.to_canonical();
        if !self.contains(nearest) {
            return Ok(nearest);
        }
        // All lines together are one list (RFC 9110 section 5.3).
        let chain = match self.header {
            ProxyHeader::XForwardedFor => elements(headers, &X_FORWARDED_FOR, x_forwarded_for),
            ProxyHeader::Forwarded => elements(headers, &http::header::FORWARDED, forwarded),
        };
        for (hops, element) in chain.into_iter().enumerate() {
            let address = element.and_then(parse_address).ok_or(InvalidForwardedHeader { proxy: nearest })?;
            if hops == MAX_HOPS {
                return Err(InvalidForwardedHeader { proxy: nearest });
            }
            nearest = address;
            if !self.contains(nearest) {
                return Ok(nearest);
            }
        }
        // A request of the proxy itself, such as a health probe.
        Ok(nearest)
    }

    /// Whether the address belongs to a trusted proxy.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(address))
    }
}

/// The client address in an element; `None` if the element is unreadable.
type Element<'h> = Option<&'h [u8]>;

/// The elements of all lines of a header, right to left.
fn elements<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    parse_line: fn(&'h [u8]) -> Vec<Element<'h>>,
) -> Vec<Element<'h>> {
    headers.get_all(name).iter().rev().map(HeaderValue::as_bytes).flat_map(parse_line).collect()
}

fn x_forwarded_for(line: &[u8]) -> Vec<Element<'_>> {
    line.rsplit(|byte| *byte == b',').map(Some).collect()
}

/// The `for` parameter of each element (RFC 7239 section 4).
fn forwarded(line: &[u8]) -> Vec<Element<'_>> {
    split_right_to_left(line, b',').into_iter().map(|element| forwarded_for(element?)).collect()
}

/// The `for` parameter of one element. An element without it, or with two of them, is unreadable.
fn forwarded_for(element: &[u8]) -> Element<'_> {
    let mut clients = Vec::new();
    for pair in split_right_to_left(element, b';') {
        let mut parts = pair?.splitn(2, |byte| *byte == b'=').map(<[u8]>::trim_ascii);
        let name = parts.next()?;
        let value = parts.next()?;
        if name.eq_ignore_ascii_case(b"for") {
            clients.push(value);
        }
    }
    let [client] = clients[..] else { return None };
    match client.strip_prefix(b"\"") {
        Some(quoted) => quoted.strip_suffix(b"\""),
        None => Some(client),
    }
}

/// The parts between separators outside quotes, right to left: the client may have written the
/// parts further left, with a quote that it never closes.
///
/// A part with a backslash is unreadable and ends the list: the backslash may escape a quote, and
/// no address needs one.
fn split_right_to_left(text: &[u8], separator: u8) -> Vec<Option<&[u8]>> {
    let mut quoted = false;
    let is_separator = |byte: &u8| {
        quoted ^= *byte == b'"';
        *byte == separator && !quoted
    };
    let mut parts: Vec<_> = text.rsplit(is_separator).map(|part| (!part.contains(&b'\\')).then_some(part)).collect();
    if let Some(unreadable) = parts.iter().position(Option::is_none) {
        parts.truncate(unreadable + 1);
    } else if quoted {
        parts.pop();
        parts.push(None);
    }
    parts
}

/// An address with or without a port: `192.0.2.7`, `192.0.2.7:80`, `2001:db8::1`,
/// `[2001:db8::1]:80`.
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse().map(|socket: std::net::SocketAddr| socket.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(header: ProxyHeader, peer: &str, lines: &[&[u8]]) -> Option<String> {
        let networks = ["10.0.0.0/8", "2001:db8:0:1::/64"].map(|network| network.parse().unwrap()).to_vec();
        let proxies = TrustedProxies { networks, header };
        let mut headers = HeaderMap::new();
        let name = if header == ProxyHeader::Forwarded { http::header::FORWARDED } else { X_FORWARDED_FOR };
        for line in lines {
            headers.append(name.clone(), HeaderValue::from_bytes(line).unwrap());
        }
        proxies.client_address(peer.parse().unwrap(), &headers).ok().map(|address| address.to_string())
    }

    #[test]
    fn rate_07_rightmost_untrusted_address_is_the_client() {
        let read = |peer, lines: &[&str]| {
            let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
            client(ProxyHeader::XForwardedFor, peer, &lines)
        };
        for (peer, lines, expected) in [
            // The header of an untrusted peer does not count.
            ("203.0.113.9", &["192.0.2.1"][..], Some("203.0.113.9")),
            ("10.0.0.1", &[], Some("10.0.0.1")),
            ("10.0.0.1", &["192.0.2.1"], Some("192.0.2.1")),
            ("::ffff:10.0.0.1", &["::ffff:192.0.2.1"], Some("192.0.2.1")),
            ("2001:db8:0:1::7", &["2001:db8:9::1"], Some("2001:db8:9::1")),
            // Elements further left were written by the client, even if they name a proxy.
            ("10.0.0.1", &["10.0.0.9, 192.0.2.1"], Some("192.0.2.1")),
            ("10.0.0.1", &["nonsense, 192.0.2.1"], Some("192.0.2.1")),
            ("10.0.0.1", &["192.0.2.66", "192.0.2.1, 10.0.0.2"], Some("192.0.2.1")),
            ("10.0.0.1", &["10.0.0.2,10.0.0.3"], Some("10.0.0.2")),
            ("10.0.0.1", &["192.0.2.1:4711"], Some("192.0.2.1")),
            ("10.0.0.1", &["[2001:db8:9::1]:4711"], Some("2001:db8:9::1")),
            ("10.0.0.1", &["192.0.2.1, nonsense"], None),
            ("10.0.0.1", &["192.0.2.1,"], None),
            ("10.0.0.1", &["unknown"], None),
            ("10.0.0.1", &[""], None),
        ] {
            assert_eq!(read(peer, lines).as_deref(), expected, "{peer} {lines:?}");
        }
        assert_eq!(read("10.0.0.1", &[&["10.0.0.2"; 40].join(",")]), None);
        // A byte outside ASCII makes its element unreadable, not the whole line.
        let bytes = |line: &[u8]| client(ProxyHeader::XForwardedFor, "10.0.0.1", &[line]);
        assert_eq!(bytes(b"\xc3\xa9\xff, 192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(bytes(b"192.0.2.1, \xff"), None);
    }

    #[test]
    fn rate_07_forwarded_is_parsed_by_rfc_7239() {
        let read = |line: &str| client(ProxyHeader::Forwarded, "10.0.0.1", &[line.as_bytes()]);
        for (line, expected) in [
            ("for=192.0.2.1", Some("192.0.2.1")),
            ("For=\"[2001:db8:9::1]:4711\";proto=https;by=10.0.0.1", Some("2001:db8:9::1")),
            ("for=192.0.2.66, for=192.0.2.1;host=\"a,b;c\", for=10.0.0.2", Some("192.0.2.1")),
            ("for=\"192.0.2.1:80\"", Some("192.0.2.1")),
            ("nonsense, for=192.0.2.1", Some("192.0.2.1")),
            ("for=192.0.2.66;for=192.0.2.67, for=192.0.2.1", Some("192.0.2.1")),
            ("for=_hidden", None),
            ("for=unknown", None),
            ("for=\"192.0.2.1", None),
            // The client opened a quote and never closed it, left of the proxy's element.
            ("for=\"192.0.2.66, for=192.0.2.1", Some("192.0.2.1")),
            ("\", for=\"[2001:db8:9::1]\";host=\"a, for=192.0.2.66\"", Some("2001:db8:9::1")),
            ("for=192.0.2.1;host=\"a\\\", for=192.0.2.66, for=\\\"b\"", None),
            ("for=\"\\192.0.2.1\"", None),
            ("for=192.0.2.1;for=192.0.2.66", None),
            ("proto=https", None),
            ("192.0.2.1", None),
        ] {
            assert_eq!(read(line).as_deref(), expected, "{line}");
        }
    }
}
