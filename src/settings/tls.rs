use std::{path::PathBuf, str::FromStr};

use super::Reader;

/// TLS of a listener (CRYPTO-01).
#[derive(Clone, Debug)]
pub struct Tls {
    /// `APP_TLS__CERTIFICATE_PATH`: a PEM file of the certificate and those between it and the root, in this order. It is
    /// read again when it changes, and so are the others.
    pub certificate: PathBuf,
    /// `APP_TLS__KEY_PATH`: a PEM file of its key (PKCS #8, PKCS #1 or SEC 1).
    pub key: PathBuf,
    /// `APP_TLS__MIN_VERSION`: `1.3` (default) or `1.2`.
    pub min_version: TlsVersion,
    /// Whether callers show certificates too.
    pub clients: Clients,
    /// Whether the key is refused if everybody can read it: in production.
    pub guarded: bool,
}

/// Whether callers of a listener show certificates, signed by the authorities of a PEM file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clients {
    /// They are not asked for one.
    Unasked,
    /// `APP_TLS__CLIENT_CA_PATH`: who has one may show it, so that tokens bound to it count (RFC 8705).
    Asked(PathBuf),
    /// `APP_INTERNAL__CLIENT_CA_PATH`: without one there is no connection (AUTHN-18).
    Required(PathBuf),
}

/// The oldest version that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246, for callers that know no better.
    V1_2,
    /// RFC 8446
    #[default]
    V1_3,
}

impl FromStr for TlsVersion {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "1.2" => Ok(Self::V1_2),
            "1.3" => Ok(Self::V1_3),
            _ => Err("expected `1.3` or `1.2`"),
        }
    }
}

impl Tls {
    /// Of the public listener; `None` without a certificate: plain HTTP.
    pub(super) fn read(r: &mut Reader) -> Option<Self> {
        let certificate = r.optional("tls.certificate_path");
        let key = r.optional("tls.key_path");
        let min_version = r.or("tls.min_version", TlsVersion::default());
        let clients = r.optional("tls.client_ca_path").map_or(Clients::Unasked, Clients::Asked);
        let guarded = r.is_production();
        match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Self { certificate, key, min_version, clients, guarded }),
            (None, None) if clients == Clients::Unasked => None,
            (None, _) => {
                r.fault("tls.certificate_path", "is required, since there is a key or an authority");
                None
            }
            (Some(_), None) => {
                r.fault("tls.key_path", "is required, since there is a certificate");
                None
            }
        }
    }
}
