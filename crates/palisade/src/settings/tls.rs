//! TLS of a listener (CRYPTO-01). `edge::Tls` loads the files and reloads them when they change.

use std::path::PathBuf;

use super::{Reader, table::TlsFiles};

/// TLS of a listener.
#[derive(Clone, Debug)]
pub struct Tls {
    /// PEM file of the certificate and the intermediate certificates.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
    /// Oldest version that is accepted.
    pub min_version: TlsVersion,
    /// Whether callers present certificates.
    pub clients: Clients,
    /// Whether a key that all users can read is refused, as in production.
    pub guarded: bool,
}

/// Client certificates at a listener, signed by the CA certificates of a PEM file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Not requested.
    Unasked,
    /// Requested, for tokens that are bound to one (RFC 8705).
    Asked(PathBuf),
    /// Required for a connection (AUTHN-18).
    Required(PathBuf),
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246, for callers that support nothing newer.
    V1_2,
    /// RFC 8446
    V1_3,
}

impl Tls {
    /// TLS of the public listener; `None` without a certificate: plain HTTP.
    pub(super) fn read(r: &mut Reader) -> Option<Self> {
        let TlsFiles { certificate, key, min_version, client_ca } = TlsFiles::read_rows(r, None)?;
        let (has_certificate, has_key) = (r.has(&TlsFiles::certificate.name()), r.has(&TlsFiles::key.name()));
        if !has_certificate && (has_key || client_ca.is_some()) {
            r.fault(&TlsFiles::certificate.name(), "is required, since a key or a file of CA certificates is set");
        }
        if has_certificate && !has_key {
            r.fault(&TlsFiles::key.name(), "is required, since a certificate is set");
        }
        let clients = client_ca.map_or(Clients::Unasked, Clients::Asked);
        Some(Self { certificate: certificate?, key: key?, min_version, clients, guarded: r.is_production() })
    }
}
