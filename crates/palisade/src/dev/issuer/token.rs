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
    IntoResponse as _, Request, Response, handler,
    web::{Data, Form, Json},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{ACCESS_TOKEN_SECONDS, Provider, SERVICE_CLIENT, WEB_CLIENT, grants, random_text};
use crate::crypto;

/// A token request of any supported grant type, or a revocation request (RFC 7009 section 2.1).
#[derive(Debug, Deserialize)]
pub(super) struct TokenRequest {
    #[serde(default)]
    grant_type: String,
    client_id: Option<String>,
    client_secret: Option<String>,
    code: Option<String>,
    code_verifier: Option<String>,
    redirect_uri: Option<String>,
    refresh_token: Option<String>,
    scope: Option<String>,
    /// The token to revoke.
    token: Option<String>,
}

/// A successful token response (RFC 6749 section 5.1).
#[derive(Serialize)]
struct Tokens {
    access_token: String,
    token_type: &'static str,
    expires_in: i64,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id_token: Option<String>,
}

/// An error code of RFC 6749 section 5.2.
type OAuthError = &'static str;

#[handler]
pub(super) fn token(
    Data(provider): Data<&Arc<Provider>>,
    request: &Request,
    Form(form): Form<TokenRequest>,
) -> Response {
    let tokens =
        authenticate(provider, request, &form).and_then(|client| match (form.grant_type.as_str(), client.as_str()) {
            ("authorization_code", WEB_CLIENT) => provider.exchange_code(&client, &form),
            ("refresh_token", WEB_CLIENT) => provider.refresh(&client, &form),
            ("client_credentials", SERVICE_CLIENT) => provider.client_credentials(&client, &form),
            ("authorization_code" | "refresh_token" | "client_credentials", _) => Err("unauthorized_client"),
            _ => Err("unsupported_grant_type"),
        });
    tokens.map_or_else(error_response, |tokens| Json(tokens).into_response())
}

/// Revokes the family of a refresh token. Access tokens are self-contained and cannot be revoked
/// here.
#[handler]
pub(super) fn revoke(
    Data(provider): Data<&Arc<Provider>>,
    request: &Request,
    Form(form): Form<TokenRequest>,
) -> Response {
    let revoked = authenticate(provider, request, &form).and_then(|client| {
        provider.grants.revoke(form.token.as_deref().ok_or("invalid_request")?, &client);
        Ok(())
    });
    revoked.map_or_else(error_response, |()| StatusCode::OK.into())
}

/// Authenticates the client: `client_secret_basic`, `client_secret_post`, or, for the public
/// client, its id alone.
fn authenticate(provider: &Provider, request: &Request, form: &TokenRequest) -> Result<String, OAuthError> {
    let basic = request.header(header::AUTHORIZATION).map(|value| {
        let decoded = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        text.split_once(':').map(|(id, secret)| (id.to_owned(), secret.to_owned()))
    });
    let (id, secret) = match (basic, form.client_id.clone()) {
        (Some(Some((id, secret))), client_id) if client_id.as_ref().is_none_or(|named| *named == id) => {
            (id, Some(secret))
        }
        (None, Some(id)) => (id, form.client_secret.clone()),
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
    fn exchange_code(&self, client: &str, form: &TokenRequest) -> Result<Tokens, OAuthError> {
        let now = self.clock.timestamp();
        let code = form.code.as_deref().ok_or("invalid_request")?;
        let grant = self.grants.take_code(code, now).ok_or("invalid_grant")?;
        let granted = &grant.request;
        let verifier = form.code_verifier.as_deref().ok_or("invalid_grant")?;
        // RFC 7636 section 4.6.
        let challenge = URL_SAFE_NO_PAD.encode(crypto::sha256(verifier.as_bytes()));
        if granted.client_id != client
            || form.redirect_uri.as_ref() != Some(&granted.redirect_uri)
            || challenge != granted.code_challenge
        {
            return Err("invalid_grant");
        }
        let scope = granted.granted_scope(self.scopes);
        let sid = self.grants.sign_in(code, &grant, now);
        let mut tokens = self.tokens(client, Some((&grant.subject, &sid)), &scope)?;
        if has_scope(&scope, "openid") {
            let person = self.person(&grant.subject).ok_or("invalid_grant")?;
            let mut claims = self.id_claims(client, person, granted.nonce.as_deref(), &sid);
            if let Some(claims) = claims.as_object_mut() {
                let auth_time = granted.max_age.map(|_| ("auth_time".to_owned(), json!(grant.issued_at)));
                let acr = granted.acr_values.as_deref().and_then(|values| values.split(' ').next());
                claims.extend(auth_time.into_iter().chain(acr.map(|acr| ("acr".to_owned(), json!(acr)))));
            }
            let header = json!({ "alg": "ES256", "typ": "JWT", "kid": self.key.id() });
            tokens.id_token = Some(self.key.sign(&header, &claims));
        }
        if has_scope(&scope, "offline_access") {
            let secret = random_text().map_err(|_| "server_error")?;
            tokens.refresh_token = Some(self.grants.start_family(code, &secret, grant, scope, now));
        }
        Ok(tokens)
    }

    fn refresh(&self, client: &str, form: &TokenRequest) -> Result<Tokens, OAuthError> {
        let old = form.refresh_token.as_deref().ok_or("invalid_request")?;
        let secret = random_text().map_err(|_| "server_error")?;
        let rotated = self.grants.rotate(old, &secret, client, self.clock.timestamp());
        let (refresh_token, family) = rotated.ok_or("invalid_grant")?;
        let sid = grants::sid(&refresh_token);
        let mut tokens = self.tokens(client, Some((&family.subject, &sid)), &family.scope)?;
        tokens.refresh_token = Some(refresh_token);
        Ok(tokens)
    }

    fn client_credentials(&self, client: &str, form: &TokenRequest) -> Result<Tokens, OAuthError> {
        let requested = form.scope.as_deref().unwrap_or_default();
        let scope: Vec<&str> = self.scopes.iter().map(|s| s.as_str()).filter(|s| has_scope(requested, s)).collect();
        self.tokens(client, None, &scope.join(" "))
    }

    /// Tokens for a subject and its sign-in (`sid`), or for the client itself.
    fn tokens(&self, client: &str, user: Option<(&str, &str)>, scope: &str) -> Result<Tokens, OAuthError> {
        let person = user.map(|(subject, _)| self.person(subject).ok_or("invalid_grant")).transpose()?;
        let mut claims = self.access_claims(client, person, scope);
        if let (Some((_, sid)), Some(claims)) = (user, claims.as_object_mut()) {
            claims.insert("sid".to_owned(), json!(sid));
        }
        Ok(Tokens {
            access_token: self.key.access_token(&claims),
            token_type: "Bearer",
            expires_in: ACCESS_TOKEN_SECONDS,
            scope: scope.to_owned(),
            refresh_token: None,
            id_token: None,
        })
    }
}

fn has_scope(scopes: &str, wanted: &str) -> bool {
    scopes.split(' ').any(|scope| scope == wanted)
}

fn error_response(error: OAuthError) -> Response {
    let status = match error {
        "invalid_client" => StatusCode::UNAUTHORIZED,
        "server_error" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    Json(json!({ "error": error })).with_status(status).into_response()
}
