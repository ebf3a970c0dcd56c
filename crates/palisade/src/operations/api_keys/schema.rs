//! Schemas of API keys, and the conversion from the domain.
//!
//! [`ApiKeyView::key`] is the only field that ever holds a secret; stored responses and lists leave
//! it out.

use chrono::{DateTime, Utc};
use poem_openapi::{Object, types::Example};
use uuid::Uuid;

use crate::{
    authz::{Scope, policy::AUDIT_READ},
    http::{
        text::{Text, formats},
        values::KeyScope,
    },
    model::{ApiKey, ApiKeyId},
};

/// API key to create.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct NewApiKey {
    /// Display name, 1 to 200 characters, such as the program that uses the key.
    pub(super) name: Text<formats::Name>,
    /// Scopes of the key, 1 to 32, each once. The caller must have all of them; the key never has
    /// more permissions than the caller.
    #[oai(validator(min_items = 1, max_items = 32, unique_items))]
    pub(super) scopes: Vec<KeyScope>,
    /// Lifetime in days, 1 to 365. The limit of the service may be lower (90 by default).
    #[oai(validator(minimum(value = "1"), maximum(value = "365")))]
    pub(super) valid_for_days: i64,
}

/// Lifetimes of the new and the old key in a rotation.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct ApiKeyRotation {
    /// Lifetime of the new key in days, 1 to 365. The limit of the service may be lower (90 by
    /// default).
    #[oai(validator(minimum(value = "1"), maximum(value = "365")))]
    pub(super) valid_for_days: i64,
    /// Hours for which the old key stays valid, 0 to 168, unless it expires earlier. Default 24.
    #[oai(default = "default_overlap", validator(minimum(value = "0"), maximum(value = "168")))]
    pub(super) overlap_hours: i64,
}

fn default_overlap() -> i64 {
    24
}

/// An API key, which acts for the caller that created it.
#[derive(Clone, Object)]
#[oai(rename_all = "camelCase", rename = "ApiKey")]
pub(super) struct ApiKeyView {
    /// API key id (UUIDv7, RFC 9562).
    pub(super) id: Uuid,
    /// Secret text of the key, for the `X-API-Key` header. Present only in the response that
    /// creates the key.
    #[oai(skip_serializing_if_is_none)]
    pub(super) key: Option<Text<formats::ApiKey>>,
    /// Display name.
    pub(super) name: Text<formats::Name>,
    /// Scopes of the key, at most 32.
    #[oai(validator(max_items = 32))]
    pub(super) scopes: Vec<KeyScope>,
    /// Subject of the caller that created the key. Its roles limit what the key may do.
    pub(super) created_by: Text<formats::Subject>,
    /// Id of the API key that this one replaced (UUID); absent if it replaced none.
    #[oai(skip_serializing_if_is_none)]
    pub(super) replaces: Option<Uuid>,
    /// Time of creation (RFC 3339, UTC).
    pub(super) created_at: DateTime<Utc>,
    /// Time from which the key is invalid (RFC 3339, UTC).
    pub(super) expires_at: DateTime<Utc>,
    /// Time of revocation (RFC 3339, UTC); absent if the key is not revoked.
    #[oai(skip_serializing_if_is_none)]
    pub(super) revoked_at: Option<DateTime<Utc>>,
    /// Time of the last use (RFC 3339, UTC), recorded every 30 seconds; absent if there was none.
    #[oai(skip_serializing_if_is_none)]
    pub(super) last_used_at: Option<DateTime<Utc>>,
}

/// One page of API keys, newest first.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct ApiKeyPage {
    /// API keys of the page, at most 100.
    #[oai(validator(max_items = 100))]
    pub(super) items: Vec<ApiKeyView>,
    /// Cursor of the next page, to send as `cursor`; `null` on the last page.
    #[oai(nullable)]
    pub(super) next_cursor: Option<Text<formats::Cursor>>,
}

impl ApiKeyView {
    /// The view without the secret. A stored scope that is not in `key_scopes` grants nothing and is
    /// left out.
    pub(super) fn new(key: ApiKey, key_scopes: &[Scope]) -> Self {
        let is_known = |name: &String| key_scopes.iter().any(|scope| scope.as_str() == name);
        Self {
            id: key.id.uuid(),
            key: None,
            name: key.name.as_str().into(),
            scopes: key.scopes.into_iter().filter(is_known).map(KeyScope).collect(),
            created_by: key.created_by.into(),
            replaces: key.replaces.map(ApiKeyId::uuid),
            created_at: key.created_at,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            last_used_at: key.last_used_at,
        }
    }
}

impl Example for NewApiKey {
    fn example() -> Self {
        // The only scope for API keys that every service has.
        let scopes = vec![KeyScope(AUDIT_READ.as_str().to_owned())];
        Self { name: "audit export, production".into(), scopes, valid_for_days: 30 }
    }
}

impl Example for ApiKeyRotation {
    fn example() -> Self {
        Self { valid_for_days: 30, overlap_hours: 24 }
    }
}
