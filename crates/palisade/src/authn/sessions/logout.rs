//! Sign-out: of a browser, and by a logout token of the issuer (AUTHN-16).
//!
//! A logout token ends sessions and bearer tokens by the revocation list, which every replica follows.

use std::sync::Arc;

use chrono::DateTime;
use http::HeaderMap;

use super::{
    super::{AuthnError, RejectReason, SourceNetwork},
    Sessions,
    clients::issuer_name,
    id_token::verify_logout_token,
    unavailable,
};
use crate::{
    crypto::sha256,
    model::{SessionId, TenantId},
    telemetry::{causes, event, repeats::coalesced},
};

impl Sessions {
    /// Ends the session of this browser. Returns the URL that ends the session at the issuer too, if
    /// the issuer has one (OpenID Connect RP-Initiated Logout 1.0).
    pub(super) async fn logout(
        self: &Arc<Self>,
        headers: &HeaderMap,
        source: SourceNetwork,
    ) -> Result<Option<String>, AuthnError> {
        let live = self.identify_cookie(headers, source).await?;
        let session = live.session;
        let has_ended = self.parts.store.end_session((session.tenant_id, session.id), self.parts.clock.now()).await;
        has_ended.map_err(unavailable)?;
        event::session_ended(&session.subject, &session.tenant_id.to_string(), &session.id.to_string(), "logout");
        let Some((client, issuer)) = self.client_of(issuer_name(&session)) else { return Ok(None) };
        let endpoints = issuer.jwks.endpoints().await;
        let url = endpoints.and_then(|endpoints| self.web_url(endpoints.end_session_endpoint.as_deref()?));
        Ok(url.map(|mut url| {
            // No ID token as a hint: the page would see it.
            url.query_pairs_mut()
                .append_pair("client_id", client.id.as_deref().unwrap_or_default())
                .append_pair("post_logout_redirect_uri", &format!("{}/", self.base));
            if let Some(hint) = &session.logout_hint {
                url.query_pairs_mut().append_pair("logout_hint", hint);
            }
            url.into()
        }))
    }

    /// Takes a logout token. With `sid`, ends that session at the issuer and its tokens; otherwise all
    /// sign-ins of the person.
    pub(super) async fn backchannel_logout(&self, token: &str, source: SourceNetwork) -> Result<(), AuthnError> {
        let (_, claims) = self.parts.issuers.parse(token)?;
        let issuer = self.parts.issuers.issuer_of(&claims)?;
        let (client, issuer) = self.client_of(issuer.name.as_deref()).ok_or(RejectReason::Issuer)?;
        let expected = (client.id.as_deref().unwrap_or_default(), client.logout_token_type.as_str());
        let now = self.parts.clock.now();
        let token = verify_logout_token(issuer, token, expected, now.timestamp()).await?;
        let (kind, value) = match (token.issuer_session, token.subject) {
            (Some(session), _) => ("token", session),
            (None, Some(subject)) => ("sessions", subject),
            (None, None) => return Err(RejectReason::Claims("sid").into()),
        };
        let until = DateTime::from_timestamp(token.accepted_until, 0).unwrap_or(now);
        let digest = sha256(token.id.as_bytes());
        let recorded = self.parts.store.record_logout((&digest, until), (kind, &value), now).await;
        if !recorded.map_err(unavailable)? {
            return Err(RejectReason::Claims("jti").into());
        }
        event::issuer_logout(kind, &value, source.0);
        // At once on this replica; the others are notified.
        let _ = self.parts.revocations.load(None).await;
        Ok(())
    }

    /// Ends a session. A failure is logged: the caller has an answer already.
    pub(super) async fn end(&self, tenant: TenantId, session: SessionId, reason: &'static str) {
        let now = self.parts.clock.now();
        match self.parts.store.end_session((tenant.uuid(), session.uuid()), now).await {
            Ok(true) => event::session_ended("", &tenant.to_string(), &session.to_string(), reason),
            Ok(false) => {}
            Err(error) => {
                coalesced!(warn, "could not end a browser session", %error, cause = causes(&error));
            }
        }
    }
}
