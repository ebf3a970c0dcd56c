use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;

use super::{Reader, checks};

/// Calls per minute (RATE-02, RATE-03, RATE-04). All of a quota may be used at once; it comes back evenly.
#[derive(Clone, Debug)]
pub struct Quota {
    /// `APP_QUOTA__READ_PER_MINUTE`, default 100: reads of one principal.
    pub read: u32,
    /// `APP_QUOTA__WRITE_PER_MINUTE`, default 60: changes of one principal.
    pub write: u32,
    /// `APP_QUOTA__SENSITIVE_PER_MINUTE`, default 20: changes of one principal that move money or destroy something.
    pub sensitive: u32,
    /// `APP_QUOTA__EXPORT_PER_MINUTE`, default 5: exports of one principal.
    pub export: u32,
    /// `APP_QUOTA__TENANT_PER_MINUTE`, default 2000: calls of all principals of a tenant together.
    pub tenant: u32,
    /// Where replicas count together; without it, each counts what it sees.
    pub shared: Option<SharedQuota>,
}

/// A Redis, or a Valkey (one, not a cluster), in which all replicas count (RATE-08).
#[derive(Clone, Debug)]
pub struct SharedQuota {
    /// `APP_QUOTA__REDIS_URL`: `rediss://[user]:password@host[:port][/database]`, or `redis://…` without TLS.
    pub url: SecretString,
    /// `APP_QUOTA__REDIS_CA_PATH`: a PEM file of the authorities that may have signed its certificate. Default: those
    /// of the system.
    pub authorities: Option<PathBuf>,
    /// `APP_QUOTA__REDIS_PREFIX`, default the package's name: what the names of its keys begin with. Replicas of one service have
    /// the same, and other services in the same Redis another.
    pub prefix: String,
    /// `APP_QUOTA__REDIS_TIMEOUT_MS`, default 250, at most 5000: how long a request waits for its answer. The first to
    /// wait in vain is the last: until it answers again, nobody does.
    pub timeout: Duration,
}

impl Quota {
    pub(super) fn read(r: &mut Reader) -> Self {
        let shared = SharedQuota::read(r);
        let mut per_minute = |key, default| r.within(key, default, 1..=1_000_000);
        Self {
            read: per_minute("quota.read_per_minute", 100),
            write: per_minute("quota.write_per_minute", 60),
            sensitive: per_minute("quota.sensitive_per_minute", 20),
            export: per_minute("quota.export_per_minute", 5),
            tenant: per_minute("quota.tenant_per_minute", 2_000),
            shared,
        }
    }
}

impl SharedQuota {
    /// `None` without a URL.
    fn read(r: &mut Reader) -> Option<Self> {
        let authorities = r.optional("quota.redis_ca_path");
        let prefix = r.or("quota.redis_prefix", env!("CARGO_PKG_NAME").to_owned());
        if prefix.len() > 64 || !prefix.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c)) {
            r.fault("quota.redis_prefix", "must be 1 to 64 letters, digits, `-`, `_`, `.` or `:` of ASCII");
        }
        let timeout = Duration::from_millis(r.within("quota.redis_timeout_ms", 250, 1..=5_000));
        let url = r.optional_secret("quota.redis_url");
        for key in ["quota.redis_ca_path", "quota.redis_prefix", "quota.redis_timeout_ms"] {
            if url.is_none() && r.optional::<String>(key).is_some() {
                r.fault(key, "is of no use without quota.redis_url");
            }
        }
        let url = url?;
        let production = r.is_production();
        let is_plain = checks::check_quota_store("quota.redis_url", &url, production, r);
        if is_plain && authorities.is_some() {
            r.fault("quota.redis_ca_path", "is of no use unless quota.redis_url is rediss://");
        }
        Some(Self { url, authorities, prefix, timeout })
    }
}
