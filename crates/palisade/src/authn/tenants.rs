//! The registry of tenants in memory (AUTHN-04, AUTHN-11): which may call, their quotas, and their
//! names in tokens.
//!
//! [`super::revocation`] loads it with the revocations, from one connection: so a suspension reaches
//! this replica within two seconds, and no request waits for the database. [`crate::quota`] reads
//! the quotas.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use super::AuthnError;
use crate::{
    db::Credentials,
    model::{QuotaName, RegisteredTenant, TenantId, TenantState},
    telemetry::{causes, repeats::coalesced},
};

/// All tenants, with the names by which tokens call them.
#[derive(Debug)]
pub struct Tenants {
    store: Credentials,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    tenants: HashMap<TenantId, RegisteredTenant>,
    /// By issuer and external id.
    external: HashMap<(String, String), TenantId>,
    /// Changes with `external`.
    names_version: u64,
}

/// Why the tenant of an authenticated caller may not call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantRefusal {
    /// An operator suspended it.
    Suspended,
    /// It is not registered, or was deleted.
    Unknown,
}

impl TenantRefusal {
    /// The reason in security events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Suspended => "tenant_suspended",
            Self::Unknown => "tenant_unknown",
        }
    }
}

impl Tenants {
    /// Knows no tenant until the first load.
    pub(super) fn new(store: Credentials) -> Self {
        Self { store, known: RwLock::default() }
    }

    /// Takes over changed tenants.
    pub(super) fn update(&self, changed: Vec<RegisteredTenant>) {
        if changed.is_empty() {
            return;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for tenant in changed {
            let id = tenant.id;
            known.external.extend(tenant.external_ids.iter().map(|name| (name.clone(), id)));
            let new_ids = tenant.external_ids.clone();
            let previous = known.tenants.insert(id, tenant);
            let previous_ids = previous.as_ref().map_or(&[][..], |previous| previous.external_ids.as_slice());
            if previous_ids != new_ids {
                known.names_version += 1;
            }
            for name in previous.into_iter().flat_map(|previous| previous.external_ids) {
                // Another tenant may have the name by now.
                if !new_ids.contains(&name) && known.external.get(&name) == Some(&id) {
                    known.external.remove(&name);
                }
            }
        }
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self, tenant: TenantId) -> Option<TenantState> {
        self.known().tenants.get(&tenant).map(|tenant| tenant.state)
    }

    /// Refuses the callers of a tenant that is not active.
    pub(super) fn check(&self, tenant: TenantId) -> Result<(), AuthnError> {
        match self.state(tenant) {
            Some(TenantState::Active) => Ok(()),
            Some(TenantState::Suspended) => Err(AuthnError::TenantRefused(TenantRefusal::Suspended)),
            Some(TenantState::Deleting | TenantState::Deleted) | None => {
                Err(AuthnError::TenantRefused(TenantRefusal::Unknown))
            }
        }
    }

    /// Registers a tenant that is new, for the first token of an issuer that may create tenants.
    pub(super) async fn admit(&self, tenant: TenantId, issuer: &str) -> Result<(), AuthnError> {
        if self.state(tenant).is_some() {
            return Ok(());
        }
        let state = self.store.admit_tenant(tenant, issuer).await.map_err(|error| {
            coalesced!(warn, "could not register a tenant", %error, cause = causes(&error));
            AuthnError::Unavailable("store")
        })?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // The feed may have been faster.
        let new = || RegisteredTenant { id: tenant, state, limits: Vec::new(), external_ids: Vec::new() };
        known.tenants.entry(tenant).or_insert_with(new);
        Ok(())
    }

    /// The tenant that an issuer calls by this name.
    pub(super) fn find(&self, issuer: &str, external_id: &str) -> Option<TenantId> {
        let known = self.known();
        (!known.external.is_empty())
            .then(|| known.external.get(&(issuer.to_owned(), external_id.to_owned())).copied())
            .flatten()
    }

    /// Changes when a name in tokens stands for another tenant, or for none. What was read from a
    /// token before is then out of date.
    pub(super) fn names_version(&self) -> u64 {
        self.known().names_version
    }

    /// The quota of a tenant in the registry, in calls per minute.
    #[must_use]
    pub fn limit(&self, tenant: TenantId, quota: QuotaName) -> Option<u32> {
        let known = self.known();
        let limits = &known.tenants.get(&tenant)?.limits;
        limits.iter().find(|(name, _)| *name == quota).map(|(_, per_minute)| *per_minute)
    }
}
