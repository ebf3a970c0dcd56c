//! What a production start refuses (SECRET-03).

use std::{collections::BTreeSet, net::IpAddr};

use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use super::{Clients, Profile, Reader, Settings, secrets};

/// Adds a fault for each unsafe combination. What is unsafe by itself is told where it is read.
pub(super) fn check(settings: &Settings, r: &mut Reader) {
    let production = settings.profile == Profile::Production;
    let asks = settings.tls.as_ref().is_some_and(|tls| tls.clients != Clients::Unasked);
    for issuer in settings.oidc.issuers() {
        if issuer.require_bound_tokens && !asks && settings.internal.is_none() {
            let key = issuer.key("require_bound_tokens");
            r.fault(&key, "needs tls.client_ca_path, or the internal listener");
        }
    }
    let database = &settings.database;
    let mut logins = BTreeSet::new();
    let incidents = settings.incidents.as_ref().map(|login| ("database.incidents_url", &login.url));
    let others = [
        ("database.writer_url", &database.writer_url),
        ("database.reader_url", &database.reader_url),
        ("database.authn_url", &database.authn_url),
        ("database.keys_url", &database.keys_url),
    ];
    for (key, url) in others.into_iter().chain(incidents) {
        let login = Url::parse(url.expose_secret()).map(|url| url.username().to_owned());
        if login.is_ok_and(|login| !logins.insert(login)) {
            r.fault(key, "must be a login of its own, and no other's");
        }
    }
    if production {
        check_key_files(settings, r);
    }
    // A connection that is lost at the last moment is followed by another.
    if settings.keys.vault.as_ref().is_some_and(|vault| 2 * vault.timeout >= settings.http.request_timeout) {
        r.fault("keys.vault.timeout_ms", "must be less than half of http.request_timeout_ms");
    }
    if production && settings.penalty.failures > 1_000 {
        r.fault("penalty.failures", "must be 1 to 1000 in production");
    }
    let http = &settings.http;
    if settings.tls.is_none() && !http.listen.ip().is_loopback() && http.trusted_proxies.is_empty() {
        r.fault(
            "http.listen",
            "plain HTTP is served on a loopback address, or to declared proxies; else set tls.certificate_path",
        );
    }
    if production && http.trusted_proxies.iter().any(|network| network.is_too_wide()) {
        r.fault("http.trusted_proxies", "must name networks no wider than /8 of IPv4 or /32 of IPv6 in production");
    }
}

/// The keys of TLS, which are read by path.
fn check_key_files(settings: &Settings, r: &mut Reader) {
    let internal = settings.internal.as_ref().map(|internal| &internal.tls);
    for (key, tls) in [("tls.key_path", settings.tls.as_ref()), ("internal.key_path", internal)] {
        if let Some(fault) = tls.and_then(|tls| secrets::readable_by_all(&tls.key)) {
            r.fault(key, fault);
        }
    }
}

pub(super) fn check_issuer(key: &str, issuer: &str, production: bool, r: &mut Reader) {
    let Ok(url) = Url::parse(issuer) else {
        return r.fault(key, "is not a URL");
    };
    let secure = url.scheme() == "https";
    let local = url.scheme() == "http" && is_loopback(&url);
    if !secure && (production || !local) {
        r.fault(key, "must be an https URL (http is for a loopback address in development)");
    }
    if url.query().is_some() || url.fragment().is_some() {
        r.fault(key, "must have no query and no fragment (OpenID Connect Discovery section 3)");
    }
}

/// The driver lets parameters of the query override the host, the user and the password, and takes what
/// is missing from its own environment: the URL must say all of it, in its proper place, once.
pub(super) fn check_database(key: &str, url: &SecretString, production: bool, r: &mut Reader) {
    // Parse errors are not quoted: they could hold the password.
    let Ok(url) = Url::parse(url.expose_secret()) else {
        return r.fault(key, "is not a URL");
    };
    if !matches!(url.scheme(), "postgres" | "postgresql") || url.host().is_none() {
        r.fault(key, "must be a postgres:// URL with a host");
    }
    let parameters: Vec<String> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    let allowed = |name: &String| ["sslmode", "sslrootcert", "sslcert", "sslkey"].contains(&name.as_str());
    let distinct: BTreeSet<&String> = parameters.iter().collect();
    if !parameters.iter().all(allowed) || distinct.len() != parameters.len() {
        r.fault(key, "may have the parameters sslmode, sslrootcert, sslcert and sslkey, each once");
    }
    if url.path().trim_start_matches('/').is_empty() {
        r.fault(key, "must name the database");
    }
    if url.username().is_empty() || url.username() == "postgres" {
        r.fault(key, "must name a login of its own, not the superuser's");
    }
    let password = url.password().map(secrets::decoded);
    let password = password.as_ref().map(ExposeSecret::expose_secret);
    if password.is_none_or(|password| password.is_empty() || (production && password.len() < 16)) {
        r.fault(key, "must have a password, in production of 16 characters or more");
    }
    if production && password.is_some_and(|password| secrets::is_guessable(password, url.username())) {
        r.fault(key, "must have a random password, not one of words, of the login's name or of few characters");
    }
    let verified = url.query_pairs().any(|(name, value)| name == "sslmode" && value == "verify-full");
    if production && !is_loopback(&url) && !verified {
        r.fault(key, "must have sslmode=verify-full unless the database is on a loopback address");
    }
}

/// The client's own options, some of which switch its checks off, are none of ours.
/// Answers whether it is without TLS.
pub(super) fn check_quota_store(key: &str, url: &SecretString, production: bool, r: &mut Reader) -> bool {
    // Parse errors are not quoted: they could hold the password.
    let Ok(url) = Url::parse(url.expose_secret()) else {
        r.fault(key, "is not a URL");
        return false;
    };
    if !matches!(url.scheme(), "redis" | "rediss") || url.host().is_none() {
        r.fault(key, "must be a rediss:// or redis:// URL with a host");
    }
    if url.query().is_some() || url.fragment().is_some() {
        r.fault(key, "must have no query and no fragment");
    }
    if production && !is_loopback(&url) {
        if url.scheme() != "rediss" {
            r.fault(key, "must be rediss:// unless it is on a loopback address");
        }
        let password = url.password().map(secrets::decoded);
        let is_weak = |password: &str| password.len() < 16 || secrets::is_guessable(password, url.username());
        if password.is_none_or(|password| is_weak(password.expose_secret())) {
            r.fault(key, "must have a random password of 16 characters or more unless it is on a loopback address");
        }
    }
    url.scheme() == "redis"
}

/// A token of another service, which nobody must be able to try out.
pub(super) fn check_token(key: &str, token: &SecretString, production: bool, r: &mut Reader) {
    let token = token.expose_secret();
    if production && (token.len() < 16 || secrets::is_guessable(token, "")) {
        r.fault(key, "must be random, of 16 characters or more in production");
    }
}

/// The token goes there.
pub(super) fn check_service_url(key: &str, url: &Url, production: bool, r: &mut Reader) {
    if !(url.scheme() == "https" || url.scheme() == "http" && (is_loopback(url) || !production)) {
        r.fault(key, "must be an https URL, or http on a loopback address");
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        r.fault(key, "must have no user, no query and no fragment");
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        // A non-special scheme such as postgres:// keeps addresses as names.
        Some(Host::Domain(name)) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        None => false,
    }
}
