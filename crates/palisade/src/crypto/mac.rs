//! HMAC-SHA-256 (RFC 2104) with domain separation, compared in constant time.
//!
//! Cursors, idempotency fingerprints, quota keys, cached API keys and blind indexes use it. The tag
//! covers the context, so a tag that was made for one use is not valid in another.

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::{InvalidKeyText, RandomError, key_bytes, random};

/// A key for HMAC-SHA-256. Text that a caller returns with a valid tag was made by this service.
#[derive(Clone, Debug)]
pub struct MacKey(hmac::Key);

impl MacKey {
    /// Parses 32 random bytes in base64.
    pub fn from_base64(text: &str) -> Result<Self, InvalidKeyText> {
        key_bytes(text).map(|bytes| Self::new(&bytes))
    }

    /// Creates a key from key material.
    pub(super) fn new(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Generates a key that exists in this process only.
    pub fn generate() -> Result<Self, RandomError> {
        Ok(Self::new(&Zeroizing::new(random::<32>()?)))
    }

    /// Computes the tag of `message` in `context`. The length of the context comes first, so that
    /// no other split of the same bytes has this tag.
    #[must_use]
    pub fn tag(&self, context: &str, message: &[u8]) -> [u8; 32] {
        let mut mac = hmac::Context::with_key(&self.0);
        mac.update(&(context.len() as u64).to_be_bytes());
        mac.update(context.as_bytes());
        mac.update(message);
        let mut out = [0; 32];
        out.copy_from_slice(mac.sign().as_ref());
        out
    }

    /// Whether `tag` is a prefix of the tag of `message` in `context`, compared in constant time.
    ///
    /// A prefix of less than 16 bytes is invalid (RFC 2104 section 5 asks for 10 or more).
    #[must_use]
    pub fn verify_prefix(&self, context: &str, message: &[u8], tag: &[u8]) -> bool {
        let expected = self.tag(context, message);
        match expected.get(..tag.len()) {
            Some(expected) if tag.len() >= 16 => {
                aws_lc_rs::constant_time::verify_slices_are_equal(expected, tag).is_ok()
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    #[test]
    fn mac_depends_on_key_context_and_message() {
        let key = |first: u8| MacKey::from_base64(&STANDARD.encode((first..first + 32).collect::<Vec<_>>()));
        let other = key(64).unwrap();
        let key = key(0).unwrap();
        let tag = key.tag("a", b"bc");
        assert!(key.verify_prefix("a", b"bc", &tag));
        assert!(key.verify_prefix("a", b"bc", &tag[..16]));
        assert!(!key.verify_prefix("ab", b"c", &tag));
        assert!(!key.verify_prefix("a", b"bd", &tag));
        assert!(!other.verify_prefix("a", b"bc", &tag));
        assert!(!key.verify_prefix("a", b"bc", &tag[..15]));
        assert!(!key.verify_prefix("a", b"bc", &[]));
    }
}
