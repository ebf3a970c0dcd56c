use chrono::{DateTime, Utc};

use super::text_enum::text_enum;

text_enum! {
    /// What a revocation names (AUTHN-11).
    RevocationKind {
        /// One token, by its `jti`, and the API keys that were made by it.
        Token = "token",
        /// All tokens of a person or program and all API keys they made; or one API key.
        Subject = "subject",
        /// All tokens of a person: not the API keys they made.
        Sessions = "sessions",
        /// All tokens that a client got.
        Client = "client",
        /// All tokens and API keys of a tenant.
        Tenant = "tenant",
        /// All tokens and API keys there are.
        Everything = "everything",
    }
}

/// Something that is no longer accepted although it has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// What the value names.
    pub kind: RevocationKind,
    /// Which; empty for everything.
    pub value: String,
    /// Credentials that were issued later are accepted. It says nothing of a single token.
    pub issued_before: DateTime<Utc>,
    /// When all it concerns has ended by itself.
    pub expires_at: DateTime<Utc>,
}
