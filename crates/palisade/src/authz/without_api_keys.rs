//! Stands in for `api_keys.rs` without the feature `api_keys`: there is no operation on API keys.

/// There are no rows.
pub static API_KEYS: &[&super::Row] = &[];
