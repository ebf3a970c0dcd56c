//! In-memory store of authorization codes and refresh tokens.
//!
//! The endpoints in `authorize` and `token` write and redeem them. The store holds SHA-256 digests
//! instead of the codes and tokens. A restart of the issuer empties it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::authorize::AuthorizeRequest;
use crate::crypto;

/// Lifetime of an authorization code, in seconds.
const CODE_SECONDS: i64 = 60;
/// Lifetime of a refresh token, in seconds.
const REFRESH_SECONDS: i64 = 8 * 3600;

/// The grant behind an authorization code that has not been redeemed.
#[derive(Debug)]
pub(super) struct Code {
    pub(super) request: AuthorizeRequest,
    pub(super) subject: String,
    pub(super) issued_at: i64,
}

/// The grant behind a refresh token.
#[derive(Clone, Debug)]
pub(super) struct Refresh {
    client: String,
    pub(super) subject: String,
    pub(super) scope: String,
    family: u64,
    issued_at: i64,
    used: bool,
}

/// Outstanding codes and refresh tokens, keyed by their SHA-256 digest.
#[derive(Debug, Default)]
pub(super) struct Grants(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    codes: HashMap<[u8; 32], Code>,
    refresh: HashMap<[u8; 32], Refresh>,
    families: u64,
}

impl Grants {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn store_code(&self, code: &str, grant: Code) {
        let mut state = self.lock();
        let now = grant.issued_at;
        state.codes.retain(|_, code| now - code.issued_at <= CODE_SECONDS);
        state.codes.insert(crypto::sha256(code.as_bytes()), grant);
    }

    /// Redeems a code. A code works once (RFC 6749 section 4.1.2).
    pub(super) fn take_code(&self, code: &str, now: i64) -> Option<Code> {
        let grant = self.lock().codes.remove(&crypto::sha256(code.as_bytes()))?;
        (now - grant.issued_at <= CODE_SECONDS).then_some(grant)
    }

    /// Starts a refresh token family: all tokens that rotate from `token`.
    pub(super) fn start_family(&self, token: &str, code: Code, scope: String, now: i64) {
        let mut state = self.lock();
        state.families += 1;
        let (client, family) = (code.request.client_id, state.families);
        let refresh = Refresh { client, subject: code.subject, scope, family, issued_at: now, used: false };
        state.refresh.insert(crypto::sha256(token.as_bytes()), refresh);
    }

    /// Replaces the refresh token `old` by `new`.
    ///
    /// A reused token was stolen, and the issuer cannot tell the thief from the client: so reuse
    /// revokes the whole family (RFC 9700 section 4.14.2).
    pub(super) fn rotate(&self, old: &str, new: &str, client: &str, now: i64) -> Option<Refresh> {
        let mut state = self.lock();
        let grant = state.refresh.get_mut(&crypto::sha256(old.as_bytes())).filter(|grant| grant.client == client)?;
        if grant.used {
            let family = grant.family;
            state.refresh.retain(|_, refresh| refresh.family != family);
            return None;
        }
        if now - grant.issued_at > REFRESH_SECONDS {
            return None;
        }
        grant.used = true;
        let successor = Refresh { used: false, ..grant.clone() };
        state.refresh.insert(crypto::sha256(new.as_bytes()), successor.clone());
        Some(successor)
    }

    /// Revokes the family of a refresh token that belongs to this client (RFC 7009 section 2.1).
    pub(super) fn revoke(&self, token: &str, client: &str) {
        let mut state = self.lock();
        let grant = state.refresh.get(&crypto::sha256(token.as_bytes())).filter(|grant| grant.client == client);
        if let Some(family) = grant.map(|grant| grant.family) {
            state.refresh.retain(|_, refresh| refresh.family != family);
        }
    }
}
