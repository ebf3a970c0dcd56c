//! Opaque, authenticated page cursors.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    crypto::MacKey,
    domain::TenantId,
    problem::{Kind, Problem},
};

/// Bytes of the tag that are kept: 128 bits are beyond guessing.
const TAG: usize = 16;

/// The place after which a page begins, as text for the caller: position and tag, base64url.
///
/// The tag covers the list and the tenant too: a cursor of one list or tenant is none of another.
pub(super) fn seal(key: &MacKey, list: &str, tenant: TenantId, position: &str) -> String {
    let tag = key.tag(&context(list, tenant), position.as_bytes());
    let mut bytes = tag.into_iter().take(TAG).collect::<Vec<u8>>();
    bytes.extend_from_slice(position.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The position in a cursor that [`seal`] made for this list and tenant.
pub(super) fn open(key: &MacKey, list: &str, tenant: TenantId, cursor: &str) -> Result<String, Problem> {
    let invalid = || Problem::new(Kind::InvalidInput).at("cursor", "invalid");
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| invalid())?;
    let (tag, position) = bytes.split_at_checked(TAG).ok_or_else(invalid)?;
    if !key.verify_prefix(&context(list, tenant), position, tag) {
        return Err(invalid());
    }
    String::from_utf8(position.to_vec()).map_err(|_| invalid())
}

fn context(list: &str, tenant: TenantId) -> String {
    format!("cursor {list} {tenant}")
}
