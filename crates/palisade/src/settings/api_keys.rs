//! The settings of API keys, and the key of their hashes (AUTHN-12).

use std::thread::available_parallelism;

pub use super::table::ApiKeys;
use super::{Reader, table::ApiKeySecrets};

impl ApiKeys {
    /// `None` if the pepper is missing or a value is invalid.
    pub(super) fn read(r: &mut Reader) -> Option<Self> {
        let pepper = r.read(&ApiKeySecrets::pepper, None);
        let mut api_keys = Self::read_rows(r, None, pepper)?;
        if !r.has(&Self::concurrent_hashes.name()) {
            api_keys.concurrent_hashes = available_parallelism().map_or(1, |processors| (processors.get() / 2).max(1));
        }
        Some(api_keys)
    }
}
