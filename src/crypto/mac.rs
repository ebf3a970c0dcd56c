use aws_lc_rs::hmac;

use super::{KeyTextError, RandomError, key_bytes, random};

/// A key for HMAC-SHA-256 (RFC 2104): proves that a text the caller hands back came from here.
#[derive(Clone)]
pub struct MacKey(hmac::Key);

impl MacKey {
    /// Reads 32 random bytes of base64.
    pub fn from_base64(text: &str) -> Result<Self, KeyTextError> {
        Ok(Self::new(&key_bytes(text)?))
    }

    /// A key of these bytes.
    pub(super) fn new(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// A new one, which ends with this process.
    pub fn generate() -> Result<Self, RandomError> {
        Ok(Self::new(&random::<32>()?))
    }

    /// The tag of `message` in `context`. The context keeps a tag made for one use from being valid in another.
    #[must_use]
    pub fn tag(&self, context: &str, message: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(hmac::sign(&self.0, &framed(context, message)).as_ref());
        out
    }

    /// Whether `tag` is the beginning of the tag of `message` in `context`, in constant time.
    /// At least 16 bytes are needed (RFC 2104 section 5 asks for 10 or more).
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

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey(…)")
    }
}

/// Context and message in a form that cannot be read in two ways.
fn framed(context: &str, message: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(8 + context.len() + message.len());
    framed.extend_from_slice(&(context.len() as u64).to_be_bytes());
    framed.extend_from_slice(context.as_bytes());
    framed.extend_from_slice(message);
    framed
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    #[test]
    fn a_tag_is_bound_to_key_context_and_message() {
        let key = |first: u8| MacKey::from_base64(&STANDARD.encode((first..first + 32).collect::<Vec<_>>()));
        let (key, other) = (key(0).unwrap(), key(64).unwrap());
        let tag = key.tag("a", b"bc");
        assert!(key.verify_prefix("a", b"bc", &tag));
        assert!(key.verify_prefix("a", b"bc", &tag[..16]));
        assert!(!key.verify_prefix("ab", b"c", &tag));
        assert!(!key.verify_prefix("a", b"bd", &tag));
        assert!(!other.verify_prefix("a", b"bc", &tag));
        assert!(!key.verify_prefix("a", b"bc", &tag[..15]));
        assert!(!key.verify_prefix("a", b"bc", &[]));
    }

    #[test]
    fn a_key_that_cannot_be_random_is_refused() {
        for bad in ["", "c2hvcnQ=", "!!", &STANDARD.encode([0; 32]), &STANDARD.encode([7; 33])] {
            assert!(MacKey::from_base64(bad).is_err(), "{bad:?}");
        }
    }
}
