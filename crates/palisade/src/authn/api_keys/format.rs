//! Text format of API keys: `<service>_<id>_<secret><checksum>` (AUTHN-12).
//!
//! - `<service>`: the letters and digits of the package name. It is the prefix for secret scanners.
//! - `<id>`: 44 characters, the UUIDs of the tenant and of the API key.
//! - `<secret>`: 44 characters, 256 random bits.
//! - `<checksum>`: 6 characters, the first four bytes of the SHA-256 of all text before it. Secret
//!   scanners and this service identify real keys by it, without a database query.
//!
//! Numbers are in base 62, so a double click selects the whole key.

use std::sync::LazyLock;

use secrecy::SecretString;
use uuid::Uuid;

use crate::{
    authn::RejectReason,
    crypto::{self, BASE62_CHARS, RandomError, base62, from_base62},
    model::{ApiKeyId, TenantId},
    package,
};

/// Lengths in characters.
const CHECKSUM_CHARS: usize = 6;
const SECRET_CHARS: usize = 2 * BASE62_CHARS;

/// The prefix of every API key, with its `_`.
static PREFIX: LazyLock<String> = LazyLock::new(|| {
    let name = package::name().chars().filter(char::is_ascii_alphanumeric);
    format!("{}_", name.collect::<String>().to_ascii_lowercase())
});

/// A parsed API key. It is not verified until its secret is compared with the stored hash.
pub(super) struct ApiKeyText<'t> {
    pub(super) tenant: TenantId,
    pub(super) id: ApiKeyId,
    pub(super) secret: &'t str,
}

/// Generates a new API key. Returns its text and the secret within it.
pub(super) fn generate(tenant: TenantId, id: ApiKeyId) -> Result<(SecretString, SecretString), RandomError> {
    let random_half = || crypto::random().map(u128::from_be_bytes).map(base62);
    let secret = format!("{}{}", random_half()?, random_half()?);
    let tenant = base62(tenant.uuid().as_u128());
    let id = base62(id.uuid().as_u128());
    let text = format!("{}{tenant}{id}_{secret}", *PREFIX);
    let checksum = checksum(&text);
    Ok((SecretString::from(format!("{text}{checksum}")), secret.into()))
}

/// Parses an API key and checks its checksum.
pub(super) fn parse(text: &str) -> Result<ApiKeyText<'_>, RejectReason> {
    try_parse(text).ok_or(RejectReason::ApiKeyFormat)
}

fn try_parse(text: &str) -> Option<ApiKeyText<'_>> {
    let (payload, sum) = text.split_at_checked(text.len().checked_sub(CHECKSUM_CHARS)?)?;
    if checksum(payload) != sum {
        return None;
    }
    let (id, secret) = payload.strip_prefix(PREFIX.as_str())?.split_once('_')?;
    let (tenant, id) = id.split_at_checked(BASE62_CHARS)?;
    let uuid = |text: &str| from_base62(text).map(Uuid::from_u128);
    if secret.len() != SECRET_CHARS || !secret.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    Some(ApiKeyText { tenant: TenantId::from_uuid(uuid(tenant)?), id: ApiKeyId::from_uuid(uuid(id)?), secret })
}

/// Parses the id of an API key: a UUID, or the `<id>` part of the key's text.
pub(super) fn parse_id(text: &str) -> Option<ApiKeyId> {
    let uuid = match text.split_at_checked(BASE62_CHARS) {
        Some((_tenant, id)) if id.len() == BASE62_CHARS => from_base62(id).map(Uuid::from_u128),
        _ => text.parse().ok(),
    };
    uuid.map(ApiKeyId::from_uuid)
}

fn checksum(text: &str) -> String {
    let [a, b, c, d, ..] = crypto::sha256(text.as_bytes());
    let digits = base62(u128::from(u32::from_be_bytes([a, b, c, d])));
    digits.chars().skip(BASE62_CHARS - CHECKSUM_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn authn_12_api_key_text_round_trips_and_every_change_is_rejected() {
        let tenant = TenantId::from_uuid(Uuid::now_v7());
        let id = ApiKeyId::generate();
        let (text, secret) = generate(tenant, id).unwrap();
        let text = text.expose_secret();
        let parsed = parse(text).ok().unwrap();
        assert_eq!((parsed.tenant, parsed.id, parsed.secret), (tenant, id, secret.expose_secret()));
        for index in 0..text.len() {
            let mut changed = text.as_bytes().to_vec();
            changed[index] = if changed[index] == b'0' { b'1' } else { b'0' };
            assert!(parse(str::from_utf8(&changed).unwrap()).is_err(), "{index}");
        }
        for text in ["", "x", "______", &text[1..], &text[..text.len() - 1], &format!("{text}0"), "é"] {
            assert!(parse(text).is_err(), "{text}");
        }
        // An attacker can compute a checksum, so the text before it is parsed strictly too.
        for payload in [
            format!("{}{}_{}", *PREFIX, "z".repeat(44), "A".repeat(44)),
            format!("{}{}_{}", *PREFIX, "0".repeat(43), "A".repeat(44)),
            format!("{}{}_{}", *PREFIX, "0".repeat(44), "A".repeat(43)),
            format!("{}{}_{}", *PREFIX, "0".repeat(44), "-".repeat(44)),
            format!("{}{}{}", *PREFIX, "0".repeat(44), "A".repeat(44)),
            format!("other_{}_{}", "0".repeat(44), "A".repeat(44)),
        ] {
            assert!(parse(&format!("{payload}{}", checksum(&payload))).is_err(), "{payload}");
        }
        let (other, _) = generate(tenant, id).unwrap();
        assert_ne!(other.expose_secret(), text);
    }

    #[test]
    fn authn_11_api_key_id_is_parsed_from_uuid_or_key_text() {
        let id = ApiKeyId::generate();
        let (text, _) = generate(TenantId::from_uuid(Uuid::now_v7()), id).unwrap();
        let id_part = text.expose_secret().split('_').nth(1).unwrap();
        assert_eq!(parse_id(id_part), Some(id));
        assert_eq!(parse_id(&id.to_string()), Some(id));
        for other in ["", &id_part[1..], &id_part[BASE62_CHARS..], &format!("{id_part}0"), text.expose_secret()] {
            assert_eq!(parse_id(other), None, "{other}");
        }
    }
}
