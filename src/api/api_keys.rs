use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use poem::Result;
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Header, Path, Query},
    payload::Json,
    types::Example,
};
use secrecy::ExposeSecret;
use uuid::Uuid;

use super::{Context, Tag, changed, created::Created, faults::Faults, paging::Paging, strict_json::StrictJson};
use crate::{
    authn::{AuthnError, Principal},
    authz::{
        Change, Permit,
        actions::{CreateApiKey, ListApiKeys, RevokeApiKey, RotateApiKey},
        matrix::Scope,
    },
    domain::{ApiKey, ApiKeyId, Name, TenantId},
    problem::{Kind, Problem},
    store::{KeyedRequest, Position},
};

pub(super) struct ApiKeys(pub(super) Arc<Context>);

/// An API key to make.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", example)]
struct NewApiKey {
    /// For people: what it is used for, and where.
    #[oai(validator(min_length = 1, max_length = 200))]
    name: String,
    /// What it may do: scopes that the caller has, and that are for API keys. It never can do more than its maker.
    #[oai(validator(min_items = 1, max_items = 32, max_length = 64, pattern = "^[a-z]+:[a-z]+$"))]
    scopes: Vec<String>,
    /// After so many days it ends. The service may allow fewer than 365.
    #[oai(validator(minimum(value = "1"), maximum(value = "365")))]
    valid_for_days: i64,
}

/// How an API key is to be replaced.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", example)]
struct ApiKeyRotation {
    /// After so many days the new key ends. The service may allow fewer than 365.
    #[oai(validator(minimum(value = "1"), maximum(value = "365")))]
    valid_for_days: i64,
    /// For so many hours the old key goes on, unless it ends earlier.
    #[oai(default = "default_overlap", validator(minimum(value = "0"), maximum(value = "168")))]
    overlap_hours: i64,
}

fn default_overlap() -> i64 {
    24
}

/// An API key.
#[derive(Clone, Object)]
#[oai(rename_all = "camelCase", rename = "ApiKey")]
struct ApiKeyView {
    /// Its identifier, a `UUIDv7`.
    id: Uuid,
    /// The key itself, for the `X-API-Key` header. Shown once, to whoever made it: here and never again.
    #[oai(skip_serializing_if_is_none, validator(max_length = 200))]
    key: Option<String>,
    /// For people.
    #[oai(validator(max_length = 200))]
    name: String,
    /// What it may do.
    #[oai(validator(max_items = 32))]
    scopes: Vec<String>,
    /// The `sub` of who made it.
    #[oai(validator(max_length = 255))]
    created_by: String,
    /// The key it was made to take the place of.
    #[oai(skip_serializing_if_is_none)]
    replaces: Option<Uuid>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it ends by itself.
    expires_at: DateTime<Utc>,
    /// When it was revoked.
    #[oai(skip_serializing_if_is_none)]
    revoked_at: Option<DateTime<Utc>>,
    /// When it was used last, to within half a minute.
    #[oai(skip_serializing_if_is_none)]
    last_used_at: Option<DateTime<Utc>>,
}

/// One page of API keys, newest first.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct ApiKeyPage {
    /// The keys of the page.
    #[oai(validator(max_items = 100))]
    items: Vec<ApiKeyView>,
    /// What to send as `cursor` for the next page; null on the last.
    #[oai(nullable, validator(max_length = 512))]
    next_cursor: Option<String>,
}

#[derive(ApiResponse)]
enum Revoked {
    /// It opens nothing any more.
    #[oai(status = 204)]
    NoContent,
}

#[OpenApi(tag = "Tag::Keys")]
impl ApiKeys {
    /// Make an API key
    ///
    /// The answer is the only place where the key is ever shown; a repetition of the request does not show it again.
    #[oai(path = "/v1/api-keys", method = "post", operation_id = "createApiKey")]
    async fn create(
        &self,
        permit: Permit<CreateApiKey>,
        /// Makes a repetition of the request safe: the work is done once, and the answer is the same but for the key.
        #[oai(name = "Idempotency-Key", validator(min_length = 1, max_length = 255, pattern = "^[!-~]+$"))]
        key: Header<Option<String>>,
        body: StrictJson<NewApiKey>,
    ) -> Result<Created<ApiKeyView>> {
        let request = self.0.keyed::<CreateApiKey>(key.0, None, &body.canonical);
        let NewApiKey { name, scopes, valid_for_days } = body.value;
        let name = self.parse(&name, valid_for_days)?;
        check_scopes(permit.principal(), &scopes)?;
        if let Some(request) = &request
            && let Some(earlier) = self.earlier(&permit, request).await?
        {
            return Ok(earlier);
        }
        let new = self.new_key(ApiKeyId::generate(), permit.principal(), name, scopes, valid_for_days, None);
        // Before the transaction: hashing takes long enough to keep a connection from others.
        let (text, hash) = self.issue(new.tenant, new.id).await?;
        let mut tx = self.0.database.write(&permit).await?;
        if let Some(request) = &request
            && let Some(earlier) = Created::earlier(tx.earlier_answer(&permit, request).await?)?
        {
            return Ok(earlier);
        }
        tx.add_api_key(&permit, &new, &hash).await?;
        let view = ApiKeyView::from(new);
        if let Some(request) = &request {
            tx.store_answer(&permit, request, &created(view.clone()).answer()).await?;
        }
        tx.commit().await?;
        changed(&permit, view.id);
        Ok(created(ApiKeyView { key: Some(text), ..view }))
    }

    /// List API keys
    ///
    /// All of the tenant's, those too that ended. Never the keys themselves, nor anything they could be found by.
    #[oai(path = "/v1/api-keys", method = "get", operation_id = "listApiKeys")]
    async fn list(
        &self,
        permit: Permit<ListApiKeys>,
        /// Most items on the page.
        #[oai(default = "super::paging::default_limit", validator(minimum(value = "1"), maximum(value = "100")))]
        limit: Query<i64>,
        /// `nextCursor` of the page before.
        #[oai(validator(min_length = 1, max_length = 512, pattern = "^[A-Za-z0-9_-]+$"))]
        cursor: Query<Option<String>>,
    ) -> Result<Json<ApiKeyPage>> {
        let paging = Paging::new(&self.0.mac_key, "api-keys", permit.tenant(), limit.0);
        let from = paging.open(cursor.0.as_deref())?.unwrap_or_else(Position::start);
        let mut tx = self.0.database.read(&permit).await?;
        let mut keys = tx.api_keys(from, paging.read_ahead()).await?;
        let position = |key: &ApiKey| Position { at: key.created_at, id: key.id.uuid() };
        let next_cursor = paging.cut(&mut keys, |key| position(key).to_string());
        Ok(Json(ApiKeyPage { items: keys.into_iter().map(ApiKeyView::from).collect(), next_cursor }))
    }

    /// Replace an API key
    ///
    /// Makes a new key with the name and scopes of the old one, which goes on for a while, so that whoever uses
    /// it can change over. The new one is the caller's: it never can do more than they may.
    #[oai(path = "/v1/api-keys/:id/rotate", method = "post", operation_id = "rotateApiKey")]
    async fn rotate(
        &self,
        permit: Permit<RotateApiKey>,
        /// Makes a repetition of the request safe: the work is done once, and the answer is the same but for the key.
        #[oai(name = "Idempotency-Key", validator(min_length = 1, max_length = 255, pattern = "^[!-~]+$"))]
        key: Header<Option<String>>,
        id: Path<Uuid>,
        body: StrictJson<ApiKeyRotation>,
    ) -> Result<Created<ApiKeyView>> {
        let request = self.0.keyed::<RotateApiKey>(key.0, Some(id.0), &body.canonical);
        self.check_days(body.value.valid_for_days)?;
        if let Some(request) = &request
            && let Some(earlier) = self.earlier(&permit, request).await?
        {
            return Ok(earlier);
        }
        let new_id = ApiKeyId::generate();
        let (text, hash) = self.issue(permit.tenant(), new_id).await?;
        let mut tx = self.0.database.write(&permit).await?;
        if let Some(request) = &request
            && let Some(earlier) = Created::earlier(tx.earlier_answer(&permit, request).await?)?
        {
            return Ok(earlier);
        }
        let found = tx.lock_api_key(ApiKeyId::from_uuid(id.0)).await?;
        let old = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let narrowed = permit.narrow(&old)?;
        let now = self.0.clock.now();
        if !old.is_live(now) {
            return Err(Problem::new(Kind::Conflict).into());
        }
        if check_scopes(permit.principal(), &old.scopes).is_err() {
            return Err(Problem::new(Kind::Forbidden).detail("The key has scopes that you do not have.").into());
        }
        let days = body.value.valid_for_days;
        let new = self.new_key(new_id, permit.principal(), old.name, old.scopes, days, Some(old.id));
        tx.add_api_key(&permit, &new, &hash).await?;
        tx.end_api_key(&narrowed, now + hours(body.value.overlap_hours)).await?;
        let view = ApiKeyView::from(new);
        if let Some(request) = &request {
            tx.store_answer(&permit, request, &created(view.clone()).answer()).await?;
        }
        tx.commit().await?;
        changed(&permit, view.id);
        self.learn().await;
        Ok(created(ApiKeyView { key: Some(text), ..view }))
    }

    /// Revoke an API key
    ///
    /// It opens nothing from now on, here at once and at every other replica within two seconds.
    #[oai(path = "/v1/api-keys/:id", method = "delete", operation_id = "revokeApiKey")]
    async fn revoke(&self, permit: Permit<RevokeApiKey>, id: Path<Uuid>) -> Result<Revoked> {
        let mut tx = self.0.database.write(&permit).await?;
        let found = tx.lock_api_key(ApiKeyId::from_uuid(id.0)).await?;
        let key = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let narrowed = permit.narrow(&key)?;
        tx.revoke_api_key(&narrowed, self.0.clock.now()).await?;
        tx.commit().await?;
        changed(&permit, key.id);
        self.learn().await;
        Ok(Revoked::NoContent)
    }
}

impl ApiKeys {
    /// What was answered to the same request before. Asked once more by the transaction that does the work; here it
    /// spares a hash.
    async fn earlier<A: Change>(
        &self,
        permit: &Permit<A>,
        request: &KeyedRequest,
    ) -> Result<Option<Created<ApiKeyView>>, Problem> {
        let mut statements = self.0.database.statements(permit).await?;
        Created::earlier(statements.earlier_answer(permit, request).await?)
    }

    /// Learns of the change here and now. It is made already: should this fail, it is learnt as at other replicas.
    async fn learn(&self) {
        if let Err(error) = self.0.authenticator.learn_revocations().await {
            tracing::warn!(%error, "a change of an API key is learnt later");
        }
    }

    /// The text of a new key and the hash of its secret.
    async fn issue(&self, tenant: TenantId, id: ApiKeyId) -> Result<(String, String), Problem> {
        let (text, hash) = self.0.authenticator.issue_key(tenant, id).await.map_err(|error| {
            tracing::warn!(%error, "no API key could be made");
            match error {
                AuthnError::Unavailable(_) => Problem::new(Kind::Unavailable),
                _ => Problem::new(Kind::Internal),
            }
        })?;
        Ok((text.expose_secret().to_owned(), hash))
    }

    fn parse(&self, name: &str, days: i64) -> Result<Name, Problem> {
        let mut faults = Faults::default();
        let name = faults.parse("/name", name);
        let days = faults.note("/validForDays", "too_large", self.check_days(days));
        faults.finish(days.and(name))
    }

    /// A key lives no longer than the service allows.
    fn check_days(&self, days: i64) -> Result<(), Problem> {
        if u64::try_from(days).is_ok_and(|days| days * 24 * 3_600 <= self.0.max_key_lifetime.as_secs()) {
            return Ok(());
        }
        Err(Problem::new(Kind::InvalidInput).at("/validForDays", "too_large"))
    }

    fn new_key(
        &self,
        id: ApiKeyId,
        maker: &Principal,
        name: Name,
        scopes: Vec<String>,
        days: i64,
        replaces: Option<ApiKeyId>,
    ) -> ApiKey {
        let now = self.0.clock.now();
        ApiKey {
            id,
            tenant: maker.tenant(),
            name,
            scopes,
            created_by: maker.subject().to_owned(),
            replaces,
            authorized_at: DateTime::from_timestamp(maker.issued_at(), 0).unwrap_or(DateTime::UNIX_EPOCH),
            created_at: now,
            expires_at: now + hours(24 * days),
            revoked_at: None,
            last_used_at: None,
        }
    }
}

/// A key gets scopes that are for keys, each once, and none that its maker does not have (AUTHN-12).
fn check_scopes(maker: &Principal, names: &[String]) -> Result<(), Problem> {
    let mut faults = Faults::default();
    let mut seen = Vec::new();
    for (place, name) in names.iter().enumerate() {
        let code = match name.parse::<Scope>() {
            Err(_) => "unknown_scope",
            Ok(scope) if !scope.is_for_keys() => "not_for_api_keys",
            Ok(scope) if seen.contains(&scope) => "duplicate",
            Ok(scope) if !maker.has_scope(scope) => "not_yours",
            Ok(scope) => {
                seen.push(scope);
                continue;
            }
        };
        faults.note::<(), ()>(format!("/scopes/{place}"), code, Err(()));
    }
    faults.finish(Some(()))
}

fn hours(hours: i64) -> TimeDelta {
    TimeDelta::try_hours(hours).unwrap_or_default()
}

fn created(view: ApiKeyView) -> Created<ApiKeyView> {
    Created::new(view, None)
}

impl From<ApiKey> for ApiKeyView {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id.uuid(),
            key: None,
            name: key.name.as_str().to_owned(),
            scopes: key.scopes,
            created_by: key.created_by,
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
        let scopes = ["orders:read", "orders:write"].map(str::to_owned).into();
        Self { name: "shop, production".to_owned(), scopes, valid_for_days: 30 }
    }
}

impl Example for ApiKeyRotation {
    fn example() -> Self {
        Self { valid_for_days: 30, overlap_hours: 24 }
    }
}
