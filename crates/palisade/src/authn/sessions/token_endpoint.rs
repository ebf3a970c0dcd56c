//! Client of an issuer's token endpoint (RFC 6749 section 3.2).
//!
//! [`super::login`] exchanges a code, [`super::refresh`] a refresh token. The HTTP client is that of
//! discovery: no redirects, TLS in production, a short time-out, responses of limited size.

use secrecy::ExposeSecret;
use serde::Deserialize;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::super::issuers::TrustedIssuer;
use crate::{
    settings::SessionClient,
    telemetry::{causes, repeats::coalesced},
};

/// A successful response (RFC 6749 section 5.1, OpenID Connect Core section 3.1.3.3).
#[derive(Deserialize)]
pub(super) struct Tokens {
    pub(super) access_token: String,
    token_type: String,
    pub(super) id_token: Option<String>,
    pub(super) refresh_token: Option<String>,
}

/// An error response (RFC 6749 section 5.2).
#[derive(Deserialize)]
struct ErrorResponse {
    error: String,
}

/// Why there are no tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenError {
    /// The issuer does not accept the code or refresh token, now or later.
    InvalidGrant,
    /// The issuer did not answer, or refuses this client. A later attempt may succeed.
    Unavailable,
}

/// Sends a token request as this client.
pub(super) async fn request(
    issuer: &TrustedIssuer,
    client: &SessionClient,
    grant: &[(&str, &str)],
) -> Result<Tokens, TokenError> {
    let endpoints = issuer.jwks.endpoints().await.ok_or(TokenError::Unavailable)?;
    let url = endpoints.token_endpoint.as_deref().ok_or(TokenError::Unavailable)?;
    let id = client.id.as_deref().unwrap_or_default();
    let methods = endpoints.token_endpoint_auth_methods_supported.as_deref().unwrap_or_default();
    let supports = |method: &str| methods.iter().any(|supported| supported == method);
    let secret = client.secret.as_ref().map(ExposeSecret::expose_secret);
    let posts_secret = supports("client_secret_post") && !supports("client_secret_basic");
    // RFC 6749 section 2.3.1 encodes both.
    let encoded = |secret| [id, secret].map(|text: &str| byte_serialize(text.as_bytes()).collect::<String>());
    let basic = secret.filter(|_| !posts_secret).map(encoded);
    let in_form = [("client_id", Some(id)), ("client_secret", secret)];
    let in_form = in_form.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let in_form = in_form.filter(|_| basic.is_none());
    let form = Serializer::new(String::new()).extend_pairs(grant).extend_pairs(in_form).finish();
    let basic = basic.as_ref().map(|[id, secret]| (id.as_str(), secret.as_str()));
    let (status, body) = issuer.jwks.post_form(url, basic, form).await.map_err(|error| {
        coalesced!(warn, "the issuer's token endpoint did not answer", %error, cause = causes(&error));
        TokenError::Unavailable
    })?;
    if status.is_success() {
        let tokens = serde_json::from_slice(&body)
            .ok()
            .filter(|tokens: &Tokens| tokens.token_type.eq_ignore_ascii_case("bearer"));
        return tokens.ok_or_else(|| {
            coalesced!(warn, "the issuer's token endpoint sent no bearer token");
            TokenError::Unavailable
        });
    }
    // Of a known set, so that text of the issuer does not enter the log.
    let known = ["invalid_grant", "invalid_client", "invalid_request", "unauthorized_client", "invalid_scope"];
    let code = serde_json::from_slice(&body).ok().map(|response: ErrorResponse| response.error).unwrap_or_default();
    let code = known.into_iter().find(|known| *known == code).unwrap_or("other");
    coalesced!(warn, "the issuer refused a token request", status = status.as_u16(), code);
    if code == "invalid_grant" { Err(TokenError::InvalidGrant) } else { Err(TokenError::Unavailable) }
}
