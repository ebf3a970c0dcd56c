//! Errors of authentication, for `http/guard.rs`, which maps them to 401, 429 and 503 responses.
//!
//! The reject reason goes to logs and security events. Callers see one opaque 401 for all of them.

use std::time::Duration;

use thiserror::Error;

use super::{RejectReason, TenantRefusal};
use crate::{crypto::RandomError, model::ApiKeyId, outbound::OutboundError};

/// Why a request could not be authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AuthnError {
    /// The request has no credential.
    #[error("no credential")]
    Missing,
    /// The credential is not valid, or there is more than one.
    #[error("credential rejected: {reason}")]
    Rejected {
        /// The reason. It goes to logs and events, never to the caller.
        reason: RejectReason,
        /// The API key that was presented, if any.
        key: Option<ApiKeyId>,
        /// Delay before the response is sent; it grows with the number of failures.
        delay: Duration,
    },
    /// The source is locked out after too many failures.
    #[error("source locked out for {seconds} s")]
    LockedOut {
        /// Seconds until the lock-out ends.
        seconds: i64,
        /// The reject reason and the API key, if the credential was checked.
        rejected: Option<(RejectReason, Option<ApiKeyId>)>,
    },
    /// The credential is valid, but its tenant may not call.
    #[error("tenant refused: {}", .0.as_str())]
    TenantRefused(TenantRefusal),
    /// A dependency of the decision is missing, so authentication fails closed.
    #[error("cannot authenticate without {0}")]
    Unavailable(&'static str),
}

impl AuthnError {
    /// A rejection without delay.
    pub(super) fn rejected(reason: RejectReason, key: Option<ApiKeyId>) -> Self {
        Self::Rejected { reason, key, delay: Duration::ZERO }
    }
}

impl From<RejectReason> for AuthnError {
    fn from(reason: RejectReason) -> Self {
        Self::rejected(reason, None)
    }
}

/// Why an [`Authenticator`](super::Authenticator) could not be created.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The HTTP client for the issuers' documents could not be created.
    #[error("could not prepare the calls of token issuers; check …CA_PATH of the issuer")]
    HttpClient(#[from] OutboundError),
    /// The operating system gave no random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The operating system started no thread for hashing.
    #[error("could not start the hashing threads; check the thread limit of the process")]
    Threads(#[from] std::io::Error),
}
