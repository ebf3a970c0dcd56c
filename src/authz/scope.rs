//! Which scopes an API key can have. The scopes themselves are [`crate::domain::Scope`].

use super::matrix::{Callers, MATRIX};
use crate::domain::Scope;

impl Scope {
    /// Whether an operation that API keys may call requires this scope; an API key gets no other.
    #[must_use]
    pub fn is_for_keys(self) -> bool {
        MATRIX.iter().any(|row| row.callers == Callers::Authenticated && row.scope == Some(self))
    }
}
