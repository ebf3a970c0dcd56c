//! A certificate authority for tests of TLS ([`Authority`]), and files for its certificates.
//!
//! Tests give the files to the service in its settings and connect with a client that trusts the
//! authority's root certificate alone.

use std::{net::SocketAddr, path::PathBuf, time::SystemTime};

use chrono::TimeDelta;
use palisade::model::Clock;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use reqwest::Client;

/// A certificate authority with a self-signed root.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The root certificate, as PEM.
    pub root: String,
}

impl Authority {
    /// An authority with a new key.
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), root }
    }

    /// Signs a certificate for `localhost`; returns it and its key, as PEM.
    pub fn sign(&self) -> (String, String) {
        self.sign_for([SanType::DnsName("localhost".try_into().unwrap())])
    }

    /// Signs a certificate for these names; returns it and its key, as PEM.
    pub fn sign_for(&self, names: impl IntoIterator<Item = SanType>) -> (String, String) {
        self.sign_with(names, |_| {})
    }

    /// Signs a certificate with changed parameters, such as another end of validity.
    pub fn sign_with(
        &self,
        names: impl IntoIterator<Item = SanType>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names.into_iter().collect();
        let now = Clock::system().now();
        params.not_before = SystemTime::from(now - TimeDelta::minutes(1)).into();
        params.not_after = SystemTime::from(now + TimeDelta::days(30)).into();
        change(&mut params);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A client that trusts this authority alone and resolves `localhost` to this address.
    pub fn client(&self, address: SocketAddr) -> reqwest::ClientBuilder {
        let root = reqwest::Certificate::from_pem(self.root.as_bytes()).unwrap();
        Client::builder().tls_certs_only([root]).resolve("localhost", address)
    }
}

/// Files with a certificate and its key, deleted on drop.
pub struct PemFiles(PathBuf);

impl PemFiles {
    /// Writes a certificate and its key into a new folder.
    pub fn new((certificate, key): (String, String)) -> Self {
        let folder = std::env::temp_dir().join(format!("tls-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&folder).unwrap();
        let files = Self(folder);
        files.write(certificate, key);
        files
    }

    /// Replaces both files.
    pub fn write(&self, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) {
        std::fs::write(self.certificate(), certificate).unwrap();
        std::fs::write(self.key(), key).unwrap();
    }

    /// Path of the file with the certificate.
    pub fn certificate(&self) -> PathBuf {
        self.0.join("certificate.pem")
    }

    /// Path of the file with the key.
    pub fn key(&self) -> PathBuf {
        self.0.join("key.pem")
    }
}

impl Drop for PemFiles {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
