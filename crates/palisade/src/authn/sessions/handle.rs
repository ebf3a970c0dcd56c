//! The cookie of a browser session (AUTHN-14, AUTHN-15).
//!
//! A [`Handle`] names tenant and session and has a secret of 256 bits. Its tag shows that this
//! service made it, so a guess costs no query. The database has the SHA-256 of the newest secret.
//! Each secret determines the next one, with the MAC key of the service. So every request with a
//! replaced cookie finds the same successor, and nothing usable is stored for it.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, header};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    crypto::{MacKey, RandomError, SealError, TokenKey, random, sha256},
    model::{SessionId, TenantId},
};

/// Name of the cookie. The prefix binds it to this host, to all paths and to TLS (RFC 6265bis
/// section 4.1.3.2).
pub(super) const SESSION_COOKIE: &str = "__Host-session";
/// Tenant, session, generation, secret and tag.
const BYTES: usize = 16 + 16 + 4 + 32 + TAG_BYTES;
const TAG_BYTES: usize = 16;

/// A session and the secret that its cookie has, or had.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) tenant: TenantId,
    pub(super) session: SessionId,
    /// How often the cookie had been replaced.
    pub(super) generation: u32,
    secret: Zeroizing<[u8; 32]>,
}

impl Handle {
    /// The first handle of a new session.
    pub(super) fn generate(tenant: TenantId) -> Result<Self, RandomError> {
        let secret = Zeroizing::new(random()?);
        Ok(Self { tenant, session: SessionId::generate(), generation: 0, secret })
    }

    /// Parses the value of the cookie; `None` unless this service made it.
    pub(super) fn parse(text: &str, key: &MacKey) -> Option<Self> {
        let mut decoded = Zeroizing::new([0; BYTES]);
        let length = URL_SAFE_NO_PAD.decode_slice(text, decoded.as_mut_slice()).ok()?;
        let (body, tag) = decoded.get(..length)?.split_at_checked(BYTES - TAG_BYTES)?;
        if !key.verify_prefix("session handle", body, tag) {
            return None;
        }
        let (tenant, rest) = body.split_first_chunk::<16>()?;
        let (session, rest) = rest.split_first_chunk::<16>()?;
        let (generation, secret) = rest.split_first_chunk::<4>()?;
        Some(Self {
            tenant: TenantId::from_uuid(Uuid::from_bytes(*tenant)),
            session: SessionId::from_uuid(Uuid::from_bytes(*session)),
            generation: u32::from_be_bytes(*generation),
            secret: Zeroizing::new(secret.try_into().ok()?),
        })
    }

    fn body(&self) -> Zeroizing<Vec<u8>> {
        let mut body = Zeroizing::new(Vec::with_capacity(BYTES));
        body.extend_from_slice(self.tenant.uuid().as_bytes());
        body.extend_from_slice(self.session.uuid().as_bytes());
        body.extend_from_slice(&self.generation.to_be_bytes());
        body.extend_from_slice(self.secret.as_slice());
        body
    }

    /// The value of the cookie.
    pub(super) fn text(&self, key: &MacKey) -> String {
        let mut bytes = self.body();
        let tag = key.tag("session handle", &bytes);
        bytes.extend_from_slice(tag.split_at(TAG_BYTES).0);
        URL_SAFE_NO_PAD.encode(bytes.as_slice())
    }

    /// What the database has instead of the secret.
    pub(super) fn hash(&self) -> [u8; 32] {
        sha256(self.secret.as_slice())
    }

    /// The handle that replaces this one.
    pub(super) fn successor(&self, key: &MacKey) -> Self {
        let secret = Zeroizing::new(key.tag("session successor", &self.body()));
        Self { generation: self.generation.saturating_add(1), secret, ..*self }
    }

    /// The key of the refresh token that is stored while this handle is the newest.
    pub(super) fn token_key(&self, key: &MacKey) -> Result<TokenKey, SealError> {
        let bytes = Zeroizing::new(key.tag("session refresh token", &self.body()));
        TokenKey::new(&bytes, self.tenant.uuid(), self.session.uuid())
    }

    /// The CSRF token of the session: the same for all its handles, so that all tabs of a browser
    /// have the current one.
    pub(super) fn csrf_token(&self, key: &MacKey) -> String {
        let mut session = self.tenant.uuid().as_bytes().to_vec();
        session.extend_from_slice(self.session.uuid().as_bytes());
        URL_SAFE_NO_PAD.encode(key.tag("session csrf", &session))
    }
}

/// Compares two secret texts in constant time.
pub(super) fn equal_texts(left: &str, right: &str) -> bool {
    verify_slices_are_equal(left.as_bytes(), right.as_bytes()).is_ok()
}

/// The values of the cookies with this name. A value that is not ASCII becomes an empty text.
pub(super) fn cookies<'h>(headers: &'h HeaderMap, name: &'static str) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(header::COOKIE).iter();
    let pairs = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(std::str::from_utf8(value).unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authn_14_handle_of_another_key_or_with_a_changed_bit_is_refused() {
        let key = MacKey::generate().unwrap();
        let handle = Handle::generate(TenantId::from_uuid(Uuid::from_u128(1))).unwrap();
        let text = handle.text(&key);
        assert_eq!(text.len(), 112);
        assert_eq!(Handle::parse(&text, &key).unwrap().hash(), handle.hash());
        assert!(Handle::parse(&text, &MacKey::generate().unwrap()).is_none());
        let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Handle::parse(&URL_SAFE_NO_PAD.encode(changed), &key).is_none(), "byte {at}");
        }
        for text in ["", "A", &text[..108], &format!("{text}AAAA")] {
            assert!(Handle::parse(text, &key).is_none(), "{text}");
        }
    }

    #[test]
    fn authn_15_successor_needs_the_key_and_seals_with_another_one() {
        let [key, other] = [(); 2].map(|()| MacKey::generate().unwrap());
        let handle = Handle::generate(TenantId::from_uuid(Uuid::from_u128(1))).unwrap();
        let next = handle.successor(&key);
        assert_eq!(next.text(&key), handle.successor(&key).text(&key));
        assert_ne!(next.hash(), handle.hash());
        assert_ne!(next.hash(), handle.successor(&other).hash());
        assert_eq!(next.csrf_token(&key), handle.csrf_token(&key));
        let sealed = handle.token_key(&key).unwrap().seal("token").unwrap();
        assert_eq!(handle.token_key(&key).unwrap().open(&sealed).unwrap().as_str(), "token");
        assert!(next.token_key(&key).unwrap().open(&sealed).is_err());
        assert!(handle.token_key(&other).unwrap().open(&sealed).is_err());
    }
}
