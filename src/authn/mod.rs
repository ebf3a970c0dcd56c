//! Who is calling: credential → [`Principal`].
//!
//! The way of a token (RFC 9068): [`credential`] takes it out of the request, [`issuers`] finds whose it
//! is; [`cache`] knows it, or [`claims`] reads it and [`verify`] checks it against a key from [`keys`], which
//! [`discovery`] found and keeps fresh.

mod cache;
mod claims;
mod credential;
mod discovery;
mod issuers;
mod keys;
mod principal;
mod refused;
mod verify;

use std::{net::IpAddr, sync::Arc};

use http::HeaderMap;
use thiserror::Error;
use tokio::task::JoinSet;

pub use principal::{CallerKind, Principal};
pub use refused::Refused;

use crate::{
    domain::Clock,
    settings::{Oidc, Profile},
};
use issuers::Issuers;

/// Where a call comes from: an IPv4 address, or the /64 of an IPv6 one. What failures are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(pub IpAddr);

/// Why a call could not be authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AuthnError {
    /// No credential was presented.
    #[error("no credential")]
    Missing,
    /// What was presented is not one acceptable credential. The reason is for logs, never for the caller.
    #[error("credential refused: {0}")]
    Refused(#[from] Refused),
    /// The issuer's keys are not known, so nothing can be verified: fail closed.
    #[error("no keys to verify with")]
    NoKeys,
}

/// Verifies credentials. One per server.
#[derive(Debug)]
pub struct Authenticator {
    issuers: Issuers,
}

impl Authenticator {
    /// An authenticator for tokens of the configured issuers, whose keys it does not know yet.
    pub fn new(oidc: &Oidc, profile: Profile, clock: &Clock) -> Result<Self, reqwest::Error> {
        Ok(Self { issuers: Issuers::new(oidc, profile, clock)? })
    }

    /// Keeps what it knows fresh, until the tasks are dropped.
    #[must_use]
    pub fn keep_fresh(&self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        self.issuers.keep_fresh(&mut tasks);
        tasks
    }

    /// Whether anybody could be let in.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.issuers.is_ready()
    }

    /// The principal behind a request's credential.
    pub async fn authenticate(&self, headers: &HeaderMap, query: &str) -> Result<Arc<Principal>, AuthnError> {
        let token = credential::token(headers, query)?.ok_or(AuthnError::Missing)?;
        self.issuers.principal_of(token).await
    }
}
