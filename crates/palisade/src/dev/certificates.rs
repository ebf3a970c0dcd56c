//! Throw-away certificate authority for the internal listener's mutual TLS.
//!
//! Each start of `dev` creates a root, a server certificate and one client certificate per entry of
//! [`CLIENTS`], writes them to a private folder, and returns the `APP_INTERNAL__…` settings that
//! use them.

use std::{
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType, string::Ia5String,
};

use super::{
    DevError, failed,
    files::{private_folder, write_private},
    people::TENANTS,
};
use crate::model::Clock;

/// Services with a client certificate: one may read metrics, the other acts for Acme.
pub(super) const CLIENTS: [&str; 2] = ["prometheus", "job"];
/// Validity of all certificates. Every start creates new ones.
const VALIDITY: Duration = Duration::from_hours(30 * 24);

/// The folder of the certificates and keys.
pub(super) struct Certificates(PathBuf);

impl Certificates {
    /// Creates all certificates. The authority's private key is never written to disk.
    pub(super) fn write(folder: &Path, clock: &Clock) -> Result<Self, DevError> {
        let certificates = Self(folder.join("tls"));
        let failed = failed(format!("cannot write below {}", certificates.0.display()));
        certificates.create(clock.now().into()).map_err(failed)?;
        Ok(certificates)
    }

    fn create(&self, now: SystemTime) -> io::Result<()> {
        private_folder(&self.0)?;
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let mut authority = parameters("throw-away authority", now);
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let root = authority.self_signed(&key).map_err(io::Error::other)?;
        write_private(&self.root(), &root.pem())?;
        let authority = Issuer::new(authority, key);
        let mut server = parameters("server", now);
        let localhost = Ia5String::try_from("localhost").map_err(io::Error::other)?;
        server.subject_alt_names = vec![SanType::DnsName(localhost), SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign("server", &server, &authority)?;
        for client in CLIENTS {
            let mut params = parameters(client, now);
            let id = Ia5String::try_from(spiffe_id(client)).map_err(io::Error::other)?;
            params.subject_alt_names = vec![SanType::URI(id)];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            self.sign(client, &params, &authority)?;
        }
        Ok(())
    }

    fn sign(&self, name: &str, params: &CertificateParams, authority: &Issuer<'_, KeyPair>) -> io::Result<()> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, authority).map_err(io::Error::other)?;
        write_private(&self.certificate(name), &certificate.pem())?;
        write_private(&self.key(name), &key.serialize_pem())
    }

    pub(super) fn root(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    pub(super) fn certificate(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.pem"))
    }

    pub(super) fn key(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}-key.pem"))
    }

    /// Settings of the internal listener, as environment variables.
    pub(super) fn variables(&self, port: u16, scopes: &str) -> Vec<(String, String)> {
        let [metrics, job] = CLIENTS.map(str::to_uppercase);
        let path = |path: PathBuf| path.display().to_string();
        vec![
            ("APP_INTERNAL__LISTEN".to_owned(), format!("127.0.0.1:{port}")),
            ("APP_INTERNAL__CERTIFICATE_PATH".to_owned(), path(self.certificate("server"))),
            ("APP_INTERNAL__KEY_PATH".to_owned(), path(self.key("server"))),
            ("APP_INTERNAL__CLIENT_CA_PATH".to_owned(), path(self.root())),
            (format!("APP_INTERNAL__SERVICES__{metrics}__CERTIFICATE_NAME"), spiffe_id(CLIENTS[0])),
            (format!("APP_INTERNAL__SERVICES__{metrics}__RIGHTS"), "metrics".to_owned()),
            (format!("APP_INTERNAL__SERVICES__{job}__CERTIFICATE_NAME"), spiffe_id(CLIENTS[1])),
            (format!("APP_INTERNAL__SERVICES__{job}__TENANT"), TENANTS[0].id.to_string()),
            (format!("APP_INTERNAL__SERVICES__{job}__SCOPES"), scopes.to_owned()),
        ]
    }
}

fn spiffe_id(client: &str) -> String {
    format!("spiffe://development.example/{client}")
}

/// Certificate parameters with `name` as the common name.
///
/// Issuer and subject must differ: some TLS libraries take a certificate whose issuer equals its
/// subject for self-signed.
fn parameters(name: &str, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.not_before = (now - Duration::from_mins(1)).into();
    params.not_after = (now + VALIDITY).into();
    params
}
