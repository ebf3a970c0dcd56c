//! Whom a request is from, when it comes through proxies (RATE-07).
//!
//! A proxy appends the address it was called from to a header. Whoever calls the first proxy can have written into it what
//! they like, so it is read from the right, and only as far as the addresses are those of declared proxies.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};

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

/// A declared proxy says nothing that can be understood of whom it was called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Untraceable;

impl Proxies {
    pub(super) fn new(http: &Http) -> Self {
        Self { trusted: http.trusted_proxies.clone(), header: http.proxy_header }
    }

    /// None: whoever calls is the caller.
    pub(super) fn none() -> Self {
        Self { trusted: Vec::new(), header: ProxyHeader::default() }
    }

    /// The caller's address: the nearest one that is not a declared proxy's.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Result<IpAddr, Untraceable> {
        let mut nearest = peer.to_canonical();
        if !self.trusts(nearest) {
            return Ok(nearest);
        }
        let mut chain = Vec::new();
        match self.header {
            ProxyHeader::XForwardedFor => x_forwarded_for(headers, &mut chain),
            ProxyHeader::Forwarded => forwarded(headers, &mut chain),
        }
        for (hops, said) in chain.iter().rev().enumerate() {
            nearest = said.and_then(address).ok_or(Untraceable)?;
            if !self.trusts(nearest) {
                return Ok(nearest);
            }
            if hops == MAX_HOPS {
                return Err(Untraceable);
            }
        }
        // The proxies themselves: one that asks how the service is.
        Ok(nearest)
    }

    /// Whether this is a declared proxy's address.
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(address))
    }
}

/// All lines together are one list (RFC 9110 section 5.3). What cannot be read is nothing in it: to the left of the caller
/// it was written by the caller, and does not matter.
fn x_forwarded_for<'h>(headers: &'h HeaderMap, chain: &mut Vec<Option<&'h str>>) {
    for line in headers.get_all(X_FORWARDED_FOR) {
        match line.to_str() {
            Ok(line) => chain.extend(line.split(',').map(|address| Some(address.trim()))),
            Err(_) => chain.push(None),
        }
    }
}

/// The `for` of each element of `Forwarded` (RFC 7239 section 4).
fn forwarded<'h>(headers: &'h HeaderMap, chain: &mut Vec<Option<&'h str>>) {
    for line in headers.get_all(http::header::FORWARDED) {
        match line.to_str().ok().and_then(|line| outside_quotes(line, ',')) {
            Some(elements) => chain.extend(elements.into_iter().map(forwarded_for)),
            None => chain.push(None),
        }
    }
}

/// Of one element. One that does not say, or says it twice, says nothing.
fn forwarded_for(element: &str) -> Option<&str> {
    let mut clients = Vec::new();
    for pair in outside_quotes(element, ';')? {
        let (name, value) = pair.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("for") {
            clients.push(value.trim());
        }
    }
    let [client] = clients[..] else { return None };
    match client.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"'),
        None => Some(client),
    }
}

/// The parts between separators that stand outside quotes. No address has a quote or a backslash in it, so nothing is
/// ever escaped.
fn outside_quotes(text: &str, separator: char) -> Option<Vec<&str>> {
    if text.contains('\\') {
        return None;
    }
    let mut quoted = false;
    let parts = text.split(|character: char| {
        quoted ^= character == '"';
        character == separator && !quoted
    });
    let parts = parts.collect();
    (!quoted).then_some(parts)
}

/// An address with or without a port: `192.0.2.7`, `192.0.2.7:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse().map(|socket: std::net::SocketAddr| socket.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(header: ProxyHeader, peer: &str, lines: &[&str]) -> Option<String> {
        let trusted = ["10.0.0.0/8", "2001:db8:0:1::/64"].map(|network| network.parse().unwrap()).to_vec();
        let proxies = Proxies { trusted, header };
        let mut headers = HeaderMap::new();
        let name = if header == ProxyHeader::Forwarded { http::header::FORWARDED } else { X_FORWARDED_FOR };
        for line in lines {
            headers.append(name.clone(), line.parse().unwrap());
        }
        proxies.client(peer.parse().unwrap(), &headers).ok().map(|address| address.to_string())
    }

    #[test]
    fn rate_07_the_nearest_address_that_is_no_proxys_counts() {
        let of = |peer, lines: &[&str]| client(ProxyHeader::XForwardedFor, peer, lines);
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
            assert_eq!(of(peer, lines).as_deref(), expected, "{peer} {lines:?}");
        }
        assert_eq!(of("10.0.0.1", &[&["10.0.0.2"; 40].join(",")]), None);
    }

    #[test]
    fn rate_07_forwarded_is_read_as_rfc_7239_has_it() {
        let of = |line: &str| client(ProxyHeader::Forwarded, "10.0.0.1", &[line]);
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
            ("for=\"192.0.2.66, for=192.0.2.1", None),
            ("for=\"\\192.0.2.1\"", None),
            ("for=192.0.2.1;for=192.0.2.66", None),
            ("proto=https", None),
            ("192.0.2.1", None),
        ] {
            assert_eq!(of(line).as_deref(), expected, "{line}");
        }
    }
}
