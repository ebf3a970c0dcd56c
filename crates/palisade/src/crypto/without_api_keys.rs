//! Stands in for `secret_hash.rs` without the feature `api_keys`: there is no [`Pepper`].

use super::InvalidKeyText;

/// There is no pepper.
#[derive(Clone, Debug)]
pub enum Pepper {}

/// No secret is hashed.
#[derive(Debug)]
pub enum SecretHashError {}

impl Pepper {
    /// Rejects every text. The settings have no row of a pepper.
    pub fn from_base64(_: &str) -> Result<Self, InvalidKeyText> {
        Err(InvalidKeyText("needs the feature `api_keys` of palisade"))
    }
}
