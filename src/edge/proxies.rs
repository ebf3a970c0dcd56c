//! The client of a request that comes through proxies (RATE-07).
//!
//! Each proxy appends the address that it was called from to a header. What stands left of the
//! first declared proxy's own entry was written by the client, so the header is read from the right,
//! element by element, and only as far as the addresses are those of declared proxies. Elements that
//! are not reached may be anything.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    domain::Network,
    settings::{Http, ProxyHeader},
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Most proxies one behind the other.
const MAX_HOPS: usize = 16;

/// The proxies that are believed.
#[derive(Clone, Debug)]
pub(super) struct Proxies {
    trusted: Vec<Network>,
    header: ProxyHeader,
}

/// This declared proxy does not name its client in a way that can be read. An extension of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Untraceable(pub(super) IpAddr);

impl Proxies {
    pub(super) fn new(http: &Http) -> Self {
        Self { trusted: http.trusted_proxies.clone(), header: http.proxy_header }
    }

    /// None: the other end of the connection is the client.
    pub(super) fn none() -> Self {
        Self { trusted: Vec::new(), header: ProxyHeader::default() }
    }

    /// The client's address: the nearest one that is not a declared proxy's.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Result<IpAddr, Untraceable> {
        let mut nearest = peer.to_canonical();
        if !self.trusts(nearest) {
            return Ok(nearest);
        }
        // All lines together are one list (RFC 9110 section 5.3).
        let chain = match self.header {
            ProxyHeader::XForwardedFor => elements(headers, &X_FORWARDED_FOR, x_forwarded_for),
            ProxyHeader::Forwarded => elements(headers, &http::header::FORWARDED, forwarded),
        };
        for (hops, element) in chain.into_iter().enumerate() {
            let named = element.and_then(address).ok_or(Untraceable(nearest))?;
            if hops == MAX_HOPS {
                return Err(Untraceable(nearest));
            }
            nearest = named;
            if !self.trusts(nearest) {
                return Ok(nearest);
            }
        }
        // A proxy's own request: a health probe, say.
        Ok(nearest)
    }

    /// Whether this is a declared proxy's address.
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(address))
    }
}

/// The client that an element names, if it can be read.
type Element<'h> = Option<&'h [u8]>;

/// The elements of all lines of a header, the last one first.
fn elements<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    of_line: fn(&'h [u8]) -> Vec<Element<'h>>,
) -> Vec<Element<'h>> {
    headers.get_all(name).iter().rev().map(HeaderValue::as_bytes).flat_map(of_line).collect()
}

fn x_forwarded_for(line: &[u8]) -> Vec<Element<'_>> {
    line.rsplit(|byte| *byte == b',').map(Some).collect()
}

/// The `for` of each element (RFC 7239 section 4).
fn forwarded(line: &[u8]) -> Vec<Element<'_>> {
    from_the_right(line, b',').into_iter().map(|element| forwarded_for(element?)).collect()
}

/// Of one element. One that names no client, or two, cannot be read.
fn forwarded_for(element: &[u8]) -> Element<'_> {
    let mut clients = Vec::new();
    for pair in from_the_right(element, b';') {
        let mut sides = pair?.splitn(2, |byte| *byte == b'=').map(<[u8]>::trim_ascii);
        let (name, value) = (sides.next()?, sides.next()?);
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

/// The parts of a text between separators outside quotes, the last one first. Read from the right,
/// since what is left of a separator may be a client's, with a quote that it never closes. A part
/// with a backslash cannot be read, and ends the list: it may escape a quote, and no address needs
/// one.
fn from_the_right(text: &[u8], separator: u8) -> Vec<Option<&[u8]>> {
    let mut quoted = false;
    let separates = |byte: &u8| {
        quoted ^= *byte == b'"';
        *byte == separator && !quoted
    };
    let mut parts: Vec<_> = text.rsplit(separates).map(|part| (!part.contains(&b'\\')).then_some(part)).collect();
    if let Some(unreadable) = parts.iter().position(Option::is_none) {
        parts.truncate(unreadable + 1);
    } else if quoted {
        parts.pop();
        parts.push(None);
    }
    parts
}

/// An address with or without a port: `192.0.2.7`, `192.0.2.7:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse().map(|socket: std::net::SocketAddr| socket.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(header: ProxyHeader, peer: &str, lines: &[&[u8]]) -> Option<String> {
        let trusted = ["10.0.0.0/8", "2001:db8:0:1::/64"].map(|network| network.parse().unwrap()).to_vec();
        let proxies = Proxies { trusted, header };
        let mut headers = HeaderMap::new();
        let name = if header == ProxyHeader::Forwarded { http::header::FORWARDED } else { X_FORWARDED_FOR };
        for line in lines {
            headers.append(name.clone(), HeaderValue::from_bytes(line).unwrap());
        }
        proxies.client(peer.parse().unwrap(), &headers).ok().map(|address| address.to_string())
    }

    #[test]
    fn rate_07_the_nearest_address_that_is_no_proxys_counts() {
        let read = |peer, lines: &[&str]| {
            let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
            client(ProxyHeader::XForwardedFor, peer, &lines)
        };
        for (peer, lines, expected) in [
            // A stranger may say what they like.
            ("203.0.113.9", &["192.0.2.1"][..], Some("203.0.113.9")),
            ("10.0.0.1", &[], Some("10.0.0.1")),
            ("10.0.0.1", &["192.0.2.1"], Some("192.0.2.1")),
            ("::ffff:10.0.0.1", &["::ffff:192.0.2.1"], Some("192.0.2.1")),
            ("2001:db8:0:1::7", &["2001:db8:9::1"], Some("2001:db8:9::1")),
            // What stands to the left of it was written by the caller, also if it is a proxy's, or nonsense.
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
        // A byte that is no text makes one element unreadable, and not the line.
        let bytes = |line: &[u8]| client(ProxyHeader::XForwardedFor, "10.0.0.1", &[line]);
        assert_eq!(bytes(b"\xc3\xa9\xff, 192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(bytes(b"192.0.2.1, \xff"), None);
    }

    #[test]
    fn rate_07_forwarded_is_read_as_rfc_7239_has_it() {
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
            // A quote that the client opened and never closed, left of what the proxy appended.
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
