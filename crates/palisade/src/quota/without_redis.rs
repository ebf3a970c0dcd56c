//! Stands in for `shared.rs` without the feature `redis`: there are no [`SharedBuckets`].

use super::{Bucket, QuotaStatus, QuotaStoreUnavailable};
use crate::{crypto::MacKey, settings};

/// There is no quota store.
#[derive(Debug)]
pub enum SharedBuckets {}

/// Why the settings of the quota store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SharedQuotaError {
    /// There are settings of a quota store.
    #[error("a shared quota store needs the feature `redis` of palisade")]
    DifferentStore,
}

impl SharedBuckets {
    pub(super) fn new(_: &settings::SharedQuota, _: MacKey) -> Result<Self, SharedQuotaError> {
        Err(SharedQuotaError::DifferentStore)
    }

    pub(super) async fn take(&self, _: &[Bucket<'_>]) -> Result<Vec<QuotaStatus>, QuotaStoreUnavailable> {
        match *self {}
    }

    pub(super) async fn connect(&self) -> Result<(), SharedQuotaError> {
        match *self {}
    }

    pub(super) async fn reload(&self, _: &settings::SharedQuota) -> Result<(), SharedQuotaError> {
        match *self {}
    }

    pub(super) async fn stay_connected(&self) {
        match *self {}
    }
}

/// Says why the store failed.
pub(super) fn describe(_: &SharedQuotaError) -> &'static str {
    "it needs the feature `redis` of palisade"
}
