//! Keyset pagination with opaque, authenticated cursors.
//!
//! List operations read one item more than a page holds. A cursor is the position of the page's
//! last item with an HMAC tag over list, tenant and position, so that callers cannot forge
//! positions. Home of AUTHZ-03 for cursors: another tenant's cursor is an invalid one (422).

use std::str::FromStr;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::text::{Text, formats};
use crate::{
    crypto::MacKey,
    model::TenantId,
    problem::{Kind, Problem},
};

/// Bytes of the tag in a cursor: 128 bits cannot be guessed.
const TAG_BYTES: usize = 16;

/// Page size if the caller sends no `limit`.
#[must_use]
pub fn default_limit() -> i64 {
    20
}

/// One page of one tenant's list.
#[derive(Clone, Copy, Debug)]
pub struct Paging<'a> {
    key: &'a MacKey,
    list: &'static str,
    tenant: TenantId,
    limit: i64,
}

impl<'a> Paging<'a> {
    /// A page of `list`. Its `limit` is 1 to 100; the schema of the parameter checks it.
    #[must_use]
    pub fn new(key: &'a MacKey, list: &'static str, tenant: TenantId, limit: i64) -> Self {
        Self { key, list, tenant, limit }
    }

    /// Number of items to read: one more than the page holds, to learn whether a next page exists.
    #[must_use]
    pub fn read_ahead(&self) -> i64 {
        self.limit.saturating_add(1)
    }

    /// Truncates the items to the page. Returns the cursor of the next page, if there is one.
    pub fn cut<T>(&self, items: &mut Vec<T>, position: impl Fn(&T) -> String) -> Option<Text<formats::Cursor>> {
        let page_size = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let has_next = items.len() > page_size;
        items.truncate(page_size);
        items.last().filter(|_| has_next).map(|last| self.encode(&position(last)))
    }

    /// Encodes a position as a cursor: base64url of tag and position.
    ///
    /// The tag covers the list and the tenant: a cursor is invalid for another list or tenant.
    fn encode(&self, position: &str) -> Text<formats::Cursor> {
        let tag = self.key.tag(&self.tag_context(), position.as_bytes());
        let mut bytes = tag.into_iter().take(TAG_BYTES).collect::<Vec<u8>>();
        bytes.extend_from_slice(position.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes).into()
    }

    /// Decodes a cursor of this list and tenant. The page begins after the returned position.
    pub fn open<P: FromStr>(&self, cursor: Option<&str>) -> Result<Option<P>, Problem> {
        let Some(cursor) = cursor else { return Ok(None) };
        let invalid = || Problem::new(Kind::Unprocessable).at("cursor", "invalid");
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| invalid())?;
        let (tag, position) = bytes.split_at_checked(TAG_BYTES).ok_or_else(invalid)?;
        if !self.key.verify_prefix(&self.tag_context(), position, tag) {
            return Err(invalid());
        }
        let position = str::from_utf8(position).map_err(|_| invalid())?;
        position.parse().map(Some).map_err(|_| invalid())
    }

    fn tag_context(&self) -> String {
        format!("cursor {} {}", self.list, self.tenant)
    }
}
