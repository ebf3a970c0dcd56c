//! TLS of a listener: 1.3 unless the settings allow 1.2, and certificates that are changed under way (CRYPTO-01).

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
    authn::PeerCertificate,
    crypto,
    domain::Clock,
    settings::{self, Clients, Looks, TlsVersion, readable_by_all},
    telemetry::event,
};

/// The certificate that connections are made with from now on.
#[derive(Debug)]
pub struct Tls {
    settings: settings::Tls,
    clock: Clock,
    current: ArcSwap<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// Of the files.
    digests: Vec<[u8; 32]>,
}

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
    /// The file holds no certificate, or no key. What is in it is not told.
    #[error("{path} holds no {what} in PEM form")]
    Pem {
        /// Which.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
    },
    /// Everybody can read the key.
    #[error("{0}")]
    Open(String),
    /// Its certificate is past its end: callers would refuse it.
    #[error("the certificate in {path} has ended")]
    Ended {
        /// Which.
        path: PathBuf,
    },
    /// They do not fit together, or cannot be used.
    #[error("the certificate and the key cannot be used")]
    Unusable(#[from] rustls::Error),
}

impl Tls {
    /// Reads the files.
    pub fn load(settings: settings::Tls, clock: Clock) -> Result<Arc<Self>, TlsError> {
        let current = ArcSwap::from_pointee(Loaded::new(&settings, &clock)?);
        tell(&settings);
        Ok(Arc::new(Self { settings, clock, current }))
    }

    /// For the next connection. Those that are open keep what they have.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.load().config))
    }

    /// Reads the files again whenever they change, for as long as it runs. What cannot be used is told, and what was
    /// used goes on.
    pub async fn follow(self: Arc<Self>, mut looks: Looks) {
        let mut told = None;
        loop {
            looks.next().await;
            let this = Arc::clone(&self);
            let Ok(loaded) = tokio::task::spawn_blocking(move || Loaded::new(&this.settings, &this.clock)).await else {
                continue;
            };
            match loaded {
                Ok(loaded) if loaded.digests != self.current.load().digests => {
                    tell(&self.settings);
                    tracing::info!("a new certificate is used");
                    self.current.store(Arc::new(loaded));
                    told = None;
                }
                Ok(_) => told = None,
                Err(error) => {
                    let text = error.to_string();
                    if told.as_ref() != Some(&text) {
                        tracing::error!(%error, cause = ?std::error::Error::source(&error), "the certificate stays as it was");
                        told = Some(text);
                    }
                }
            }
        }
    }
}

/// Says that the key was read, once for each that is used (SECRET-05).
fn tell(settings: &settings::Tls) {
    event::secret_read("tls", "the key of the certificate", &format!("file {}", settings.key.display()));
}

impl Loaded {
    fn new(settings: &settings::Tls, clock: &Clock) -> Result<Self, TlsError> {
        let read = |path: &PathBuf| {
            let read = std::fs::read(path).map(Zeroizing::new);
            read.map_err(|source| TlsError::File { path: path.clone(), source })
        };
        let (certificate, key) = (read(&settings.certificate)?, read(&settings.key)?);
        if settings.guarded
            && let Some(fault) = readable_by_all(&settings.key)
        {
            return Err(TlsError::Open(fault));
        }
        let mut digests = vec![crypto::sha256(&certificate), crypto::sha256(&key)];
        let no = |path: &PathBuf, what| TlsError::Pem { path: path.clone(), what };
        let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
        let chain =
            chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| no(&settings.certificate, "certificate"))?;
        let ended = |leaf: &CertificateDer<'_>| {
            PeerCertificate::read(leaf).is_some_and(|leaf| leaf.has_ended(clock.timestamp()))
        };
        if chain.first().is_some_and(ended) {
            return Err(TlsError::Ended { path: settings.certificate.clone() });
        }
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| no(&settings.key, "private key"))?;
        let versions = match settings.min_version {
            TlsVersion::V1_3 => &[&TLS13][..],
            TlsVersion::V1_2 => &[&TLS13, &TLS12],
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
        let config = match &settings.clients {
            Clients::Unasked => config.with_no_client_auth(),
            Clients::Asked(path) | Clients::Required(path) => {
                let pem = read(path)?;
                digests.push(crypto::sha256(&pem));
                let roots = roots(&pem).ok_or_else(|| no(path, "certificate of an authority"))?;
                let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let required = matches!(settings.clients, Clients::Required(_));
                let clients = if required { clients } else { clients.allow_unauthenticated() };
                config.with_client_cert_verifier(clients.build().map_err(|_| no(path, "usable authority"))?)
            }
        };
        let mut config = config.with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), digests })
    }
}

/// The authorities of a PEM file; all of them, or it is no such file.
fn roots(pem: &[u8]) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.ok()?).ok()?;
    }
    (!roots.is_empty()).then_some(roots)
}
