//! The command `health`, which probes of containers run (FAIL-04): its exit status over plain HTTP
//! and TLS, for a service that is ready, not ready, silent or absent.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use palisade::{app, model::Clock};

use crate::support::{Authority, PemFiles, SERVICE, TestApp};

/// Runs the command on a service at this address. Returns its exit status and what it printed.
async fn health(address: SocketAddr, arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let mut command = SERVICE.binary();
    // Other variables of the service are not read: these would be faults of `serve`.
    command.env("APP_DATABASE__WRITER_URL", "nonsense").env("APP_SECRETS__MAC_KEY_FILE", "/nowhere");
    command.env("HTTP_PROXY", "http://127.0.0.1:9").env("HTTPS_PROXY", "http://127.0.0.1:9");
    command.env("APP_HTTP__LISTEN", address.to_string()).envs(variables.iter().copied()).arg("health").args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn fail_04_health_command_reports_readiness_by_its_exit_status() {
    let app = SERVICE.start().await;
    assert_eq!(health(app.address, &[], &[]).await, (true, "ready\n".to_owned()));
    let url = format!("http://{}", app.address);
    let elsewhere = "127.0.0.1:9".parse().unwrap();
    assert_eq!(health(elsewhere, &["--url", &url], &[]).await, (true, "ready\n".to_owned()));

    let app = SERVICE.start_with(&[("APP_OIDC__ISSUER", "http://127.0.0.1:9")]).await;
    let (ok, text) = health(app.address, &[], &[]).await;
    assert!(!ok && text.contains("503"), "{text}");
    assert_eq!(health(app.address, &["--live"], &[]).await, (true, "up\n".to_owned()));

    let (ok, text) = health(elsewhere, &[], &[]).await;
    assert!(!ok && text.starts_with("error: "), "{text}");
}

#[tokio::test]
async fn fail_04_health_command_ends_in_time_without_a_response() {
    // The system accepts connections for it, and the test never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let start = Instant::now();
    let (ok, text) = health(silent.local_addr().unwrap(), &[], &[]).await;
    assert!(!ok && text.contains("timed out"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// In a container the service listens on all addresses, and its certificate names another host.
#[tokio::test]
async fn fail_04_health_command_needs_no_proxy_and_no_matching_certificate() {
    let files = PemFiles::new(Authority::new().sign());
    let certificate = files.certificate().display().to_string();
    let key = files.key().display().to_string();
    let tls = [("APP_TLS__CERTIFICATE_PATH", &*certificate), ("APP_TLS__KEY_PATH", &*key)];
    let plain = [("APP_HTTP__TRUSTED_PROXIES", "192.0.2.1")];
    for variables in [&tls[..], &plain[..]] {
        let mut settings = TestApp::variables(&SERVICE.database().await, "http://127.0.0.1:9");
        settings.insert("APP_HTTP__LISTEN".to_owned(), "0.0.0.0:0".to_owned());
        settings.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let settings = sample::app().read_settings(settings).unwrap();
        let app = app::start(&sample::app(), settings, Clock::system()).await.unwrap_or_else(|error| panic!("{error}"));
        let address = app.address();
        tokio::spawn(app.run(std::future::pending()));
        assert!(address.ip().is_unspecified());
        assert_eq!(health(address, &["--live"], variables).await, (true, "up\n".to_owned()), "{variables:?}");
    }
}
