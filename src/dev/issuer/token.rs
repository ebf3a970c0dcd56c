//! Token endpoint (RFC 6749 section 3.2) and revocation endpoint (RFC 7009) of the development
//! issuer.
//!
//! Both authenticate the client, then use the grants that `authorize` stored.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::{StatusCode, header};
use poem::{
    Request, Response, handler,
    web::{Data, Form},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ACCESS_TOKEN_SECONDS, Provider, SERVICE_CLIENT, WEB_CLIENT, random_text};
use crate::{authz::matrix::Scope, crypto};

/// A token request of any supported grant type.
#[derive(Debug, Deserialize)]
pub(super) struct TokenRequest {
    grant_type: String,
    client_id: Option<String>,
    client_secret: Option<String>,
    code: Option<String>,
    code_verifier: Option<String>,
    redirect_uri: Option<String>,
    refresh_token: Option<String>,
    scope: Option<String>,
}

/// A revocation request (RFC 7009 section 2.1).
#[derive(Debug, Deserialize)]
pub(super) struct RevokeRequest {
    token: String,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// An error code of RFC 6749 section 5.2.
type OAuthError = &'static str;

#[handler]
pub(super) fn token(
    Data(provider): Data<&Arc<Provider>>,
    request: &Request,
    Form(form): Form<TokenRequest>,
) -> Response {
    let result =
        authenticate(provider, request, form.client_id.as_deref(), form.client_secret.as_deref()).and_then(|client| {
            match (form.grant_type.as_str(), client.as_str()) {
                ("authorization_code", WEB_CLIENT) => provider.exchange_code(&client, &form),
                ("refresh_token", WEB_CLIENT) => provider.refresh(&client, &form),
                ("client_credentials", SERVICE_CLIENT) => provider.client_credentials(&client, &form),
                ("authorization_code" | "refresh_token" | "client_credentials", _) => Err("unauthorized_client"),
                _ => Err("unsupported_grant_type"),
            }
        });
    match result {
        Ok(tokens) => json_response(StatusCode::OK, &tokens),
        Err(error) => error_response(error),
    }
}

/// Revokes the family of a refresh token. Access tokens are self-contained and cannot be revoked
/// here.
#[handler]
pub(super) fn revoke(
    Data(provider): Data<&Arc<Provider>>,
    request: &Request,
    Form(form): Form<RevokeRequest>,
) -> Response {
    match authenticate(provider, request, form.client_id.as_deref(), form.client_secret.as_deref()) {
        Ok(client) => {
            provider.grants.revoke(&form.token, &client);
            StatusCode::OK.into()
        }
        Err(error) => error_response(error),
    }
}

/// Authenticates the client: `client_secret_basic`, `client_secret_post`, or, for the public
/// client, its id alone.
fn authenticate(
    provider: &Provider,
    request: &Request,
    client_id: Option<&str>,
    client_secret: Option<&str>,
) -> Result<String, OAuthError> {
    let basic = request.header(header::AUTHORIZATION).map(|value| {
        let decoded = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        text.split_once(':').map(|(id, secret)| (id.to_owned(), secret.to_owned()))
    });
    let (id, secret) = match (basic, client_id) {
        (Some(Some((id, secret))), None) => (id, Some(secret)),
        (Some(Some((id, secret))), Some(client_id)) if id == client_id => (id, Some(secret)),
        (None, Some(id)) => (id.to_owned(), client_secret.map(str::to_owned)),
        _ => return Err("invalid_client"),
    };
    let expected = provider.service_secret.as_bytes();
    match (id.as_str(), secret) {
        (WEB_CLIENT, None) => Ok(id),
        (SERVICE_CLIENT, Some(secret)) if verify_slices_are_equal(secret.as_bytes(), expected).is_ok() => Ok(id),
        _ => Err("invalid_client"),
    }
}

impl Provider {
    fn exchange_code(&self, client: &str, form: &TokenRequest) -> Result<Value, OAuthError> {
        let now = self.clock.timestamp();
        let code = form.code.as_deref().ok_or("invalid_request")?;
        let grant = self.grants.take_code(code, now).ok_or("invalid_grant")?;
        let verifier = form.code_verifier.as_deref().ok_or("invalid_grant")?;
        // RFC 7636 section 4.6.
        let challenge = URL_SAFE_NO_PAD.encode(crypto::sha256(verifier.as_bytes()));
        if grant.client != client
            || form.redirect_uri.as_deref() != Some(grant.redirect_uri.as_str())
            || challenge != grant.challenge
        {
            return Err("invalid_grant");
        }
        let mut tokens = self.tokens(client, Some(&grant.subject), &grant.scope)?;
        if has_scope(&grant.scope, "offline_access") {
            let refresh = random_text().map_err(|_| "server_error")?;
            self.grants.start_family(&refresh, client, &grant.subject, &grant.scope, now);
            insert(&mut tokens, "refresh_token", refresh);
        }
        if has_scope(&grant.scope, "openid") {
            let person = self.person(&grant.subject).ok_or("invalid_grant")?;
            let claims = self.id_claims(client, person, grant.nonce.as_deref());
            let id_token = self.key.sign(&json!({ "alg": "ES256", "typ": "JWT", "kid": self.key.id() }), &claims);
            insert(&mut tokens, "id_token", id_token);
        }
        Ok(tokens)
    }

    fn refresh(&self, client: &str, form: &TokenRequest) -> Result<Value, OAuthError> {
        let old = form.refresh_token.as_deref().ok_or("invalid_request")?;
        let new = random_text().map_err(|_| "server_error")?;
        let granted = self.grants.rotate(old, &new, client, self.clock.timestamp()).ok_or("invalid_grant")?;
        let mut tokens = self.tokens(client, Some(&granted.subject), &granted.scope)?;
        insert(&mut tokens, "refresh_token", new);
        Ok(tokens)
    }

    fn client_credentials(&self, client: &str, form: &TokenRequest) -> Result<Value, OAuthError> {
        let requested = form.scope.as_deref().unwrap_or_default();
        let scope: Vec<&str> = Scope::ALL.iter().map(|s| s.as_str()).filter(|s| has_scope(requested, s)).collect();
        self.tokens(client, None, &scope.join(" "))
    }

    /// A successful token response (RFC 6749 section 5.1).
    fn tokens(&self, client: &str, subject: Option<&str>, scope: &str) -> Result<Value, OAuthError> {
        let person = match subject {
            Some(subject) => Some(self.person(subject).ok_or("invalid_grant")?),
            None => None,
        };
        let access_token = self.key.access_token(&self.access_claims(client, person, scope));
        Ok(json!({
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": ACCESS_TOKEN_SECONDS,
            "scope": scope,
        }))
    }
}

fn has_scope(scopes: &str, wanted: &str) -> bool {
    scopes.split(' ').any(|scope| scope == wanted)
}

fn insert(tokens: &mut Value, name: &str, value: String) {
    if let Some(tokens) = tokens.as_object_mut() {
        tokens.insert(name.to_owned(), Value::String(value));
    }
}

fn error_response(error: OAuthError) -> Response {
    let status = match error {
        "invalid_client" => StatusCode::UNAUTHORIZED,
        "server_error" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    json_response(status, &json!({ "error": error }))
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    Response::builder().status(status).content_type("application/json").body(body.to_string())
}
