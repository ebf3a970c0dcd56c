//! Sign-out at the development issuer (OpenID Connect RP-Initiated Logout 1.0).
//!
//! The page of the service opens this URL with the `sid` as a hint. The issuer ends the sign-in, sends
//! the service a logout token (OpenID Connect Back-Channel Logout 1.0), and redirects.

use std::{sync::Arc, time::Duration};

use http::{StatusCode, header};
use poem::{
    Response, handler,
    web::{Data, Query},
};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{Provider, grants::SignIn, is_loopback_url};

/// Time for the answer of the service.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A logout request.
#[derive(Debug, Deserialize)]
pub(super) struct LogoutRequest {
    client_id: String,
    logout_hint: Option<String>,
    post_logout_redirect_uri: Option<String>,
}

#[handler]
pub(super) async fn end_session(
    Data(provider): Data<&Arc<Provider>>,
    Query(request): Query<LogoutRequest>,
) -> Response {
    if let Some(sid) = &request.logout_hint
        && let Some(sign_in) = provider.grants.sign_out(sid, &request.client_id)
    {
        provider.send_logout_token(sid, &sign_in).await;
    }
    match request.post_logout_redirect_uri.filter(|uri| is_loopback_url(uri)) {
        Some(uri) => Response::builder().status(StatusCode::SEE_OTHER).header(header::LOCATION, uri).finish(),
        None => Response::builder().content_type("text/plain").body("Signed out."),
    }
}

impl Provider {
    /// Claims of a logout token for a sign-in.
    fn logout_claims(&self, sid: &str, sign_in: &SignIn) -> Value {
        let now = self.clock.timestamp();
        json!({
            "iss": self.url,
            "aud": sign_in.client,
            "sub": sign_in.subject,
            "sid": sid,
            "iat": now,
            "exp": now + 120,
            "jti": uuid::Uuid::now_v7().to_string(),
            "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        })
    }

    /// Posts a logout token to the service that the sign-in returned to. A failure is logged, as an
    /// issuer does.
    async fn send_logout_token(&self, sid: &str, sign_in: &SignIn) {
        let header = json!({ "alg": "ES256", "typ": "logout+jwt", "kid": self.key.id() });
        let token = self.key.sign(&header, &self.logout_claims(sid, sign_in));
        let target = Url::parse(&sign_in.redirect_uri).and_then(|uri| uri.join("/auth/backchannel-logout"));
        let Ok(target) = target else { return };
        let client = reqwest::Client::builder().timeout(TIMEOUT).tls_certs_only([]).build();
        let Ok(client) = client else { return };
        let request = client.post(target).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        // A compact token needs no encoding.
        let sent = request.body(format!("logout_token={token}")).send().await;
        match sent.and_then(reqwest::Response::error_for_status) {
            Ok(_) => tracing::info!("back-channel logout delivered"),
            Err(error) => tracing::warn!(%error, "back-channel logout failed"),
        }
    }
}
