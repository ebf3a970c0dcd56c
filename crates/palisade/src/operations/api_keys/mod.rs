//! Operations on API keys: create, list, rotate, revoke (AUTHN-12).
//!
//! A key never carries a scope that its creator lacks. Its secret is returned once, by the call
//! that creates it; the store holds a hash. [`crate::authn`] issues and verifies keys.

mod schema;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta};
use poem::Result;
use poem_openapi::{
    ApiResponse, OpenApi, Tags,
    param::{Header, Path, Query},
    payload::Json,
};
use schema::{ApiKeyPage, ApiKeyRotation, ApiKeyView, NewApiKey};
use secrecy::ExposeSecret;

use crate::{
    authn::{AuthnError, Principal},
    authz::{
        Change, Permit,
        api_keys::{CreateApiKey, ListApiKeys, RevokeApiKey, RotateApiKey},
    },
    http::{
        Context,
        field_errors::FieldErrors,
        idempotency::Created,
        paging::Paging,
        strict_json::StrictJson,
        text::{Text, formats},
    },
    model::{ApiKey, ApiKeyId, Name},
    problem::{Kind, Problem},
    store::{Claim, DbError, KeyedRequest, Position},
};

/// Group of these operations in the OpenAPI document.
#[derive(Tags)]
enum Tag {
    /// API keys, with which programs call this API.
    Keys,
}

/// Operations on API keys.
pub(super) struct ApiKeys {
    context: Arc<Context>,
}

/// The operations of a server.
pub(super) fn new(context: &Arc<Context>) -> ApiKeys {
    ApiKeys { context: Arc::clone(context) }
}

crate::id_parameters! { ApiKeyId }

#[derive(ApiResponse)]
enum Revoked {
    /// The API key is revoked.
    #[oai(status = 204)]
    NoContent,
}

#[OpenApi(tag = "Tag::Keys")]
impl ApiKeys {
    /// Create an API key
    ///
    /// Creates an API key that acts for the caller. Only this response contains the secret `key`; a
    /// retry does not return it again. Fails with 409 (`conflict`) if the caller already has 100
    /// active keys. Fails with 422 for a scope that the caller lacks (`not_yours`), or a lifetime
    /// above the limit of the service (`too_large`).
    #[oai(path = "/v1/api-keys", method = "post", operation_id = "createApiKey")]
    async fn create(
        &self,
        permit: &Permit<CreateApiKey>,
        /// Idempotency key, 1 to 255 visible ASCII characters. Retries with the same key return the
        /// first response without the secret `key` (valid for 24 hours by default).
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<Text<formats::IdempotencyKey>>>,
        body: StrictJson<NewApiKey>,
    ) -> Result<Created<ApiKeyView>> {
        let request = self.context.idempotent::<CreateApiKey>(idempotency_key.0, None, &body.canonical);
        let NewApiKey { name, scopes, valid_for_days } = body.value;
        let name = self.parse(&name, valid_for_days)?;
        let scopes: Vec<String> = scopes.into_iter().map(|scope| scope.0).collect();
        self.check_scopes(permit.principal(), &scopes)?;
        if let Some(response) = self.find_stored(permit, request.as_ref()).await? {
            return Ok(response);
        }
        let api_key = self.new_key(ApiKeyId::generate(), permit.principal(), name, scopes, valid_for_days, None);
        // Hashing is slow and must not hold a connection, so it precedes the transaction.
        let (text, hash) = self.issue(permit.principal(), api_key.id).await?;
        let tx = match self.context.database.write_once(permit, request).await? {
            Claim::New(tx) => tx,
            Claim::Used(outcome) => return Ok(Created::replay(outcome)?),
        };
        tx.add_api_key(permit, &api_key, &hash).await.map_err(storing_problem)?;
        let id = api_key.id;
        let view = self.view(api_key);
        tx.commit(permit, id, created(&view).stored()).await?;
        Ok(created(&ApiKeyView { key: Some(text.into()), ..view }))
    }

    /// List API keys
    ///
    /// Lists all API keys of the tenant, newest first, including expired and revoked ones. Secrets
    /// are never returned.
    #[oai(path = "/v1/api-keys", method = "get", operation_id = "listApiKeys")]
    async fn list(
        &self,
        permit: &Permit<ListApiKeys>,
        /// Maximum number of items on the page: 1 to 100, default 20.
        #[oai(default = "crate::http::paging::default_limit", validator(minimum(value = "1"), maximum(value = "100")))]
        limit: Query<i64>,
        /// `nextCursor` of the previous page. Omit it for the first page.
        cursor: Query<Option<Text<formats::Cursor>>>,
    ) -> Result<Json<ApiKeyPage>> {
        let paging = Paging::new(&self.context.mac_key, "api-keys", permit.tenant(), limit.0);
        let start = paging.open(cursor.0.as_deref())?.unwrap_or_else(Position::start);
        let mut keys = self.context.database.api_keys(permit, start, paging.read_ahead()).await?;
        let next_cursor = paging.cut(&mut keys, |key| Position { at: key.created_at, id: key.id.uuid() }.to_string());
        Ok(Json(ApiKeyPage { items: keys.into_iter().map(|key| self.view(key)).collect(), next_cursor }))
    }

    /// Rotate an API key
    ///
    /// Creates an API key with the name and scopes of an existing one, which stays valid for
    /// `overlapHours`. The new key acts for the caller. Fails with 409 (`conflict`) if the existing
    /// key has expired or is revoked, and with 403 if it has a scope that the caller lacks. A
    /// caller with 100 active keys can still rotate each of its own keys once.
    #[oai(path = "/v1/api-keys/:id/rotate", method = "post", operation_id = "rotateApiKey")]
    async fn rotate(
        &self,
        permit: &Permit<RotateApiKey>,
        /// Idempotency key, 1 to 255 visible ASCII characters. Retries with the same key return the
        /// first response without the secret `key` (valid for 24 hours by default).
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<Text<formats::IdempotencyKey>>>,
        /// Id of the API key to replace (UUID).
        id: Path<ApiKeyId>,
        body: StrictJson<ApiKeyRotation>,
    ) -> Result<Created<ApiKeyView>> {
        let request = self.context.idempotent::<RotateApiKey>(idempotency_key.0, Some(id.0.uuid()), &body.canonical);
        let ApiKeyRotation { valid_for_days, overlap_hours } = body.value;
        self.check_lifetime(valid_for_days)?;
        if let Some(response) = self.find_stored(permit, request.as_ref()).await? {
            return Ok(response);
        }
        let new_id = ApiKeyId::generate();
        let (text, hash) = self.issue(permit.principal(), new_id).await?;
        let tx = match self.context.database.write_once(permit, request).await? {
            Claim::New(tx) => tx,
            Claim::Used(outcome) => return Ok(Created::replay(outcome)?),
        };
        let old = tx.lock::<ApiKey>(id.0).await?.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let old_permit = permit.for_object(&old)?;
        let now = self.context.clock.now();
        if !old.is_live(now) {
            return Err(Problem::new(Kind::Conflict).into());
        }
        if self.check_scopes(permit.principal(), &old.scopes).is_err() {
            return Err(Problem::new(Kind::Forbidden).detail("The API key has scopes that the caller lacks.").into());
        }
        let new = self.new_key(
            new_id,
            permit.principal(),
            old.name.clone(),
            old.scopes.clone(),
            valid_for_days,
            Some(old.id),
        );
        tx.add_api_key(permit, &new, &hash).await.map_err(storing_problem)?;
        tx.expire_api_key(&old_permit, now + hours(overlap_hours)).await?;
        let view = self.view(new);
        tx.commit(permit, new_id, created(&view).stored()).await?;
        self.context.authenticator.invalidate_api_keys(permit.tenant());
        Ok(created(&ApiKeyView { key: Some(text.into()), ..view }))
    }

    /// Revoke an API key
    ///
    /// Revokes the API key on all replicas within two seconds. Idempotent: revoking a revoked key
    /// changes nothing and returns 204. Works in read-only mode too.
    #[oai(path = "/v1/api-keys/:id", method = "delete", operation_id = "revokeApiKey")]
    async fn revoke(
        &self,
        permit: &Permit<RevokeApiKey>,
        /// Id of the API key (UUID).
        id: Path<ApiKeyId>,
    ) -> Result<Revoked> {
        let tx = self.context.database.write(permit).await?;
        let key = tx.lock::<ApiKey>(id.0).await?.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let key_permit = permit.for_object(&key)?;
        tx.revoke_api_key(&key_permit, self.context.clock.now()).await?;
        tx.commit(permit, id.0).await?;
        self.context.authenticator.invalidate_api_keys(permit.tenant());
        Ok(Revoked::NoContent)
    }
}

impl ApiKeys {
    /// Loads the stored response to the same request, if there is one.
    ///
    /// This saves a hash. The transaction that creates the key checks again.
    async fn find_stored<A: Change>(
        &self,
        permit: &Permit<A>,
        request: Option<&KeyedRequest>,
    ) -> Result<Option<Created<ApiKeyView>>, Problem> {
        let Some(request) = request else { return Ok(None) };
        let mut statements = self.context.database.statements(permit).await?;
        statements.stored_outcome(permit, request).await?.map(Created::replay).transpose()
    }

    /// Generates the text of a new key and the hash of its secret.
    async fn issue(&self, creator: &Principal, id: ApiKeyId) -> Result<(String, String), Problem> {
        let (text, hash) = self.context.authenticator.issue_api_key(creator, id).await.map_err(|error| {
            tracing::warn!(%error, "could not create an API key");
            match error {
                AuthnError::Unavailable(_) => Problem::new(Kind::Unavailable),
                _ => Problem::new(Kind::Internal),
            }
        })?;
        Ok((text.expose_secret().to_owned(), hash))
    }

    fn parse(&self, name: &str, days: i64) -> Result<Name, Problem> {
        let mut errors = FieldErrors::default();
        let name = errors.parse("/name", name);
        let lifetime = errors.note("/validForDays", "too_large", self.check_lifetime(days));
        errors.finish(lifetime.and(name))
    }

    /// Rejects lifetimes above the configured maximum, which the published schema does not contain.
    fn check_lifetime(&self, days: i64) -> Result<(), Problem> {
        if u64::try_from(days)
            .is_ok_and(|days| days * 24 * 3_600 <= self.context.authenticator.max_key_lifetime().as_secs())
        {
            return Ok(());
        }
        Err(Problem::new(Kind::Unprocessable).at("/validForDays", "too_large"))
    }

    /// Rejects scopes that the creator lacks, and those that no API key can have (AUTHN-12).
    fn check_scopes(&self, creator: &Principal, names: &[String]) -> Result<(), Problem> {
        let allowed = self.context.matrix.key_scopes();
        let mut errors = FieldErrors::default();
        for (index, name) in names.iter().enumerate() {
            let is_held = allowed.iter().any(|scope| scope.as_str() == name && creator.has_scope(*scope));
            errors.note(format!("/scopes/{index}"), "not_yours", is_held.then_some(()).ok_or(()));
        }
        errors.finish(Some(()))
    }

    fn view(&self, key: ApiKey) -> ApiKeyView {
        ApiKeyView::new(key, &self.context.matrix.key_scopes())
    }

    fn new_key(
        &self,
        id: ApiKeyId,
        creator: &Principal,
        name: Name,
        scopes: Vec<String>,
        days: i64,
        replaces: Option<ApiKeyId>,
    ) -> ApiKey {
        let now = self.context.clock.now();
        ApiKey {
            id,
            tenant: creator.tenant(),
            name,
            scopes,
            created_by: creator.subject().to_owned(),
            replaces,
            // The clock of the issuer may be ahead. Limited to now, so that a revocation of the
            // creator up to now covers this key too.
            authorized_at: DateTime::from_timestamp(creator.issued_at(), 0).unwrap_or(DateTime::UNIX_EPOCH).min(now),
            created_at: now,
            expires_at: now + hours(24 * days),
            revoked_at: None,
            last_used_at: None,
        }
    }
}

/// The problem of a key that cannot be stored. The database limits the live keys of a creator.
fn storing_problem(error: DbError) -> Problem {
    match error {
        DbError::Constraint { name, .. } if name == "api_key_limit" => Problem::new(Kind::Conflict)
            .detail("API key limit reached (100 active keys per creator). Revoke unused keys."),
        error => error.into(),
    }
}

fn hours(hours: i64) -> TimeDelta {
    TimeDelta::try_hours(hours).unwrap_or_default()
}

fn created(view: &ApiKeyView) -> Created<ApiKeyView> {
    Created::new(view, None)
}
