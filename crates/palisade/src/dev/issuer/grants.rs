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
/// Lifetime of a refresh token family, in seconds.
const FAMILY_SECONDS: i64 = 8 * 3600;

/// The grant behind an authorization code that has not been redeemed.
#[derive(Debug)]
pub(super) struct Code {
    pub(super) request: AuthorizeRequest,
    pub(super) subject: String,
    pub(super) issued_at: i64,
}

/// A refresh token family: all tokens that rotate from one code. Its newest token is valid.
#[derive(Clone, Debug)]
pub(super) struct Family {
    client: String,
    pub(super) subject: String,
    pub(super) scope: String,
    issued_at: i64,
    newest: String,
}

/// A sign-in, by its `sid`.
#[derive(Clone, Debug)]
pub(super) struct SignIn {
    pub(super) client: String,
    pub(super) subject: String,
    pub(super) redirect_uri: String,
    issued_at: i64,
}

/// Outstanding codes and refresh tokens. The digest of a code is also the name of its family, with
/// which each refresh token begins.
#[derive(Debug, Default)]
pub(super) struct Grants(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    codes: HashMap<String, Code>,
    families: HashMap<String, Family>,
    sign_ins: HashMap<String, SignIn>,
}

impl Grants {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn store_code(&self, code: &str, grant: Code) {
        let mut state = self.lock();
        let now = grant.issued_at;
        state.codes.retain(|_, code| now - code.issued_at <= CODE_SECONDS);
        state.codes.insert(digest(code), grant);
    }

    /// Redeems a code. A code works once; a second use ends the refresh tokens of the first (RFC
    /// 6749 section 4.1.2).
    pub(super) fn take_code(&self, code: &str, now: i64) -> Option<Code> {
        let mut state = self.lock();
        let family = digest(code);
        state.families.remove(&family);
        state.codes.remove(&family).filter(|grant| now - grant.issued_at <= CODE_SECONDS)
    }

    /// Records the sign-in of a redeemed code. Returns its `sid`, which each token of it has.
    pub(super) fn sign_in(&self, code: &str, grant: &Code, now: i64) -> String {
        let sid = sid(&digest(code));
        let AuthorizeRequest { client_id, redirect_uri, .. } = &grant.request;
        let (client, redirect_uri) = (client_id.clone(), redirect_uri.clone());
        let mut state = self.lock();
        state.sign_ins.retain(|_, sign_in| now - sign_in.issued_at <= FAMILY_SECONDS);
        let subject = grant.subject.clone();
        state.sign_ins.insert(sid.clone(), SignIn { client, subject, redirect_uri, issued_at: now });
        sid
    }

    /// Ends a sign-in of this client, and its refresh tokens.
    pub(super) fn sign_out(&self, ended: &str, client: &str) -> Option<SignIn> {
        let mut state = self.lock();
        state.sign_ins.get(ended).filter(|sign_in| sign_in.client == client)?;
        state.families.retain(|name, _| sid(name) != ended);
        state.sign_ins.remove(ended)
    }

    /// Starts the family of a redeemed code. Returns its first refresh token.
    pub(super) fn start_family(&self, code: &str, secret: &str, grant: Code, scope: String, now: i64) -> String {
        let mut state = self.lock();
        state.families.retain(|_, family| now - family.issued_at <= FAMILY_SECONDS);
        let (client, subject, newest) = (grant.request.client_id, grant.subject, digest(secret));
        let name = digest(code);
        let token = format!("{name}.{secret}");
        state.families.insert(name, Family { client, subject, scope, issued_at: now, newest });
        token
    }

    /// Replaces the refresh token `old` by one with `secret`.
    ///
    /// A reused token was stolen, and the issuer cannot tell the thief from the client: so reuse
    /// ends the whole family (RFC 9700 section 4.14.2).
    ///
    /// The first part of the returned token is the name of the family.
    pub(super) fn rotate(&self, old: &str, secret: &str, client: &str, now: i64) -> Option<(String, Family)> {
        let mut state = self.lock();
        let (name, old_secret) = old.split_once('.')?;
        let family = state.families.get_mut(name).filter(|family| family.client == client)?;
        if family.newest != digest(old_secret) || now - family.issued_at > FAMILY_SECONDS {
            state.families.remove(name);
            return None;
        }
        family.newest = digest(secret);
        Some((format!("{name}.{secret}"), family.clone()))
    }

    /// Ends the family of a refresh token that belongs to this client (RFC 7009 section 2.1).
    pub(super) fn revoke(&self, token: &str, client: &str) {
        let name = token.split('.').next().unwrap_or_default();
        self.lock().families.retain(|family, grant| family != name || grant.client != client);
    }
}

/// The `sid` of a family.
pub(super) fn sid(family: &str) -> String {
    family.chars().take(32).collect()
}

fn digest(text: &str) -> String {
    crypto::hex(&crypto::sha256(text.as_bytes()))
}
