//! The internal listener and its services (AUTHN-18). docs/internal.md has an example.

use std::{collections::BTreeMap, net::SocketAddr, str::FromStr};

use super::{
    Reader, Service,
    table::InternalFiles,
    tls::{Clients, Tls, TlsVersion},
};

/// The internal listener: TLS 1.3 with a client certificate only.
#[derive(Clone, Debug)]
pub struct Internal {
    /// Its address.
    pub listen: SocketAddr,
    /// Its certificate, and the CA certificates of clients.
    pub tls: Tls,
    /// The services that may call, by the name in their certificate.
    pub services: BTreeMap<CertificateName, Service>,
}

/// A subject alternative name (RFC 5280 section 4.2.1.6), compared as a whole; a DNS name without
/// regard to case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateName {
    /// A URI, such as a SPIFFE ID.
    Uri(String),
    /// A DNS name, in lower case.
    Dns(String),
}

/// Name of a scope, which `checks.rs` compares with those that the service declares.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScopeName(pub String);

impl AsRef<str> for ScopeName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl CertificateName {
    /// A DNS name.
    #[must_use]
    pub fn dns(name: &str) -> Self {
        Self::Dns(name.to_ascii_lowercase())
    }
}

impl FromStr for CertificateName {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s.strip_prefix("dns:") {
            Some(name) if !name.is_empty() && !name.contains(['*', '/']) => Ok(Self::dns(name)),
            None if s.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty()) => {
                Ok(Self::Uri(s.to_owned()))
            }
            _ => Err("expected a URI such as `spiffe://example.com/job`, or `dns:` and a name without wildcards"),
        }
    }
}

impl Internal {
    /// `None` without an address, or if something is missing or invalid.
    pub(super) fn read(r: &mut Reader) -> Option<Self> {
        let files = InternalFiles::read_rows(r, None);
        // All of them before the first `?`, so that every fault is found.
        let names = r.instances(Service::SECTION.path);
        let services: Vec<Option<Service>> = names.into_iter().map(|name| read_service(r, &name)).collect();
        let InternalFiles { listen, certificate, key, client_ca } = files?;
        let Some(listen) = listen else {
            let others = certificate.is_some() || key.is_some() || client_ca.is_some() || !services.is_empty();
            if others && !r.has(&InternalFiles::listen.name()) {
                let message = "is required, since other settings of the internal listener are set";
                r.fault(&InternalFiles::listen.name(), message);
            }
            return None;
        };
        for file in [InternalFiles::certificate, InternalFiles::key, InternalFiles::client_ca] {
            if !r.has(&file.name()) {
                r.fault(&file.name(), "is required for the internal listener");
            }
        }
        if services.is_empty() {
            let message = "lists no service, so no client could connect; add one, or remove the listener";
            r.fault(&Service::SECTION.path.instances_table(), message);
        }
        let services = services.into_iter().collect::<Option<Vec<_>>>()?;
        let count = services.len();
        let services: BTreeMap<_, _> =
            services.into_iter().map(|service| (service.certificate_name.clone(), service)).collect();
        if services.len() != count {
            r.fault(&Service::SECTION.path.instances_table(), "has two services with the same certificate_name");
        }
        let clients = Clients::Required(client_ca?);
        let guarded = r.is_production();
        let tls = Tls { certificate: certificate?, key: key?, min_version: TlsVersion::V1_3, clients, guarded };
        Some(Self { listen, tls, services })
    }
}

fn read_service(r: &mut Reader, name: &str) -> Option<Service> {
    let service = Service::read_rows(r, Some(name), Some(name.to_owned()))?;
    if service.tenant.is_none() && !service.scopes.is_empty() {
        r.fault(&Service::tenant.resolve_name(Some(name)), "is required, since scopes are set");
    }
    Some(service)
}
