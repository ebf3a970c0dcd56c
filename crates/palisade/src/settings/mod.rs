//! Typed configuration (SECRET-02, SECRET-03): environment variables `APP_…` over an optional
//! TOML file over defaults.
//!
//! `table.rs` lists every setting; docs/settings.md is made from it. The server loads [`Settings`];
//! commands load [`LoginSettings`] or [`RetirementSettings`]. Unknown names and, in the production
//! profile, unsafe values are faults; all faults are reported at once.

#[cfg_attr(not(feature = "api_keys"), path = "without_api_keys.rs")]
mod api_keys;
mod checks;
mod claim_matches;
mod claim_path;
mod files;
mod internal;
mod issuer_checks;
mod keys;
mod login;
mod oidc;
mod origin;
mod quota;
mod reader;
mod reference;
#[doc(hidden)]
pub mod row;
mod secrets;
mod service;
#[cfg_attr(not(feature = "sessions"), path = "without_sessions.rs")]
mod sessions;
mod sources;
mod table;
mod tls;
mod value;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    time::Duration,
};

use table::General;

use crate::telemetry::{Log, Otlp};

pub use reader::{Fault, Faults, Reader};
pub use row::{Bounds, Row, Section};
#[cfg(feature = "backup")]
pub(crate) use secrets::percent_decoded;
pub(crate) use secrets::{file_mode_fault, without_credentials};
pub use service::{ServiceSections, ServiceSettings};
pub use value::{Shape, Value};

internal! { pub use api_keys::ApiKeys; }
internal! { pub use claim_matches::ClaimMatch; }
internal! { pub use internal::{CertificateName, Internal, ScopeName}; }
internal! { pub use keys::Keys; }
internal! { pub use login::{LoginSettings, ProbeSettings, RetirementSettings}; }
internal! { pub use claim_path::{ClaimPath, Rename, Template, rename}; }
internal! { pub use issuer_checks::relaxations; }
internal! { pub use oidc::{ACCESS_TOKEN_TYPE, Issuer, NO_TYPE, Oidc}; }
internal! { pub use origin::Origin; }
internal! { pub use reference::{markdown, plain}; }
internal! { pub use secrets::{SecretRead, SecretSource, log_secrets_read}; }
internal! { pub use sessions::Sessions; }
#[cfg(feature = "sessions")]
internal! { pub use table::SessionClient; }
internal! { pub use sources::{ReloadTicker, Sources}; }
internal! {
    pub use table::{
        Audit, Database, Exports, FailureLimit, Http, Idempotency, Outbound, Quota, Revocation, Secrets,
        Service, SharedQuota, TABLE, Throttle,
    };
}
internal! { pub use tls::{Clients, Tls, TlsVersion}; }
internal! { pub use words::{Dpop, OnStaleFeed, Profile, ProxyHeader, Risk, SameSite, SignatureAlgorithm}; }

/// Everything that `serve` needs.
#[derive(Debug)]
pub struct Settings {
    /// How strict the checks of settings are.
    pub profile: Profile,
    /// Unsafe values that production accepts.
    pub accepted_risks: BTreeSet<Risk>,
    /// The public listener and its limits.
    pub http: Http,
    /// TLS of the public listener; without it, plain HTTP.
    pub tls: Option<Tls>,
    /// The internal listener.
    pub internal: Option<Internal>,
    /// The PostgreSQL roles of the server.
    pub database: Database,
    /// The issuers of accepted tokens.
    pub oidc: Oidc,
    /// Calls to addresses that other services name.
    pub outbound: Outbound,
    /// API keys.
    pub api_keys: ApiKeys,
    /// Browser sessions.
    pub sessions: Sessions,
    /// Revoked credentials.
    pub revocation: Revocation,
    /// Failed authentications.
    pub failure_limit: FailureLimit,
    /// Rate limit per client address.
    pub throttle: Throttle,
    /// Quotas per principal and per tenant.
    pub quota: Quota,
    /// Keys of the service itself.
    pub secrets: Secrets,
    /// Keys of sealed fields.
    pub keys: Keys,
    /// Exports.
    pub exports: Exports,
    /// Retries of creating operations.
    pub idempotency: Idempotency,
    /// Log lines.
    pub log: Log,
    /// The collector of spans, metrics and log records.
    pub otlp: Option<Otlp>,
    /// The audit trail.
    pub audit: Audit,
    /// The role for incidents, if a service has the right `incidents`.
    pub incidents: Option<LoginSettings>,
    /// Which secrets were read, and where (SECRET-05).
    pub secrets_read: Vec<SecretRead>,
    /// The variables and files that all of this was read from.
    pub sources: Sources,
}

impl Settings {
    internal! {
        /// Reads the process environment, and the file that `APP_CONFIG` names.
        pub fn load(service: ServiceSections) -> Result<Self, Faults> {
            Self::from_variables(environment(), service)
        }
    }

    internal! {
        /// Reads the given variables instead of the process environment.
        pub fn from_variables(variables: BTreeMap<String, String>, service: ServiceSections) -> Result<Self, Faults> {
            let sources = Sources::new(&variables, service);
            let mut reader = Reader::new(variables, service);
            let settings = Self::read(&mut reader, sources);
            if reader.is_production() {
                secrets::check(&mut reader);
                reader.reject_driver_variables();
            }
            if let Some(settings) = &settings {
                checks::check(settings, &mut reader);
            }
            (service.check)(&mut reader);
            reader.reject_unknown_names();
            reader.finish(settings)
        }
    }

    /// `None` if a required value is missing or invalid; the reader then has the faults.
    fn read(r: &mut Reader, sources: Sources) -> Option<Self> {
        let accepted_risks = r.read(&General::accepted_risks, None);
        let http = read_http(r);
        let tls = Tls::read(r);
        let internal = Internal::read(r);
        let database = Database::read_rows(r, None);
        let oidc = Oidc::read(r);
        let outbound = read_outbound(r);
        let api_keys = ApiKeys::read(r);
        let sessions = Sessions::read(r);
        let revocation = Revocation::read_rows(r, None);
        let failure_limit = FailureLimit::read_rows(r, None);
        let throttle = Throttle::read_rows(r, None);
        let shared_quota = SharedQuota::read(r);
        let attempts = sessions.as_ref().map(Sessions::credential_quota);
        let quota = Quota::read_rows(r, None, Some(shared_quota), attempts);
        let secrets = Secrets::read_rows(r, None);
        let keys = Keys::read(r);
        let exports = Exports::read_rows(r, None);
        let idempotency = Idempotency::read_rows(r, None);
        let log = Log::read_rows(r, None);
        let otlp = r.read_section(&Otlp::SECTION, &Otlp::endpoint, Otlp::read_rows);
        let audit = Audit::read_rows(r, None);
        let incidents = LoginSettings::for_incidents(r, internal.as_ref());
        Some(Self {
            profile: r.profile,
            accepted_risks: accepted_risks?,
            http: http?,
            tls,
            internal,
            database: database?,
            oidc: oidc?,
            outbound: outbound?,
            api_keys: api_keys?,
            sessions: sessions?,
            revocation: revocation?,
            failure_limit: failure_limit?,
            throttle: throttle?,
            quota: quota?,
            secrets: secrets?,
            keys: keys?,
            exports: exports?,
            idempotency: idempotency?,
            log: log?,
            otlp,
            audit: audit?,
            incidents,
            secrets_read: r.secrets_read(),
            sources: sources.with_files(r.files_read()),
        })
    }
}

fn read_http(r: &mut Reader) -> Option<Http> {
    let mut http = Http::read_rows(r, None)?;
    if !r.has(&Http::docs.name()) {
        http.docs = r.profile == Profile::Development;
    }
    if r.profile == Profile::Development && !r.has(&Http::shutdown_delay.name()) {
        http.shutdown_delay = Duration::ZERO;
    }
    Some(http)
}

fn read_outbound(r: &mut Reader) -> Option<Outbound> {
    let mut outbound = Outbound::read_rows(r, None)?;
    if r.profile == Profile::Development && outbound.allowed_networks.is_empty() {
        outbound.allowed_networks = ["127.0.0.0/8", "::1"].iter().filter_map(|text| text.parse().ok()).collect();
    }
    Some(outbound)
}

/// The process environment. Variables that are not UTF-8 belong to other programs.
pub(crate) fn environment() -> BTreeMap<String, String> {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).collect()
}
