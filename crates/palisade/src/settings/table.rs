//! The table of all settings: name, type, default, bounds, unit and meaning of each.
//!
//! From it come the structs that the service reads, the command `settings` with docs/settings.md,
//! the check for unknown names, and the tests of bounds. The name of a setting is the prefix of its
//! section and its own name; the variable of `http.listen` is `APP_HTTP__LISTEN`. Rules that
//! involve several settings are in `checks.rs` and in the file of the section.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use secrecy::SecretString;
use url::Url;

use super::{
    CertificateName, OnStaleFeed, Origin, Profile, ProxyHeader, Risk, SameSite, ScopeName, TlsVersion, checks,
    row::{Section, table},
};
use crate::{
    crypto::{IndexKeys, KeyProvider, MacKey, MasterKeyset, Pepper, VaultSettings},
    model::{Network, ServiceRight, TenantId},
    telemetry::{Log, LogFilter, LogFormat, Otlp},
};

table! {
    pub(super) rows General(""), "Profile" {
        profile: Profile = "profile".default("production"),
            "`production` refuses every unsafe configuration. `development`, for one machine only, allows plain HTTP to an issuer and a database without TLS.";
        accepted_risks: BTreeSet<Risk> = "accepted_risks",
            "Unsafe values that production accepts: an `http` public URL; trusted proxies wider than /24 or an IPv6 /64; logs with `trace`; tokens that live for more than two hours; revocations that are `serve`d stale or may be older than five minutes; issuer keys that are fetched less than hourly, or kept for more than four hours without confirmation. The fault of such a value names its word.";
    }

    /// The public listener, and limits that apply to each listener separately.
    pub struct Http("http"), "HTTP" {
        listen: SocketAddr = "listen".default("127.0.0.1:8080"),
            "Address of the public listener. Port 0 takes any free port.";
        public_url: Option<Url> = "public_url".default_text("the listen address") => checks::public_url,
            "URL at which callers reach the service, for the OpenAPI document. In production, one on another host needs TLS or trusted proxies.";
        trusted_proxies: Vec<Network> = "trusted_proxies",
            "Proxies in front of the service. The client address is taken from forwarding headers of these proxies only.";
        proxy_header: ProxyHeader = "proxy_header".default("x-forwarded-for"),
            "The forwarding header that the proxies write. The other one is ignored: the caller may have written it.";
        cors_origins: Vec<Origin> = "cors_origins" => checks::cors_origins,
            "Origins of pages that may call the API from a browser and read its responses, such as `https://app.example.com`. Without it, no page of another origin may.";
        docs: bool = "docs".default("false").default_text("`true` in development, else `false`"),
            "Whether `/docs` and `/openapi.json` are served.";
        max_body_bytes: usize = "max_body_bytes".default(65_536).within(1, 16_777_216, "bytes"),
            "Largest request body.";
        max_connections: usize = "max_connections".default(4_096).within(1, 1_000_000, ""),
            "Open connections; further ones are closed at once. Each takes a file descriptor and, after its first request, about 45 KB.";
        max_connections_per_address: usize = "max_connections_per_address".default(256).within(1, 1_000_000, ""),
            "Open connections of one IPv4 address or IPv6 /64; wider networks have a multiple (docs/access-decisions.md). Trusted proxies are exempt.";
        max_concurrent_requests: usize = "max_concurrent_requests".default(1_024).within(1, 1_000_000, ""),
            "Requests in progress; further ones get 503. An address may have a quarter of them, a wider network half, a principal a sixteenth.";
        max_unread_bytes: usize = "max_unread_bytes".default(67_108_864).within(8_388_608, 1_099_511_627_776, "bytes"),
            "Response bytes that clients have not read yet; beyond it, reads of more than 16 KiB get 503. An address may have a quarter of them, a wider network half, a principal an eighth.";
        stall_timeout: Duration = "stall_timeout_ms".default(10_000).within(1, 3_600_000, "ms"),
            "Time in which a client must read the next 10 KiB of a response (1 KiB a second by default), or its connection is closed.";
        idle_timeout: Duration = "idle_timeout_ms".default(30_000).within(1, 3_600_000, "ms"),
            "Life of an HTTP/2 connection without requests. For HTTP/1.1 the header timeout applies.";
        header_timeout: Duration = "header_timeout_ms".default(5_000).within(1, 3_600_000, "ms"),
            "Time from the start of a connection, or of a further request on it, to the last header.";
        body_timeout: Duration = "body_timeout_ms".default(5_000).within(1, 3_600_000, "ms"),
            "Time between two pieces of a request body. A body that is not complete at the end of the request timeout gets 408 too.";
        request_timeout: Duration = "request_timeout_ms".default(10_000).within(100, 3_600_000, "ms"),
            "Time for a whole request.";
        max_connection_age: Duration = "max_connection_age_ms".default(600_000).within(1, 3_600_000, "ms"),
            "Age at which a connection ends after the requests in flight, at twice this age in any case. It bounds the use of a certificate that is no longer accepted.";
        shutdown_delay: Duration = "shutdown_delay_ms".default(5_000).default_text("`5000`, in development `0`").within(0, 600_000, "ms"),
            "Time from a stop signal to the end of the listener. Meanwhile the readiness probe gets 503 and requests are served, so that load balancers send the next ones elsewhere.";
        shutdown_grace: Duration = "shutdown_grace_ms".default(10_000).within(1, 3_600_000, "ms"),
            "Time that requests in flight have to finish after the listener has ended.";
    }

    /// TLS files of the public listener, before `tls.rs` has checked that they belong together.
    pub(super) struct TlsFiles("tls"), "TLS of the public listener" {
        certificate: Option<PathBuf> = "certificate_path".reloaded().default_text("none: plain HTTP"),
            "PEM file of the certificate, followed by the intermediate certificates.";
        key: Option<PathBuf> = "key_path".reloaded().default_text("required with a certificate"),
            "PEM file of the certificate's key (PKCS #8, PKCS #1 or SEC 1).";
        min_version: TlsVersion = "min_version".default("1.3"),
            "Oldest version that is accepted (RFC 8446 or RFC 5246).";
        client_ca: Option<PathBuf> = "client_ca_path".reloaded(),
            "PEM file of the CA certificates that sign client certificates. With it, callers may present one, and tokens bound to it are accepted (RFC 8705).";
    }

    /// The internal listener, before `internal.rs` has checked that it is complete.
    pub(super) struct InternalFiles("internal"), "Internal listener", feature "internal_listener" {
        listen: Option<SocketAddr> = "listen".default_text("none: no internal listener"),
            "Address of the internal listener, which accepts TLS 1.3 with a client certificate only. The other settings of this table require it.";
        certificate: Option<PathBuf> = "certificate_path".reloaded().default_text("required"),
            "PEM file of its certificate, followed by the intermediate certificates.";
        key: Option<PathBuf> = "key_path".reloaded().default_text("required"),
            "PEM file of the certificate's key.";
        client_ca: Option<PathBuf> = "client_ca_path".reloaded().default_text("required"),
            "PEM file of the CA certificates that sign client certificates. Connections without one are refused.";
    }

    /// A service that may call the internal listener (AUTHN-18).
    #[derive(PartialEq, Eq)]
    pub struct Service("internal.services.<name>"), "Services of the internal listener", feature "internal_listener" {
        certificate_name: CertificateName = "certificate_name",
            "Subject alternative name that identifies the service (RFC 5280 section 4.2.1.6): a URI such as `spiffe://example.com/job`, or `dns:` and a name.";
        rights: BTreeSet<ServiceRight> = "rights",
            "What the service may call besides the operations of the API.";
        tenant: Option<TenantId> = "tenant",
            "Tenant for which the service calls the API as itself. Without it, the service needs a user's token for every call.";
        scopes: BTreeSet<ScopeName> = "scopes" => checks::scopes,
            "Scopes of those calls.";
    }
    + {
        /// `<NAME>` in lower case. Logs and operators see the subject `service:<name>`.
        name: String,
    }

    /// The PostgreSQL roles that the server uses. It never has the owner's.
    pub struct Database("database"), "Database" {
        writer_url: SecretString = "writer_url".reloaded() => checks::database,
            "`postgres://app_writer:…@host/db`.";
        reader_url: SecretString = "reader_url".reloaded() => checks::database,
            "`postgres://app_reader:…@host/db`.";
        authn_url: SecretString = "authn_url".reloaded() => checks::database,
            "`postgres://app_authn:…@host/db`.";
        keys_url: SecretString = "keys_url".reloaded() => checks::database,
            "`postgres://app_keys:…@host/db`.";
        max_connections: u32 = "max_connections".default(10).within(1, 1_000, ""),
            "Connections of each of the four roles. A replica has five more, and up to twice as many while passwords change.";
        acquire_timeout: Duration = "acquire_timeout_ms".default(3_000).within(1, 3_600_000, "ms"),
            "Time that a request waits for a connection.";
        statement_timeout: Duration = "statement_timeout_ms".default(5_000).within(1, 3_600_000, "ms"),
            "Time after which PostgreSQL cancels a statement.";
    }

    pub(super) rows IncidentLogin("database"), "Database login of the internal listener", feature "internal_listener" {
        incidents_url: SecretString = "incidents_url".reloaded().default_text("required if a service has the right `incidents` or `tenants`") => checks::database,
            "`postgres://app_incidents:…@host/db`, for commands of the internal listener. Not read otherwise.";
    }

    pub(super) rows CommandLogins("database"), "Database logins of commands" {
        owner_url: SecretString = "owner_url".default_text("required by the command") => checks::database,
            "For `migrate` and `restore`.";
        operator_url: SecretString = "operator_url".default_text("required by the command") => checks::database,
            "For `incident` and `tenant`, and for `keys rewrap`, `keys drop`, `keys forget-index` and `keys destroy`.";
        backup_url: SecretString = "backup_url".default_text("required by the command") => checks::database,
            "For `backup` and `audit verify`.";
    }

    /// Calls of this service to addresses that other services name (INPUT-12).
    pub struct Outbound("outbound"), "Outbound calls" {
        allowed_networks: Vec<Network> = "allowed_networks".default_text("none; in development loopback"),
            "Networks that are not public, such as `10.0.0.0/8`, in which issuers may be called. Addresses are checked after each name resolution.";
        use_proxy: bool = "use_proxy".default("false"),
            "Whether `HTTPS_PROXY` and `NO_PROXY` apply to calls of issuers. The proxy then chooses the addresses; its own must be allowed.";
    }

    /// API keys (AUTHN-12).
    pub struct ApiKeys("api_keys"), "API keys", feature "api_keys" {
        max_lifetime: Duration = "max_lifetime_days".default(90).within(1, 365, "days"),
            "Longest lifetime of an API key.";
        remembered: Duration = "cache_seconds".default(60).within(0, 300, "s"),
            "Time for which a verified API key is cached instead of hashed again.";
        concurrent_hashes: usize = "concurrent_hashes".default(1).default_text("half the processors, at least 1").within(1, 64, ""),
            "Hashing threads. Each takes 19 MiB, and a processor for about 20 ms per hash.";
    }
    + {
        /// Key of the hashes of their secrets.
        pepper: Pepper,
    }

    pub(super) rows ApiKeySecrets("secrets"), "Secret of API keys", feature "api_keys" {
        pepper: Pepper = "pepper",
            "32 random bytes in base64 that no other setting has, the same on all replicas. Part of every hash of an API key, so that a stolen database does not suffice to guess keys. Changing it invalidates every API key.";
    }

    /// Browser sessions (AUTHN-14), and what all their clients have in common.
    pub struct Sessions("sessions"), "Browser sessions", feature "sessions" {
        idle: Duration = "idle_minutes".default(30).within(1, 1_440, "minutes"),
            "Time without a request after which a session ends.";
        lifetime: Duration = "lifetime_minutes".default(720).within(1, 1_440, "minutes"),
            "Time after the sign-in at which a session ends in any case.";
        same_site: SameSite = "same_site".default("lax"),
            "Attribute `SameSite` of the cookie. With `strict`, a link from another site opens the page as signed out.";
        return_paths: Vec<String> = "return_paths".default("/") => checks::return_paths,
            "Paths of this service to which a sign-in may return, compared as a whole. The first one is the default.";
        attempts: u32 = "attempts_per_minute".default(20).within(1, 1_000_000, ""),
            "Sign-ins and callbacks per minute of one client network, and refreshes and sign-outs of one session.";
    }
    + {
        /// The client at each issuer, by the name of the issuer; `None` for the first.
        clients: BTreeMap<Option<String>, SessionClient>,
    }

    /// The client with which people sign in at an issuer.
    pub struct SessionClient("sessions", "sessions.further.<name>"), "Clients of browser sessions", feature "sessions" {
        id: Option<String> = "client_id".default_text("none: no sign-in at this issuer"),
            "Client id at the issuer. `<NAME>` is that of a further issuer. Register the redirect URI `<public URL>/auth/callback`.";
        secret: Option<SecretString> = "client_secret".reloaded().default_text("none: a public client") => checks::optional_token,
            "Secret of the client.";
        scopes: Option<String> = "scopes".default_text("`openid offline_access` and all scopes of the API"),
            "Scopes that a sign-in asks for, separated by spaces.";
        logout_token_type: String = "logout_token_type".default("logout+jwt"),
            "Header `typ` of the issuer's logout tokens. For issuers that set none: `JWT`.";
    }

    /// Revoked credentials (AUTHN-11).
    #[derive(Copy)]
    pub struct Revocation("revocation"), "Revocation" {
        max_feed_age: Duration = "max_feed_age_seconds".default(30).within(2, 3_600, "s"),
            "Largest age of the loaded revocations.";
        on_stale_feed: OnStaleFeed = "on_stale_feed".default("refuse"),
            "Beyond that age, `refuse` answers calls with a credential with 503; `serve` goes on, and accepts credentials that were revoked since.";
    }

    /// The failure limiter (AUTHN-17).
    #[derive(Copy)]
    pub struct FailureLimit("failure_limit"), "Failed authentications" {
        free_failures: u32 = "free_failures".default(5).within(0, 1_000_000, ""),
            "Failures within a minute without consequence; each further one is answered more slowly, up to a second.";
        max_failures: u32 = "max_failures".default(20).within(1, 1_000_000, ""),
            "Failures within a minute after which the source is blocked, in production at most 1000. For guesses at one API key, the first failure beyond the free ones blocks.";
        lockout_seconds: i64 = "lockout_seconds".default(60).within(1, 3_600, "s"),
            "Duration of the first block. It doubles each time, up to 16 times as long.";
    }

    /// Token bucket per client address (RATE-01).
    pub struct Throttle("throttle"), "Rate limit per address" {
        address_per_second: f64 = "address_per_second".default("50").within(0.01, 1_000_000, ""),
            "Requests per second that refill an address's bucket. An IPv4 /24 and an IPv6 /48 have 32 times as many together, a /56 has 8 times.";
        address_burst: u32 = "address_burst".default(200).within(1, 1_000_000, ""),
            "Capacity of the bucket.";
    }

    /// Calls per minute (RATE-02, RATE-03, RATE-04), as token buckets that refill evenly.
    pub struct Quota("quota"), "Quotas" {
        read: u32 = "read_per_minute".default(100).within(1, 1_000_000, ""), "Reads of one principal.";
        write: u32 = "write_per_minute".default(60).within(1, 1_000_000, ""), "Changes of one principal.";
        sensitive: u32 = "sensitive_per_minute".default(20).within(1, 1_000_000, ""),
            "Changes of one principal that move money or destroy something.";
        export: u32 = "export_per_minute".default(5).within(1, 1_000_000, ""), "Exports of one principal.";
        tenant: u32 = "tenant_per_minute".default(2_000).within(1, 1_000_000, ""),
            "Calls of all principals of a tenant together.";
    }
    + {
        /// The store in which replicas count together; without it, each counts separately.
        shared: Option<SharedQuota>,
        /// Calls of credential operations: of a client network, or of a session.
        credential: u32,
    }

    /// A Redis or Valkey in which all replicas count (RATE-08).
    pub struct SharedQuota("quota"), "Shared quota store", feature "redis" {
        url: SecretString = "redis_url".reloaded().default_text("none: each replica counts separately") => checks::quota_store,
            "`rediss://[user]:password@host[:port][/database]`, or `redis://…` without TLS: a Redis or Valkey (not a cluster) in which all replicas count.";
        authorities: Option<PathBuf> = "redis_ca_path".default_text("those of the system"),
            "PEM file of the CA certificates that sign its certificate.";
        prefix: String = "redis_prefix".default("<package>").default_text("the package's name") => checks::quota_prefix,
            "Prefix of the names of its keys: the same for all replicas, and different for other services in the same store.";
        timeout: Duration = "redis_timeout_ms".default(250).within(1, 5_000, "ms"),
            "Time that a request waits for an answer. After one timeout, no request waits until the store answers again.";
    }

    /// Keys of the service itself.
    pub struct Secrets("secrets"), "Secrets" {
        mac_key: MacKey = "mac_key",
            "32 random bytes in base64, the same on all replicas. Authenticates cursors of lists and compares requests with the same idempotency key. Changing it invalidates both.";
        reload_interval: Duration = "reload_interval_ms".default(5_000).within(1, 3_600_000, "ms"),
            "Interval at which files of secrets and certificates are checked for changes (SECRET-04). SIGHUP checks at once.";
    }

    /// Keys of sealed fields, before `keys.rs` has checked that they belong together.
    pub(super) struct KeyRows("keys"), "Keys of sealed fields" {
        master: Option<Arc<MasterKeyset>> = "master".reloaded().default_text("required without a vault"),
            "Master keys as `2:<key>,1:<key>`, 32 random bytes in base64 each. The first wraps new data keys.";
        provider: Option<KeyProvider> = "provider".default_text("the only one; required if there are both"),
            "Which provider wraps new data keys. The other one still unwraps the data keys that it wrapped.";
        index: Arc<IndexKeys> = "index".reloaded(),
            "Keys of blind indexes in the same form. The first indexes new rows.";
        alert_reads_per_minute: u32 = "alert_reads_per_minute".default(30).within(1, 1_000_000, ""),
            "Records of personal data that a person may see in plain text at one replica: the burst, and the rate per minute. More raises a security event (CRYPTO-07).";
        refresh: Duration = "refresh_ms".default(5_000).within(1, 3_600_000, "ms"),
            "Cache time of a tenant's newest data key. Use one value on all replicas: `keys rotate` waits that long, and for running statements.";
    }

    fill VaultSettings("keys.vault"), "Vault", feature "vault" {
        url: Url = "url".default_text("none: no vault") => checks::service_url,
            "`https://vault.example.com:8200`, or the `http://` address of an agent on a loopback address.";
        token: SecretString = "token".reloaded() => checks::token,
            "Token that may `update` `<mount>/encrypt/<key>` and `<mount>/decrypt/<key>`, and nothing else.";
        key: String = "key".default("<package>").default_text("the package's name") => checks::vault_key,
            "Name of a key of an AEAD type such as `aes256-gcm96`.";
        mount: String = "mount".default("transit") => checks::vault_mount, "Path at which the Transit engine is mounted.";
        namespace: Option<String> = "namespace", "Vault namespace.";
        authorities: Option<PathBuf> = "ca_path".default_text("those of the system"),
            "PEM file of the CA certificates that sign its certificate.";
        timeout: Duration = "timeout_ms".default(1_000).within(1, 10_000, "ms"),
            "Time for one answer, less than half of `APP_HTTP__REQUEST_TIMEOUT_MS`.";
    }

    /// Exports (CRYPTO-09).
    pub struct Exports("exports"), "Exports", feature "exports" {
        max_rows: u32 = "max_rows".default(1_000_000).within(1, 10_000_000, ""),
            "Rows of an export; larger ones are refused.";
    }

    /// Retries of creating operations (INPUT-10).
    pub struct Idempotency("idempotency"), "Idempotency" {
        retention: Duration = "retention_hours".default(24).within(1, 720, "hours"),
            "Time for which a retry with the same idempotency key gets the first response.";
    }

    /// The audit trail (LOG-05).
    #[derive(Copy)]
    pub struct Audit("audit"), "Audit trail" {
        seal_interval: Duration = "seal_interval_ms".default(10_000).within(1, 3_600_000, "ms"),
            "Interval at which new events are sealed. A change made later than twice this interval is detectable with the log.";
    }

    fill Log("log"), "Logs" {
        format: LogFormat = "format".default("json"), "Format of log lines.";
        filter: LogFilter = "filter".default("info"), "Which lines are written, such as `info,sqlx=warn`.";
    }

    fill Otlp("otlp"), "Telemetry export", feature "otlp" {
        endpoint: Url = "endpoint".default_text("none: no export") => checks::service_url,
            "Base URL of a collector, such as `https://collector.example.com:4318`; `/v1/traces`, `/v1/metrics` and `/v1/logs` are added.";
        token: Option<SecretString> = "token" => checks::optional_token, "Bearer token.";
        authorities: Option<PathBuf> = "ca_path".default_text("those of the system"),
            "PEM file of the CA certificates that sign its certificate.";
        sample_ratio: f64 = "sample_ratio".default(0.1).within(0, 1, ""),
            "Share of requests that are traced, each at the cost of a fifth to a quarter of its time. Security events are never sampled.";
        metrics_interval: Duration = "metrics_interval_ms".default(15_000).within(1, 3_600_000, "ms"),
            "Interval between exports of metrics.";
        timeout: Duration = "timeout_ms".default(5_000).within(1, 3_600_000, "ms"),
            "Time for one answer.";
    }
}
