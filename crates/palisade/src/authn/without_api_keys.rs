//! Stands in for `api_keys` without the feature `api_keys`: a header field `X-API-Key` is ignored,
//! as any other that the service does not know.

#![allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "signatures of the real module")]

use std::{convert::Infallible, sync::Arc};

use http::HeaderMap;
use tokio::task::JoinSet;

use super::{
    AuthnError, Principal, SetupError, SourceNetwork, failure_limiter::FailureLimiter, revocation::Revocations,
};
use crate::{
    db::Credentials,
    model::{Clock, Rights, TenantId},
    settings,
};

pub(crate) const ENABLED: bool = false;

/// No request presents an API key.
pub(super) type Presented<'h> = Infallible;

pub(super) fn presented(_: &HeaderMap) -> impl Iterator<Item = Presented<'_>> {
    std::iter::empty()
}

pub(crate) fn subject_of_id(_: &str) -> Result<String, &'static str> {
    Err("the program is built without the feature `api_keys` of palisade")
}

/// There are no API keys.
#[derive(Debug)]
pub(super) struct ApiKeys;

impl ApiKeys {
    pub(super) fn new(_: &settings::ApiKeys, _: Rights, _: Credentials, _: u32, _: Clock) -> Result<Self, SetupError> {
        Ok(Self)
    }

    pub(super) fn start_background_tasks(self: &Arc<Self>, _: &mut JoinSet<()>) {}

    pub(super) async fn record_roles(&self, _: &Principal) -> Result<(), AuthnError> {
        Ok(())
    }

    pub(super) fn lookup_verified(&self, presented: Presented<'_>) -> Option<(TenantId, String)> {
        match presented {}
    }

    pub(super) async fn authenticate(
        &self,
        presented: Presented<'_>,
        _: SourceNetwork,
        _: &Revocations,
        _: &FailureLimiter,
    ) -> Result<Arc<Principal>, AuthnError> {
        match presented {}
    }

    pub(super) async fn flush_uses(&self) {}
}

/// No API key changes.
#[derive(Debug)]
pub(super) struct KeyChanges;

impl KeyChanges {
    pub(super) fn new() -> Self {
        Self
    }

    pub(super) fn invalidate(&self, _: TenantId) {}

    pub(super) fn invalidate_all(&self) {}
}

#[cfg(test)]
mod tests {
    use super::super::credential::{Credential, extract};
    use super::*;

    #[test]
    fn authn_08_header_of_an_api_key_is_no_credential_without_the_feature() {
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", http::HeaderValue::from_static("a key"));
        assert!(matches!(extract(&headers, "", 8_192), Ok(None)));
        headers.insert(http::header::AUTHORIZATION, http::HeaderValue::from_static("Bearer a.b.c"));
        let token = extract(&headers, "", 8_192);
        assert!(matches!(token, Ok(Some(Credential::Token(token))) if token.text == "a.b.c"));
    }
}
