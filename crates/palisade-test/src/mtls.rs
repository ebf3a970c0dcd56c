//! A service with a listener that asks for client certificates, for tests of the internal listener
//! and of certificate-bound tokens (RFC 8705).

use std::net::{Ipv4Addr, SocketAddr};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use palisade::crypto;
use rcgen::SanType;
use reqwest::Identity;
use serde_json::json;

use crate::{ACME, Actor, Authority, PemFiles, TestApp, TestService};

/// The certificate name of a service that acts in Acme with the scopes of [`MtlsSetup::internal`].
pub const JOB: &str = "spiffe://acme.example/job";
/// The certificate name of a service with the right `metrics` and no tenant.
pub const PROMETHEUS: &str = "prometheus.acme.example";

/// A URI as a subject alternative name.
pub fn uri(id: &str) -> SanType {
    SanType::URI(id.try_into().unwrap())
}

/// A host name as a subject alternative name.
pub fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// A service with certificates of its own authority.
pub struct MtlsSetup {
    /// The service.
    pub app: TestApp,
    /// Signs the certificates of the listener and of clients.
    pub authority: Authority,
    /// The authorities that client certificates are verified with.
    pub roots: PemFiles,
    _files: PemFiles,
}

impl MtlsSetup {
    /// A service with an internal listener, whose job has these scopes.
    pub async fn internal(service: &'static TestService, scopes: &str, variables: &[(&str, &str)]) -> Self {
        let tenant = ACME.id.to_string();
        let services = [
            ("APP_INTERNAL__LISTEN", "127.0.0.1:0"),
            ("APP_INTERNAL__SERVICES__JOB__CERTIFICATE_NAME", JOB),
            ("APP_INTERNAL__SERVICES__JOB__TENANT", &tenant),
            ("APP_INTERNAL__SERVICES__JOB__SCOPES", scopes),
            ("APP_INTERNAL__SERVICES__PROMETHEUS__CERTIFICATE_NAME", "dns:Prometheus.acme.example"),
            ("APP_INTERNAL__SERVICES__PROMETHEUS__RIGHTS", "metrics"),
        ];
        let variables = [&services[..], variables].concat();
        Self::with_files("APP_INTERNAL", async |files, _| service.start_with(&[files, &variables].concat()).await).await
    }

    /// A service without an internal listener. Its public listener asks for client certificates.
    pub async fn public(service: &'static TestService, variables: &[(&str, &str)]) -> Self {
        let start = async |files: &[(&str, &str)], authority: &Authority| {
            service.start_with_tls(&[files, variables].concat(), authority).await
        };
        Self::with_files("APP_TLS", start).await
    }

    /// Starts a service with the files of a listener, whose settings have this prefix.
    async fn with_files(prefix: &str, start: impl AsyncFnOnce(&[(&str, &str)], &Authority) -> TestApp) -> Self {
        let authority = Authority::new();
        let files = PemFiles::new(authority.sign());
        let roots = PemFiles::new((authority.root.clone(), String::new()));
        let paths = [files.certificate(), files.key(), roots.certificate()].map(|path| path.display().to_string());
        let names = ["CERTIFICATE", "KEY", "CLIENT_CA"].map(|name| format!("{prefix}__{name}_PATH"));
        let variables: Vec<_> = names.iter().zip(&paths).map(|(name, path)| (name.as_str(), path.as_str())).collect();
        let app = start(&variables, &authority).await;
        Self { app, authority, roots, _files: files }
    }

    /// A client of the internal listener with this certificate.
    pub fn client(&self, certificate: &(String, String), token: Option<String>) -> Actor {
        self.client_at(self.app.internal.unwrap(), Some(certificate), token)
    }

    /// A client of this port, with or without a certificate.
    pub fn client_at(
        &self,
        address: SocketAddr,
        certificate: Option<&(String, String)>,
        token: Option<String>,
    ) -> Actor {
        let mut client = self.authority.client(SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())));
        if let Some((certificate, key)) = certificate {
            client = client.identity(Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap());
        }
        Actor::over_tls(client.build().unwrap(), address.port(), token)
    }

    /// A client of the internal listener, with a new certificate for these names and no token.
    pub fn service(&self, names: impl IntoIterator<Item = SanType>) -> Actor {
        self.client(&self.authority.sign_for(names), None)
    }

    /// The service with the certificate name [`JOB`].
    pub fn job(&self) -> Actor {
        self.service([uri(JOB)])
    }

    /// A user's token, bound to this certificate.
    pub fn token_bound_to(&self, (certificate, _): &(String, String)) -> String {
        self.app.forge().claim("cnf", json!({ "x5t#S256": thumbprint(certificate) })).token()
    }
}

/// The thumbprint of a certificate (RFC 8705 section 3.1).
pub fn thumbprint(certificate: &str) -> String {
    let base64: String = certificate.lines().filter(|line| !line.starts_with("-----")).collect();
    URL_SAFE_NO_PAD.encode(crypto::sha256(&STANDARD.decode(base64).unwrap()))
}
