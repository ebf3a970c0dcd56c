//! Lists in pages, walked by opaque, authenticated cursors.

use std::str::FromStr;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::text::{Text, form};
use crate::{
    crypto::MacKey,
    domain::TenantId,
    problem::{Kind, Problem},
};

/// Bytes of the tag that are kept: 128 bits are beyond guessing.
const TAG: usize = 16;

/// Items on a page if the caller does not say.
pub(super) fn default_limit() -> i64 {
    20
}

/// One page of one tenant's list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paging<'a> {
    key: &'a MacKey,
    list: &'static str,
    tenant: TenantId,
    limit: i64,
}

impl<'a> Paging<'a> {
    /// `limit` is what the schema allows: 1 to 100.
    pub(super) fn new(key: &'a MacKey, list: &'static str, tenant: TenantId, limit: i64) -> Self {
        Self { key, list, tenant, limit }
    }

    /// How many items to read: one more than the page holds, to know whether there is another page.
    pub(super) fn read_ahead(&self) -> i64 {
        self.limit.saturating_add(1)
    }

    /// Cuts what was read to the page, and gives the cursor of the next one, if there is any.
    pub(super) fn cut<T>(&self, items: &mut Vec<T>, position: impl Fn(&T) -> String) -> Option<Text<form::Cursor>> {
        let page = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = items.len() > page;
        items.truncate(page);
        items.last().filter(|_| more).map(|last| self.seal(&position(last)))
    }

    /// The position after which the page begins: tag and text, base64url.
    ///
    /// The tag covers the list and the tenant too: a cursor of one list or tenant is none of another.
    fn seal(&self, position: &str) -> Text<form::Cursor> {
        let tag = self.key.tag(&self.context(), position.as_bytes());
        let mut bytes = tag.into_iter().take(TAG).collect::<Vec<u8>>();
        bytes.extend_from_slice(position.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes).into()
    }

    /// The position in a cursor that was made here for this list and tenant.
    pub(super) fn open<P: FromStr>(&self, cursor: Option<&str>) -> Result<Option<P>, Problem> {
        let Some(cursor) = cursor else { return Ok(None) };
        let invalid = || Problem::new(Kind::Unprocessable).at("cursor", "invalid");
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| invalid())?;
        let (tag, position) = bytes.split_at_checked(TAG).ok_or_else(invalid)?;
        if !self.key.verify_prefix(&self.context(), position, tag) {
            return Err(invalid());
        }
        let position = str::from_utf8(position).map_err(|_| invalid())?;
        position.parse().map(Some).map_err(|_| invalid())
    }

    fn context(&self) -> String {
        format!("cursor {} {}", self.list, self.tenant)
    }
}
