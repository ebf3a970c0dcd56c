//! HTTP routes of the development issuer: discovery, JWKS, and the endpoints of [`authorize`] and
//! [`token`]. [`DevIssuer::start`](super::DevIssuer::start) spawns the server.

use std::sync::{Arc, atomic::Ordering};

use http::{StatusCode, header};
use poem::{
    Endpoint, EndpointExt, Request, Result, Route, Server, get, handler,
    listener::TcpAcceptor,
    middleware::SetHeader,
    post,
    web::{Data, Json},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{Provider, authorize, is_loopback_url, logout, token};
use crate::dev::DevError;

pub(super) fn spawn(listener: TcpListener, provider: Arc<Provider>) -> Result<JoinHandle<()>, DevError> {
    let acceptor = TcpAcceptor::from_tokio(listener)?;
    let app = routes(provider);
    Ok(tokio::spawn(async move {
        if let Err(error) = Server::new_with_acceptor(acceptor).run(app).await {
            tracing::error!(%error, "the development issuer stopped");
        }
    }))
}

fn routes(provider: Arc<Provider>) -> impl Endpoint {
    Route::new()
        .at("/.well-known/openid-configuration", get(discovery))
        .at("/jwks", get(jwks))
        .at("/authorize", get(authorize::sign_in_page).post(authorize::choose_user))
        .at("/token", post(token::token))
        .at("/revoke", post(token::revoke))
        .at("/end-session", get(logout::end_session))
        .with(
            SetHeader::new()
                .overriding("cache-control", "no-store")
                .overriding("x-content-type-options", "nosniff")
                .overriding("referrer-policy", "no-referrer"),
        )
        .data(provider)
        .before(check_host)
}

/// Refuses requests for other hosts. A web page can make its own host name resolve to this machine
/// (DNS rebinding), and would then read the pages and tokens of this issuer.
async fn check_host(request: Request) -> Result<Request> {
    let host = request.header(header::HOST).unwrap_or_default();
    if is_loopback_url(&format!("http://{host}")) { Ok(request) } else { Err(StatusCode::MISDIRECTED_REQUEST.into()) }
}

/// Provider metadata (OpenID Connect Discovery 1.0 section 3).
#[handler]
fn discovery(Data(provider): Data<&Arc<Provider>>) -> Json<Value> {
    let url = &provider.url;
    let mut scopes = vec!["openid", "offline_access"];
    scopes.extend(provider.scopes.iter().map(|scope| scope.as_str()));
    Json(json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/authorize"),
        "token_endpoint": format!("{url}/token"),
        "revocation_endpoint": format!("{url}/revoke"),
        "end_session_endpoint": format!("{url}/end-session"),
        "backchannel_logout_supported": true,
        "backchannel_logout_session_supported": true,
        "jwks_uri": format!("{url}/jwks"),
        "scopes_supported": scopes,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "client_credentials", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "subject_types_supported": ["public"],
        "authorization_response_iss_parameter_supported": true,
    }))
}

#[handler]
fn jwks(Data(provider): Data<&Arc<Provider>>) -> Json<Value> {
    provider.key_requests.fetch_add(1, Ordering::Relaxed);
    Json(json!({ "keys": [provider.key.jwk()] }))
}
