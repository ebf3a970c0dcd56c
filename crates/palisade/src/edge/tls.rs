//! TLS of a listener: version 1.3, or 1.2 if the settings allow it, with certificates that are
//! reloaded while the service runs (CRYPTO-01).
//!
//! [`Tls::load`] reads the files at startup, [`Tls::reload_on_change`] afterwards. Listeners that
//! request client certificates verify them against CA certificates from the settings (AUTHN-18).

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use secrecy::zeroize::Zeroizing;
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use crate::{
    authn::ClientCertificate,
    crypto,
    model::Clock,
    settings::{self, Clients, ReloadTicker, TlsVersion, file_mode_fault},
    telemetry::{event, metrics},
};

/// The TLS configuration for new connections.
#[derive(Debug)]
pub struct Tls {
    settings: settings::Tls,
    clock: Clock,
    current: ArcSwap<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// `None` if the certificate cannot be parsed.
    leaf: Option<ClientCertificate>,
    /// SHA-256 of each file, to detect changes.
    digests: Vec<[u8; 32]>,
}

/// A certificate or key file that cannot be used: says why, without quoting the file.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct TlsError(String);

impl Tls {
    /// Reads the files of the settings.
    pub fn load(settings: settings::Tls, clock: Clock) -> Result<Arc<Self>, TlsError> {
        let current = ArcSwap::from_pointee(Loaded::new(&settings, &clock)?);
        report_key_read(&settings);
        let tls = Arc::new(Self { settings, clock, current });
        tls.record_expiry();
        Ok(tls)
    }

    /// Records when the certificate in use expires, for an alert.
    fn record_expiry(&self) {
        let listener = match self.settings.clients {
            Clients::Required(_) => "internal",
            Clients::Asked(_) | Clients::Unasked => "public",
        };
        if let Some(leaf) = &self.current.load().leaf {
            metrics::record_certificate(listener, leaf.validity(self.clock.timestamp()).1);
        }
    }

    /// The acceptor for the next connection. Open connections keep their certificate.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.load().config))
    }

    /// Reloads the files when they change. Runs until the service stops.
    ///
    /// If the new files cannot be used, raises an event once and keeps the current certificate.
    pub async fn reload_on_change(self: Arc<Self>, mut ticker: ReloadTicker) {
        let mut last_error = None;
        loop {
            ticker.next().await;
            let this = Arc::clone(&self);
            let Ok(loaded) = tokio::task::spawn_blocking(move || Loaded::new(&this.settings, &this.clock)).await else {
                continue;
            };
            match loaded {
                Ok(loaded) if loaded.digests != self.current.load().digests => {
                    report_key_read(&self.settings);
                    tracing::info!("TLS certificate reloaded");
                    self.current.store(Arc::new(loaded));
                    last_error = None;
                }
                Ok(_) => last_error = None,
                Err(error) => {
                    let text = error.to_string();
                    if last_error.as_ref() != Some(&text) {
                        event::secret_not_renewed("TLS certificate", &text);
                        last_error = Some(text);
                    }
                }
            }
            self.record_expiry();
        }
    }
}

/// Records that the private key was read, once for each key taken into use (SECRET-05).
fn report_key_read(settings: &settings::Tls) {
    event::secret_read("tls", "certificate key", &format!("file {}", settings.key.display()));
}

impl Loaded {
    fn new(settings: &settings::Tls, clock: &Clock) -> Result<Self, TlsError> {
        let read = |path: &PathBuf| {
            let read = std::fs::read(path).map(Zeroizing::new);
            read.map_err(|error| TlsError(format!("cannot read {}: {error}", path.display())))
        };
        let certificate = read(&settings.certificate)?;
        let key = read(&settings.key)?;
        if settings.guarded
            && let Some(fault) = file_mode_fault(&settings.key)
        {
            return Err(TlsError(fault));
        }
        let mut digests = vec![crypto::sha256(&certificate), crypto::sha256(&key)];
        let missing = |path: &PathBuf, expected: &str| {
            TlsError(format!("{} contains no {expected} in PEM format", path.display()))
        };
        let unusable = |error| TlsError(format!("the certificate and the key cannot be used together: {error}"));
        let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| missing(&settings.certificate, "certificate"))?;
        let leaf = chain.first().and_then(|leaf| ClientCertificate::from_der(leaf));
        let fault = leaf.as_ref().and_then(|leaf| match leaf.validity(clock.timestamp()) {
            (1.., _) => Some("is not valid yet"),
            (_, ..0) => Some("has expired"),
            _ => None,
        });
        if let Some(fault) = fault {
            return Err(TlsError(format!("the certificate in {} {fault}", settings.certificate.display())));
        }
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| missing(&settings.key, "private key"))?;
        let versions = match settings.min_version {
            TlsVersion::V1_3 => &[&TLS13][..],
            TlsVersion::V1_2 => &[&TLS13, &TLS12],
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions);
        let config = config.map_err(unusable)?;
        let config = match &settings.clients {
            Clients::Unasked => config.with_no_client_auth(),
            Clients::Asked(path) | Clients::Required(path) => {
                let pem = read(path)?;
                digests.push(crypto::sha256(&pem));
                let roots = roots(&pem).ok_or_else(|| missing(path, "CA certificate"))?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let required = matches!(settings.clients, Clients::Required(_));
                let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
                config.with_client_cert_verifier(verifier.build().map_err(|_| missing(path, "usable CA certificate"))?)
            }
        };
        let mut config = config.with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), leaf, digests })
    }
}

/// The CA certificates of a PEM file. `None` if there are none or one of them is invalid.
fn roots(pem: &[u8]) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.ok()?).ok()?;
    }
    (!roots.is_empty()).then_some(roots)
}
