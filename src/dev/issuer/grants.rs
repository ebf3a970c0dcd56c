//! What the issuer has granted and not yet forgotten: codes and refresh tokens.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::crypto;

/// How long an authorization code is valid, in seconds.
const CODE_SECONDS: i64 = 60;
/// How long a refresh token is valid, in seconds.
const REFRESH_SECONDS: i64 = 8 * 3600;

/// A sign-in that was allowed, waiting to be exchanged.
#[derive(Clone, Debug)]
pub(super) struct Code {
    pub(super) client: String,
    pub(super) subject: String,
    pub(super) redirect_uri: String,
    pub(super) scope: String,
    pub(super) challenge: String,
    pub(super) nonce: Option<String>,
    pub(super) issued_at: i64,
}

/// What a refresh token stands for.
#[derive(Clone, Debug)]
pub(super) struct Refresh {
    pub(super) client: String,
    pub(super) subject: String,
    pub(super) scope: String,
    pub(super) family: u64,
    pub(super) issued_at: i64,
    used: bool,
}

/// Holds digests instead of the codes and tokens themselves.
#[derive(Debug, Default)]
pub(super) struct Grants(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    codes: HashMap<[u8; 32], Code>,
    refresh: HashMap<[u8; 32], Refresh>,
    families: u64,
}

impl Grants {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn remember_code(&self, code: &str, grant: Code) {
        let mut state = self.state();
        let now = grant.issued_at;
        state.codes.retain(|_, code| now - code.issued_at <= CODE_SECONDS);
        state.codes.insert(crypto::sha256(code.as_bytes()), grant);
    }

    /// The grant of a code, which is then used up (RFC 6749 section 4.1.2).
    pub(super) fn take_code(&self, code: &str, now: i64) -> Option<Code> {
        let grant = self.state().codes.remove(&crypto::sha256(code.as_bytes()))?;
        (now - grant.issued_at <= CODE_SECONDS).then_some(grant)
    }

    /// Starts a family of refresh tokens with `token` as its first.
    pub(super) fn start_family(&self, token: &str, client: &str, subject: &str, scope: &str, now: i64) {
        let mut state = self.state();
        state.families += 1;
        let refresh = Refresh {
            client: client.to_owned(),
            subject: subject.to_owned(),
            scope: scope.to_owned(),
            family: state.families,
            issued_at: now,
            used: false,
        };
        state.refresh.insert(crypto::sha256(token.as_bytes()), refresh);
    }

    /// Exchanges `old` for `new`. An old token that comes a second time was stolen from somebody, and as
    /// it is not known from whom, its whole family ends (RFC 9700 section 4.14.2).
    pub(super) fn rotate(&self, old: &str, new: &str, client: &str, now: i64) -> Option<Refresh> {
        let mut state = self.state();
        let known = state.refresh.get_mut(&crypto::sha256(old.as_bytes())).filter(|known| known.client == client)?;
        if known.used {
            let family = known.family;
            state.refresh.retain(|_, refresh| refresh.family != family);
            return None;
        }
        if now - known.issued_at > REFRESH_SECONDS {
            return None;
        }
        known.used = true;
        let granted = known.clone();
        let successor = Refresh { used: false, ..granted.clone() };
        state.refresh.insert(crypto::sha256(new.as_bytes()), successor);
        Some(granted)
    }

    /// Ends the family of a refresh token, if it is one of this client's (RFC 7009 section 2.1).
    pub(super) fn revoke(&self, token: &str, client: &str) {
        let mut state = self.state();
        let known = state.refresh.get(&crypto::sha256(token.as_bytes())).filter(|known| known.client == client);
        if let Some(family) = known.map(|known| known.family) {
            state.refresh.retain(|_, refresh| refresh.family != family);
        }
    }
}
