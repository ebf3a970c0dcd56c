//! Last-use times of API keys (AUTHN-12), collected in memory and written to the database from time
//! to time. [`super::ApiKeys`] marks each use.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};

use crate::{
    db::Credentials,
    model::{ApiKeyId, TenantId},
};

/// Interval between writes.
const INTERVAL: Duration = Duration::from_secs(30);

/// Times that are not written yet, by tenant.
#[derive(Debug, Default)]
pub(super) struct KeyUses(Mutex<HashMap<TenantId, HashMap<ApiKeyId, DateTime<Utc>>>>);

impl KeyUses {
    pub(super) fn mark(&self, tenant: TenantId, id: ApiKeyId, at: DateTime<Utc>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(tenant).or_default().insert(id, at);
    }

    /// Writes pending times periodically, forever.
    pub(super) async fn write_periodically(&self, store: &Credentials) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            self.write(store).await;
        }
    }

    /// Writes pending times. Those that cannot be written are dropped: they only help operators to
    /// find unused keys.
    pub(super) async fn write(&self, store: &Credentials) {
        let uses = mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (tenant, uses) in uses {
            if let Err(error) = store.record_key_uses(tenant, &uses.into_iter().collect::<Vec<_>>()).await {
                tracing::warn!(%error, "could not record last-use times of API keys");
            }
        }
    }
}
