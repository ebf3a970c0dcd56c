mod schema;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta};
use poem::Result;
use poem_openapi::{
    ApiResponse, OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};
use secrecy::ExposeSecret;

use super::{
    Context, Tag,
    created::Created,
    faults::Faults,
    paging::Paging,
    strict_json::StrictJson,
    text::{Text, form},
    values::KeyScope,
};
use crate::{
    authn::{AuthnError, Principal},
    authz::{
        Change, Permit,
        actions::{CreateApiKey, ListApiKeys, RevokeApiKey, RotateApiKey},
        matrix::Scope,
    },
    domain::{ApiKey, ApiKeyId, Name},
    problem::{Kind, Problem},
    store::{KeyedRequest, Position},
};
use schema::{ApiKeyPage, ApiKeyRotation, ApiKeyView, NewApiKey};

/// Keys by which programs call for those who made them.
pub(super) struct ApiKeys(pub(super) Arc<Context>);

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
    /// The answer is the only place where the key is ever shown; a repetition of the request does not show it again. Somebody has
    /// 100 live keys at most; who wants more gets 409.
    #[oai(path = "/v1/api-keys", method = "post", operation_id = "createApiKey")]
    async fn create(
        &self,
        permit: Permit<CreateApiKey>,
        /// Makes a repetition of the request safe: the work is done once, and the answer is the same but for the key.
        #[oai(name = "Idempotency-Key")]
        key: Header<Option<Text<form::IdempotencyKey>>>,
        body: StrictJson<NewApiKey>,
    ) -> Result<Created<ApiKeyView>> {
        let request = self.0.keyed::<CreateApiKey>(key.0, None, &body.canonical);
        let NewApiKey { name, scopes, valid_for_days } = body.value;
        let name = self.parse(&name, valid_for_days)?;
        check_scopes(permit.principal(), &scopes)?;
        let scopes = scopes.into_iter().map(|scope| Scope::from(scope).as_str().to_owned()).collect();
        if let Some(request) = &request
            && let Some(earlier) = self.earlier(&permit, request).await?
        {
            return Ok(earlier);
        }
        let new = self.new_key(ApiKeyId::generate(), permit.principal(), name, scopes, valid_for_days, None);
        // Before the transaction: hashing takes long enough to keep a connection from others.
        let (text, hash) = self.issue(permit.principal(), new.id).await?;
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
        tx.commit(&permit, view.id).await?;
        Ok(created(ApiKeyView { key: Some(text.into()), ..view }))
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
        cursor: Query<Option<Text<form::Cursor>>>,
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
        #[oai(name = "Idempotency-Key")]
        key: Header<Option<Text<form::IdempotencyKey>>>,
        id: Path<ApiKeyId>,
        body: StrictJson<ApiKeyRotation>,
    ) -> Result<Created<ApiKeyView>> {
        let request = self.0.keyed::<RotateApiKey>(key.0, Some(id.0.uuid()), &body.canonical);
        self.check_days(body.value.valid_for_days)?;
        if let Some(request) = &request
            && let Some(earlier) = self.earlier(&permit, request).await?
        {
            return Ok(earlier);
        }
        let new_id = ApiKeyId::generate();
        let (text, hash) = self.issue(permit.principal(), new_id).await?;
        let mut tx = self.0.database.write(&permit).await?;
        if let Some(request) = &request
            && let Some(earlier) = Created::earlier(tx.earlier_answer(&permit, request).await?)?
        {
            return Ok(earlier);
        }
        let found = tx.lock_api_key(id.0).await?;
        let old = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let narrowed = permit.narrow(&old)?;
        let now = self.0.clock.now();
        if !old.is_live(now) {
            return Err(Problem::new(Kind::Conflict).into());
        }
        let scopes: Option<Vec<KeyScope>> = old.scopes.iter().map(|name| KeyScope::of(name.parse().ok()?)).collect();
        if scopes.is_none_or(|scopes| check_scopes(permit.principal(), &scopes).is_err()) {
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
        tx.commit(&permit, view.id).await?;
        self.0.authenticator.keys_changed(permit.tenant());
        Ok(created(ApiKeyView { key: Some(text.into()), ..view }))
    }

    /// Revoke an API key
    ///
    /// It opens nothing from now on, here at once and at every other replica within two seconds.
    #[oai(path = "/v1/api-keys/:id", method = "delete", operation_id = "revokeApiKey")]
    async fn revoke(&self, permit: Permit<RevokeApiKey>, id: Path<ApiKeyId>) -> Result<Revoked> {
        let mut tx = self.0.database.write(&permit).await?;
        let found = tx.lock_api_key(id.0).await?;
        let key = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let narrowed = permit.narrow(&key)?;
        tx.revoke_api_key(&narrowed, self.0.clock.now()).await?;
        tx.commit(&permit, key.id).await?;
        self.0.authenticator.keys_changed(permit.tenant());
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

    /// The text of a new key and the hash of its secret.
    async fn issue(&self, maker: &Principal, id: ApiKeyId) -> Result<(String, String), Problem> {
        let (text, hash) = self.0.authenticator.issue_key(maker, id).await.map_err(|error| {
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

    /// A key lives no longer than the service allows, which the document does not know.
    fn check_days(&self, days: i64) -> Result<(), Problem> {
        if u64::try_from(days).is_ok_and(|days| days * 24 * 3_600 <= self.0.max_key_lifetime.as_secs()) {
            return Ok(());
        }
        Err(Problem::new(Kind::Unprocessable).at("/validForDays", "too_large"))
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
            // Nor later than now, though the issuer's clock may be ahead: whoever revokes up to now revokes what was made.
            authorized_at: DateTime::from_timestamp(maker.issued_at(), 0).unwrap_or(DateTime::UNIX_EPOCH).min(now),
            created_at: now,
            expires_at: now + hours(24 * days),
            revoked_at: None,
            last_used_at: None,
        }
    }
}

/// A key gets no scope that its maker does not have (AUTHN-12); nor, by its type, one that is not for keys.
fn check_scopes(maker: &Principal, scopes: &[KeyScope]) -> Result<(), Problem> {
    let mut faults = Faults::default();
    for (place, scope) in scopes.iter().enumerate() {
        let has = maker.has_scope((*scope).into()).then_some(()).ok_or(());
        faults.note(format!("/scopes/{place}"), "not_yours", has);
    }
    faults.finish(Some(()))
}

fn hours(hours: i64) -> TimeDelta {
    TimeDelta::try_hours(hours).unwrap_or_default()
}

fn created(view: ApiKeyView) -> Created<ApiKeyView> {
    Created::new(view, None)
}
