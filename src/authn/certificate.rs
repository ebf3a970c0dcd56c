//! Client certificates: whom they name, and whether a token is theirs (AUTHN-18).
//!
//! TLS has checked by then that an authority of the settings signed them, and that the caller has the key.

use std::{collections::BTreeMap, sync::Arc};

use x509_cert::{
    Certificate,
    der::Decode as _,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use super::{
    Refused,
    principal::{CallerKind, Principal, SERVICE_SUBJECT},
};
use crate::{
    authz::policy::Role,
    crypto,
    domain::TenantId,
    settings::{CertificateName, Service},
};

/// What a connection says of its other end. An extension of every request.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The certificate that was shown, if any.
    pub certificate: Option<Arc<PeerCertificate>>,
    /// Whether it came to the internal listener, where the certificate itself is a credential.
    pub internal: bool,
}

/// The longest that a certificate may be valid, in seconds: a year.
const MAX_LIFETIME: i64 = 366 * 24 * 3_600;

/// The digest by which tokens are bound to a certificate (RFC 8705 section 3.1): SHA-256 of its DER form.
pub(super) type Thumbprint = [u8; 32];

/// A certificate whose key the other end has.
#[derive(Debug)]
pub struct PeerCertificate {
    thumbprint: Thumbprint,
    names: Vec<CertificateName>,
    /// In seconds since the epoch, as the next.
    not_before: i64,
    not_after: i64,
}

impl PeerCertificate {
    /// Reads the DER form; `None` if it cannot be understood, and then nobody is named.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let certificate = certificate.tbs_certificate();
        // Of two extensions neither counts.
        let names = certificate.get_extension::<SubjectAltName>().ok()?.map_or_else(Vec::new, |(_, names)| names.0);
        let name = |name: &GeneralName| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(CertificateName::Uri(uri.as_str().to_owned())),
            GeneralName::DnsName(name) => Some(CertificateName::dns(name.as_str())),
            _ => None,
        };
        let seconds = |time: x509_cert::time::Time| i64::try_from(time.to_unix_duration().as_secs()).ok();
        Some(Self {
            thumbprint: crypto::sha256(der),
            names: names.iter().filter_map(name).collect(),
            not_before: seconds(certificate.validity().not_before)?,
            not_after: seconds(certificate.validity().not_after)?,
        })
    }

    /// Whether it is past its end, at this time in seconds since the epoch.
    #[must_use]
    pub fn has_ended(&self, now: i64) -> bool {
        now > self.not_after
    }
}

impl Peer {
    /// Whether a token that is bound to this certificate, or to none, is the caller's to show, at this time in seconds since
    /// the epoch. A certificate binds until its end, which TLS looked at when the connection began.
    pub(super) fn may_show(&self, bound_to: Option<&Thumbprint>, now: i64) -> Result<(), Refused> {
        let shown = self.certificate.as_ref().filter(|certificate| !certificate.has_ended(now));
        let shown = shown.map(|certificate| &certificate.thumbprint);
        if bound_to.is_none_or(|thumbprint| shown == Some(thumbprint)) { Ok(()) } else { Err(Refused::Binding) }
    }
}

/// Services that are known by certificate.
#[derive(Debug)]
pub(super) struct Services(BTreeMap<CertificateName, Service>);

impl Services {
    pub(super) fn new(services: BTreeMap<CertificateName, Service>) -> Self {
        Self(services)
    }

    /// The one service that a certificate names, at this time in seconds since the epoch.
    pub(super) fn named<'s>(&'s self, peer: &'s Peer, now: i64) -> Result<(&'s Service, &'s PeerCertificate), Refused> {
        let certificate = peer.certificate.as_deref().ok_or(Refused::Certificate)?;
        // TLS looked when the connection began, which may be long ago.
        if certificate.has_ended(now) {
            return Err(Refused::Expired);
        }
        // A revocation is remembered for so long, and a certificate must not outlive its own.
        if certificate.not_after.saturating_sub(certificate.not_before) > MAX_LIFETIME {
            return Err(Refused::Lifetime);
        }
        let mut named = certificate.names.iter().filter_map(|name| self.0.get(name));
        let service = named.next().ok_or(Refused::Certificate)?;
        // Of two, it would be chance which one it is.
        if named.any(|other| other != service) { Err(Refused::Certificate) } else { Ok((service, certificate)) }
    }
}

/// The service as a caller.
pub(super) fn principal(service: &Service, certificate: &PeerCertificate, tenant: TenantId) -> Principal {
    let subject = format!("{SERVICE_SUBJECT}{}", service.name);
    Principal {
        kind: CallerKind::Service,
        client: subject.clone(),
        subject,
        tenant,
        roles: vec![Role::Service],
        scopes: service.scopes.clone(),
        creator: None,
        token_id: None,
        bound_to: None,
        issued_at: certificate.not_before,
    }
}
