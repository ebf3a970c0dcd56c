//! TLS of the public listener, tested with real handshakes: versions, certificates and their reload
//! (CRYPTO-01), permissions of the key (SECRET-03), and connections per address (RATE-09).

use std::{
    fs::Permissions,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    time::Duration,
};

use palisade::{
    app::{self, StartError},
    edge,
    model::Clock,
    settings::{Faults, Settings, Tls},
};
use reqwest::{Client, tls::Version};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Actor, Authority, PemFiles, SERVICE, TestApp, events, eventually};

/// The settings of a service with this certificate. Its issuer is unreachable; liveness needs none.
async fn settings(files: &PemFiles, variables: &[(&str, &str)]) -> Result<Settings, Faults> {
    let mut all = TestApp::variables(&SERVICE.database().await, "http://127.0.0.1:9");
    let tls = [
        ("APP_TLS__CERTIFICATE_PATH", files.certificate().display().to_string()),
        ("APP_TLS__KEY_PATH", files.key().display().to_string()),
    ];
    all.extend(tls.map(|(name, value)| (name.to_owned(), value)));
    all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    all.retain(|_, value| !value.is_empty());
    sample::app().read_settings(all)
}

/// Starts a service with these settings; returns its address.
async fn serve(files: &PemFiles, variables: &[(&str, &str)]) -> SocketAddr {
    let settings = settings(files, variables).await.unwrap();
    let app = app::start(&sample::app(), settings, Clock::system()).await.unwrap_or_else(|error| panic!("{error}"));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, app.address().port()));
    tokio::spawn(app.run(std::future::pending()));
    address
}

/// Requests the liveness probe; `None` if there was no handshake.
async fn get_live(client: &Client, address: SocketAddr) -> Option<reqwest::Response> {
    client.get(format!("https://localhost:{}/health/live", address.port())).send().await.ok()
}

#[tokio::test]
async fn crypto_01_only_tls_1_3_is_accepted_by_default() {
    let authority = Authority::new();
    let files = PemFiles::new(authority.sign());
    // TLS is what permits a listener beyond loopback.
    let address = serve(&files, &[("APP_HTTP__LISTEN", "0.0.0.0:0")]).await;
    let reply = get_live(&authority.client(address).build().unwrap(), address).await.expect("a handshake");
    assert_eq!((reply.status().as_u16(), reply.version()), (200, http::Version::HTTP_2));
    assert_eq!(reply.headers()["strict-transport-security"], "max-age=63072000; includeSubDomains");
    let old = || authority.client(address).tls_version_max(Version::TLS_1_2).build().unwrap();
    assert!(get_live(&old(), address).await.is_none(), "TLS 1.2 was accepted");
    let other_authority = Authority::new().client(address).build().unwrap();
    assert!(get_live(&other_authority, address).await.is_none(), "the test's client trusts any authority");

    // TLS 1.2 can be enabled.
    let address = serve(&files, &[("APP_TLS__MIN_VERSION", "1.2")]).await;
    let old = authority.client(address).tls_version_max(Version::TLS_1_2).build().unwrap();
    get_live(&old, address).await.expect("TLS 1.2, as set");
    get_live(&authority.client(address).build().unwrap(), address).await.expect("TLS 1.3 still works");
}

#[tokio::test]
async fn crypto_01_plain_http_gets_no_response() {
    let files = PemFiles::new(Authority::new().sign());
    let address = serve(&files, &[("APP_HTTP__HEADER_TIMEOUT_MS", "300")]).await;
    for greeting in [&b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(greeting).await.unwrap();
        let mut answer = Vec::new();
        // A connection without a handshake is closed too (RATE-09).
        let _ = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut answer)).await.expect("closed");
        assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "{answer:?}");
    }
}

#[tokio::test]
async fn crypto_01_certificate_reload_keeps_open_connections() {
    let first = Authority::new();
    let second = Authority::new();
    let files = PemFiles::new(first.sign());
    let address = serve(&files, &[]).await;
    let old = first.client(address).build().unwrap();
    get_live(&old, address).await.expect("the first certificate");
    // A reload may see half-written files; the next one sees the complete files.
    files.write("-----BEGIN CERTIFICATE-----\n", second.sign().1);
    get_live(&first.client(address).build().unwrap(), address).await.expect("the first certificate still");
    // A certificate that is not valid yet does not replace one that is.
    let (certificate, key) = second.sign_with([], |params| params.not_before = rcgen::date_time_ymd(2090, 1, 1));
    files.write(certificate, key);
    let refused = || {
        let reason = format!("the certificate in {} is not valid yet", files.certificate().display());
        events::for_trace_id("").iter().any(|event| event["event"] == "secret_not_renewed" && event["reason"] == reason)
    };
    eventually("an event for the new certificate", async || refused()).await;
    get_live(&first.client(address).build().unwrap(), address).await.expect("the first certificate still");
    let (certificate, key) = second.sign();
    files.write(certificate, key);
    let new = second.client(address).build().unwrap();
    eventually("the second certificate", async || get_live(&new, address).await.is_some()).await;
    let first_again = first.client(address).build().unwrap();
    assert!(get_live(&first_again, address).await.is_none(), "the first certificate is still used");
    get_live(&old, address).await.expect("the open connection still works");
}

/// The same check runs at startup and on each reload. This test calls it directly, since a
/// production startup needs an issuer with TLS.
#[tokio::test]
async fn secret_03_production_rejects_a_world_readable_tls_key() {
    let authority = Authority::new();
    let files = PemFiles::new(authority.sign());
    let set_mode = |mode| std::fs::set_permissions(files.key(), Permissions::from_mode(mode)).unwrap();
    let tls = settings(&files, &[]).await.unwrap().tls.unwrap();
    assert!(!tls.guarded);
    let production = Tls { guarded: true, ..tls.clone() };
    set_mode(0o644);
    let refused = edge::Tls::load(production.clone(), Clock::system()).unwrap_err();
    assert!(refused.to_string().contains("accessible to all users"), "{refused}");
    edge::Tls::load(tls, Clock::system()).unwrap();
    set_mode(0o600);
    edge::Tls::load(production, Clock::system()).unwrap();
}

#[tokio::test]
async fn crypto_01_unusable_certificate_prevents_startup() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign();
    let another = authority.sign().1;
    let expired = authority.sign_with([], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let early = authority.sign_with([], |params| params.not_before = rcgen::date_time_ymd(2090, 1, 1));
    for (certificate, key, message) in [
        (&expired.0, &expired.1, "has expired"),
        (&early.0, &early.1, "is not valid yet"),
        (&certificate, &another, "the certificate and the key cannot be used together"),
        (&key, &key, "contains no certificate in PEM format"),
        (&certificate, &certificate, "contains no private key in PEM format"),
    ] {
        let files = PemFiles::new((certificate.clone(), key.clone()));
        let Err(StartError::Tls(error)) =
            app::start(&sample::app(), settings(&files, &[]).await.unwrap(), Clock::system()).await
        else {
            panic!("the service started, though: {message}");
        };
        assert!(error.to_string().contains(message), "{error}");
    }
    let files = PemFiles::new((certificate, key));
    std::fs::remove_file(files.key()).unwrap();
    let missing = app::start(&sample::app(), settings(&files, &[]).await.unwrap(), Clock::system()).await;
    assert!(matches!(missing, Err(StartError::Tls(_))));
    for (variables, name) in [
        ([("APP_TLS__KEY_PATH", "")], "APP_TLS__KEY_PATH"),
        ([("APP_TLS__CERTIFICATE_PATH", "")], "APP_TLS__CERTIFICATE_PATH"),
        ([("APP_TLS__MIN_VERSION", "1.1")], "APP_TLS__MIN_VERSION"),
    ] {
        let faults = settings(&files, &variables).await.unwrap_err().to_string();
        assert!(faults.contains(name), "{faults}");
    }
}

#[tokio::test]
async fn crypto_01_hsts_is_sent_behind_a_tls_proxy() {
    let app = SERVICE.start_with(&[("APP_HTTP__PUBLIC_URL", "https://api.example.com")]).await;
    let reply = app.anonymous().get("/health/live").await;
    assert_eq!(reply.header("strict-transport-security"), Some("max-age=63072000; includeSubDomains"));
    assert_eq!(SERVICE.shared().anonymous().get("/health/live").await.header("strict-transport-security"), None);
}

#[tokio::test]
async fn rate_09_connections_per_address_are_limited() {
    let app = SERVICE
        .start_with(&[("APP_HTTP__MAX_CONNECTIONS_PER_ADDRESS", "4"), ("APP_HTTP__TRUSTED_PROXIES", "127.0.0.8")])
        .await;
    // Whether the service still accepts a connection from the default address.
    let is_accepted = async || {
        let Ok(mut socket) = TcpStream::connect(app.address).await else { return false };
        let _ = socket.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.is_ok() && answer.starts_with(b"HTTP/1.1 200")
    };
    let mut held = Vec::new();
    // The connections on which the test waited for readiness may still count at first.
    eventually("the address reaches its limit", async || {
        held.push(TcpStream::connect(app.address).await.unwrap());
        !is_accepted().await
    })
    .await;
    assert!(held.len() <= 4, "{}", held.len());
    // Other addresses are still accepted, and so is a proxy with many callers.
    for (last, calls) in [(7, 1), (8, 10)] {
        for _ in 0..calls {
            let actor = Actor::new(app.address, None).at_address(Ipv4Addr::new(127, 0, 0, last).into());
            actor.get("/health/live").await.ok(200);
            std::mem::forget(actor);
        }
    }
    drop(held);
    eventually("the address is accepted again", async || is_accepted().await).await;
}
