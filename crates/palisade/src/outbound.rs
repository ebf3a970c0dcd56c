//! Guarded HTTP client for calls to other services (INPUT-12).
//!
//! [`crate::authn`] fetches the documents of issuers with it. A call goes to a public address over
//! https, unless the settings allow more. The address is checked where it is used: after name
//! resolution, for the connection itself. Redirects are not followed, proxy variables are ignored
//! unless the settings say otherwise, and time and size of a response are limited.

use std::{
    error::Error as StdError,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::{Method, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Bytes;
use reqwest::{
    Body, Certificate, Client, Request, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use url::Host;

use crate::{
    model::Network,
    package,
    settings::{Outbound, Profile},
};

/// Why a call was not made, or has no usable response.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The file of authorities cannot be used.
    #[error("{} is no readable PEM file of certificate authorities", .0.display())]
    Authorities(PathBuf),
    /// The HTTP client could not be created.
    #[error("could not create the HTTP client")]
    Client(#[source] reqwest::Error),
    /// The text is not a URL.
    #[error("`{0}` is not a URL")]
    Url(String),
    /// The URL is not https, or names an address that is not public.
    #[error("{0} is refused: {1}")]
    Refused(String, String),
    /// The other service did not respond, or responded with an error.
    #[error("could not fetch {0}")]
    Fetch(String, #[source] reqwest::Error),
    /// The response has this status, which is no success.
    #[error("could not fetch {0}: status {1}; redirects are not followed")]
    Status(String, u16),
    /// The connection was lost, or the response is too long.
    #[error("could not read {0}, which may have {1} bytes at most")]
    Read(String, usize, #[source] Box<dyn StdError + Send + Sync>),
}

/// What a client may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    /// Authorities of the certificates; those of the system if absent.
    pub authorities: Option<&'a Path>,
    /// Time for one call, including the connection.
    pub timeout: Duration,
    /// Size of a response.
    pub max_bytes: usize,
}

/// A client for the services of one purpose.
#[derive(Clone, Debug)]
pub struct GuardedClient {
    client: Client,
    https_only: bool,
    max_bytes: usize,
    allowed: AllowedAddresses,
}

impl GuardedClient {
    /// Reads the file of authorities, if there is one. Makes no call.
    pub fn new(settings: &Outbound, profile: Profile, limits: Limits<'_>) -> Result<Self, OutboundError> {
        let allowed = AllowedAddresses(settings.allowed_networks.clone().into());
        let https_only = profile == Profile::Production;
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .timeout(limits.timeout)
            .https_only(https_only)
            .dns_resolver(Arc::new(allowed.clone()))
            .user_agent(package::user_agent());
        if !settings.use_proxy {
            builder = builder.no_proxy();
        }
        if let Some(path) = limits.authorities {
            builder = builder.tls_certs_only(read_authorities(path)?);
        }
        let client = builder.build().map_err(OutboundError::Client)?;
        Ok(Self { client, https_only, max_bytes: limits.max_bytes, allowed })
    }

    /// Gets a document.
    pub async fn get(&self, url: &str) -> Result<Response<Bytes>, OutboundError> {
        let parsed = Url::parse(url).map_err(|_| OutboundError::Url(url.to_owned()))?;
        self.send(Request::new(Method::GET, parsed)).await
    }

    /// Sends a request. A response that is no success is an error.
    pub async fn send(&self, request: Request) -> Result<Response<Bytes>, OutboundError> {
        let url = request.url().to_string();
        let response = self.exchange(request).await?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(OutboundError::Status(url, response.status().as_u16()))
        }
    }

    /// Sends a request, and returns the response whatever its status is.
    pub async fn exchange(&self, request: Request) -> Result<Response<Bytes>, OutboundError> {
        let url = request.url().to_string();
        self.check(request.url()).map_err(|reason| OutboundError::Refused(url.clone(), reason))?;
        let response = match self.client.execute(request).await {
            Ok(response) => Response::<Body>::from(response),
            Err(error) => return Err(OutboundError::Fetch(url, error.without_url())),
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, self.max_bytes).collect().await;
        let body = body.map_err(|error| OutboundError::Read(url, self.max_bytes, error))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    /// Checks the URL. An address in it is not resolved, so the resolver does not see it.
    fn check(&self, url: &Url) -> Result<(), String> {
        if url.scheme() != "https" && (self.https_only || url.scheme() != "http") {
            return Err("it is not an https URL".to_owned());
        }
        match url.host() {
            Some(Host::Ipv4(address)) => self.allowed.check(address.into()),
            Some(Host::Ipv6(address)) => self.allowed.check(address.into()),
            Some(Host::Domain(_)) => Ok(()),
            None => Err("it has no host".to_owned()),
        }
    }
}

/// The certificates of a PEM file.
fn read_authorities(path: &Path) -> Result<Vec<Certificate>, OutboundError> {
    let pem = std::fs::read(path).ok();
    let roots = pem.and_then(|pem| Certificate::from_pem_bundle(&pem).ok()).filter(|roots| !roots.is_empty());
    roots.ok_or_else(|| OutboundError::Authorities(path.to_owned()))
}

/// The networks that may be called although they are not public. Resolves names, and leaves out
/// every other address that is not public.
#[derive(Clone, Debug)]
struct AllowedAddresses(Arc<[Network]>);

impl AllowedAddresses {
    fn check(&self, address: IpAddr) -> Result<(), String> {
        let address = address.to_canonical();
        if is_public(address) || self.0.iter().any(|network| network.contains(address)) {
            return Ok(());
        }
        Err(format!("{address} is no public address; add its network to APP_OUTBOUND__ALLOWED_NETWORKS"))
    }
}

impl Resolve for AllowedAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = self.clone();
        Box::pin(async move {
            let mut refused = None;
            let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            addresses.retain(|address| match allowed.check(address.ip()) {
                Ok(()) => true,
                Err(reason) => {
                    refused = Some(reason);
                    false
                }
            });
            match refused {
                Some(reason) if addresses.is_empty() => Err(format!("{}: {reason}", name.as_str()).into()),
                _ => Ok(Box::new(addresses.into_iter()) as Addrs),
            }
        })
    }
}

/// Whether anyone on the Internet can reach the address (IANA special-purpose registries).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_protocol_or_benchmark = (a, b, c) == (192, 0, 0) || a == 198 && (b == 18 || b == 19);
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast();
    !(is_special || is_shared || is_protocol_or_benchmark || a == 0 || a >= 240)
}

/// Only global unicast addresses (`2000::/3`), without those that carry another address: Teredo, `6to4`
/// and `NAT64` could lead to a private IPv4 address.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let is_global = first & 0xe000 == 0x2000;
    let is_protocol = first == 0x2001 && second < 0x0200;
    let is_documentation = first == 0x2001 && second == 0x0db8 || first == 0x3fff && second < 0x1000;
    is_global && !is_protocol && !is_documentation && first != 0x2002
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_12_addresses_that_are_not_public_are_refused() {
        for public in ["8.8.8.8", "172.32.0.1", "192.0.1.1", "100.128.0.1", "2606:4700::1111", "2001:4860:4860::8888"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for other in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.170",
            "192.168.0.1",
            "198.18.0.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2001:db8::1",
            "2001::1",
            "2002:a00:1::1",
            "100::1",
            "fec0::1",
        ] {
            assert!(!is_public(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn input_12_mapped_addresses_are_checked_as_ipv4() {
        let allowed = AllowedAddresses(Arc::new(["10.0.0.0/8".parse().unwrap()]));
        for (address, expected) in [
            ("::ffff:10.0.0.1", true),
            ("10.255.0.1", true),
            ("::ffff:8.8.8.8", true),
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("11.0.0.1", true),
            ("192.168.0.1", false),
        ] {
            assert_eq!(allowed.check(address.parse().unwrap()).is_ok(), expected, "{address}");
        }
    }

    #[tokio::test]
    async fn input_12_names_are_checked_after_resolution() {
        let resolve = async |networks: &[&str]| {
            let networks: Vec<Network> = networks.iter().map(|text| text.parse().unwrap()).collect();
            AllowedAddresses(networks.into()).resolve("localhost".parse().unwrap()).await.map(Iterator::count)
        };
        assert!(resolve(&[]).await.is_err_and(|error| error.to_string().contains("APP_OUTBOUND__ALLOWED_NETWORKS")));
        assert!(resolve(&["127.0.0.0/8", "::1"]).await.is_ok_and(|addresses| addresses > 0));
    }
}
