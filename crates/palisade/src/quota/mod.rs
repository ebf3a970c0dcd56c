//! Quotas: token buckets per principal and operation class (RATE-02, RATE-04) and per tenant
//! (RATE-03).
//!
//! [`crate::http`] calls [`Quotas::take`] after authentication, so callers behind one address do
//! not exhaust each other's quota (RATE-06). The rate limit per address, before authentication, is
//! in [`crate::edge`]. Buckets are in this process ([`LocalBuckets`]) or shared by all replicas
//! ([`SharedBuckets`], RATE-08). Responses report quotas in `RateLimit` headers (RATE-05).

mod local;
mod overrides;
mod ratelimit_headers;
#[cfg_attr(not(feature = "redis"), path = "without_redis.rs")]
mod shared;

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, header};
use tracing::Instrument as _;

use crate::{
    authn::{Principal, Tenants},
    authz::matrix::{OnStoreDown, QuotaClass},
    crypto::MacKey,
    model::{Clock, QuotaName, TenantId},
    problem::{Kind, Problem},
    settings,
    telemetry::trace::child_span,
};
pub use local::LocalBuckets;
pub use overrides::Overrides;
pub use shared::{SharedBuckets, SharedQuotaError};

/// The time in which an exhausted quota refills completely. A caller may use all of a quota at
/// once.
const WINDOW: Duration = Duration::from_mins(1);

/// All quotas of this replica.
#[derive(Debug)]
pub struct Quotas {
    settings: settings::Quota,
    /// Operator overrides, which replace the quotas of the settings.
    overrides: Arc<Overrides>,
    /// The registry, whose quotas replace those of the settings. None at the check of a configuration.
    tenants: Option<Arc<Tenants>>,
    /// Buckets in this process: the only ones, or the fallback while the quota store is down.
    local: LocalBuckets,
    shared: Option<SharedBuckets>,
}

/// A quota policy, as responses report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaPolicy {
    /// The name of the quota.
    pub name: QuotaName,
    /// Calls per minute.
    pub quota: u32,
}

/// The bucket of one principal of a tenant, or of the whole tenant.
#[derive(Clone, Copy, Debug)]
pub struct Bucket<'a> {
    /// The tenant.
    pub tenant: TenantId,
    /// The subject of the principal; `None` for the whole tenant.
    pub subject: Option<&'a str>,
    /// Its quota.
    pub policy: QuotaPolicy,
}

/// The state of a quota after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaStatus {
    /// The quota.
    pub policy: QuotaPolicy,
    /// Remaining calls.
    pub remaining: u32,
    /// If this call exceeded the quota: the time until the next call is possible.
    pub wait: Option<Duration>,
}

/// The result of [`Quotas::take`].
#[derive(Debug)]
pub struct QuotaDecision {
    statuses: Vec<QuotaStatus>,
}

/// The quota store does not respond, and calls of this class must not be counted locally.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the quota store is unavailable")]
pub struct QuotaStoreUnavailable;

impl Quotas {
    /// Full local buckets, or those in the quota store. The MAC key pseudonymizes subjects there.
    pub fn new(
        settings: settings::Quota,
        mac_key: &MacKey,
        clock: Clock,
        overrides: Arc<Overrides>,
    ) -> Result<Self, SharedQuotaError> {
        let shared = settings.shared.as_ref().map(|shared| SharedBuckets::new(shared, mac_key.clone())).transpose()?;
        Ok(Self { settings, overrides, tenants: None, local: LocalBuckets::new(clock), shared })
    }

    /// Takes the quotas of tenants from the registry too.
    #[must_use]
    pub fn with_registry(self, tenants: Arc<Tenants>) -> Self {
        Self { tenants: Some(tenants), ..self }
    }

    /// Takes one token from the principal's bucket for the class, then one from the tenant's
    /// bucket.
    ///
    /// A call that the first bucket rejects takes nothing from the tenant's bucket.
    pub async fn take(&self, principal: &Principal, class: QuotaClass) -> Result<QuotaDecision, QuotaStoreUnavailable> {
        let tenant = principal.tenant();
        let bucket = |name, subject| Bucket { tenant, subject, policy: self.policy(tenant, name) };
        let per_principal = quota_of_class(class).map(|name| bucket(name, Some(principal.subject())));
        let buckets: Vec<_> = per_principal.into_iter().chain([bucket(QuotaName::Tenant, None)]).collect();
        let Some(shared) = &self.shared else { return Ok(self.take_locally(&buckets)) };
        match shared.take(&buckets).instrument(child_span!("count")).await {
            Ok(statuses) => Ok(QuotaDecision { statuses }),
            Err(error) => match class.on_store_down() {
                OnStoreDown::Local => Ok(self.take_locally(&buckets)),
                OnStoreDown::Closed => Err(error),
            },
        }
    }

    /// Takes one token of the class [`QuotaClass::Credential`] from the bucket of a client network, or
    /// of a browser session: such a call has no principal yet (RATE-04).
    pub async fn take_unauthenticated(&self, (tenant, subject): (TenantId, &str)) -> QuotaDecision {
        let policy = self.policy(tenant, QuotaName::Credential);
        let buckets = [Bucket { tenant, subject: Some(subject), policy }];
        let Some(shared) = &self.shared else { return self.take_locally(&buckets) };
        match shared.take(&buckets).instrument(child_span!("count")).await {
            Ok(statuses) => QuotaDecision { statuses },
            Err(_) => self.take_locally(&buckets),
        }
    }

    fn take_locally(&self, buckets: &[Bucket<'_>]) -> QuotaDecision {
        let mut statuses = Vec::with_capacity(buckets.len());
        for bucket in buckets {
            let Bucket { tenant, subject, policy } = *bucket;
            let taken = self.local.take(&(tenant, subject, policy.name), policy.quota);
            let remaining = taken.unwrap_or(0);
            statuses.push(QuotaStatus { policy, remaining, wait: taken.err() });
            if taken.is_err() {
                break;
            }
        }
        QuotaDecision { statuses }
    }

    /// Connects to the quota store, if there is one. On failure, [`Self::stay_connected`] tries
    /// again.
    pub async fn connect(&self) {
        if let Some(shared) = &self.shared {
            // `stay_connected` logs the error.
            let _ = shared.connect().await;
        }
    }

    /// Counts a call of a test in the quota store, if there is one. The error is in words.
    pub(crate) async fn check_store(&self) -> Result<(), String> {
        match &self.shared {
            Some(shared) => shared.connect().await.map_err(|error| shared::describe(&error).to_owned()),
            None => Ok(()),
        }
    }

    /// Replaces the password of the quota store, after a test with the new one (SECRET-04).
    pub async fn reload(&self, settings: &settings::Quota) -> Result<(), SharedQuotaError> {
        match (&self.shared, &settings.shared) {
            (Some(shared), Some(settings)) => shared.reload(settings).await,
            _ => Err(SharedQuotaError::DifferentStore),
        }
    }

    /// Keeps the connection to the quota store open. Runs until the service stops.
    pub async fn stay_connected(&self) {
        match &self.shared {
            Some(shared) => shared.stay_connected().await,
            None => std::future::pending().await,
        }
    }

    /// Removes full buckets of this process once per [`WINDOW`]. Runs until the service stops.
    pub async fn evict_idle_periodically(&self) {
        loop {
            tokio::time::sleep(WINDOW).await;
            self.local.evict_idle();
            self.overrides.evict_idle();
        }
    }

    fn policy(&self, tenant: TenantId, name: QuotaName) -> QuotaPolicy {
        let default = match name {
            QuotaName::Read => self.settings.read,
            QuotaName::Write => self.settings.write,
            QuotaName::Sensitive => self.settings.sensitive,
            QuotaName::Export => self.settings.export,
            QuotaName::Credential => self.settings.credential,
            QuotaName::Tenant => self.settings.tenant,
        };
        let registered = || self.tenants.as_ref()?.limit(tenant, name);
        QuotaPolicy { name, quota: self.overrides.quota(tenant, name).or_else(registered).unwrap_or(default) }
    }
}

/// The quota of a principal for a class.
fn quota_of_class(class: QuotaClass) -> Option<QuotaName> {
    match class {
        // Neither has a principal.
        QuotaClass::Health | QuotaClass::Credential => None,
        QuotaClass::Read => Some(QuotaName::Read),
        QuotaClass::Write => Some(QuotaName::Write),
        QuotaClass::Sensitive => Some(QuotaName::Sensitive),
        QuotaClass::Export => Some(QuotaName::Export),
    }
}

impl QuotaDecision {
    /// The problem and the name of the exhausted quota, if the call is rejected.
    #[must_use]
    pub fn rejection(&self) -> Option<(Problem, &'static str)> {
        let exhausted = self.statuses.iter().find_map(|status| Some((status.policy.name, status.wait?)));
        let (name, wait) = exhausted?;
        // Rounded up, and never 0, which would mean "now" (RFC 9110 section 10.2.3).
        let seconds = wait.as_millis().div_ceil(1_000).max(1);
        let detail = match name {
            QuotaName::Tenant => "The tenant's quota of requests per minute is exhausted.",
            _ => "Your quota of requests per minute for this operation class is exhausted.",
        };
        let problem = Problem::new(Kind::RateLimited)
            .detail(detail)
            .limit(name.as_str())
            .header(header::RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
        Some((problem, name.as_str()))
    }

    /// Adds the `RateLimit` headers to a response (RATE-05).
    pub fn add_headers(&self, headers: &mut http::HeaderMap) {
        ratelimit_headers::add(&self.statuses, headers);
    }
}
