//! The share of the writer's connections that one tenant may hold (RATE-03).
//!
//! Changes of one row wait for its lock, each with a connection. So parallel requests of one tenant
//! could hold the whole pool. [`Database`](super::Database) takes a slot of the tenant before a
//! connection, and the transaction returns it after the connection.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{db::DbError, model::TenantId};

/// The slots of the tenants that hold or await one.
#[derive(Clone, Debug)]
pub(super) struct TenantShares {
    tenants: Arc<Mutex<HashMap<TenantId, Arc<Semaphore>>>>,
    /// Connections of a tenant: three quarters of the pool, rounded up. So a pool of less than four
    /// reserves none for others.
    share: usize,
    /// Longest wait for a slot.
    pub(super) timeout: Duration,
}

impl TenantShares {
    pub(super) fn new(max_connections: u32, timeout: Duration) -> Self {
        let share = max_connections - max_connections / 4;
        Self { tenants: Arc::default(), share: share as usize, timeout }
    }

    /// Waits for a slot, as long as for a connection.
    pub(super) async fn acquire(&self, tenant: TenantId) -> Result<OwnedSemaphorePermit, DbError> {
        let slots = self.slots(tenant);
        match tokio::time::timeout(self.timeout, slots.acquire_owned()).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) | Err(_) => Err(DbError::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }

    fn slots(&self, tenant: TenantId) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slots) = tenants.get(&tenant) {
            return Arc::clone(slots);
        }
        // A slot that is held or awaited counts as a reference.
        tenants.retain(|_, slots| Arc::strong_count(slots) > 1);
        Arc::clone(tenants.entry(tenant).or_insert_with(|| Arc::new(Semaphore::new(self.share))))
    }
}
