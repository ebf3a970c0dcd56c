//! Encryption of an issuer's refresh token with a key of its session's cookie (AUTHN-14).
//!
//! [`crate::authn`] derives the key from the secret in the cookie and the MAC key of the service. The
//! database has neither, so a copy of it opens no refresh token.

use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    SealError,
    sealing::{AeadContext, SealingKey},
};

/// The key of the refresh token of one session, until the cookie is replaced.
#[derive(Debug)]
pub(crate) struct TokenKey {
    key: SealingKey,
    tenant: Uuid,
    session: Uuid,
}

impl TokenKey {
    pub(crate) fn new(bytes: &[u8; 32], tenant: Uuid, session: Uuid) -> Result<Self, SealError> {
        Ok(Self { key: SealingKey::new(bytes)?, tenant, session })
    }

    pub(crate) fn seal(&self, token: &str) -> Result<Vec<u8>, SealError> {
        self.key.seal(&self.context(), token.as_bytes())
    }

    pub(crate) fn open(&self, sealed: &[u8]) -> Result<Zeroizing<String>, SealError> {
        let plain = self.key.open(&self.context(), sealed)?;
        std::str::from_utf8(&plain).map(|text| Zeroizing::new(text.to_owned())).map_err(|_| SealError)
    }

    fn context(&self) -> AeadContext {
        AeadContext { tenant: self.tenant, table: "sessions", column: "refresh_token", row: self.session, version: 0 }
    }
}
