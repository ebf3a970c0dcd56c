//! Faults of unsafe values and combinations (SECRET-03, CRYPTO-01), most of them in production
//! only.
//!
//! Rows of the table name the functions for one value; [`check`] runs when all settings are read.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use super::{
    Clients, Database, Dpop, FailureLimit, Http, Issuer, Oidc, OnStaleFeed, Origin, Profile, Reader, Revocation, Risk,
    ScopeName, Settings,
    row::SettingName,
    secrets,
    table::{General, IncidentLogin, InternalFiles, TlsFiles},
};
use crate::{crypto::VaultSettings, telemetry::Log};

/// Adds a fault for each unsafe combination.
pub(super) fn check(settings: &Settings, r: &mut Reader) {
    let production = settings.profile == Profile::Production;
    let asks = settings.tls.as_ref().is_some_and(|tls| tls.clients != Clients::Unasked);
    for issuer in settings.oidc.issuers() {
        if issuer.require_bound_tokens && !asks && settings.internal.is_none() {
            let setting = Issuer::require_bound_tokens.resolve_name(issuer.name.as_deref());
            r.fault(&setting, "needs client certificates: set APP_TLS__CLIENT_CA_PATH, or the internal listener");
        }
    }
    check_roles(settings, r);
    check_dpop(settings, r);
    if production {
        let internal = settings.internal.as_ref().map(|internal| &internal.tls);
        for (setting, tls) in [(TlsFiles::key.name(), settings.tls.as_ref()), (InternalFiles::key.name(), internal)] {
            if let Some(fault) = tls.and_then(|tls| secrets::file_mode_fault(&tls.key)) {
                r.fault(&setting, fault);
            }
        }
    }
    let http = &settings.http;
    // The vault may be called twice: a connection that is lost at the last moment is replaced.
    if settings.keys.master.vault.as_ref().is_some_and(|vault| 2 * vault.timeout >= http.request_timeout) {
        let limit = format!("must be less than half of {}", Http::request_timeout.name());
        r.fault(&VaultSettings::timeout.name(), limit);
    }
    if production && settings.failure_limit.max_failures > 1_000 {
        r.fault(&FailureLimit::max_failures.name(), "must be 1 to 1000 in production");
    }
    let is_plain = settings.tls.is_none() && http.trusted_proxies.is_empty();
    if is_plain && !http.listen.ip().is_loopback() {
        let message = "plain HTTP is only served on a loopback address or to proxies: set \
                       APP_TLS__CERTIFICATE_PATH or APP_HTTP__TRUSTED_PROXIES";
        r.fault(&Http::listen.name(), message);
    }
    if production && is_plain && http.public_url.as_ref().is_some_and(|url| !is_loopback(url)) {
        let message = "is required with this APP_HTTP__PUBLIC_URL and without TLS: otherwise all callers share the \
                       proxy's address and its limits. Set the proxy's address, or APP_TLS__CERTIFICATE_PATH";
        r.fault(&Http::trusted_proxies.name(), message);
    }
    if production && http.trusted_proxies.iter().any(|network| network.is_wider_than(8, 32)) {
        let message = "must be networks no wider than /8 (IPv4) or /32 (IPv6) in production";
        r.fault(&Http::trusted_proxies.name(), message);
    }
    if production {
        check_risks(settings, r);
    }
}

/// Proofs name the public URL, and issuers bind no token of a browser session (AUTHN-19).
fn check_dpop(settings: &Settings, r: &mut Reader) {
    for issuer in settings.oidc.issuers().filter(|issuer| issuer.dpop != Dpop::Off) {
        if r.is_production() && settings.http.public_url.is_none() {
            r.fault(&Http::public_url.name(), "is required with APP_OIDC__DPOP: proofs name it");
        }
        if issuer.dpop == Dpop::Required && settings.sessions.has_client_of(issuer) {
            let setting = Issuer::dpop.resolve_name(issuer.name.as_deref());
            r.fault(&setting, "must not be `required` for an issuer with browser sessions, which use no bound tokens");
        }
    }
}

/// Unsafe values that production accepts only by name, in `APP_ACCEPTED_RISKS`.
fn check_risks(settings: &Settings, r: &mut Reader) {
    let Settings { http, oidc, revocation, .. } = settings;
    let is_http = http.public_url.as_ref().is_some_and(|url| url.scheme() == "http" && !is_loopback(url));
    let is_wide = http.trusted_proxies.iter().any(|network| network.is_wider_than(24, 64) && !network.is_loopback());
    let serves_stale = revocation.on_stale_feed == OnStaleFeed::Serve;
    let has_old_feed = revocation.max_feed_age > Duration::from_mins(5);
    let mut risks = vec![
        ("http_public_url", Http::public_url.name(), is_http),
        ("wide_proxies", Http::trusted_proxies.name(), is_wide),
        ("trace_logs", Log::filter.name(), settings.log.filter.allows_trace()),
        ("stale_revocations", Revocation::on_stale_feed.name(), serves_stale),
        ("stale_revocations", Revocation::max_feed_age.name(), has_old_feed),
        ("stale_keys", Oidc::refresh.name(), oidc.refresh > Duration::from_hours(1)),
        ("stale_keys", Oidc::max_staleness.name(), oidc.max_staleness > 4 * 3_600),
    ];
    risks.extend(oidc.issuers().map(|issuer| {
        let setting = Issuer::max_token_lifetime.resolve_name(issuer.name.as_deref());
        // An inherited value is a fault of the first issuer.
        let is_long = issuer.max_token_lifetime > 2 * 3_600 && r.has(&setting);
        ("long_tokens", setting, is_long)
    }));
    for (word, setting, applies) in risks {
        if applies && !settings.accepted_risks.contains(&Risk(word)) {
            let (danger, accepted) = (Risk(word).danger(), General::accepted_risks.name());
            r.fault(&setting, format!("is a risk in production: {danger}. Change it, or add `{word}` to {accepted}"));
        }
    }
}

/// Each URL of the database needs its own PostgreSQL role.
fn check_roles(settings: &Settings, r: &mut Reader) {
    let database = &settings.database;
    let incidents = settings.incidents.as_ref().map(|login| (IncidentLogin::incidents_url.name(), &login.url));
    let urls = [
        (Database::writer_url.name(), &database.writer_url),
        (Database::reader_url.name(), &database.reader_url),
        (Database::authn_url.name(), &database.authn_url),
        (Database::keys_url.name(), &database.keys_url),
    ];
    let mut roles = BTreeSet::new();
    for (setting, url) in urls.into_iter().chain(incidents) {
        let role = Url::parse(url.expose_secret()).map(|url| url.username().to_owned());
        if role.is_ok_and(|role| !roles.insert(role)) {
            r.fault(&setting, "must have its own role: another URL of the database has the same; see roles.sql");
        }
    }
}

/// The parse error is not quoted: it could contain a password.
fn parse_url(setting: &SettingName, text: &str, r: &mut Reader) -> Option<Url> {
    let url = Url::parse(text).ok();
    if url.is_none() {
        r.fault(setting, "is not a URL");
    }
    url
}

pub(super) fn issuer(setting: &SettingName, issuer: &impl AsRef<str>, r: &mut Reader) {
    let Some(url) = parse_url(setting, issuer.as_ref(), r) else { return };
    let secure = url.scheme() == "https";
    let local = url.scheme() == "http" && is_loopback(&url);
    if !secure && (r.is_production() || !local) {
        r.fault(setting, "must be an https URL (http only for a loopback address in development)");
    }
    check_bare(setting, &url, r);
}

/// Checks an address of an issuer's documents. It may have a query, which some issuers require.
#[expect(clippy::ref_option, reason = "the signature of each check")]
pub(super) fn issuer_address(setting: &SettingName, url: &Option<Url>, r: &mut Reader) {
    let Some(url) = url else { return };
    if url.scheme() != "https" && (r.is_production() || url.scheme() != "http") {
        r.fault(setting, "must be an https URL (http only in development)");
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        r.fault(setting, "must have no user and no fragment");
    }
}

/// Rejects lists without an entry, and empty entries, which an empty claim would match.
pub(super) fn audience(setting: &SettingName, names: &impl AsRef<[String]>, r: &mut Reader) {
    if names.as_ref().iter().any(String::is_empty) {
        r.fault(setting, "has an empty entry");
    }
}

/// Credentials in a URL would be logged with it; queries and fragments have no meaning here.
fn check_bare(setting: &SettingName, url: &Url, r: &mut Reader) {
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        r.fault(setting, "must have no user, no query and no fragment");
    }
}

/// Checks the URL at which callers reach the service.
#[expect(clippy::ref_option, reason = "the signature of each check")]
pub(super) fn public_url(setting: &SettingName, url: &Option<Url>, r: &mut Reader) {
    let Some(url) = url else { return };
    if !matches!(url.scheme(), "https" | "http") {
        r.fault(setting, "must be an https URL");
    }
    check_bare(setting, url, r);
}

/// An attacker between browser and page could change a page that comes by plain HTTP, and use its
/// permission (AUTHZ-10).
pub(super) fn cors_origins(setting: &SettingName, origins: &impl AsRef<[Origin]>, r: &mut Reader) {
    let is_exposed = |origin: &Origin| origin.url.scheme() == "http" && !is_loopback(&origin.url);
    if r.is_production() && origins.as_ref().iter().any(is_exposed) {
        r.fault(setting, "must be https origins in production, or http on a loopback address");
    }
}

/// Rejects scopes that the service does not declare.
pub(super) fn scopes(setting: &SettingName, names: &BTreeSet<ScopeName>, r: &mut Reader) {
    if !names.iter().all(|name| r.rights().scopes.iter().any(|scope| scope.as_str() == name.0)) {
        r.fault(setting, "unknown scope; expected scopes of this API");
    }
}

/// Query parameters could override host, user and password in the PostgreSQL driver, and it takes
/// missing parts from its own environment. So the URL must state each part once, in its place.
pub(super) fn database(setting: &SettingName, url: &SecretString, r: &mut Reader) {
    let production = r.is_production();
    let Some(url) = parse_url(setting, url.expose_secret(), r) else { return };
    if !matches!(url.scheme(), "postgres" | "postgresql") || url.host().is_none() {
        r.fault(setting, "must be a postgres:// URL with a host");
    }
    let parameters: Vec<String> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    let allowed = |name: &String| ["sslmode", "sslrootcert", "sslcert", "sslkey"].contains(&name.as_str());
    let distinct: BTreeSet<&String> = parameters.iter().collect();
    if !parameters.iter().all(allowed) || distinct.len() != parameters.len() {
        r.fault(setting, "may have the parameters sslmode, sslrootcert, sslcert and sslkey, each once");
    }
    if url.path().trim_start_matches('/').is_empty() {
        r.fault(setting, "must name the database");
    }
    if url.username().is_empty() || url.username() == "postgres" {
        r.fault(setting, "must name a role that is not the superuser `postgres`; see roles.sql");
    }
    let password = url.password().map(secrets::percent_decoded);
    let password = password.as_ref().map(ExposeSecret::expose_secret);
    if password.is_none_or(|password| password.is_empty() || (production && password.len() < 16)) {
        r.fault(setting, "must have a password, in production of 16 characters or more");
    }
    if production && password.is_some_and(|password| secrets::is_guessable(password, url.username())) {
        r.fault(setting, "must have a random password, without common words, the role's name or few characters");
    }
    let verified = url.query_pairs().any(|(name, value)| name == "sslmode" && value == "verify-full");
    if production && !is_loopback(&url) && !verified {
        r.fault(setting, "must have sslmode=verify-full unless the database is on a loopback address");
    }
}

/// Query and fragment are refused because options of the Redis client can switch its checks off.
pub(super) fn quota_store(setting: &SettingName, url: &SecretString, r: &mut Reader) {
    let Some(url) = parse_url(setting, url.expose_secret(), r) else { return };
    if !matches!(url.scheme(), "redis" | "rediss") || url.host().is_none() {
        r.fault(setting, "must be a rediss:// or redis:// URL with a host");
    }
    if url.query().is_some() || url.fragment().is_some() {
        r.fault(setting, "must have no query and no fragment");
    }
    if r.is_production() && !is_loopback(&url) {
        if url.scheme() != "rediss" {
            r.fault(setting, "must be rediss:// unless it is on a loopback address");
        }
        let password = url.password().map(secrets::percent_decoded);
        let is_weak = |password: &str| password.len() < 16 || secrets::is_guessable(password, url.username());
        if password.is_none_or(|password| is_weak(password.expose_secret())) {
            r.fault(setting, "must have a random password of 16 characters or more unless it is on a loopback address");
        }
    }
}

/// Checks a bearer token for another service, which an attacker must not be able to guess.
pub(super) fn token(setting: &SettingName, token: &SecretString, r: &mut Reader) {
    let token = token.expose_secret();
    if r.is_production() && (token.len() < 16 || secrets::is_guessable(token, "")) {
        r.fault(setting, "must be random, of 16 characters or more in production");
    }
}

#[expect(clippy::ref_option, reason = "the signature of each check")]
pub(super) fn optional_token(setting: &SettingName, value: &Option<SecretString>, r: &mut Reader) {
    if let Some(value) = value {
        token(setting, value, r);
    }
}

/// Checks the URL of a service that receives a bearer token.
pub(super) fn service_url(setting: &SettingName, url: &Url, r: &mut Reader) {
    if !(url.scheme() == "https" || url.scheme() == "http" && (is_loopback(url) || !r.is_production())) {
        r.fault(setting, "must be an https URL, or http on a loopback address");
    }
    check_bare(setting, url, r);
}

/// Checks the paths to which a sign-in may return: a path of another host would be an open redirect.
pub(super) fn return_paths(setting: &SettingName, paths: &impl AsRef<[String]>, r: &mut Reader) {
    let is_local = |path: &String| {
        let rest = path.strip_prefix('/');
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.~/".contains(c);
        path.len() <= 200 && rest.is_some_and(|rest| !rest.starts_with('/') && rest.chars().all(allowed))
    };
    if !paths.as_ref().iter().all(is_local) {
        r.fault(setting, "must be paths such as `/app`: one `/`, then letters, digits and any of `-_.~/`");
    }
}

/// Checks the prefix of names in the quota store.
pub(super) fn quota_prefix(setting: &SettingName, prefix: &impl AsRef<str>, r: &mut Reader) {
    let prefix = prefix.as_ref();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if prefix.len() > 64 || !prefix.chars().all(allowed) {
        r.fault(setting, "must be 1 to 64 letters, digits, `-`, `_`, `.` or `:` of ASCII");
    }
}

pub(super) fn vault_key(setting: &SettingName, name: &impl AsRef<str>, r: &mut Reader) {
    check_path(setting, name.as_ref(), "-_.", r);
}

pub(super) fn vault_mount(setting: &SettingName, path: &impl AsRef<str>, r: &mut Reader) {
    check_path(setting, path.as_ref(), "-_./", r);
}

/// The parts of a path become parts of a URL, and dots could climb out of the mount.
fn check_path(setting: &SettingName, path: &str, punctuation: &str, r: &mut Reader) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || punctuation.contains(c);
    let bad_part = path.split('/').any(|part| part.is_empty() || part.starts_with('.'));
    if path.len() > 40 || bad_part || !path.chars().all(allowed) {
        let message =
            format!("must be 1 to 40 letters, digits or any of `{punctuation}`, and no part may begin with a dot");
        r.fault(setting, message);
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        // For a non-special scheme such as postgres://, `url` keeps addresses as names.
        Some(Host::Domain(name)) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        None => false,
    }
}
