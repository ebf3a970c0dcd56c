//! Stands in for `transit.rs` without the feature `vault`: there is no [`Transit`].

use uuid::Uuid;
use zeroize::Zeroizing;

use super::{MasterKeyError, VaultSettings, WrappedDataKey};

/// There is no vault.
#[derive(Debug)]
pub(super) enum Transit {}

impl Transit {
    pub(super) fn new(_: &VaultSettings) -> Result<Self, MasterKeyError> {
        Err(MasterKeyError::Settings("the program is built without the feature `vault` of palisade".to_owned()))
    }

    pub(super) fn has(&self, _: &str) -> bool {
        match *self {}
    }

    pub(super) async fn wrap(&self, _: Uuid, _: i32, _: &[u8; 32]) -> Result<WrappedDataKey, MasterKeyError> {
        match *self {}
    }

    pub(super) async fn unwrap(&self, _: Uuid, _: &WrappedDataKey) -> Result<Zeroizing<Vec<u8>>, MasterKeyError> {
        match *self {}
    }
}
