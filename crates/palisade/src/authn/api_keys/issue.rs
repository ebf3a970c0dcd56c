//! What the operations on API keys need of authentication: new keys, and the end of cached ones
//! (AUTHN-12).

use std::time::Duration;

use secrecy::SecretString;

use super::{ApiKeys, format};
use crate::{
    authn::{Authenticator, AuthnError, Principal},
    model::{ApiKeyId, TenantId},
};

impl Authenticator {
    /// Creates a new API key. Returns its text, which is shown once, and the hash of its secret.
    ///
    /// Records the creator's roles again first. A database that took over after a failover may have
    /// lost them, and without them the key would have no permissions.
    pub async fn issue_api_key(&self, creator: &Principal, id: ApiKeyId) -> Result<(SecretString, String), AuthnError> {
        self.api_keys.record_roles(creator).await?;
        self.api_keys.issue(creator.tenant(), id).await
    }

    /// Makes the cached API keys of a tenant stale on this replica. The database notifies the other
    /// replicas.
    pub fn invalidate_api_keys(&self, tenant: TenantId) {
        self.revocations.key_changes.invalidate(tenant);
    }

    /// Maximum validity of an API key.
    #[must_use]
    pub fn max_key_lifetime(&self) -> Duration {
        self.api_keys.max_lifetime
    }
}

impl ApiKeys {
    /// Generates an API key. Returns its text, which is shown once, and the hash to store.
    async fn issue(&self, tenant: TenantId, id: ApiKeyId) -> Result<(SecretString, String), AuthnError> {
        let (text, secret) = format::generate(tenant, id).map_err(|_| AuthnError::Unavailable("random"))?;
        Ok((text, self.hash_queue.hash(&secret, tenant).await?))
    }
}
