//! Client certificates: the service a certificate names, and certificate-bound tokens (AUTHN-18).
//!
//! `edge/listener.rs` makes a [`ConnectionInfo`] per connection. By then TLS has verified that a
//! configured CA signed the certificate, and that the client has its private key.

use std::{collections::BTreeMap, sync::Arc};

use x509_cert::{
    Certificate,
    der::Decode as _,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use super::{
    RejectReason,
    principal::{CallerKind, Principal, SERVICE_SUBJECT},
    sign_in::SignIn,
};
use crate::{
    crypto,
    model::{Rights, Role, TenantId},
    settings::{CertificateName, Service},
};

/// The facts of a connection that authentication needs. An extension of every request.
#[derive(Clone, Debug, Default)]
pub struct ConnectionInfo {
    /// The client certificate, if the client sent one.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Whether it is a connection of the internal listener, where the certificate is a credential.
    pub internal: bool,
}

/// Maximum lifetime of a service's certificate, in seconds: one year.
const MAX_LIFETIME: i64 = 366 * 24 * 3_600;

/// SHA-256 of a certificate in DER. Tokens are bound to it (RFC 8705 section 3.1).
pub(super) type Thumbprint = [u8; 32];

/// A client certificate that TLS has verified.
#[derive(Debug)]
pub struct ClientCertificate {
    pub(super) thumbprint: Thumbprint,
    /// URI and DNS names of the subject alternative name (SAN).
    names: Vec<CertificateName>,
    /// Start and end of validity, in seconds since the epoch.
    not_before: i64,
    not_after: i64,
}

impl ClientCertificate {
    /// Parses a certificate in DER; `None` if it cannot be parsed. Then it names no service.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let certificate = certificate.tbs_certificate();
        // A certificate with two SAN extensions is rejected.
        let names = certificate.get_extension::<SubjectAltName>().ok()?.map_or_else(Vec::new, |(_, names)| names.0);
        let uri_or_dns_name = |name: &GeneralName| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(CertificateName::Uri(uri.as_str().to_owned())),
            GeneralName::DnsName(name) => Some(CertificateName::dns(name.as_str())),
            _ => None,
        };
        let timestamp = |time: x509_cert::time::Time| i64::try_from(time.to_unix_duration().as_secs()).ok();
        Some(Self {
            thumbprint: crypto::sha256(der),
            names: names.iter().filter_map(uri_or_dns_name).collect(),
            not_before: timestamp(certificate.validity().not_before)?,
            not_after: timestamp(certificate.validity().not_after)?,
        })
    }

    /// Seconds from `now` until the certificate becomes valid, and until it expires. `now` is in
    /// seconds since the epoch.
    #[must_use]
    pub fn validity(&self, now: i64) -> (i64, i64) {
        (self.not_before.saturating_sub(now), self.not_after.saturating_sub(now))
    }

    /// Whether the certificate has expired at `now`, in seconds since the epoch.
    #[must_use]
    pub fn has_expired(&self, now: i64) -> bool {
        now > self.not_after
    }
}

impl ConnectionInfo {
    /// Checks that a token that is bound to this certificate came over a connection with it (RFC 8705
    /// section 3).
    ///
    /// `now` is in seconds since the epoch. TLS checks a certificate's expiry only when the
    /// connection starts, so it is checked again here.
    pub(super) fn check_certificate(&self, bound: &Thumbprint, now: i64) -> Result<(), RejectReason> {
        let valid = self.certificate.as_ref().filter(|certificate| !certificate.has_expired(now));
        let thumbprint = valid.map(|certificate| &certificate.thumbprint);
        if Some(bound) == thumbprint { Ok(()) } else { Err(RejectReason::Binding) }
    }
}

/// Finds the one service that the connection's certificate names. `now` is in seconds since the
/// epoch.
pub(super) fn find_service<'s>(
    services: &'s BTreeMap<CertificateName, Service>,
    connection: &'s ConnectionInfo,
    now: i64,
) -> Result<(&'s Service, &'s ClientCertificate), RejectReason> {
    let certificate = connection.certificate.as_deref().ok_or(RejectReason::Certificate)?;
    // TLS checked the expiry only when the connection started.
    if certificate.has_expired(now) {
        return Err(RejectReason::Expired);
    }
    // Revocations are kept for this long; a certificate must not outlive its revocation.
    if certificate.not_after.saturating_sub(certificate.not_before) > MAX_LIFETIME {
        return Err(RejectReason::Lifetime);
    }
    let mut named = certificate.names.iter().filter_map(|name| services.get(name));
    let service = named.next().ok_or(RejectReason::Certificate)?;
    // A certificate that names two services is ambiguous.
    if named.any(|other| other != service) { Err(RejectReason::Certificate) } else { Ok((service, certificate)) }
}

/// The principal of a service that a certificate authenticated.
pub(super) fn principal(
    service: &Service,
    certificate: &ClientCertificate,
    tenant: TenantId,
    rights: &Rights,
) -> Principal {
    let subject = format!("{SERVICE_SUBJECT}{}", service.name);
    Principal {
        kind: CallerKind::Service,
        client: subject.clone(),
        subject,
        tenant,
        roles: vec![Role::SERVICE],
        scopes: rights.find_scopes(&service.scopes.iter().collect::<Vec<_>>()),
        creator: None,
        token_id: None,
        session: None,
        issuer_session: None,
        binding: None,
        sign_in: SignIn::default(),
        issued_at: certificate.not_before,
    }
}
