//! Revocations of credentials. Operators write them, [`crate::authn`] rejects what they match.

use chrono::{DateTime, Utc};

use crate::text_enum;

text_enum! {
    /// What a revocation matches (AUTHN-11).
    RevocationKind {
        /// One token, by its `jti`, and the API keys that were created with it.
        Token = "token",
        /// All tokens of a user or service and all API keys that it created; or one API key.
        Subject = "subject",
        /// All tokens of a user, but not the API keys that the user created.
        Sessions = "sessions",
        /// All tokens that an OAuth client obtained.
        Client = "client",
        /// All tokens and API keys of a tenant.
        Tenant = "tenant",
        /// All tokens and all API keys.
        Everything = "everything",
    }
}

/// A revocation: credentials that are rejected although they have not expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// What `value` names.
    pub kind: RevocationKind,
    /// The `jti`, subject, client or tenant. Empty for everything.
    pub value: String,
    /// Credentials that were issued later are accepted. Ignored for a single token.
    pub issued_before: DateTime<Utc>,
    /// Time at which all credentials that it matches have expired.
    pub expires_at: DateTime<Utc>,
}
