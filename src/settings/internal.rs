//! The listener for services of one's own (AUTHN-18).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    str::FromStr,
};

use super::{
    Reader,
    tls::{Clients, Tls, TlsVersion},
};
use crate::{
    authz::{internal::ServiceRight, matrix::Scope},
    domain::TenantId,
};

/// The internal listener: TLS 1.3, and nobody without a certificate.
#[derive(Clone, Debug)]
pub struct Internal {
    /// `APP_INTERNAL__LISTEN`: its address. Without it there is no such listener, and the others may not be set.
    pub listen: SocketAddr,
    /// `APP_INTERNAL__CERTIFICATE_PATH`, `APP_INTERNAL__KEY_PATH` and `APP_INTERNAL__CLIENT_CA_PATH`, all required.
    pub tls: Tls,
    /// Who may call, by the name in their certificate.
    pub services: BTreeMap<CertificateName, Service>,
}

/// `APP_INTERNAL__SERVICES__<NAME>__…`: a service that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `<NAME>` in lower case. Its subject, in logs and to operators, is `service:<name>`.
    pub name: String,
    /// `…__RIGHTS`, separated by commas, default none: what it may call besides the operations of the API.
    pub rights: BTreeSet<ServiceRight>,
    /// `…__TENANT`, default none: for whom it calls the operations of the API in its own name; without one it calls them
    /// with tokens only, in the name of whose they are.
    pub tenant: Option<TenantId>,
    /// `…__SCOPES`, separated by commas, default none: the scopes with which it does.
    pub scopes: BTreeSet<Scope>,
}

/// A subject alternative name (RFC 5280 section 4.2.1.6): `…__CERTIFICATE_NAME`, `spiffe://…` or another URI, or
/// `dns:<name>`. Compared as a whole, and a DNS name without regard to case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateName {
    /// A URI, such as a SPIFFE ID.
    Uri(String),
    /// A DNS name, in lower case.
    Dns(String),
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
    /// `None` without an address.
    pub(super) fn read(r: &mut Reader) -> Option<Self> {
        let listen: Option<SocketAddr> = r.optional("internal.listen");
        let files = ["certificate_path", "key_path", "client_ca_path"];
        let services: Vec<_> = r.names("internal.services").into_iter().map(|name| Service::read(r, name)).collect();
        let Some(listen) = listen else {
            let given = files.map(|file| r.optional::<String>(&format!("internal.{file}")).is_some());
            if given.contains(&true) || !services.is_empty() {
                r.fault("internal.listen", "is required, since there are other settings of the internal listener");
            }
            return None;
        };
        let [certificate, key, authorities] = files.map(|file| r.required(&format!("internal.{file}")));
        let clients = Clients::Required(authorities?);
        let guarded = r.is_production();
        let tls = Tls { certificate: certificate?, key: key?, min_version: TlsVersion::V1_3, clients, guarded };
        let services = services.into_iter().collect::<Option<Vec<_>>>()?;
        if services.is_empty() {
            r.fault("internal.services", "names nobody, so nobody could call");
        }
        let count = services.len();
        let services: BTreeMap<_, _> = services.into_iter().collect();
        if services.len() != count {
            r.fault("internal.services", "gives two services the same certificate_name");
        }
        Some(Self { listen, tls, services })
    }
}

impl Service {
    fn read(r: &mut Reader, name: String) -> Option<(CertificateName, Self)> {
        let key = |leaf: &str| format!("internal.services.{name}.{leaf}");
        let certificate_name = r.required(&key("certificate_name"));
        let tenant = r.optional(&key("tenant"));
        let scopes: BTreeSet<Scope> = r.list(&key("scopes")).into_iter().collect();
        let rights = r.list(&key("rights")).into_iter().collect();
        if tenant.is_none() && !scopes.is_empty() {
            r.fault(&key("tenant"), "is required, since there are scopes");
        }
        Some((certificate_name?, Self { name, rights, tenant, scopes }))
    }
}
