//! TLS in front of a test server of plain HTTP ([`TlsFront`]).
//!
//! The production profile accepts https issuers only. The issuers of the kit speak plain HTTP, and
//! tests of TLS put this before one.

use std::{net::SocketAddr, sync::Arc};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

/// An address that speaks TLS and relays to a server; closed on drop.
pub struct TlsFront {
    /// Its address.
    pub address: SocketAddr,
    relay: JoinHandle<()>,
}

impl TlsFront {
    /// Listens with this certificate and key (PEM).
    pub async fn start(server: SocketAddr, (certificate, key): (String, String)) -> Self {
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, relay: tokio::spawn(relay(listener, TlsAcceptor::from(Arc::new(config)), server)) }
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

async fn relay(listener: TcpListener, acceptor: TlsAcceptor, server: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            let Ok(mut client) = acceptor.accept(client).await else { return };
            if let Ok(mut server) = TcpStream::connect(server).await {
                // Fails when either side closes the connection.
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}
