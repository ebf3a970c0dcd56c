//! The text of an API key: `<service>_<id>_<secret><checksum>`.
//!
//! `<service>` is the package's name, its letters and digits; `<id>` 44 characters (tenant and key); `<secret>` 44
//! characters (256 random bits); `<checksum>` 6 characters, the first four bytes of the SHA-256 of all before. The
//! numbers are in base 62, so a double click selects a key whole. Scanners of secrets find keys by the pattern and know
//! a real one by the checksum, and so does this service, without asking anybody.

use std::sync::LazyLock;

use secrecy::SecretString;
use uuid::Uuid;

use super::Refused;
use crate::{
    crypto::{self, BASE62_CHARS, RandomError, base62, from_base62},
    domain::{ApiKeyId, TenantId},
};

const CHECKSUM_CHARS: usize = 6;
const SECRET_CHARS: usize = 2 * BASE62_CHARS;

/// What every key begins with.
static PREFIX: LazyLock<String> = LazyLock::new(|| {
    let name = env!("CARGO_PKG_NAME").chars().filter(char::is_ascii_alphanumeric);
    format!("{}_", name.collect::<String>().to_ascii_lowercase())
});

/// What a key's text says. Only a hash of its secret can tell whether it is one.
pub(super) struct KeyText<'t> {
    pub(super) tenant: TenantId,
    pub(super) id: ApiKeyId,
    pub(super) secret: &'t str,
}

/// A new key's text, and the part of it that is its secret.
pub(super) fn issue(tenant: TenantId, id: ApiKeyId) -> Result<(SecretString, SecretString), RandomError> {
    let half = || crypto::random().map(u128::from_be_bytes).map(base62);
    let secret = format!("{}{}", half()?, half()?);
    let (tenant, id) = (base62(tenant.uuid().as_u128()), base62(id.uuid().as_u128()));
    let text = format!("{}{tenant}{id}_{secret}", *PREFIX);
    let checksum = checksum(&text);
    Ok((SecretString::from(format!("{text}{checksum}")), secret.into()))
}

/// Reads a text that could be a key's.
pub(super) fn parse(text: &str) -> Result<KeyText<'_>, Refused> {
    read(text).ok_or(Refused::ApiKeyFormat)
}

fn read(text: &str) -> Option<KeyText<'_>> {
    let (unchecked, sum) = text.split_at_checked(text.len().checked_sub(CHECKSUM_CHARS)?)?;
    if checksum(unchecked) != sum {
        return None;
    }
    let (id, secret) = unchecked.strip_prefix(PREFIX.as_str())?.split_once('_')?;
    let (tenant, id) = id.split_at_checked(BASE62_CHARS)?;
    let uuid = |text: &str| from_base62(text).map(Uuid::from_u128);
    if secret.len() != SECRET_CHARS || !secret.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    Some(KeyText { tenant: TenantId::from_uuid(uuid(tenant)?), id: ApiKeyId::from_uuid(uuid(id)?), secret })
}

/// The id that an API key is named by: a UUID, or the part of the key's text that says it.
pub(crate) fn api_key_id(name: &str) -> Option<ApiKeyId> {
    let of_text = || Some(Uuid::from_u128(from_base62(name.split_at_checked(BASE62_CHARS)?.1)?));
    let of_text = if name.len() == 2 * BASE62_CHARS { of_text() } else { None };
    of_text.or_else(|| name.parse().ok()).map(ApiKeyId::from_uuid)
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
    fn authn_12_a_text_is_read_back_and_no_other_is() {
        let (tenant, id) = (TenantId::from_uuid(Uuid::now_v7()), ApiKeyId::generate());
        let (text, secret) = issue(tenant, id).unwrap();
        let text = text.expose_secret();
        let read = parse(text).ok().unwrap();
        assert_eq!((read.tenant, read.id, read.secret), (tenant, id, secret.expose_secret()));
        for place in 0..text.len() {
            let mut changed = text.as_bytes().to_vec();
            changed[place] = if changed[place] == b'0' { b'1' } else { b'0' };
            assert!(parse(str::from_utf8(&changed).unwrap()).is_err(), "{place}");
        }
        for text in ["", "x", "______", &text[1..], &text[..text.len() - 1], &format!("{text}0"), "é"] {
            assert!(parse(text).is_err(), "{text}");
        }
        // The checksum is anybody's to make: what it stands on is read as strictly.
        for unchecked in [
            format!("{}{}_{}", *PREFIX, "z".repeat(44), "A".repeat(44)),
            format!("{}{}_{}", *PREFIX, "0".repeat(43), "A".repeat(44)),
            format!("{}{}_{}", *PREFIX, "0".repeat(44), "A".repeat(43)),
            format!("{}{}_{}", *PREFIX, "0".repeat(44), "-".repeat(44)),
            format!("{}{}{}", *PREFIX, "0".repeat(44), "A".repeat(44)),
            format!("other_{}_{}", "0".repeat(44), "A".repeat(44)),
        ] {
            assert!(parse(&format!("{unchecked}{}", checksum(&unchecked))).is_err(), "{unchecked}");
        }
        let (other, _) = issue(tenant, id).unwrap();
        assert_ne!(other.expose_secret(), text);
    }

    #[test]
    fn authn_11_a_key_is_named_by_its_id_or_by_what_its_text_says_of_it() {
        let (tenant, id) = (TenantId::from_uuid(Uuid::now_v7()), ApiKeyId::generate());
        let (text, _) = issue(tenant, id).unwrap();
        let named = text.expose_secret().split('_').nth(1).unwrap();
        assert_eq!(api_key_id(named), Some(id));
        assert_eq!(api_key_id(&id.to_string()), Some(id));
        for other in ["", &named[1..], &named[BASE62_CHARS..], &format!("{named}0"), text.expose_secret()] {
            assert_eq!(api_key_id(other), None, "{other}");
        }
    }
}
