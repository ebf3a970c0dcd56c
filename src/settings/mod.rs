//! Typed configuration: environment `APP_…` over an optional TOML file over defaults.
//!
//! `__` stands between levels: `APP_HTTP__LISTEN` is `http.listen`. Any setting can be read
//! from a file by adding `_FILE` to its variable (`APP_SECRETS__MAC_KEY_FILE=/run/secrets/mac-key`).
//! The TOML file is named by `APP_CONFIG`. A name that no setting has is a fault, and so is an
//! unsafe combination in the `production` profile; all faults are reported at once (SECRET-03).

mod authn;
mod checks;
mod files;
mod internal;
mod keys;
mod login;
mod marks;
mod oidc;
mod proxies;
mod quota;
mod reader;
mod secrets;
mod sources;
mod telemetry;
mod tls;

use std::{collections::BTreeMap, ffi::OsString, net::SocketAddr, time::Duration};

use secrecy::SecretString;
use url::Url;

use crate::{
    crypto::{MacKey, Pepper},
    domain::Network,
};

pub use authn::{ApiKeys, Penalty, Revocation, WhenLost};
pub use internal::{CertificateName, Internal, Service};
pub use keys::{KeyProvider, Keys, Vault};
pub use login::{LoginSettings, RetirementSettings};
pub use marks::Mark;
pub use oidc::{ClaimPath, Issuer, Oidc};
pub use proxies::ProxyHeader;
pub use quota::{Quota, SharedQuota};
use reader::Reader;
pub use reader::{Fault, Faults};
pub use secrets::{SecretRead, SecretSource, tell};
pub(crate) use secrets::{decoded, readable_by_all, without_credentials};
pub use sources::{Looks, Sources};
pub use telemetry::{Audit, Log, Otlp};
pub use tls::{Clients, Tls, TlsVersion};

/// How strict the start is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Refuses anything unsafe. The default.
    #[default]
    Production,
    /// Allows plain HTTP to an issuer and a database without TLS. For one machine only.
    Development,
}

impl std::str::FromStr for Profile {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "production" => Ok(Self::Production),
            "development" => Ok(Self::Development),
            _ => Err("expected `production` or `development`"),
        }
    }
}

/// Everything `serve` needs to know.
#[derive(Debug)]
pub struct Settings {
    /// `APP_PROFILE`: `production` (default) or `development`.
    pub profile: Profile,
    /// The public listener and its limits.
    pub http: Http,
    /// TLS of the public listener; without it, plain HTTP.
    pub tls: Option<Tls>,
    /// The listener for services of one's own.
    pub internal: Option<Internal>,
    /// The four logins the server uses.
    pub database: Database,
    /// Whose tokens are accepted.
    pub oidc: Oidc,
    /// API keys.
    pub api_keys: ApiKeys,
    /// Revoked credentials.
    pub revocation: Revocation,
    /// Failed authentications.
    pub penalty: Penalty,
    /// Limits per client address.
    pub throttle: Throttle,
    /// Quotas per principal and per tenant.
    pub quota: Quota,
    /// Keys of the service itself.
    pub secrets: Secrets,
    /// Keys of sealed fields.
    pub keys: Keys,
    /// `APP_EXPORTS__MAX_ROWS`, default 1000000, 1 to 10000000: an export of more rows is refused (CRYPTO-09).
    pub max_export_rows: u32,
    /// Retries of creating operations.
    pub idempotency: Idempotency,
    /// Log lines.
    pub log: Log,
    /// Where spans, metrics and log records are sent.
    pub otlp: Option<Otlp>,
    /// The audit trail.
    pub audit: Audit,
    /// `APP_DATABASE__INCIDENTS_URL`, required if a service has the right `incidents`, and not read otherwise:
    /// `postgres://app_incidents:…@host/db`.
    pub incidents: Option<LoginSettings>,
    /// Which secrets were read, and where (SECRET-05).
    pub secrets_read: Vec<SecretRead>,
    /// Where all of this was read.
    pub sources: Sources,
}

/// The public listener, and limits. Connections, requests in work and throttles are counted for each listener by itself.
#[derive(Debug)]
pub struct Http {
    /// `APP_HTTP__LISTEN`, default `127.0.0.1:8080`. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// `APP_HTTP__PUBLIC_URL`: where callers reach the service, for the OpenAPI document. Default: the listen address.
    pub public_url: Option<Url>,
    /// `APP_HTTP__TRUSTED_PROXIES`: networks and addresses, separated by commas, of the proxies in front of the service.
    /// They, and nobody else, may say whom a request is from.
    pub trusted_proxies: Vec<Network>,
    /// `APP_HTTP__PROXY_HEADER`: `x-forwarded-for` (default) or `forwarded`, whichever the proxies write.
    pub proxy_header: ProxyHeader,
    /// `APP_HTTP__DOCS`, default true in development and false in production: serve `/docs` and `/openapi.json`.
    pub docs: bool,
    /// `APP_HTTP__MAX_BODY_BYTES`, default 65536.
    pub max_body_bytes: usize,
    /// `APP_HTTP__MAX_CONNECTIONS`, default 4096. Further connections are closed at once. Each takes a file descriptor,
    /// and some 45 KB once it has made a request.
    pub max_connections: usize,
    /// `APP_HTTP__MAX_CONNECTIONS_PER_ADDRESS`, default 256: of one IPv4 address, or one /64 of IPv6. Declared proxies
    /// may have all.
    pub max_connections_per_address: usize,
    /// `APP_HTTP__MAX_CONCURRENT_REQUESTS`, default 1024: requests in work; further ones are answered with 503 at once. A
    /// network may have a quarter of them, a principal a sixteenth.
    pub max_concurrent_requests: usize,
    /// `APP_HTTP__MAX_UNREAD_BYTES`, default 67108864 (64 MiB): bytes of responses that clients have not taken yet; reads
    /// of more than 16 KiB beyond it are answered with 503. A network may have a quarter of them, a principal an eighth.
    pub max_unread_bytes: usize,
    /// `APP_HTTP__STALL_TIMEOUT_MS`, default 10000: a client that does not take the next 10 KiB of a response within this
    /// time is cut off, so it has to read 1 KiB a second.
    pub stall_timeout: Duration,
    /// `APP_HTTP__IDLE_TIMEOUT_MS`, default 30000: then an HTTP/2 connection without requests ends. One of HTTP/1.1 ends
    /// after the header timeout.
    pub idle_timeout: Duration,
    /// `APP_HTTP__HEADER_TIMEOUT_MS`, default 5000: from the start of a connection, or of a further
    /// request on it, to the last header.
    pub header_timeout: Duration,
    /// `APP_HTTP__BODY_TIMEOUT_MS`, default 5000: between two pieces of a body.
    pub body_timeout: Duration,
    /// `APP_HTTP__REQUEST_TIMEOUT_MS`, default 10000, 100 to 3600000: for the whole request.
    pub request_timeout: Duration,
    /// `APP_HTTP__MAX_CONNECTION_AGE_MS`, default 600000: then a connection ends, after the requests in flight, and at
    /// twice that in any case. So nobody keeps one for ever, by a certificate or an authority that is gone, say.
    pub max_connection_age: Duration,
    /// `APP_HTTP__SHUTDOWN_GRACE_MS`, default 10000: how long requests in flight may finish after a stop signal.
    pub shutdown_grace: Duration,
}

/// The four logins the server uses. It never knows the owner's.
#[derive(Clone, Debug)]
pub struct Database {
    /// `APP_DATABASE__WRITER_URL`, required: `postgres://app_writer:…@host/db`.
    pub writer_url: SecretString,
    /// `APP_DATABASE__READER_URL`, required: `postgres://app_reader:…@host/db`.
    pub reader_url: SecretString,
    /// `APP_DATABASE__AUTHN_URL`, required: `postgres://app_authn:…@host/db`.
    pub authn_url: SecretString,
    /// `APP_DATABASE__KEYS_URL`, required: `postgres://app_keys:…@host/db`.
    pub keys_url: SecretString,
    /// `APP_DATABASE__MAX_CONNECTIONS`, default 10, for each login.
    pub max_connections: u32,
    /// `APP_DATABASE__ACQUIRE_TIMEOUT_MS`, default 3000: how long a request waits for a connection.
    pub acquire_timeout: Duration,
    /// `APP_DATABASE__STATEMENT_TIMEOUT_MS`, default 5000: the server cancels a slower statement.
    pub statement_timeout: Duration,
}

/// Limits per client address (RATE-01): a bucket of `burst` requests, refilled at `per_second`.
#[derive(Debug)]
pub struct Throttle {
    /// `APP_THROTTLE__ADDRESS_PER_SECOND`, default 50, 0.01 to 1000000.
    pub address_per_second: f64,
    /// `APP_THROTTLE__ADDRESS_BURST`, default 200.
    pub address_burst: u32,
}

/// Keys of the service itself.
#[derive(Debug)]
pub struct Secrets {
    /// `APP_SECRETS__MAC_KEY`, required: 32 random bytes in base64, the same on all replicas. Authenticates the
    /// cursors of lists, and tells the requests of an idempotency key apart. With another one, cursors that are
    /// out are refused and so are retries of requests from before.
    pub mac_key: MacKey,
    /// `APP_SECRETS__PEPPER`, required: 32 other random bytes in base64, the same on all replicas. Part of every hash
    /// of an API key, so that a stolen database is not enough to try keys out. With another one every API key ends.
    pub pepper: Pepper,
    /// `APP_SECRETS__LOOK_EVERY_MS`, default 5000: how often it is looked whether files of secrets and certificates changed
    /// (SECRET-04). SIGHUP has it done at once.
    pub look_every: Duration,
}

/// Retries of creating operations (INPUT-10).
#[derive(Debug)]
pub struct Idempotency {
    /// `APP_IDEMPOTENCY__RETENTION_HOURS`, default 24, at most 720: how long an answer is given again.
    pub retention: Duration,
}

impl Settings {
    /// Reads the process environment, and the file `APP_CONFIG` if it is set.
    pub fn load() -> Result<Self, Faults> {
        Self::from_variables(environment())
    }

    /// Reads the given variables instead of the process's own.
    pub fn from_variables(variables: BTreeMap<String, String>) -> Result<Self, Faults> {
        let sources = Sources::new(&variables);
        let mut reader = Reader::new(variables);
        let settings = Self::read(&mut reader, sources);
        if reader.is_production() {
            secrets::check(&mut reader);
            reader.refuse_the_drivers();
        }
        // These logins are other commands' business; here they only must not count as unknown.
        reader.know("database.owner_url");
        reader.know("database.operator_url");
        reader.know("database.incidents_url");
        reader.know("database.backup_url");
        match settings {
            Some(settings) => {
                checks::check(&settings, &mut reader);
                reader.finish(settings)
            }
            None => Err(reader.into_faults()),
        }
    }

    /// `None` if something required is missing or unreadable; the reader then holds the faults.
    fn read(r: &mut Reader, sources: Sources) -> Option<Self> {
        let profile = r.profile();
        let http = Http {
            listen: r.or("http.listen", SocketAddr::from(([127, 0, 0, 1], 8080))),
            public_url: r.optional("http.public_url"),
            trusted_proxies: r.list("http.trusted_proxies"),
            proxy_header: r.or("http.proxy_header", ProxyHeader::default()),
            docs: r.or("http.docs", profile == Profile::Development),
            max_body_bytes: r.within("http.max_body_bytes", 65_536, 1..=16 * 1024 * 1024),
            max_connections: r.within("http.max_connections", 4_096, 1..=1_000_000),
            max_connections_per_address: r.within("http.max_connections_per_address", 256, 1..=1_000_000),
            max_concurrent_requests: r.within("http.max_concurrent_requests", 1_024, 1..=1_000_000),
            max_unread_bytes: r.within("http.max_unread_bytes", 64 << 20, 8 << 20..=1 << 40),
            stall_timeout: r.millis("http.stall_timeout_ms", 10_000),
            idle_timeout: r.millis("http.idle_timeout_ms", 30_000),
            header_timeout: r.millis("http.header_timeout_ms", 5_000),
            body_timeout: r.millis("http.body_timeout_ms", 5_000),
            request_timeout: Duration::from_millis(r.within("http.request_timeout_ms", 10_000, 100..=3_600_000)),
            max_connection_age: r.millis("http.max_connection_age_ms", 600_000),
            shutdown_grace: r.millis("http.shutdown_grace_ms", 10_000),
        };
        let (tls, internal) = (Tls::read(r), Internal::read(r));
        let writer_url = login::url(r, "database.writer_url");
        let reader_url = login::url(r, "database.reader_url");
        let authn_url = login::url(r, "database.authn_url");
        let keys_url = login::url(r, "database.keys_url");
        let max_connections = r.within("database.max_connections", 10, 1..=1_000);
        let acquire_timeout = r.millis("database.acquire_timeout_ms", 3_000);
        let statement_timeout = r.millis("database.statement_timeout_ms", 5_000);
        let oidc = Oidc::read(r);
        let throttle = Throttle {
            address_per_second: r.within("throttle.address_per_second", 50.0, 0.01..=1_000_000.0),
            address_burst: r.within("throttle.address_burst", 200, 1..=1_000_000),
        };
        let retention_hours = r.within("idempotency.retention_hours", 24, 1..=720);
        let mac_key = r.secret_with("secrets.mac_key", MacKey::from_base64);
        let pepper = r.secret_with("secrets.pepper", Pepper::from_base64);
        let look_every = r.millis("secrets.look_every_ms", 5_000);
        let keys = Keys::read(r);
        let (api_keys, revocation, penalty) = (ApiKeys::read(r), Revocation::read(r), Penalty::read(r));
        let (quota, max_export_rows) = (Quota::read(r), r.within("exports.max_rows", 1_000_000, 1..=10_000_000));
        let incidents = LoginSettings::of_incidents(r, internal.as_ref());
        let (log, otlp, audit) = (Log::read(r), Otlp::read(r), Audit::read(r));
        Some(Self {
            profile,
            http,
            tls,
            internal,
            database: Database {
                writer_url: writer_url?,
                reader_url: reader_url?,
                authn_url: authn_url?,
                keys_url: keys_url?,
                max_connections,
                acquire_timeout,
                statement_timeout,
            },
            oidc: oidc?,
            api_keys,
            revocation,
            penalty,
            throttle,
            quota,
            secrets: Secrets { mac_key: mac_key?, pepper: pepper?, look_every },
            keys: keys?,
            max_export_rows,
            idempotency: Idempotency { retention: Duration::from_hours(retention_hours) },
            log,
            otlp,
            audit,
            incidents,
            secrets_read: r.secrets.reads(),
            sources: sources.of(r.files_read()),
        })
    }
}

/// The process's environment. A variable that is not UTF-8 is none of ours.
pub(crate) fn environment() -> BTreeMap<String, String> {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).collect()
}
