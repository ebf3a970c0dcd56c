use std::{path::PathBuf, str::FromStr};

use super::Reader;

/// TLS of the public listener (CRYPTO-01).
#[derive(Clone, Debug)]
pub struct Tls {
    /// `APP_TLS__CERTIFICATE_PATH`: a PEM file of the certificate and those between it and the root, in this order. It is
    /// read again when it changes, and so is the next.
    pub certificate: PathBuf,
    /// `APP_TLS__KEY_PATH`: a PEM file of its key (PKCS #8, PKCS #1 or SEC 1).
    pub key: PathBuf,
    /// `APP_TLS__MIN_VERSION`: `1.3` (default) or `1.2`.
    pub min_version: TlsVersion,
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
    /// `None` without a certificate: plain HTTP.
    pub(super) fn read(r: &mut Reader) -> Option<Self> {
        let certificate = r.optional("tls.certificate_path");
        let key = r.optional("tls.key_path");
        let min_version = r.or("tls.min_version", TlsVersion::default());
        match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Self { certificate, key, min_version }),
            (None, None) => None,
            (None, Some(_)) => {
                r.fault("tls.certificate_path", "is required, since there is a key");
                None
            }
            (Some(_), None) => {
                r.fault("tls.key_path", "is required, since there is a certificate");
                None
            }
        }
    }
}
