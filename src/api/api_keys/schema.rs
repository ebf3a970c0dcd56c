use chrono::{DateTime, Utc};
use poem_openapi::{Object, types::Example};
use uuid::Uuid;

use crate::{
    api::{
        text::{Text, form},
        values::KeyScope,
    },
    authz::matrix::Scope,
    domain::{ApiKey, ApiKeyId},
};

/// An API key to make.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct NewApiKey {
    /// For people: what it is used for, and where.
    pub(super) name: Text<form::Name>,
    /// What it may do: scopes that the caller has, each once. It never can do more than its maker.
    #[oai(validator(min_items = 1, max_items = 32, unique_items))]
    pub(super) scopes: Vec<KeyScope>,
    /// After so many days it ends. The service may allow fewer than 365.
    #[oai(validator(minimum(value = "1"), maximum(value = "365")))]
    pub(super) valid_for_days: i64,
}

/// How an API key is to be replaced.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct ApiKeyRotation {
    /// After so many days the new key ends. The service may allow fewer than 365.
    #[oai(validator(minimum(value = "1"), maximum(value = "365")))]
    pub(super) valid_for_days: i64,
    /// For so many hours the old key goes on, unless it ends earlier.
    #[oai(default = "default_overlap", validator(minimum(value = "0"), maximum(value = "168")))]
    pub(super) overlap_hours: i64,
}

fn default_overlap() -> i64 {
    24
}

/// An API key.
#[derive(Clone, Object)]
#[oai(rename_all = "camelCase", rename = "ApiKey")]
pub(super) struct ApiKeyView {
    /// Its identifier, a `UUIDv7`.
    pub(super) id: Uuid,
    /// The key itself, for the `X-API-Key` header. Shown once, to whoever made it: here and never again.
    #[oai(skip_serializing_if_is_none)]
    pub(super) key: Option<Text<form::ApiKey>>,
    /// For people.
    pub(super) name: Text<form::Name>,
    /// What it may do.
    #[oai(validator(max_items = 32))]
    pub(super) scopes: Vec<KeyScope>,
    /// The `sub` of who made it.
    pub(super) created_by: Text<form::Subject>,
    /// The key it was made to take the place of.
    #[oai(skip_serializing_if_is_none)]
    pub(super) replaces: Option<Uuid>,
    /// When it was made.
    pub(super) created_at: DateTime<Utc>,
    /// When it ends by itself.
    pub(super) expires_at: DateTime<Utc>,
    /// When it was revoked.
    #[oai(skip_serializing_if_is_none)]
    pub(super) revoked_at: Option<DateTime<Utc>>,
    /// When it was used last, to within half a minute.
    #[oai(skip_serializing_if_is_none)]
    pub(super) last_used_at: Option<DateTime<Utc>>,
}

/// One page of API keys, newest first.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct ApiKeyPage {
    /// The keys of the page.
    #[oai(validator(max_items = 100))]
    pub(super) items: Vec<ApiKeyView>,
    /// What to send as `cursor` for the next page; null on the last.
    #[oai(nullable)]
    pub(super) next_cursor: Option<Text<form::Cursor>>,
}

impl From<ApiKey> for ApiKeyView {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id.uuid(),
            key: None,
            name: key.name.as_str().into(),
            // One that there is no more gives nothing.
            scopes: key.scopes.iter().filter_map(|name| name.parse().ok()).filter_map(KeyScope::of).collect(),
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
        let scopes = [Scope::OrdersRead, Scope::OrdersWrite].into_iter().filter_map(KeyScope::of).collect();
        Self { name: "shop, production".into(), scopes, valid_for_days: 30 }
    }
}

impl Example for ApiKeyRotation {
    fn example() -> Self {
        Self { valid_for_days: 30, overlap_hours: 24 }
    }
}
