//! Stands in for `sessions.rs` without the feature `sessions`: there is no operation on sessions.

/// There are no rows.
pub static SESSIONS: &[&super::Row] = &[];
