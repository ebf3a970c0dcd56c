//! How much anybody may ask for: per principal and class of operation, and per tenant (RATE-02, RATE-03, RATE-04).
//!
//! Asked after authentication, so users behind one address do not use up each other's quota (RATE-06). What is
//! per address is the edge's, before anything is known of the caller.
//!
//! Counted in this process, or where all replicas count together (RATE-08).

mod fields;
mod local;
mod shared;

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, header};
use tracing::Instrument as _;

use crate::{
    authn::Principal,
    authz::matrix::{QuotaClass, Uncounted},
    crypto::MacKey,
    domain::{Clock, QuotaName, TenantId},
    measures::Measures,
    problem::{Kind, Problem},
    settings,
    telemetry::trace::inside,
};
pub use local::Buckets;
pub use shared::{NotRenewed, SharedBuckets, SharedQuotaError, StoreDown};

/// The time in which a quota is there again, once it was used up. It may be used up at any moment of it.
const WINDOW: Duration = Duration::from_mins(1);

/// Counts calls.
#[derive(Debug)]
pub struct Quotas {
    settings: settings::Quota,
    /// What operators gave instead.
    measures: Arc<Measures>,
    /// What this process counts: everything, or what the shared store cannot.
    local: Buckets,
    shared: Option<SharedBuckets>,
}

/// A quota, as callers are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which.
    pub name: QuotaName,
    /// Calls per minute.
    pub quota: u32,
}

/// Whose bucket it is: somebody's of a tenant, or all of the tenant's.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Owner<'a> {
    /// The tenant.
    pub tenant: TenantId,
    /// Of which quota.
    pub name: QuotaName,
    /// The principal, unless it is all of them together.
    pub subject: Option<&'a str>,
}

/// Where a caller stands in a quota after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which quota.
    pub policy: Policy,
    /// Calls that are left.
    pub remaining: u32,
    /// If this call was one too many: how long until there is one again.
    pub wait: Option<Duration>,
}

/// What became of a call that asked for its share.
#[derive(Debug)]
pub struct Decision {
    standings: Vec<Standing>,
}

/// The shared store of quotas is down, and calls of this class must not go uncounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("calls cannot be counted")]
pub struct Uncountable;

impl Quotas {
    /// Quotas that nobody has used yet, or those in the shared store. The MAC key makes the names of callers there.
    pub fn new(
        settings: settings::Quota,
        mac_key: &MacKey,
        clock: Clock,
        measures: Arc<Measures>,
    ) -> Result<Self, SharedQuotaError> {
        let shared = settings.shared.as_ref().map(|shared| SharedBuckets::new(shared, mac_key.clone())).transpose()?;
        Ok(Self { settings, measures, local: Buckets::new(clock), shared })
    }

    /// Takes one call out of the principal's quota for the class, and then one out of the tenant's. What is refused to
    /// one caller is not held against the tenant's others.
    pub async fn take(&self, principal: &Principal, class: QuotaClass) -> Result<Decision, Uncountable> {
        let tenant = principal.tenant();
        let of = |name, subject| (Owner { tenant, name, subject }, self.policy(tenant, name));
        let of_principal = of_class(class).map(|name| of(name, Some(principal.subject())));
        let asked: Vec<_> = of_principal.into_iter().chain([of(QuotaName::Tenant, None)]).collect();
        let Some(shared) = &self.shared else { return Ok(self.take_locally(&asked)) };
        match shared.take(&asked).instrument(inside!("count")).await {
            Ok(standings) => Ok(Decision { standings }),
            Err(_) => match class.uncounted() {
                Uncounted::Local => Ok(self.take_locally(&asked)),
                Uncounted::Closed => Err(Uncountable),
            },
        }
    }

    fn take_locally(&self, asked: &[(Owner<'_>, Policy)]) -> Decision {
        let mut standings = Vec::with_capacity(asked.len());
        for (owner, policy) in asked {
            let standing = self.local.take(owner, *policy);
            standings.push(standing);
            if standing.wait.is_some() {
                break;
            }
        }
        Decision { standings }
    }

    /// Connects to the shared store, if there is one. It may be down: then it is tried again beside the requests.
    pub async fn connect(&self) {
        if let Some(shared) = &self.shared {
            // Whoever stays connected tells what is wrong.
            let _ = shared.connect().await;
        }
    }

    /// Connects to the shared store with another password, once it is seen to be right (SECRET-04).
    pub async fn renew(&self, settings: &settings::Quota) -> Result<(), NotRenewed> {
        match (&self.shared, &settings.shared) {
            (Some(shared), Some(settings)) => shared.renew(settings).await,
            _ => Err(NotRenewed::Elsewhere),
        }
    }

    /// Stays connected to the shared store, for as long as it runs.
    pub async fn stay_connected(&self) {
        match &self.shared {
            Some(shared) => shared.stay_connected().await,
            None => std::future::pending().await,
        }
    }

    /// Forgets who has been quiet long enough to have all of a quota again. For as long as it runs.
    pub async fn forget(&self) {
        loop {
            tokio::time::sleep(WINDOW).await;
            self.local.forget();
        }
    }

    fn policy(&self, tenant: TenantId, name: QuotaName) -> Policy {
        let usual = match name {
            QuotaName::Read => self.settings.read,
            QuotaName::Write => self.settings.write,
            QuotaName::Sensitive => self.settings.sensitive,
            QuotaName::Export => self.settings.export,
            QuotaName::Tenant => self.settings.tenant,
        };
        Policy { name, quota: self.measures.quota(tenant, name).unwrap_or(usual) }
    }
}

/// Health is open to everybody, so nobody has a quota of it.
fn of_class(class: QuotaClass) -> Option<QuotaName> {
    match class {
        QuotaClass::Health => None,
        QuotaClass::Read => Some(QuotaName::Read),
        QuotaClass::Write => Some(QuotaName::Write),
        QuotaClass::Sensitive => Some(QuotaName::Sensitive),
        QuotaClass::Export => Some(QuotaName::Export),
    }
}

impl Decision {
    /// The problem of a call that was one too many, and the name of the limit.
    #[must_use]
    pub fn refusal(&self) -> Option<(Problem, &'static str)> {
        let refused = self.standings.iter().find_map(|standing| Some((standing.policy.name, standing.wait?)));
        let (name, wait) = refused?;
        // Rounded up, and never 0, which would mean now (RFC 9110 section 10.2.3).
        let seconds = wait.as_millis().div_ceil(1_000).max(1);
        let detail = match name {
            QuotaName::Tenant => "The tenant's quota of requests per minute is used up.",
            _ => "Your quota of requests of this class per minute is used up.",
        };
        let problem = Problem::new(Kind::RateLimited)
            .detail(detail)
            .limit(name.as_str())
            .header(header::RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
        Some((problem, name.as_str()))
    }

    /// Tells the caller where they stand.
    pub fn tell(&self, headers: &mut http::HeaderMap) {
        fields::add(&self.standings, headers);
    }
}
