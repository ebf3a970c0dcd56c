//! Stands in for `sessions` without the feature `sessions`: a cookie is no credential.

#![allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "signatures of the real module")]

use std::{convert::Infallible, sync::Arc};

use http::HeaderMap;

use super::{
    Authenticator, AuthnError, Principal, SourceNetwork, api_keys::ApiKeys, issuers::Issuers, revocation::Revocations,
    tenants::Tenants,
};
use crate::{
    db::Credentials,
    model::{Clock, Rights, TenantId},
    settings::Settings,
};

pub(crate) const ENABLED: bool = false;

/// No request presents a session.
pub(super) type Presented<'h> = Infallible;

pub(super) fn presented(_: &HeaderMap) -> impl Iterator<Item = Presented<'_>> {
    std::iter::empty()
}

/// The parts of the authenticator that sessions use.
pub(super) struct Parts {
    pub(super) issuers: Arc<Issuers>,
    pub(super) api_keys: Arc<ApiKeys>,
    pub(super) revocations: Arc<Revocations>,
    pub(super) tenants: Arc<Tenants>,
    pub(super) store: Credentials,
    pub(super) rights: Rights,
    pub(super) clock: Clock,
}

/// There are no sessions.
#[derive(Debug)]
pub(super) struct Sessions;

impl Sessions {
    pub(super) fn new(_: &Settings, _: &str, _: Parts) -> Arc<Self> {
        Arc::new(Self)
    }

    pub(super) fn lookup_recent(&self, presented: Presented<'_>) -> Option<(TenantId, String)> {
        match presented {}
    }

    pub(super) async fn authenticate(
        &self,
        presented: Presented<'_>,
        _: &HeaderMap,
        _: SourceNetwork,
    ) -> Result<Arc<Principal>, AuthnError> {
        match presented {}
    }
}

impl Authenticator {
    pub(crate) fn has_sessions(&self) -> bool {
        false
    }

    pub(crate) fn session_bucket(&self, _: &HeaderMap) -> Option<(TenantId, String)> {
        None
    }

    pub(crate) fn check_browser_request(&self, _: bool, _: &HeaderMap) -> Result<(), &'static str> {
        Ok(())
    }
}
